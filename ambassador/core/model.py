"""Frozen values that cross floors, and the roles that a header field can have.

Knows shapes only. Heads and fields are `msgspec.Struct`s: a frozen dataclass sets each attribute through
`object.__setattr__`, 1.5 µs a head where a struct takes 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import msgspec

# Roles of a field, as bits; decided once per distinct line and kept in the line cache. 0: goes on as it is.
HOST: Final = 1 << 0
CONTENT_LENGTH: Final = 1 << 1
TRANSFER_ENCODING: Final = 1 << 2
CONNECTION: Final = 1 << 3
HOP_BY_HOP: Final = (
    1 << 4
)  # Keep-Alive, Proxy-Connection, TE, Trailer, HTTP2-Settings, Proxy-Auth*: ends here
UPGRADE: Final = 1 << 5
EXPECT: Final = 1 << 6
IDENTITY: Final = (
    1 << 7
)  # XFCC, Client-Cert, X-Forwarded-*, Forwarded, X-Ambassador-*, Proxy, … and their aliases
OVERRIDE: Final = 1 << 8  # X-Original-URL and the like: dropped where rules name paths or methods
REQUEST_ID: Final = 1 << 9
TRACEPARENT: Final = 1 << 10
TRACESTATE: Final = 1 << 11
VIA: Final = 1 << 12
BROWSER: Final = 1 << 13  # Origin, Sec-Fetch-Site
FORWARDED_CERT: Final = 1 << 14  # exactly x-forwarded-client-cert (together with IDENTITY)
FORWARDED_FOR: Final = 1 << 15  # exactly x-forwarded-for (together with IDENTITY)
CREDENTIAL: Final = 1 << 16  # never kept in a cache, never logged
USER_AGENT: Final = 1 << 17
PROTECTED: Final = (
    1 << 18
)  # `Connection` cannot nominate it: Authorization, Cookie, tracing, Cache-Control …
DATE: Final = 1 << 19
PERSISTS: Final = 1 << 20  # a Connection field that says nothing but keep-alive
EXPECTED_TIMEOUT: Final = (
    1 << 21
)  # X-Envoy-Expected-Rq-Timeout-Ms: ours replaces it in every request
ATTEMPT_COUNT: Final = 1 << 22  # X-Envoy-Attempt-Count: ours replaces it in a request to a peer

#: What only the HTTP/1.1 side that reads knows; never in `fields` of a head.
WIRE_ROLES: Final = (
    HOST
    | CONTENT_LENGTH
    | TRANSFER_ENCODING
    | CONNECTION
    | PERSISTS
    | HOP_BY_HOP
    | UPGRADE
    | EXPECT
)
#: What `policy.trace_context` replaces; apart from the other fields, because it changes with every request.
STAMPED: Final = REQUEST_ID | TRACEPARENT | TRACESTATE


class Field(msgspec.Struct, gc=False, eq=False):
    """One header line: lower-case name, value without surrounding blanks, role, and the line as it goes out."""

    name: bytes
    value: bytes
    role: int
    line: bytes

    def __repr__(self) -> str:
        value = b"(hidden)" if self.role & CREDENTIAL else self.value
        return f"Field({self.name!r}, {value!r})"


class RequestHead(msgspec.Struct, gc=False):
    """A request without its framing.

    `authority` is Host or the absolute target's, as received; `path` is the origin-form target with its query,
    `*` for OPTIONS *, empty for CONNECT. `roles` is the union of the roles of all fields read, also of those
    that are not in `fields` (`WIRE_ROLES`). `content_length` is None for chunked and 0 for no body.
    `marked` are those of `fields` that had a role when the head was read, and with `EXPECTED_TIMEOUT` those that
    are not in `fields` for that;
    `stamped` those of `STAMPED`, which are not in `fields`. `version` is 10 or 11; `upgrade` the
    value of Upgrade when Connection names it, else empty.
    """

    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes
    fields: list[Field]
    content_length: int | None
    roles: int = 0
    version: int = 11
    marked: Sequence[Field] = ()
    stamped: Sequence[Field] = ()
    upgrade: bytes = b""
    expect_continue: bool = False


class ResponseHead(msgspec.Struct, gc=False):
    """A response without its framing; `content_length` is None when chunked or ended by EOF."""

    status: int
    reason: bytes
    fields: list[Field]
    content_length: int | None
    roles: int = 0
    version: int = 11
    upgrade: bytes = b""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket listens or dials: an IP (or a name, for `localhost`) and a port, or a Unix path."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a service answers."""

    address: Address
    weight: int = 1
    zone: str = ""
    priority: int = 0

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the verified certificate of a peer says.

    `spiffe` is set only when the X509-SVID rules hold; `problem` names why a certificate gives no identity
    (then no rule but `allow_any_verified` matches). `subject` and `issuer` are RFC 4514 text in reversed
    (RFC 2253) order with controls escaped. `common_name` is set only when there is exactly one and no SAN.

    Units: `not_after` is Unix time in seconds.
    Source: SPIFFE X509-SVID §2 and §4; RFC 5280 §4.2.1.6; RFC 9525.
    """

    spiffe: str | None
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    common_name: str | None
    subject: str
    issuer: str
    serial: str
    not_after: float
    fingerprint: str
    certificate: bytes = field(repr=False)  # DER
    chain: tuple[bytes, ...] = field(
        repr=False
    )  # DER as the peer sent it, leaf first; empty when resumed
    problem: str = ""
    doubted_dns: tuple[
        str, ...
    ] = ()  # DNS names that its root may not vouch for: only a `deny` heeds them

    @property
    def principal(self) -> str:
        """The name for logs: SPIFFE ID, else the first URI, DNS name or common name."""
        for name in (self.spiffe, *self.uris[:1], *self.dns[:1], self.common_name):
            if name:
                return name
        return ""


class Progress(Enum):
    """How far a step of a handshake came."""

    DONE = auto()
    WANTS_READ = auto()
    WANTS_WRITE = auto()


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What was negotiated with a peer, in the words of the log."""

    version: str  # TLSv1.3
    cipher: str
    group: str  # X25519MLKEM768; empty when resumed without a key exchange
    resumed: bool
    server_name: str
    alpn: str
