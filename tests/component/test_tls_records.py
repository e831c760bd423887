"""Several records in one call, and what lies behind them (RFC 8446 §5.1, §6.1)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop
from OpenSSL import SSL
from OpenSSL._util import lib

from ambassador.identity import records
from ambassador.identity.records import io_of
from ambassador.identity.tls import ClientTls, ServerTls
from ambassador.net.transport import Budget, Transport
from tests.support.certificates import Authority
from tests.support.handshakes import Service, store
from tests.support.waiting import eventually

RECORD = 16384
BURST = 8 * RECORD
BULK = os.urandom(6 * RECORD + 7)  # a fresh connection has room for it


class Pair:
    """Two ends of a TLS connection over TCP; `ours` is ready to be driven, `theirs` sends in blocking calls."""

    def __init__(self, server: ServerTls, client: ClientTls) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.their_socket = socket.create_connection(listening.getsockname())
            self.our_socket, _ = listening.accept()
        self.their_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.our_socket.setblocking(False)
        self.their_socket.setblocking(False)
        self.ours = server.new_connection(self.our_socket)
        self.theirs = client.new_connection(self.their_socket, "endpoint")
        progress = {self.ours: server, self.theirs: client}

        def is_done() -> bool:
            for connection in list(progress):
                try:
                    connection.do_handshake()
                except SSL.WantReadError:
                    continue
                del progress[connection]
            return not progress

        eventually(is_done, "the handshake")
        server.peer(self.ours, time.time())
        self.their_socket.settimeout(5)
        self.recv, self.send, self.explain = io_of(self.ours, lambda error: Exception(str(error)))

    def send_records(self, data: bytes) -> None:
        """Send all of `data` from the other side."""
        while data:
            try:
                data = data[self.theirs.send(data) :]
            except SSL.WantWriteError:
                time.sleep(0)

    def arrived(self, count: int) -> None:
        """Wait until at least so many bytes lie in our socket."""
        peek = socket.MSG_PEEK
        eventually(lambda: len(self.our_socket.recv(1 << 20, peek)) >= count, f"{count} bytes")

    def reset(self) -> None:
        """End the other side with a reset."""
        self.their_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.their_socket.close()


@contextmanager
def paired(tmp_path: Path, authority: Authority) -> Iterator[Pair]:
    web = store(tmp_path, authority.issue(spiffe="spiffe://example.org/web"), authority.pem)
    pair = Pair(web.server("inbound", ("http/1.1",)), web.client(Service()))
    try:
        yield pair
    finally:
        pair.our_socket.close()
        pair.their_socket.close()


@pytest.fixture
def pair(tmp_path: Path, authority: Authority) -> Iterator[Pair]:
    with paired(tmp_path, authority) as made:
        yield made


def test_one_call_gives_several_records_and_no_more_than_asked_for(pair: Pair) -> None:
    pair.send_records(BULK)
    pair.arrived(len(BULK))

    first, second, rest = pair.recv(4 * RECORD), pair.recv(RECORD), pair.recv(BURST)

    assert [len(first), len(second)] == [4 * RECORD, RECORD]
    assert first + second + rest == BULK
    with pytest.raises(SSL.WantReadError):
        pair.recv(BURST)


def test_small_records_are_no_more_than_eight_a_call(pair: Pair) -> None:
    """A peer of tiny records does not keep the loop (threats E2)."""
    for _ in range(20):
        pair.send_records(b"x")
    pair.arrived(20 * (1 + _AROUND))

    assert [len(pair.recv(BURST)) for _ in range(3)] == [8, 8, 4]


def test_the_end_behind_a_record_is_that_of_the_next_call_and_ours_goes_on(pair: Pair) -> None:
    """RFC 8446 §6.1: close_notify ends one direction."""
    pair.send_records(b"x" * (RECORD + 1))
    pair.theirs.shutdown()
    pair.arrived(RECORD + 1 + 2 * _AROUND + _ALERT)

    data = pair.recv(BURST)

    assert len(data) == RECORD + 1
    assert pair.send(b"an answer") == 9
    with pytest.raises(SSL.ZeroReturnError):
        pair.recv(BURST)


def test_a_reset_behind_a_record_is_that_of_the_next_call_and_of_no_other_connection(
    pair: Pair, tmp_path: Path, authority: Authority
) -> None:
    """The kernel tells of a reset once, and OpenSSL's queue of errors belongs to the thread."""
    with paired(tmp_path / "other", authority) as other:
        pair.send_records(b"x" * (RECORD + 1))
        pair.arrived(RECORD + 1)
        pair.reset()
        eventually(lambda: _state(pair.our_socket) == _TCP_CLOSE, "the reset")

        assert len(pair.recv(BURST)) == RECORD + 1
        assert lib.ERR_peek_error() == 0
        with pytest.raises(SSL.WantReadError):
            other.recv(BURST)
        with pytest.raises(SSL.SysCallError) as caught:
            pair.recv(BURST)
    assert caught.value.args[1] == "ECONNRESET"


