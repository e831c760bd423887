"""Request lines: the fast form that nearly all have, and the rare ones with their refusals (RFC 9112 §3).

Knows the request line only; what the authority and the path mean is for `policy`. A request line is never kept:
it may hold a query, and a query may hold a secret.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

import re
from typing import Final

from ambassador.wire.field import TOKEN, HeadError, authority_port

# RFC 9112 §3: method SP request-target SP HTTP-version, exactly one SP. Target bytes: 0x21-0x7e without "#"
# (a fragment is never sent, RFC 9110 §7.1; a "#" that is passed on cuts somebody's path: CVE-2023-45539).
# Longest method: RFC 9112 §3 leaves the bound to the server, registered ones have at most 17 letters.
# CONNECT never has an origin-form target (RFC 9110 §9.3.6).
_TARGET: Final = rb"[\x21\x22\x24-\x7e]"
#: The form of nearly every request: origin-form in HTTP/1.1. Groups: method, path with query.
origin_form = re.compile(
    rb"(?!CONNECT )([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (/" + _TARGET + rb"*+) HTTP/1\.1"
).fullmatch
_any_form = re.compile(rb"(" + TOKEN + rb") (" + _TARGET + rb"++) HTTP/1\.([01])").fullmatch
_shape = re.compile(rb"[^ \t]+ [^ \t]+ HTTP/[0-9]\.[0-9]").fullmatch
# RFC 9110 §4.2.1-2; schemes are case-insensitive (§4.2.3). Path and query may both be empty.
_absolute_form = re.compile(rb"(https?)://([^/?]*+)([/?].*)?", re.IGNORECASE).fullmatch

_PREFACE: Final = b"PRI * HTTP/2.0"
_MAX_METHOD: Final = 32


def other_form(line: bytes, max_uri: int) -> tuple[bytes, bytes, bytes | None, bytes, int]:
    """Give method, scheme, authority, path and version of a request line that is not in the usual form.

    The authority is None in origin-form and empty in asterisk-form; the path is empty for CONNECT.
    Errors: HeadError 400, 414, 501, 505.
    Source: RFC 9112 §3.2.2-3.2.4.
    """
    found = _any_form(line)
    if found is None:
        raise _refused(line, max_uri)
    method, target, minor = found[1], found[2], found[3]
    if len(method) > _MAX_METHOD:
        raise HeadError(501, "method_too_long", "The method is longer than any that we forward.")
    if len(target) > max_uri:
        raise uri_too_long()
    version = 11 if minor == b"1" else 10
    if method == b"CONNECT":
        return method, b"http", _connect_authority(target), b"", version
    if target[:1] == b"/":
        return method, b"http", None, target, version
    if target == b"*":
        if method != b"OPTIONS":
            raise HeadError(400, "bad_target", "The target * belongs to OPTIONS alone.")
        return method, b"http", b"", b"*", version
    return _absolute(method, target, version)


def uri_too_long() -> HeadError:
    """The refusal of a target beyond its limit (RFC 9112 §3: 414)."""
    return HeadError(414, "uri_too_long", "The request target is too long.")


def _connect_authority(target: bytes) -> bytes:
    # RFC 9110 §9.3.6: only authority-form, and a missing, empty or invalid port is rejected with 400.
    if authority_port(target) <= 0:
        raise HeadError(400, "bad_connect_target", "CONNECT wants host:port.")
    return target


def _absolute(method: bytes, target: bytes, version: int) -> tuple[bytes, bytes, bytes, bytes, int]:
    """Take apart an absolute-form target, which every server must accept (RFC 9112 §3.2.2)."""
    found = _absolute_form(target)
    if found is None:
        raise HeadError(400, "bad_target", "The request target is in none of the four forms.")
    scheme, authority, path = found[1].lower(), found[2], found[3] or b""
    if authority_port(authority) < 0:
        # RFC 9110 §4.2.1: an empty host must be rejected; §4.2.4: so should userinfo.
        raise HeadError(
            400, "bad_authority", "The target's authority is not a valid host and port."
        )
    if not path:
        # RFC 9112 §3.2.4: the last proxy sends "*" for OPTIONS without path; §3.2.1: else "/".
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path[:1] == b"?":
        path = b"/" + path
    return method, scheme, authority, path, version


def _refused(line: bytes, max_uri: int) -> HeadError:
    """Find status and word for a request line that does not match (RFC 9112 §3: 400; 414, 505)."""
    if line == _PREFACE:
        return HeadError(400, "http2_preface", "This listener speaks HTTP/1.1, not HTTP/2.")
    words = line.split(b" ")
    if len(words) == 3 and len(words[1]) > max_uri:
        return uri_too_long()
    if len(words) == 3 and b"#" in words[1]:
        return HeadError(400, "fragment_in_target", "The request target holds a fragment.")
    if len(words) == 3 and _shape(line) and not words[2].startswith((b"HTTP/1.0", b"HTTP/1.1")):
        # RFC 9110 §15.6.6; also for 1.2, which nobody has defined.
        return HeadError(505, "bad_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    return HeadError(400, "bad_request_line", "The request line is malformed.")
