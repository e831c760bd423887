"""Short ways to write heads and identities as `wire` and `identity` would give them."""

from __future__ import annotations

from dataclasses import replace

from ambassador.core.model import STAMPED, Field, PeerIdentity, RequestHead, ResponseHead
from ambassador.policy.headers import classify

_NOBODY = PeerIdentity(
    spiffe=None,
    uris=(),
    dns=(),
    common_name=None,
    subject="",
    issuer="",
    serial="1",
    not_after=0.0,
    fingerprint="",
    certificate=b"leaf",
    chain=(),
)


def field(name: bytes, value: bytes) -> Field:
    """Give a field as the line cache makes it."""
    return Field(name.lower(), value, classify(name.lower()), b"%b: %b\r\n" % (name, value))


def fields(*pairs: tuple[bytes, bytes]) -> list[Field]:
    """Give several fields."""
    return [field(name, value) for name, value in pairs]


def request(
    *pairs: tuple[bytes, bytes],
    method: bytes = b"GET",
    authority: bytes = b"shop",
    path: bytes = b"/",
) -> RequestHead:
    """Give a request head with the roles of its fields."""
    found = fields(*pairs)
    marked = [x for x in found if x.role and not x.role & STAMPED]
    stamped = [x for x in found if x.role & STAMPED]
    others = [x for x in found if not x.role & STAMPED]
    return RequestHead(
        method, b"http", authority, path, others, 0, _roles(found), 11, marked, stamped
    )


def response(*pairs: tuple[bytes, bytes]) -> ResponseHead:
    """Give a response head with the roles of its fields."""
    found = fields(*pairs)
    return ResponseHead(200, b"OK", found, 0, _roles(found))


def names(head: RequestHead | ResponseHead) -> list[bytes]:
    """Give the field names of a head, in order."""
    return [x.name for x in head.fields]


def identity(
    spiffe: str | None = None,
    *,
    uris: tuple[str, ...] | None = None,
    dns: tuple[str, ...] = (),
    common_name: str | None = None,
    problem: str = "",
    certificate: bytes = b"leaf",
    chain: tuple[bytes, ...] = (),
) -> PeerIdentity:
    """Give an identity; `uris` are those of the SPIFFE ID unless said otherwise."""
    if uris is None:
        uris = (spiffe,) if spiffe else ()
    return replace(
        _NOBODY,
        spiffe=spiffe,
        uris=uris,
        dns=dns,
        common_name=common_name,
        problem=problem,
        certificate=certificate,
        chain=chain,
    )


def _roles(found: list[Field]) -> int:
    roles = 0
    for one in found:
        roles |= one.role
    return roles
