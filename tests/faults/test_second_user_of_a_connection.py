"""Whatever the first user of a connection left on it, the second never sees it (threat G2)."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.peers import PeerConnection
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage

__all__ = ["inbound", "outbound", "side", "stage"]

SECRET = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: payments\r\n\r\n"
GET = b"GET /first HTTP/1.1\r\nHost: payments\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = (
    b"GET /first HTTP/1.1\r\nHost: payments\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)
EXPECT = (
    b"POST /first HTTP/1.1\r\nHost: payments\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
)
POST = b"POST /first HTTP/1.1\r\nHost: payments\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"POST /first HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n"


def serve_second(side: Side, first: PeerConnection) -> tuple[bytes, bytes]:
    """Send the request of another user; give what upstream and he have got."""
    client = side.connect()
    client.send(SECOND)
    if side.no_upstream() and not _is_over(first):
        up = first
        first.received.clear()
        first._taken = 0
    else:
        up = side.upstream()
    received = up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
    return received, client.read_message()


def _is_over(first: PeerConnection) -> bool:
    """Say which comes first on the old connection: its end, or the head of the second request."""
    try:
        while first._read():
            if b"/second" in first.received:
                rest = bytes(first.received[first.received.rindex(b"GET /second") :])
                first._io = Replay(first._io, rest)  # type: ignore[assignment]
                return False
    except ConnectionError:
        return True
    return True


class Replay:
    """Gives `rest` once more before what follows."""

    def __init__(self, io: object, rest: bytes) -> None:
        self._io, self._rest = io, rest

    def recv(self, size: int) -> bytes:
        rest, self._rest = self._rest, b""
        return rest or self._io.recv(size)  # type: ignore[attr-defined,no-any-return]

    def sendall(self, data: bytes) -> None:
        self._io.sendall(data)  # type: ignore[attr-defined]


#: What the first user sends, what upstream answers to its head, and what is sent on behind that.
FIRSTS: dict[str, tuple[bytes, bytes, bytes]] = {
    "early bytes behind a refused upgrade": (UPGRADE + b"\x81\x05hello", OK, b""),
    "early bytes behind an upgrade to 404": (
        UPGRADE + b"\x81\x05hello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "early body behind a refused expectation": (
        EXPECT + SMUGGLED[:5],
        b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "no body behind a refused expectation": (
        EXPECT,
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n",
        SMUGGLED,
    ),
    "early response with a body unsent": (POST + b"x" * 10, OK, SMUGGLED),
    "early response with chunks unsent": (CHUNKED + b"5\r\nhello\r\n", OK, b"5\r\nworld\r\n"),
    "early response inside a chunk": (CHUNKED + b"ff\r\n", OK, SMUGGLED),
    "response with another behind it": (GET, OK + SECRET, b""),
    "response with half a response behind it": (GET, OK + SECRET[:20], b""),
    "two interim responses and more": (GET, b"HTTP/1.1 103 Early\r\n\r\n" * 2 + OK + SECRET, b""),
    "204 with a body": (GET, b"HTTP/1.1 204 No Content\r\n\r\n" + SECRET, b""),
    "304 with a body": (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\n" + SECRET, b""),
    "HEAD with a body": (
        GET.replace(b"GET /first", b"HEAD /first"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n" + SECRET,
        b"",
    ),
    "unasked switch": (GET, b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + SECRET, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRSTS)
def test_the_second_user_never_sees_bytes_of_the_first(side: Side, name: str) -> None:
    """Envoy CVE-2025-64763, CVE-2026-73548: a connection with anything unfinished or unasked is never pooled."""
    sent, answer, behind = FIRSTS[name]
    client = side.connect()
    client.send(sent)
    first = side.upstream()
    first.read_until(b"\r\n\r\n")
    first.send(answer)
    with contextlib.suppress(
        OSError, EOFError
    ):  # cut, which is one way to keep the second user safe
        client.read_until(b"\r\n\r\n")
        client.send(behind)

    received, answered = serve_second(side, first)

    assert received.startswith(b"GET /second HTTP/1.1\r\n")
    assert b"smuggled" not in received
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert answered.endswith(b"second")


def test_late_bytes_of_the_first_exchange_end_an_idle_connection(side: Side) -> None:
    """They come while nobody uses it; the next request finds another."""
    client = side.connect()
    client.send(GET)
    first = side.upstream()
    first.read_message()
    first.send(OK)
    client.read_message()
    first.send(SECRET)

    assert first.is_ended()
    received, answered = serve_second(side, first)
    assert received.startswith(b"GET /second HTTP/1.1\r\n")
    assert answered.endswith(b"second")


def test_a_tunnel_is_never_used_again(side: Side) -> None:
    """What was opaque once has no message border that anybody could trust."""
    client = side.connect()
    client.send(UPGRADE + b"early")
    first = side.upstream()
    first.read_until(b"\r\n\r\n")
    first.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    client.read_until(b"\r\n\r\n")
    assert first.read_exactly(5) == b"early"
    first.send(OK)
    client.read_until(b"ok")
    client.close()

    assert first.is_ended()
    received, answered = serve_second(side, first)
    assert received.startswith(b"GET /second HTTP/1.1\r\n")
    assert answered.endswith(b"second")