def test_a_send_takes_what_has_room_and_goes_on_with_the_same_bytes(pair: Pair) -> None:
    data = os.urandom(16 << 20)
    left = memoryview(data)
    received = bytearray()
    while left:
        try:
            left = left[pair.send(left) :]
        except SSL.WantWriteError:
            while len(received) < len(data) - len(left) - (1 << 16):
                received += pair.theirs.recv(RECORD)
    while len(received) < len(data):
        received += pair.theirs.recv(RECORD)

    assert received == data


def test_a_reset_behind_a_sent_record_is_raised_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then can the transport look for the alert that the peer sent before (RFC 8446 §4.6.2)."""
    write = records._ssl_write

    def resetting(*arguments: object) -> int:
        count: int = write(*arguments)
        if pair.their_socket.fileno() >= 0:
            pair.reset()
            eventually(lambda: _state(pair.our_socket) == _TCP_CLOSE, "the reset")
        return count

    monkeypatch.setattr(records, "_ssl_write", resetting)

    with pytest.raises(SSL.SysCallError):
        pair.send(bytes(4 * RECORD))
    assert lib.ERR_peek_error() == 0


class Pausing:
    """A receiver that pauses with every piece, and notes the end."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.received = bytearray()
        self.ends: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.greedy = True
        self.transport.pause_reading()

    def read_finished(self) -> None: ...

    def eof_received(self) -> None:
        self.ends.append("eof")

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None:
        self.ends.append(error)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("how", ["reset", "close_notify"])
def test_who_paused_in_a_burst_hears_of_the_end_behind_it(
    pair: Pair, how: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The end was read with the burst: no readiness tells of it any more."""

    async def run() -> Pausing:
        transport = Transport(
            asyncio.get_running_loop(),
            pair.our_socket,
            tls=pair.ours,
            io=(pair.recv, pair.send, pair.explain),
            budget=Budget(1 << 20),
            crashed=print,
        )
        transport._asks = BURST
        receiver = Pausing(transport)
        transport.start(receiver)
        async with asyncio.timeout(10):
            while not receiver.ends:
                await asyncio.sleep(0)
                transport.resume_reading()
        transport.abort()
        return receiver

    pair.send_records(b"x" * (RECORD + 1))
    pair.arrived(RECORD + 1)
    if how == "reset":
        pair.reset()
    else:
        pair.theirs.shutdown()
        pair.arrived(RECORD + 1 + 2 * _AROUND + _ALERT)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        receiver = runner.run(run())

    assert len(receiver.received) == RECORD + 1
    assert str(receiver.ends[0]) == {"reset": "(104, 'ECONNRESET')", "close_notify": "eof"}[how]


_AROUND = 22  # header, content type and tag of a record (RFC 8446 §5.2)
_ALERT = 2 + _AROUND
_TCP_CLOSE = 7  # linux/tcp_states.h


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
