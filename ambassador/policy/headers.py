"""Which header names mean something to us, and the removal of what a stranger may not say.

Knows names only; the meaning of values lives beside who decides by them (`forwarding`, `trace_context`,
`browser`). Must not know the wire: `wire.head` is handed `classify` and asks once per distinct line.

Rules:
* A name is compared in *folded* form. CGI and its heirs spell `X-Forwarded-For` as HTTP_X_FORWARDED_FOR, so
  every octet that they turn into `_` gives the same variable: `-`, `_`, and in PHP and lighttpd any other
  punctuation. Ours are therefore dropped in all these spellings (threats A1; Traefik CVE-2026-39858, -88011).
* Names of *connections* (which address, which certificate, which scheme) are ours to set and dropped. Names of
  end users that an authenticated peer vouches for (X-Remote-User, X-Auth-Request-*) are the peer's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ambassador.core.model import (
    ATTEMPT_COUNT,
    BROWSER,
    CONNECTION,
    CONTENT_LENGTH,
    CREDENTIAL,
    DATE,
    EXPECT,
    EXPECTED_TIMEOUT,
    FORWARDED_CERT,
    FORWARDED_FOR,
    HOP_BY_HOP,
    HOST,
    IDENTITY,
    OVERRIDE,
    PROTECTED,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    VIA,
    WIRE_ROLES,
    Field,
    RequestHead,
    ResponseHead,
)

_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PUNCTUATION: Final = (
    b"!#$%&'*+.^_`|~"  # all of `token` (RFC 9110 §5.6.2) but letters, digits and `-`
)
_FOLD: Final = bytes.maketrans(_UPPER + _PUNCTUATION, _UPPER.lower() + b"-" * len(_PUNCTUATION))

#: Roles of names in their exact (lower-case) spelling.
_EXACT: Final[dict[bytes, int]] = {
    b"host": HOST | PROTECTED,
    b"content-length": CONTENT_LENGTH | PROTECTED,
    b"transfer-encoding": TRANSFER_ENCODING | PROTECTED,
    b"connection": CONNECTION | PROTECTED,
    # RFC 9110 §7.6.1 names them as fields that intermediaries remove, nominated or not.
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"te": HOP_BY_HOP,
    b"trailer": HOP_BY_HOP,
    b"upgrade": UPGRADE,
    b"http2-settings": HOP_BY_HOP,  # RFC 7540 §3.2.1; h2c past the rules is threats F5
    # RFC 9110 §11.7: they concern the next proxy only, and that is us. We ask for none, so none goes on.
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"proxy-authentication-info": HOP_BY_HOP,
    b"expect": EXPECT | PROTECTED,
    b"via": VIA | PROTECTED,
    b"x-request-id": REQUEST_ID | PROTECTED,
    b"traceparent": TRACEPARENT | PROTECTED,
    b"tracestate": TRACESTATE | PROTECTED,
    b"origin": BROWSER | PROTECTED,
    b"sec-fetch-site": BROWSER | PROTECTED,
    b"user-agent": USER_AGENT,
    b"date": DATE,
    b"x-forwarded-client-cert": FORWARDED_CERT,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-envoy-expected-rq-timeout-ms": EXPECTED_TIMEOUT,
    b"x-envoy-attempt-count": ATTEMPT_COUNT,
}

#: `Connection` cannot nominate these (they are "intended for all recipients", RFC 9110 §7.6.1; threats A3) and
#: a trailer cannot carry them (routing, request modifiers, authentication, response control, content
#: processing: RFC 9110 §6.5.1).
_PROTECTED: Final = frozenset((
    b"authorization", b"cookie", b"set-cookie", b"www-authenticate", b"authentication-info",
    b"baggage", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags",
    b"cache-control", b"pragma", b"age", b"expires", b"date", b"location", b"retry-after", b"vary", b"warning",
    b"content-type", b"content-encoding", b"content-range", b"content-location",
    b"range", b"max-forwards", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
    b"if-range", b"strict-transport-security", b"content-security-policy",
))  # fmt: skip

#: Folded names that say who the peer is, where it sits or how it came: ours alone to set.
_IDENTITY: Final = frozenset((
    b"forwarded", b"forwarded-for", b"x-forwarded", b"x-forward-for", b"x-original-forwarded-for",
    b"x-real-ip", b"x-client-ip", b"client-ip", b"true-client-ip", b"cf-connecting-ip", b"cf-connecting-ipv6",
    b"x-cluster-client-ip", b"fastly-client-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-appengine-user-ip",
    b"x-remote-ip", b"x-remote-addr", b"remote-addr", b"proxy-client-ip", b"x-proxyuser-ip",
    b"x-client-dn", b"x-client-cn", b"x-client-verify", b"x-client-verified", b"x-arr-clientcert",
    b"x-scheme", b"x-url-scheme", b"front-end-https",
    b"proxy",  # CGI would make it HTTP_PROXY and send the app's own requests elsewhere (httpoxy, CVE-2016-5385)
    b"x-ambassador",
    b"x-envoy-external-address", b"x-envoy-internal", b"x-envoy-ip-tags",
))  # fmt: skip
_IDENTITY_PREFIXES: Final = (
    b"x-forwarded-", b"x-ambassador-", b"client-cert", b"x-client-cert", b"x-client-subject", b"x-client-issuer",
    b"x-client-san", b"x-ssl-", b"ssl-client-", b"x-tls-client-", b"tls-client-", b"x-mtls-", b"x-amzn-mtls-",
    b"wl-proxy-", b"l5d-",
    # Envoy drops its own internal ones at an edge; of those, the ones that name a peer, a path or a target.
    b"x-envoy-original-", b"x-envoy-downstream-service-", b"x-envoy-peer-metadata",
)  # fmt: skip

#: Folded names by which some framework replaces the path, method or host that our rules have judged (threats A7).
_OVERRIDE: Final = frozenset((
    b"x-original-url", b"x-original-uri", b"x-original-path", b"x-original-method", b"x-original-host",
    b"x-rewrite-url", b"x-rewrite-uri", b"x-override-url", b"x-request-uri", b"x-http-path-override",
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-http-destinationurl",
    b"x-http-host-override", b"x-host", b"x-waws-unencoded-url",
))  # fmt: skip

#: Parts of names whose values are secrets: too many are better than one too few, it costs only the cache hit.
_SECRET_PARTS: Final = (
    b"auth",
    b"cookie",
    b"token",
    b"key",
    b"secret",
    b"passw",
    b"credential",
    b"session",
    b"jwt",
)

#: An alias of one of these is dropped: two readers would see two values of what we set or frame by (threats G1).
_ALIAS_DROPPED: Final = WIRE_ROLES | REQUEST_ID | EXPECTED_TIMEOUT | ATTEMPT_COUNT

_RESPONSE_PREFIX: Final = b"x-ambassador-"
_TRAILER_REFUSED: Final = ~(CREDENTIAL)  # any role but this: RFC 9110 §6.5.1


def fold(name: bytes) -> bytes:
    """Give the form in which two names are one to some recipient: lower case, punctuation as `-`."""
    return name.translate(_FOLD)


def classify(name: bytes) -> int:
    """Give the roles (bits of `core.model`) of a field name in any case.

    Called once per distinct line, so it may be thorough; see `benchmarks/micro/policy_headers.py`.
    Source: RFC 9110 §6.5.1, §7.6.1, §11.7; threats A1, A3, A7, E7.
    """
    folded = name.translate(_FOLD)
    lower = name.lower()
    role = _EXACT.get(lower, 0)
    if lower in _PROTECTED:
        role |= PROTECTED
    alias = folded != lower and _EXACT.get(folded, 0) & _ALIAS_DROPPED
    if alias or folded in _IDENTITY or folded.startswith(_IDENTITY_PREFIXES):
        role |= IDENTITY
    if folded in _OVERRIDE:
        role |= OVERRIDE
    if folded.startswith(b"proxy-") or any(part in folded for part in _SECRET_PARTS):
        role |= CREDENTIAL
    return role


def sanitize(head: RequestHead, *, drop_overrides: bool) -> Sequence[Field]:
    """Remove every identity field, and override fields where rules name paths or methods; give what was removed.

    Stands before anything else reads a field (threats A2). The removed fields are the only way by which
    `forwarding` can still see a received X-Forwarded-Client-Cert or X-Forwarded-For, if its mode wants it.
    """
    mask = IDENTITY | OVERRIDE if drop_overrides else IDENTITY
    if not head.roles & mask:
        return ()
    dropped = [field for field in head.fields if field.role & mask]
    if dropped:
        head.fields = [field for field in head.fields if not field.role & mask]
    return dropped


def sanitize_response(head: ResponseHead) -> None:
    """Remove our own names, and aliases of framing fields, from an upstream's response (threats A9)."""
    if head.roles & IDENTITY:
        head.fields = [field for field in head.fields if not _is_ours(field)]


def _is_ours(field: Field) -> bool:
    if not field.role & IDENTITY:
        return False
    folded = field.name.translate(_FOLD)
    return folded.startswith(_RESPONSE_PREFIX) or bool(_EXACT.get(folded, 0) & WIRE_ROLES)


def sanitize_trailers(fields: Iterable[Field]) -> list[Field]:
    """Give the trailers that may go on: none with a meaning to routing, framing, authentication or control.

    Source: RFC 9110 §6.5.1; threats A6.
    """
    return [field for field in fields if not field.role & _TRAILER_REFUSED]


def joined(fields: Iterable[Field], role: int) -> bytes:
    """Give the values of all fields of a role as one list value, in order (RFC 9110 §5.3)."""
    return b",".join([field.value for field in fields if field.role & role])
