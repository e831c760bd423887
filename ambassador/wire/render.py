"""Heads as they go out, written anew from values: no received byte passes but checked lines.

Knows how HTTP/1.1 is spelled (RFC 9112 §3-§6); must not know why a head is sent. Fields of the connection
(Host, framing, Connection, Upgrade, Expect) are spelled here and nowhere else.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

from operator import attrgetter
from typing import Final

from ambassador.core.model import RequestHead, ResponseHead
from ambassador.wire.framing import BODILESS, CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF

#: What `connection=` may be: nothing, or one of these lines.
PERSIST: Final = b""
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"

_line: Final = attrgetter("line")
_SWITCHING: Final = 101
_SUCCESS: Final = range(200, 300)
_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"
# RFC 9110 §8.6: methods whose content is expected say so when it is empty; others stay silent.
_SAYS_EMPTY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
_STATUS: Final = {code: b"HTTP/1.1 %d " % code for code in range(100, 600)}


def render_request_head(
    head: RequestHead, *, framing: int, extra: bytes = b"", connection: bytes = PERSIST
) -> bytes:
    """Give the head of a request to upstream, with its CRLFCRLF.

    `extra` are whole lines, each with its CRLF, that stand behind the received ones. `framing` is `NO_BODY`,
    `LENGTH` (of `head.content_length`) or `CHUNKED`. `connection` is `PERSIST` or `CLOSE`.
    Source: RFC 9112 §3.2 (Host first), §2.3 (our own version, whatever was received).
    """
    tail = extra + connection
    if framing == CHUNKED:
        tail += _CHUNKED_LINE
    elif framing == LENGTH:
        tail += b"Content-Length: %d\r\n" % (head.content_length or 0)
    elif head.method in _SAYS_EMPTY:
        tail += b"Content-Length: 0\r\n"
    if head.upgrade:
        # RFC 9110 §7.8: a sender of Upgrade MUST also send the option in Connection.
        tail += b"Connection: upgrade\r\nUpgrade: " + head.upgrade + b"\r\n"
    if head.expect_continue:
        tail += b"Expect: 100-continue\r\n"
    start = (
        head.method + b" " + (head.path or head.authority) + b" HTTP/1.1\r\nHost: " + head.authority
    )
    return b"\r\n".join([start, *map(_line, head.fields), tail + b"\r\n"])


def render_response_head(
    head: ResponseHead, *, framing: int, extra: bytes = b"", connection: bytes = PERSIST
) -> bytes:
    """Give the head of a response to downstream, with its CRLFCRLF.

    With `NO_BODY` a known `content_length` is repeated, as HEAD and 304 want it. `connection` is `PERSIST`,
    `CLOSE` or, to an HTTP/1.0 client that asked for it, `KEEP_ALIVE`. The caller chooses a framing that the
    client understands: `UNTIL_EOF` with `CLOSE` instead of `CHUNKED` for HTTP/1.0 (RFC 9112 §6.1).
    Source: RFC 9112 §4; RFC 9110 §8.6.
    """
    status = head.status
    tail = extra + connection
    if framing == LENGTH or (framing == NO_BODY and head.content_length is not None):
        if status >= 200 and status != 204:
            # RFC 9110 §8.6: MUST NOT stand in 1xx and 204.
            tail += b"Content-Length: %d\r\n" % (head.content_length or 0)
    elif framing == CHUNKED:
        tail += _CHUNKED_LINE
    if head.upgrade and status in {101, 426}:
        # RFC 9110 §7.8, §15.5.22: these two MUST name the protocols; elsewhere Upgrade is upstream's own offer.
        tail += b"Connection: upgrade\r\nUpgrade: " + head.upgrade + b"\r\n"
    return b"\r\n".join([_STATUS[status] + head.reason, *map(_line, head.fields), tail + b"\r\n"])


def response_framing(
    status: int, content_length: int | None, *, is_head: bool, is_connect: bool, knows_chunked: bool
) -> int:
    """Give the framing of a response that we write, by its request and by what the peer understands.

    Source: RFC 9112 §6.1, §6.3.
    """
    if status == _SWITCHING or (is_connect and status in _SUCCESS):
        return TUNNEL
    if is_head or status in BODILESS:
        return NO_BODY
    if content_length is not None:
        return LENGTH
    return CHUNKED if knows_chunked else UNTIL_EOF


def connection_line(framing: int, *, keep_alive: bool) -> bytes:
    """Give the line that says what becomes of the connection; said always where it may differ from the version's."""
    if framing == TUNNEL:
        return PERSIST
    return KEEP_ALIVE if keep_alive else CLOSE
