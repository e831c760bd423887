"""An exchange between two recorders: no loop, no socket, a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from random import Random
from typing import Any

from ambassador.config.model import RouteSettings, ServiceConfig
from ambassador.core.errors import ExchangeError
from ambassador.core.model import Address, Endpoint, RequestHead, ResponseHead
from ambassador.core.record import ExchangeRecord
from ambassador.net.transport import Budget
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.proxy.exchange import Exchange
from ambassador.proxy.snapshot import Route, Target
from ambassador.proxy.surroundings import Surroundings
from ambassador.telemetry.metrics import RequestStats, RetryStats
from ambassador.upstream.endpoint import EndpointState
from ambassador.upstream.pool import Dial, Environment
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.clock import FakeClock
from tests.support.nobody import Nobody
from tests.support.streams import RecordingStream


class Loop:
    """What is asked of a loop here: the time, and timers that fire when the test says `run`."""

    def __init__(self, clock: FakeClock) -> None:
        self.time = clock.monotonic
        self.timers: list[Timer] = []

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(self.time() + delay, callback, args)
        self.timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[..., None], *args: Any) -> Timer:
        return self.call_later(0.0, callback, *args)

    def run(self) -> None:
        """Call what is due, in its order."""
        while due := sorted((x for x in self.timers if x.at <= self.time()), key=lambda x: x.at):
            self.timers.remove(due[0])
            due[0].callback(*due[0].args)


class Timer:
    """What `call_later` gives; a cancelled one does nothing."""

    def __init__(self, at: float, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.at = at
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = lambda *_: None


class Pool:
    """Stands where an endpoint's pool would: the test says what is idle, and what becomes of a dial."""

    def __init__(self) -> None:
        self.idle: list[RecordingStream] = []
        self.checked: list[bool] = []
        self.dials: list[tuple[Any, Dial]] = []
        self.raw_dials: list[tuple[Any, Dial]] = []

    def take(self, *, checked: bool) -> RecordingStream | None:
        self.checked.append(checked)
        return self.idle.pop() if self.idle else None

    def evict(self) -> bool:
        return bool(self.idle) and self.idle.pop() is not None

    def dial(self, waiter: Any) -> Dial:
        dial = Dial(waiter)
        self.dials.append((waiter, dial))
        return dial

    def dial_raw(self, waiter: Any) -> Dial:
        dial = Dial(waiter)
        self.raw_dials.append((waiter, dial))
        return dial


class Door:
    """Lets everything in, unless the test has a refusal."""

    def __init__(self, surroundings: Surroundings, route: Route | None, *, remote: bool) -> None:
        self.surroundings = surroundings
        self.route = route
        self.refusal: BaseException | None = None
        self.is_remote = remote
        self.peer = None
        self.response_extra = b"Via: 1.1 us\r\n"
        self.record = ExchangeRecord(direction="outbound", listener="main", protocol="HTTP/1.1")
        self.ended: list[Exchange] = []
        self.exchange_ended = self.ended.append

    def enter(self, exchange: Exchange, head: RequestHead) -> Route:
        if self.refusal is not None:
            raise self.refusal
        exchange.extra = b"X-Request-Id: 1\r\n"
        assert self.route is not None
        return self.route


class Scene:
    """One exchange with what surrounds it.

    `endpoints` is the number of endpoints; `warm`: the first of them has `upstream` as an idle connection.
    """

    def __init__(
        self,
        *,
        settings: RouteSettings | None = None,
        endpoints: int = 1,
        warm: bool = True,
        remote: bool = False,
        breaker: CircuitBreakerSettings | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.crashes: list[BaseException] = []
        self.budget = Budget(1024)
        self.loop = Loop(self.clock)
        loop: Any = self.loop
        self.surroundings = Surroundings(
            loop,
            clock=self.clock,
            chance=Random(1),
            crashed=self.crashes.append,
            budget=self.budget,
        )
        addresses = [Endpoint(Address("10.0.0.7", 8443 + at)) for at in range(endpoints)]
        config = ServiceConfig(
            "payments",
            tuple(addresses),
            balance=BalanceSettings(kind="round_robin"),
            circuit_breaker=breaker or CircuitBreakerSettings(),
        )
        self.service = Service(config, environment(loop), tls=None, random=Random(1))
        self.pools = [Pool() for _ in addresses]
        for state, pool in zip(self.service.endpoints, self.pools, strict=True):
            state.pool = pool  # type: ignore[assignment]
        self.settings = settings or RouteSettings()
        stats: Any = RequestStats  # counted by the ledger, which is not here
        self.target = Target(self.service, self.settings, stats, retries=RetryStats())
        self.route = Route("pay", [(self.target, 1)], self.settings)
        self.door = Door(self.surroundings, self.route, remote=remote)
        self.downstream = RecordingStream()
        self.upstream = RecordingStream()
        self.upstream.peer_text = ("spiffe://example.org/payments", "TLSv1.3", "X25519")
        if warm:
            self.pools[0].idle.append(self.upstream)
        door: Any = self.door
        self.exchange = Exchange(door, self.downstream)

    def beside(self) -> Scene:
        """Give one more exchange at the same service."""
        other = copy(self)
        other.downstream = RecordingStream()
        door: Any = self.door
        other.exchange = Exchange(door, other.downstream)
        return other

    @property
    def state(self) -> tuple[Any, Any]:
        """Both sides."""
        return self.exchange.request_side, self.exchange.response_side

    @property
    def endpoint(self) -> EndpointState:
        """The first endpoint."""
        return self.service.endpoints[0]

    def send(self, method: bytes = b"GET", *, end: bool = True, length: int | None = None) -> None:
        """Let a request come, without its body."""
        self.exchange.head_received(
            RequestHead(method, b"http", b"payments", b"/", [], 0 if end else length), end
        )

    def connect(self, at: int = 0) -> RecordingStream:
        """Let the last dial at an endpoint succeed, with `upstream`."""
        waiter, dial = self.pools[at].dials[-1]
        if dial.waiter is not None:
            waiter.connection_ready(self.upstream)
        return self.upstream

    def fail_to_connect(self, error: ExchangeError, at: int = 0) -> None:
        """Let the last dial at an endpoint fail."""
        self.pools[at].dials[-1][0].connection_failed(error)

    def take(self) -> tuple[list[Any], list[Any]]:
        """Give the calls downstream and upstream since the last time."""
        return self.downstream.take(), self.upstream.take()


def environment(loop: Any) -> Environment:
    """Give what pools share; nothing of it is used while pools are fakes."""
    nothing: Any = None
    return Environment(
        loop,
        tasks=nothing,
        cache=LineCache(lambda _: 0),
        limits=HeadLimits(),
        events=Nobody(),
        wall=lambda: 0.0,
        forbidden=lambda _: False,
        budget=Budget(1024),
    )


def answer(status: int = 200, *, length: int | None = None) -> ResponseHead:
    """Give a response head."""
    return ResponseHead(status, b"OK", [], length)
