"""A peer at line rate gets its share of the loop and no more (threat E2); counted in turns of the loop, not in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from OpenSSL import SSL

from ambassador.net.transport import Budget, Transport
from tests.support.certificates import Authority
from tests.support.handshakes import Service, shaking, store
from tests.support.stage import Side
from tests.support.stage_fixtures import outbound, stage

__all__ = ["outbound", "stage"]

SHARE = 256 * 1024  # bytes of one peer per turn of the loop
BULK = bytes(16384)
TURNS = 200


class Flooded:
    """A receiver whose peer has always sent more already: the fastest peer there can be."""

    def __init__(self, refill: Callable[[], None]) -> None:
        self._refill = refill
        self.taken = 0
        self.per_turn: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self._refill()

    def turn_over(self) -> None:
        self.per_turn.append(self.taken)
        self.taken = 0

    def read_finished(self) -> None: ...

    def eof_received(self) -> None: ...

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None:
        assert error is None


def make(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: SSL.Connection | None
) -> Transport:
    io = None if tls is None else (tls.recv, tls.send, lambda error: error)
    return Transport(loop, sock, tls=tls, io=io, budget=Budget(1 << 30), crashed=print)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def flood(
    sock: socket.socket, tls: SSL.Connection | None, send: Callable[[bytes], object]
) -> AsyncIterator[Flooded]:
    def refill() -> None:
        with contextlib.suppress(BlockingIOError, SSL.WantWriteError):
            for _ in range(64):
                send(BULK)

    receiver = Flooded(refill)
    transport = make(asyncio.get_running_loop(), sock, tls)
    refill()
    transport.start(receiver)
    yield receiver
    transport.close()


async def _shares(
    sock: socket.socket, tls: SSL.Connection | None, send: Callable[[bytes], object]
) -> list[int]:
    """Give the bytes that the fast peer got in each turn, while another peer sends one byte per turn."""
    quiet_here, quiet_there = socket.socketpair()
    quiet_here.setblocking(False)
    other = Flooded(lambda: None)
    other_transport = make(asyncio.get_running_loop(), quiet_here, None)
    other_transport.start(other)
    with quiet_there:
        async with flood(sock, tls, send) as receiver:
            for _ in range(TURNS):
                quiet_there.send(b"?")
                await asyncio.sleep(0)
                receiver.turn_over()
                other.turn_over()
            await asyncio.sleep(0)
            other.turn_over()
        other_transport.close()
    assert sum(other.per_turn) == TURNS
    assert max(other.per_turn) <= 3, "the other one is served turn by turn"
    return receiver.per_turn


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_plain_peer_at_line_rate_gets_its_share_of_each_turn(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """House §1: up to eight reads in a row, then the loop goes round."""
    here, there = socket.socketpair()
    for each in (here, there):
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    with there, asyncio.Runner(loop_factory=loop_factory) as runner:
        shares = runner.run(_shares(here, None, there.send))

    assert max(shares) <= SHARE
    assert sum(1 for share in shares if share) > TURNS // 2, "it was fast indeed"


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_tls_peer_at_line_rate_gets_its_share_of_each_turn(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, authority: Authority
) -> None:
    """TLS may hold bytes that select cannot see: they are asked for from the loop, not in a row."""
    web = store(tmp_path, authority.issue(spiffe="spiffe://example.org/web"), authority.pem)
    with shaking(web.server("inbound", ("http/1.1",)), web.client(Service())) as both:
        here = socket.socket(fileno=os.dup(both.server_connection.fileno()))
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            shares = runner.run(_shares(here, both.server_connection, both.client_connection.send))

    assert max(shares) <= SHARE
    assert sum(1 for share in shares if share) > TURNS // 2


def test_a_peer_that_pipelines_without_end_does_not_keep_out_another(outbound: Side) -> None:
    """One exchange per turn of the loop: the other has its hundred answers while thousands are still asked for."""
    refused = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
    fast, other = outbound.connect(), outbound.connect()
    fast.sock.setblocking(False)
    asked = answers = 0
    for _ in range(100):
        other.send(refused)
        with contextlib.suppress(BlockingIOError):
            while asked - answers * len(refused) < 2000 * len(refused):
                asked += fast.sock.send(refused * 100)
        with contextlib.suppress(BlockingIOError):
            while True:
                answers += fast.sock.recv(65536).count(b"HTTP/1.1 404 ")
        assert other.read_message().startswith(b"HTTP/1.1 404 ")

    assert answers >= 10, "the fast one was served as well"
