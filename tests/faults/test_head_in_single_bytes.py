"""A head byte by byte, in huge lines, or of endless fields: work grows with the bytes and no faster (threat E4)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ambassador.core.model import RequestHead
from ambassador.http.http1 import server
from ambassador.http.http1.limits import ServerLimits
from ambassador.http.http1.server import ServerConnection
from ambassador.policy.headers import classify
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage
from tests.support.streams import RecordingReceiver

__all__ = ["side", "stage"]

MAX_HEAD = 60 * 1024
HEAD = b"GET / HTTP/1.1\r\nHost: payments\r\nX-Long: " + b"a" * (MAX_HEAD - 100) + b"\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class NoSocket:
    """As much of a transport as a connection that only reads asks for."""

    tls = None
    greedy = starved = stalled = False
    reading = True

    def start(self, receiver: object) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write(self, data: bytes) -> bool:
        return True

    def shutdown_write(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def crash(self, error: BaseException) -> None:
        raise error


class Owner:
    def __init__(self) -> None:
        self.exchange = RecordingReceiver()

    def new_exchange(self, stream: ServerConnection) -> RecordingReceiver:
        return self.exchange

    def connection_closed(self, connection: ServerConnection) -> None: ...


async def test_a_head_in_single_bytes_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp CVE-2025-69229: the search goes on where it stopped; 60 KiB are not 1.8 G looks."""
    looked_at = 0
    original = server.find_head_end

    def counting(buffer: bytearray, start: int) -> int:
        nonlocal looked_at
        looked_at += len(buffer) - start
        return original(buffer, start)

    monkeypatch.setattr(server, "find_head_end", counting)
    owner = Owner()
    connection = ServerConnection(
        asyncio.get_running_loop(),
        NoSocket(),  # type: ignore[arg-type]
        owner,  # type: ignore[arg-type]
        cache=LineCache(classify),
        limits=ServerLimits(HeadLimits(max_head=MAX_HEAD)),
    )
    connection.start()

    for at in range(len(HEAD)):
        connection.data_received(HEAD[at : at + 1])

    head = owner.exchange.head
    assert isinstance(head, RequestHead)
    assert len(head.fields) >= 1
    assert looked_at < 5 * len(HEAD)
    connection.transport_closed(None)


def test_a_head_in_single_bytes_is_served(side: Side) -> None:
    """The whole way, with a segment or a TLS record for each byte."""
    client = side.connect()
    for at in range(8192):
        client.send(HEAD[at : at + 1])
    client.send(HEAD[8192:])
    up = side.upstream()
    received = up.read_message()
    up.send(OK)

    assert b"a" * (MAX_HEAD - 100) in received
    assert client.read_message().endswith(b"ok")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: payments\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: payments\r\n" + b"X:\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: payments\r\nX: " + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: payments\r\n" + b"a" * 1_000_000,
    ],
)
def test_a_head_without_end_is_refused(side: Side, sent: bytes) -> None:
    """RFC 6585 §5: by bytes or by fields, whichever is reached first."""
    client = side.connect()
    with contextlib.suppress(OSError):  # it is refused while it is still being sent
        client.send(sent)

    assert client.read_until(b"\r\n").startswith(b"HTTP/1.1 431 ")
    assert side.no_upstream()
