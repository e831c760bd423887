"""A connection of either side between recorders: a transport without socket, a loop without time of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ambassador.http.http1.client import ClientConnection
from ambassador.http.http1.limits import ServerLimits
from ambassador.http.http1.server import ServerConnection
from ambassador.policy.headers import classify
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.clock import FakeClock
from tests.support.streams import RecordingReceiver


class Timer:
    """A timer that the test lets fire by moving time."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time, timers and what is called soon; nothing happens but by `advance` and `turn`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.time = self.clock.monotonic
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.timers: list[Timer] = []

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(at, callback)
        self.timers.append(timer)
        return timer

    def turn(self) -> None:
        """Call what is to be called soon, once round."""
        soon, self.soon = self.soon, []
        for callback, args in soon:
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Move time on; timers that are due on the way fire in order, each at its moment."""
        end = self.time() + seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.at <= end]:
            timer = min(due, key=lambda each: each.at)
            self.timers.remove(timer)
            self.clock.advance(max(0.0, timer.at - self.time()))
            timer.callback()
        self.clock.advance(max(0.0, end - self.time()))
        self.timers = [timer for timer in self.timers if not timer.cancelled]


class Transport:
    """Takes everything, unless the test says otherwise; `sent` is what went out, `ends` how it was ended."""

    def __init__(self, *, tls: bool = False) -> None:
        self.sent = b""
        self.ends: list[str] = []
        self.tls = object() if tls else None
        self.closed = self.greedy = self.stalled = self.starved = self.truncates = False
        self.reading = False
        self.quiet = self.acknowledged = True
        self.waiting = self.progress = 0
        self.crashes: list[BaseException] = []
        self.receiver: Any = None

    def start(self, receiver: Any) -> None:
        self.receiver = receiver
        self.reading = True

    def write(self, data: bytes) -> bool:
        self.sent += data
        return not self.starved

    def shutdown_write(self) -> None:
        self.ends.append("shutdown")

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_acknowledged(self) -> bool:
        return self.acknowledged

    def taken(self) -> int:
        return self.progress

    def is_quiet(self) -> bool:
        return self.quiet and not self.closed

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def crash(self, error: BaseException) -> None:
        self.crashes.append(error)
        self.abort()

    def break_(self, error: BaseException | None) -> None:
        """Let the socket be gone."""
        if not self.closed:
            self.closed = True
            self.receiver.transport_closed(error)

    def stall(self) -> None:
        """The peer takes nothing more."""
        self.stalled = self.starved = True
        self.waiting = 100_000

    def drain(self) -> None:
        """The peer has taken what waited."""
        self.progress += self.waiting
        self.stalled = self.starved = False
        self.waiting = 0
        self.receiver.writable()

    def take(self) -> bytes:
        """Give what went out since the last time."""
        sent, self.sent = self.sent, b""
        return sent

    def _end(self, how: str) -> None:
        if not self.closed:
            self.ends.append(how)
            self.break_(None)


class Server:
    """A `ServerConnection` whose exchanges are recorders."""

    def __init__(self, *, tls: bool = False, **limits: Any) -> None:
        self.loop = Loop()
        self.transport = Transport(tls=tls)
        self.exchanges: list[RecordingReceiver] = []
        self.closed = 0
        loop: Any = self.loop
        transport: Any = self.transport
        owner: Any = self
        self.connection = ServerConnection(
            loop,
            transport,
            owner,
            cache=LineCache(classify),
            limits=ServerLimits(
                head=HeadLimits(max_head=1024, max_fields=10, max_uri=256), **limits
            ),
        )
        self.connection.start()

    def new_exchange(self, stream: ServerConnection) -> RecordingReceiver:
        self.exchanges.append(RecordingReceiver())
        return self.exchanges[-1]

    def connection_closed(self, connection: ServerConnection) -> None:
        self.closed += 1

    @property
    def exchange(self) -> RecordingReceiver:
        """The newest exchange."""
        return self.exchanges[-1]

    def receive(self, data: bytes) -> None:
        """Let bytes come, as a burst of their own."""
        self.connection.data_received(data)
        self.connection.read_finished()


class Client:
    """A `ClientConnection` whose exchange and pool are recorders."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.transport = Transport()
        self.receiver = Responses()
        self.pool_calls: list[str] = []
        loop: Any = self.loop
        transport: Any = self.transport
        pool: Any = self
        self.connection = ClientConnection(
            loop,
            transport,
            pool,
            cache=LineCache(classify),
            limits=HeadLimits(max_head=1024, max_fields=10, max_uri=256),
            peer_text=None,
        )
        self.connection.start()

    def connection_free(self, connection: ClientConnection) -> None:
        self.pool_calls.append("free")

    def connection_closed(self, connection: ClientConnection) -> None:
        self.pool_calls.append("closed")

    def receive(self, data: bytes) -> None:
        """Let bytes come, as a burst of their own."""
        self.connection.data_received(data)
        self.connection.read_finished()


class Responses:
    """Stands where an exchange would, for the events of upstream."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def response_head(self, head: Any, end: bool) -> None:
        self.events.append(("head", head.status, end))

    def response_whole(self, head: Any, body: bytes) -> None:
        """Note what it stands for."""
        self.events += [("head", head.status, False), ("body", body, True)]

    def response_interim(self, head: Any) -> None:
        self.events.append(("interim", head.status))

    def response_body(self, chunk: bytes, end: bool) -> None:
        self.events.append(("body", bytes(chunk), end))

    def response_trailers(self, fields: Any) -> None:
        self.events.append(("trailers", [(each.name, each.value) for each in fields]))

    def attempt_failed(self, error: Any) -> None:
        self.events.append(("failed", error.flag.value, error.detail))

    def response_burst_over(self) -> None: ...

    def upstream_writable(self) -> None:
        self.events.append(("writable",))
