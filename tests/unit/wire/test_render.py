from __future__ import annotations

import pytest

from ambassador.core.model import RequestHead, ResponseHead
from ambassador.wire.framing import CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.head import HeadLimits, parse_request_head, parse_response_head
from ambassador.wire.render import CLOSE, KEEP_ALIVE, render_request_head, render_response_head
from tests.support.transcripts import line_cache


def request_head(block: bytes) -> tuple[RequestHead, int]:
    head, framing, _ = parse_request_head(block, line_cache(), HeadLimits())
    return head, framing


def test_a_request_is_written_anew_with_host_first_and_ours_last() -> None:
    """RFC 9112 §3.2: Host ought to come first; house §7: nothing is copied through."""
    head, framing = request_head(
        b"POST http://b:80/p?q HTTP/1.0\r\nX:  1 \r\nHost: a\r\nContent-Length: 005\r\nConnection: y\r\nY: 2"
    )

    written = render_request_head(head, framing=framing, extra=b"Via: 1.0 us\r\nZ: 3\r\n")

    assert written == (
        b"POST /p?q HTTP/1.1\r\nHost: b:80\r\nX: 1\r\nVia: 1.0 us\r\nZ: 3\r\nContent-Length: 5\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("block", "written"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
        (b"PUT / HTTP/1.1\r\nHost: a", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (b"OPTIONS * HTTP/1.1\r\nHost: a", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: b", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x/1\r\nConnection: keep-alive, Upgrade",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\r\n",
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue",
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
        ),
    ],
)
def test_fields_of_the_connection_are_spelled_by_the_writer(block: bytes, written: bytes) -> None:
    """RFC 9110 §7.6.1, §7.8, §8.6, §10.1.1; RFC 9112 §6.1."""
    head, framing = request_head(block)

    assert render_request_head(head, framing=framing) == written


def test_a_request_can_ask_to_close() -> None:
    """RFC 9112 §9.6."""
    head, framing = request_head(b"GET / HTTP/1.1\r\nHost: a")

    written = render_request_head(head, framing=framing, connection=CLOSE)

    assert written == b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "framing", "connection", "written"),
    [
        (
            ResponseHead(200, b"OK", [], 5),
            LENGTH,
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (ResponseHead(200, b"", [], 0), LENGTH, b"", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
        (
            ResponseHead(200, b"OK", [], 5),
            NO_BODY,
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (ResponseHead(304, b"NM", [], None), NO_BODY, b"", b"HTTP/1.1 304 NM\r\n\r\n"),
        (ResponseHead(204, b"NC", [], 0), NO_BODY, b"", b"HTTP/1.1 204 NC\r\n\r\n"),
        (ResponseHead(204, b"NC", [], 0), LENGTH, b"", b"HTTP/1.1 204 NC\r\n\r\n"),
        (ResponseHead(103, b"EH", [], 0), NO_BODY, b"", b"HTTP/1.1 103 EH\r\n\r\n"),
        (
            ResponseHead(200, b"OK", [], None),
            CHUNKED,
            b"",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            ResponseHead(200, b"OK", [], None),
            UNTIL_EOF,
            CLOSE,
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ),
        (
            ResponseHead(200, b"OK", [], 1),
            LENGTH,
            KEEP_ALIVE,
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            ResponseHead(101, b"S", [], None, 0, 11, b"x"),
            TUNNEL,
            b"",
            b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        (
            ResponseHead(426, b"UR", [], 0, 0, 11, b"x"),
            LENGTH,
            b"",
            b"HTTP/1.1 426 UR\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        (
            ResponseHead(200, b"OK", [], 0, 0, 11, b"x"),
            LENGTH,
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ],
)
def test_a_response_spells_its_framing(
    head: ResponseHead, framing: int, connection: bytes, written: bytes
) -> None:
    """RFC 9110 §8.6: no Content-Length in 1xx and 204, a repeated one for HEAD and 304; §7.8 for Upgrade."""
    assert render_response_head(head, framing=framing, connection=connection) == written


def test_a_response_keeps_its_reason_and_fields_and_gets_ours() -> None:
    """House §7: written anew from checked lines; always our own version (RFC 9110 §2.5)."""
    block = b"HTTP/1.0 418 I'm a teapot\r\nServer:x\r\nContent-Length: 3"
    head, framing, _ = parse_response_head(block, line_cache(), HeadLimits(), b"GET")

    written = render_response_head(head, framing=framing, extra=b"Via: 1.0 us\r\n")

    assert written == (
        b"HTTP/1.1 418 I'm a teapot\r\nServer: x\r\nVia: 1.0 us\r\nContent-Length: 3\r\n\r\n"
    )
