"""The end of a TLS direction when the socket is full: close_notify waits for room (RFC 8446 §6.1)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from OpenSSL import SSL

from ambassador.net import transport as transports
from ambassador.net.transport import Budget, Transport
from tests.support.streams import EndReceiver

CLOSE_NOTIFY = b"close_notify"


class FullTls:
    """An OpenSSL connection as far as its end goes: it wants to write as long as the socket takes nothing."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def pending(self) -> int:
        return 0

    def shutdown(self) -> None:
        try:
            self._sock.send(CLOSE_NOTIFY)
        except BlockingIOError:
            raise SSL.WantWriteError from None


class Ends:
    """A transport whose socket is full, and the peer that may read."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.setblocking(False)
        self.receiver = EndReceiver()
        self.crashes: list[BaseException] = []
        tls: Any = FullTls(ours)
        self.transport = Transport(
            asyncio.get_running_loop(), ours, tls=tls, io=None, budget=Budget(1), crashed=self.crashes.append,
        )  # fmt: skip
        self.transport.start(self.receiver)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))

    async def read_to_end(self) -> bytes:
        got = b""
        while data := await asyncio.get_running_loop().sock_recv(self.peer, 65536):
            got = (got + data)[-64:]
        self.peer.close()
        return got


async def closed_after_all() -> None:
    ends = Ends()
    ends.transport.close()
    assert not ends.receiver.ended

    last = await ends.read_to_end()

    assert last.endswith(CLOSE_NOTIFY)
    assert ends.receiver.ended == [None]
    assert not ends.crashes


def test_a_close_waits_until_the_peer_can_be_told() -> None:
    """Else the peer of a response that ends with the connection would see truncation (RFC 9112 §8)."""
    asyncio.run(closed_after_all())


async def half_closed_after_all() -> None:
    ends = Ends()
    ends.transport.shutdown_write()

    last = await ends.read_to_end()

    assert last.endswith(CLOSE_NOTIFY)
    assert not ends.receiver.ended
    ends.transport.close()
    assert ends.receiver.ended == [None]


def test_a_half_close_waits_until_the_peer_can_be_told() -> None:
    asyncio.run(half_closed_after_all())


async def half_closed_then_closed() -> None:
    ends = Ends()
    ends.transport.write(b"last words")
    ends.transport.shutdown_write()
    ends.transport.close()

    last = await ends.read_to_end()

    assert last.endswith(b"last words" + CLOSE_NOTIFY)
    assert ends.receiver.ended == [None]


def test_a_close_behind_a_half_close_tells_the_peer_once() -> None:
    """What was asked for is not what was sent."""
    asyncio.run(half_closed_then_closed())


async def truncated() -> None:
    ends = Ends()
    ends.transport.truncates = True
    ends.transport.write(b"half of i")
    ends.transport.shutdown_write()
    ends.transport.close()

    last = await ends.read_to_end()

    assert last.endswith(b"half of i")
    assert ends.receiver.ended == [None]


def test_an_end_in_the_middle_goes_without_close_notify() -> None:
    """RFC 8446 §6.1: with it the peer could take for whole what is not."""
    asyncio.run(truncated())


async def not_resumed() -> None:
    ends = Ends()
    ends.transport.write(b"last words")
    ends.transport.close()
    ends.transport.resume_reading()

    assert not ends.transport.reading
    assert not ends.transport.is_quiet()
    await ends.read_to_end()


def test_a_closing_transport_reads_no_more() -> None:
    """RFC 9112 §9.6: what comes after our last answer is not processed."""
    asyncio.run(not_resumed())


async def not_kept() -> None:
    ends = Ends()
    ends.transport.close()

    async with asyncio.timeout(5):
        while not ends.receiver.ended:  # noqa: ASYNC110  # the receiver is plain callbacks
            await asyncio.sleep(0.01)

    ends.peer.close()


def test_who_never_reads_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threats E1."""
    monkeypatch.setattr(transports, "CLOSE_WITHIN_S", 0.2)
    asyncio.run(not_kept())
