"""Many requests at a steady rate through a real sidecar, at endpoints that can be killed, hung and started again.

An open loop: a request begins when it is due, however slow the ones before it are. Bounded in count and time; all of
it lies on 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close is a reset
PATIENCE_S = 20.0


class StormEndpoint:
    """An HTTP/1.1 server that answers, answers 503, or says nothing.

    `arrived` counts requests; `kill` resets every connection and closes the port, `start` opens the same one.
    """

    def __init__(self, *, status: int = 200, delay_s: float = 0.0) -> None:
        self.status = status
        self.delay_s = delay_s
        self.is_silent = False
        self.arrived = self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, on the port that it had before."""
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, reuse_address=True, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Go as a killed process does."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.arrived += 1
                if self.is_silent:
                    await asyncio.sleep(PATIENCE_S)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % self.status)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was due, what came (0: nothing whole), how long it took. Units: seconds."""

    due_s: float
    status: int
    took_s: float
    detail: str


async def ask(port: int, request: bytes) -> tuple[int, str]:
    """Send one request on a connection of its own; give status and detail."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, "no connection"
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            raw = await reader.read()
    except (OSError, TimeoutError):
        return 0, "cut"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, mark, _ = raw.partition(b"\r\n\r\n")
    if not mark:
        return 0, "no head"
    found = [x for x in head.split(b"\r\n") if x.lower().startswith(b"x-ambassador-detail")]
    return int(head[9:12]), found[0].decode() if found else ""


async def storm(
    port: int,
    *,
    rate: int,
    seconds: float,
    events: dict[float, Callable[[], Awaitable[None]]] | None = None,
    method: str = "GET",
) -> list[Outcome]:
    """Send `rate` requests a second, let `events` happen at their moments, and give what became of each."""
    request = f"{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    begun = time.monotonic()
    waiting = dict(sorted((events or {}).items()))

    async def one(due: float) -> Outcome:
        status, detail = await ask(port, request)
        return Outcome(due, status, time.monotonic() - begun - due, detail)

    tasks = []
    for number in range(round(rate * seconds)):
        due = number / rate
        pause = begun + due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        for at in [at for at in waiting if at <= due]:
            await waiting.pop(at)()
        tasks.append(asyncio.get_running_loop().create_task(one(due)))
    return list(await asyncio.gather(*tasks))
