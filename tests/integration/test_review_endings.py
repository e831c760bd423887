"""What a reader with fresh eyes found at the ends of exchanges, each with the rule that it broke."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ambassador.core.model import Field, RequestHead, ResponseHead
from ambassador.http.http1.client import ClientConnection
from ambassador.net import transport as transports
from ambassador.net.transport import Budget, Transport
from ambassador.policy.headers import classify
from ambassador.telemetry.writer import ThreadedWriter
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage
from tests.support.streams import EndReceiver

__all__ = ["side", "stage"]

GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_response_keeps_its_own_request_id(side: Side) -> None:
    """RFC 9110 §5.1: a proxy MUST forward fields that it does not know; only those of requests are ours to replace."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nX-Request-Id: abc\r\nContent-Length: 2\r\n\r\nok")

    assert b"\r\nX-Request-Id: abc\r\n" in client.read_message()


async def closing(monkeypatch: pytest.MonkeyPatch, *, reads: bool) -> bool:
    """Close with 2 MiB that wait for a reader; say whether it got them all."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(transports, "CLOSE_WITHIN_S", 0.4)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    receiver, budget, crashes = EndReceiver(), Budget(1), list[BaseException]()
    transport = Transport(loop, ours, tls=None, io=None, budget=budget, crashed=crashes.append)
    transport.start(receiver)
    for _ in range(32):
        transport.write(bytes(65536))
    transport.close()
    got = 0
    while reads and (data := await loop.sock_recv(theirs, 65536)):
        got += len(data)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        while not receiver.ended:  # noqa: ASYNC110  # the receiver is plain callbacks
            await asyncio.sleep(0.01)
    theirs.close()
    assert len(receiver.ended) == 1
    assert not budget.used
    assert not crashes
    return got == 32 * 65536


def test_a_reader_that_takes_nothing_does_not_keep_what_is_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threats E1: nobody above looks after a transport that is closing."""
    assert not asyncio.run(closing(monkeypatch, reads=False))


def test_a_slow_reader_gets_all_of_a_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`write_timeout` is for a peer that takes nothing: who takes its answer slowly must not find it truncated."""
    assert asyncio.run(closing(monkeypatch, reads=True))


class Wire:
    """A transport that remembers only whether it reads."""

    def __init__(self) -> None:
        self.reading = True
        self.greedy = self.closed = self.stalled = self.starved = False
        self.tls = None

    def write(self, data: bytes) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True


class Shelf:
    """A pool that keeps what is given back."""

    def __init__(self) -> None:
        self.free: list[ClientConnection] = []

    def connection_free(self, connection: ClientConnection) -> None:
        self.free.append(connection)

    def connection_closed(self, connection: ClientConnection) -> None: ...


class SlowDownstream:
    """An exchange whose downstream does not keep up."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def response_head(self, head: ResponseHead, end: bool) -> None: ...  # noqa: FBT001

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        self.connection.pause_body()

    def response_trailers(self, fields: list[Field]) -> None:
        self.connection.release()


def test_a_connection_that_was_paused_in_its_last_read_goes_back_reading() -> None:
    """Body and trailers in one read, the body pauses: pooled deaf, its next exchange would wait for its deadline."""
    loop: Any = asyncio.new_event_loop()
    wire: Any = Wire()
    pool = Shelf()
    connection = ClientConnection(
        loop, wire, pool, cache=LineCache(classify), limits=HeadLimits(), peer_text=None
    )
    events: Any = SlowDownstream(connection)
    connection.send_head(events, RequestHead(b"GET", b"http", b"a", b"/", [], 0), b"", True)
    connection.data_received(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    )
    loop.close()

    assert pool.free == [connection]
    assert wire.reading


def test_a_line_that_a_full_disk_has_cut_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threats I5: every line one record, also behind half a line."""
    path = tmp_path / "log"
    real, calls = os.write, iter(["half", "full"])

    def write(fd: int, data: Any) -> int:
        match next(calls, "good"):
            case "half":
                return real(fd, bytes(data)[:5])
            case "full":
                raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    writer = ThreadedWriter(str(path))
    writer.put(b'{"n":1}\n', 1)
    writer.put(b'{"n":2}\n', 1)
    writer.close(5.0)

    assert path.read_bytes() == b'{"n":\n{"n":2}\n'
    assert writer.dropped == 1
