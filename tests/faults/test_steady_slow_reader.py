"""A reader that is slow but never rests is no reader that takes nothing (config.md §3, `write_timeout`).

The socket is real and the time is not: nobody calls the transport, for the kernel never says that it has room.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ambassador.http.write_watch import WriteWatch
from ambassador.net.transport import Budget, Transport
from tests.support.waiting import eventually
from tests.unit.http.make import Loop

MIB = 1024 * 1024
TIMEOUT_S = 30.0


class _Watched:
    """A transport that is stuck, its reader, and whether the watch gave up."""

    def __init__(self, ours: socket.socket, reader: socket.socket) -> None:
        self.loop: Any = Loop()
        self.loop.add_writer = self.loop.remove_writer = lambda *_: None
        self.reader = reader
        self.transport = Transport(
            self.loop, ours, tls=None, io=None, budget=Budget(64 * MIB), crashed=print
        )
        self.given_up: list[float] = []
        self.transport.write(bytes(32 * MIB))
        self.watch = WriteWatch(
            self.loop,
            self.transport,
            TIMEOUT_S,
            lambda: self.given_up.append(self.loop.time()),
        )
        self.watch.begin()

    def read_until_it_arrives(self) -> None:
        """Read until the kernels have agreed that there is room for more."""
        before = self.transport.taken()

        def has_grown() -> bool:
            self.reader.recv(64 * 1024)
            return self.transport.taken() > before

        eventually(has_grown, "an acknowledgement")


@pytest.fixture
def watched() -> Iterator[_Watched]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        reader = socket.create_connection(door.getsockname(), timeout=10)
        ours, _ = door.accept()
    ours.setblocking(False)
    with ours, reader:
        yield _Watched(ours, reader)


def test_what_arrives_counts_not_what_the_kernel_asks_for(watched: _Watched) -> None:
    """The kernel has room only when a third of its buffer is free: megabytes, minutes at 20 KB/s."""
    for _ in range(4):
        watched.loop.advance(0.8 * TIMEOUT_S)
        watched.read_until_it_arrives()

    assert watched.transport.progress == 0
    assert watched.given_up == []


def test_a_reader_that_rests_is_given_up(watched: _Watched) -> None:
    watched.loop.advance(10 * TIMEOUT_S)

    assert len(watched.given_up) == 1
