"""A reader that is slow but never rests is no reader that takes nothing (config.md §3, `write_timeout`)."""

from __future__ import annotations

import asyncio
import socket

from ambassador.http.write_watch import WriteWatch
from ambassador.net.transport import Budget, Transport

MIB = 1024 * 1024
TIMEOUT_S = 0.3


class _Receiver:
    def data_received(self, data: bytes) -> None: ...

    def read_finished(self) -> None: ...

    def eof_received(self) -> None: ...

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None: ...


async def _gave_up_while(reading: int) -> bool:
    """Fill a connection to a reader that takes `reading` bytes each 30 ms; say whether the watch gave up."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as door:
        reader = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    transport = Transport(loop, ours, tls=None, io=None, budget=Budget(64 * MIB), crashed=print)
    transport.start(_Receiver())
    gave_up = asyncio.Event()
    watch = WriteWatch(loop, transport, TIMEOUT_S, gave_up.set)
    with reader:
        transport.write(bytes(16 * MIB))
        watch.begin()
        mark = transport.progress
        for _ in range(30):
            await asyncio.sleep(0.03)
            if reading:
                reader.recv(reading)
        assert transport.progress == mark, (
            "the kernel's buffer has not asked for more: that is the case"
        )
        watch.end()
        transport.abort()
    return gave_up.is_set()


def test_what_arrives_counts_not_what_the_kernel_asks_for() -> None:
    """The kernel has room only when a third of its buffer is free: megabytes, minutes at 20 KB/s."""
    assert not asyncio.run(_gave_up_while(reading=64 * 1024))


def test_a_reader_that_rests_is_given_up() -> None:
    assert asyncio.run(_gave_up_while(reading=0))
