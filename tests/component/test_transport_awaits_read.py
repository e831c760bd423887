"""A TLS write that OpenSSL will not do before a read: half a message of a handshake has come (RFC 8446 §5.1)."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL

from ambassador.net.transport import Budget, Transport

REST = b"the other half"


class Receiver:
    """Hears everything and does nothing."""

    def data_received(self, data: bytes) -> None: ...

    def read_finished(self) -> None: ...

    def eof_received(self) -> None: ...

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None: ...


class Half:
    """A TLS connection in the middle of a message: it sends nothing until the rest has been read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.refused = 0
        self.is_whole = False

    def send(self, data: bytes | memoryview) -> int:
        if not self.is_whole:
            self.refused += 1
            raise SSL.WantReadError
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        data = self._sock.recv(size)
        if data == REST:
            self.is_whole = True
            raise SSL.WantReadError  # nothing of it is the application's
        return data


@pytest.mark.parametrize("early", [b"", b"a request"])
def test_it_waits_for_the_read_and_not_for_room(early: bytes) -> None:
    """Room there is: a writer would be called again and again, at the whole of a processor (threats D4, E2)."""

    async def run() -> tuple[int, bytes]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(5)
        half = Half(ours)
        tls: Any = SimpleNamespace(pending=lambda: 0, shutdown=lambda: None)
        transport = Transport(
            asyncio.get_running_loop(),
            ours,
            tls=tls,
            io=(half.recv, half.send, lambda error: Exception(str(error))),
            budget=Budget(1 << 20),
            crashed=print,
        )
        transport.start(Receiver())
        assert transport.write(b"an answer")
        if early:
            theirs.send(early)
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        refused = half.refused
        theirs.send(REST)
        answer = await asyncio.to_thread(theirs.recv, 100)
        transport.abort()
        theirs.close()
        return refused, answer

    refused, answer = asyncio.run(run())

    assert refused <= 1 + bool(early)  # once, and once more for each read
    assert answer == b"an answer"
