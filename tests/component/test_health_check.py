"""Active checks of a service's endpoints: over pools that the test scripts, and over real sockets; virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ambassador.config.model import PoolConfig, ServiceConfig
from ambassador.core.errors import (
    ConnectFailed,
    ExchangeError,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamReset,
)
from ambassador.core.model import Address, Endpoint, ResponseHead
from ambassador.net.tasks import TaskGroup
from ambassador.net.transport import Budget
from ambassador.policy.authorization import PeerPattern
from ambassador.policy.headers import classify
from ambassador.policy.health import FIRST_SPREAD_S, HealthCheckSettings
from ambassador.upstream.endpoint import EndpointState
from ambassador.upstream.health_check import FIRST_CHECKS_PER_S, HealthChecker
from ambassador.upstream.pool import Environment
from ambassador.upstream.probe import MAX_BODY, Probe
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache
from tests.support import handshakes
from tests.support.certificates import Authority, server_context
from tests.support.nobody import Nobody
from tests.support.streams import RecordingStream
from tests.support.virtual_time import settle, virtual_time

#: What a connection does with a request: calls the events of a response.
Answer = Callable[[Any], None]
SETTINGS: dict[str, Any] = {"jitter": 0.0, "path": "/healthz", "rise": 2, "fall": 3}


def status(number: int) -> Answer:
    """Answer with an empty response."""
    return lambda events: events.response_head(ResponseHead(number, b"", [], 0), True)


def failure(error: ExchangeError) -> Answer:
    """End without an answer."""
    return lambda events: events.attempt_failed(error)


def silence(_: Any) -> None:
    """Never answer."""


async def until(condition: Callable[[], Any]) -> None:
    """Let virtual time go on until `condition` holds."""
    async with asyncio.timeout(3600):
        while True:
            if condition():
                return
            await asyncio.sleep(0.05)


class Connection(RecordingStream):
    """A connection that answers as its pool is told."""

    def __init__(self, pool: FakePool) -> None:
        super().__init__()
        self.pool = pool

    def send_head(self, events: Any, head: Any, extra: bytes, end: bool) -> None:
        super().send_head(events, head, extra, end)
        loop = asyncio.get_running_loop()
        self.pool.asked_at.append(loop.time())
        loop.call_soon(self.pool.answer, events)

    def close(self) -> None:
        self._note("close")


class FakePool:
    """A pool whose dials end as the test says: `refusal`, or by hand when it is `slow`."""

    def __init__(self) -> None:
        self.answer: Answer = status(200)
        self.refusal: ExchangeError | None = None
        self.slow = False
        self.idle: list[Connection] = []
        self.made: list[Connection] = []
        self.freed: list[Any] = []
        self.asked_at: list[float] = []
        self.pending: list[Any] = []
        self.dials = 0

    def take(self, *, checked: bool) -> Connection | None:
        assert checked, (
            "a check must not take the death of an idle connection for that of the endpoint"
        )
        return self.idle.pop() if self.idle else None

    def dial(self, waiter: Any) -> None:
        self.dials += 1
        self.pending.append(waiter)
        if not self.slow:
            asyncio.get_running_loop().call_soon(self.end_dial)

    def end_dial(self) -> None:
        waiter = self.pending.pop(0)
        if self.refusal is not None:
            waiter.connection_failed(self.refusal)
            return
        self.made.append(Connection(self))
        waiter.connection_ready(self.made[-1])

    def connection_free(self, connection: Any) -> None:
        self.freed.append(connection)


class Events:
    """What a checker reports; `bugs` are raised first."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.changes: list[tuple[str, bool, str]] = []
        self.bugs: list[Exception] = []

    def health_changed(self, state: EndpointState, healthy: bool, reason: str) -> None:
        self.changes.append((state.address_text, healthy, reason))

    def health_checked(self, service: str, result: str) -> None:
        assert service == "payments"
        if self.bugs:
            raise self.bugs.pop()
        self.results.append(result)


class Place:
    """A checker; `crashes` are what `net.tasks` heard."""

    def __init__(self, **settings: Any) -> None:
        self.settings = HealthCheckSettings(**{**SETTINGS, **settings})
        self.events = Events()
        self.crashes: list[str] = []
        self.tasks = TaskGroup(lambda name, _: self.crashes.append(name))
        self.has_traffic = True
        self.checker = HealthChecker(
            "payments",
            self.settings,
            tasks=self.tasks,
            chance=random.Random(1),
            loop=asyncio.get_running_loop(),
            events=self.events,
            has_traffic=lambda _: self.has_traffic,
        )

    async def results(self, number: int) -> None:
        """Wait until so many checks have ended."""
        await until(lambda: len(self.events.results) >= number)


@contextlib.asynccontextmanager
async def place(**settings: Any) -> AsyncIterator[Place]:
    made = Place(**settings)
    try:
        yield made
    finally:
        made.checker.close()
        await settle()
        assert len(made.tasks) == 0


def endpoint(number: int = 1) -> tuple[EndpointState, Any]:
    """Give an endpoint and its scripted pool."""
    pool: Any = FakePool()
    address = Address(f"10.0.{number // 250}.{number % 250}", 8443)
    service: Any = Nobody()
    return EndpointState(Endpoint(address), pool, service), pool


# ---- results ------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_check_is_a_get_over_the_endpoint_s_own_pool() -> None:
    """config.md §3: `host` is the service's name by default."""
    async with place() as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(1)

        (connection,) = pool.made
        head = connection.head
        assert (head.method, head.authority, head.path) == (b"GET", b"payments", b"/healthz")
        assert connection.extra == b"User-Agent: ambassador\r\n"
        assert connection.names == ["write_head", "release"]
        assert (here.events.results, here.events.changes) == (["ok"], [])
        assert state.outstanding == 0, "it counts in no circuit breaker"


@virtual_time
async def test_another_host_is_sent_when_it_is_set() -> None:
    async with place(host="health.internal") as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(1)

        assert pool.made[0].head.authority == b"health.internal"


@virtual_time
async def test_an_endpoint_falls_and_rises_by_its_checks() -> None:
    async with place() as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(1)
        pool.answer = status(503)
        await here.results(3)
        assert state.health.is_healthy
        await here.results(4)
        assert not state.health.is_healthy
        pool.answer = status(200)
        await here.results(6)

        name = state.address_text
        assert here.events.changes == [(name, False, "status_503"), (name, True, "")]
        assert here.events.results == ["ok", *["failed"] * 3, "ok", "ok"]


@virtual_time
async def test_the_next_check_follows_the_state_and_the_traffic() -> None:
    """interval 5 s, no_traffic_interval 60 s, unhealthy_interval 1 s."""
    async with place(fall=1) as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(2)
        here.has_traffic = False
        await here.results(4)
        pool.answer = status(500)
        await here.results(6)

        at = pool.asked_at
        pauses = [round(after - before, 3) for before, after in pairwise(at)]
        assert pauses == [5.0, 5.0, 60.0, 60.0, 1.0]


@pytest.mark.parametrize(
    ("number", "result"), [(200, "ok"), (204, "ok"), (300, "failed"), (429, "failed")]
)
def test_only_expected_statuses_are_successes(number: int, result: str) -> None:
    @virtual_time
    async def scenario() -> None:
        async with place(expect=((200, 200), (202, 299))) as here:
            state, pool = endpoint()
            pool.answer = status(number)
            here.checker.watch([state])
            await here.results(1)

            assert here.events.results == [result]
            assert state.health.reason == ("" if result == "ok" else f"status_{number}")

    scenario()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectFailed("connect_refused"), "connect_refused"),
        (ConnectFailed("wrong_peer"), "wrong_peer"),
    ],
)
def test_a_failed_dial_is_a_failure_with_the_error_s_word(
    error: ExchangeError, reason: str
) -> None:
    @virtual_time
    async def scenario() -> None:
        async with place() as here:
            state, pool = endpoint()
            pool.refusal = error
            here.checker.watch([state])
            await here.results(1)

            assert here.events.changes == [(state.address_text, False, reason)]

    scenario()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamClosed("closed_before_response"), "closed"),
        (UpstreamReset("reset_before_response"), "reset_before_response"),
        (UpstreamProtocolError("bad_status_line"), "bad_status_line"),
    ],
)
def test_a_response_that_does_not_come_is_a_failure(error: ExchangeError, reason: str) -> None:
    @virtual_time
    async def scenario() -> None:
        async with place() as here:
            state, pool = endpoint()
            pool.answer = failure(error)
            here.checker.watch([state])
            await here.results(1)

            assert state.health.reason == reason
            assert pool.dials == 1, "a fresh connection's failure is not repeated"

    scenario()


# ---- time ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_check_that_takes_too_long_is_a_failure_and_its_connection_is_given_up() -> None:
    """`timeout` is that of the whole check."""
    async with place(timeout_s=2.0, fall=1) as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(1)
        pool.answer = silence
        await here.results(2)
        ended_after = asyncio.get_running_loop().time() - pool.asked_at[-1]

        assert state.health.reason == "timeout"
        assert ended_after == pytest.approx(2.0, abs=0.06)
        assert pool.made[-1].names == ["write_head", "abandon"]


@virtual_time
async def test_a_dial_that_outlives_its_check_is_not_joined_by_a_second_one() -> None:
    """No more than one check in flight per endpoint: dials of a dead host must not pile up."""
    async with place() as here:
        state, pool = endpoint()
        pool.slow = True
        here.checker.watch([state])
        await here.results(3)
        assert (state.health.reason, pool.dials) == ("timeout", 1)
        await asyncio.sleep(1.2)  # the next check waits

        pool.end_dial()
        await here.results(4)

        assert here.events.results[3:] == ["ok"]
        assert pool.dials == 1


@virtual_time
async def test_a_connection_that_comes_when_its_check_is_over_is_kept_for_others() -> None:
    async with place() as here:
        state, pool = endpoint()
        pool.slow = True
        here.checker.watch([state])
        await here.results(1)

        pool.end_dial()

        assert pool.freed == pool.made
        assert pool.made[0].names == []


@pytest.mark.parametrize("refused", [False, True])
def test_a_late_dial_does_not_disturb_the_check_that_took_another_connection(refused: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        async with place(fall=1) as here:
            state, pool = endpoint()
            pool.slow = True
            here.checker.watch([state])
            await here.results(1)
            pool.idle.append(Connection(pool))
            pool.answer = silence
            await until(lambda: pool.asked_at)

            if refused:
                pool.refusal = ConnectFailed("connect_timeout")
            pool.end_dial()
            await settle()

            assert len(here.events.results) == 1
            assert pool.freed == pool.made
            await here.results(2)
            assert state.health.reason == "timeout"

    scenario()


# ---- answers ------------------------------------------------------------------------------------------------------


def long(events: Any) -> None:
    """Answer with a body that does not end."""
    events.response_head(ResponseHead(200, b"", [], None), False)
    for _ in range(MAX_BODY // 16384 + 1):
        events.response_body(b"x" * 16384, False)
        events.response_burst_over()


def long_that_ends(events: Any) -> None:
    """Answer with a long body that has come whole before anybody could give it up."""
    long(events)
    events.response_body(b"x", True)


def in_pieces(events: Any) -> None:
    """Answer with all that may come before the end."""
    events.upstream_writable()
    events.response_interim(ResponseHead(103, b"", [], None))
    events.response_head(ResponseHead(200, b"", [], MAX_BODY), False)
    events.response_body(b"x" * (MAX_BODY - 1), False)
    events.response_burst_over()
    asyncio.get_running_loop().call_later(0.1, events.response_body, b"x", True)


def with_trailers(events: Any) -> None:
    """Answer with a body that ends by trailers."""
    events.response_head(ResponseHead(200, b"", [], None), False)
    events.response_body(b"x", False)
    events.response_trailers([])


def in_one(events: Any) -> None:
    """Answer with head and body at once."""
    events.response_whole(ResponseHead(200, b"", [], 1), b"x")


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (long, "abandon"),
        (long_that_ends, "release"),
        (in_pieces, "release"),
        (with_trailers, "release"),
        (in_one, "release"),
    ],
)
def test_the_body_is_read_and_dropped_up_to_64_kib(answer: Answer, last: str) -> None:
    """The status decides; a longer body costs the connection, not the check."""

    @virtual_time
    async def scenario() -> None:
        async with place() as here:
            state, pool = endpoint()
            pool.answer = answer
            here.checker.watch([state])
            await here.results(2)

            assert here.events.results == ["ok", "ok"]
            assert [made.names for made in pool.made] == [["write_head", last]] * 2

    scenario()


@virtual_time
async def test_a_body_that_breaks_off_is_a_failure_whatever_the_status() -> None:
    def broken(events: Any) -> None:
        events.response_head(ResponseHead(200, b"", [], 9), False)
        events.attempt_failed(UpstreamReset("reset_in_response"))

    async with place() as here:
        state, pool = endpoint()
        pool.idle.append(Connection(pool))
        pool.answer = broken
        here.checker.watch([state])
        await here.results(1)

        assert state.health.reason == "reset_in_response"
        assert pool.dials == 0


@pytest.mark.parametrize(("has_spoken", "dials"), [(False, 1), (True, 0)])
def test_an_idle_connection_that_had_died_is_replaced_once(has_spoken: bool, dials: int) -> None:
    """House §7: a reused connection that ends without a byte says nothing about the endpoint."""

    @virtual_time
    async def scenario() -> None:
        async with place() as here:
            state, pool = endpoint()
            stale = Connection(pool)
            stale.has_spoken = has_spoken
            failed = failure(UpstreamReset("reset_before_response"))
            answers = [status(200), failed, status(200)]

            def answer(events: Any) -> None:
                answers.pop(0)(events)

            pool.answer = answer
            here.checker.watch([state])
            await here.results(1)
            pool.idle.append(stale)
            await here.results(2)

            assert here.events.results == ["ok", "ok" if dials else "failed"]
            assert pool.dials == 1 + dials

    scenario()


@virtual_time
async def test_a_check_of_kind_tcp_shakes_hands_and_closes() -> None:
    """It takes no connection of the pool: that one has shaken hands long ago."""
    async with place(kind="tcp") as here:
        state, pool = endpoint()
        pool.idle.append(Connection(pool))
        here.checker.watch([state])
        await here.results(2)
        pool.refusal = ConnectFailed("handshake_timeout")
        await here.results(3)

        assert [connection.names for connection in pool.made] == [["close"], ["close"]]
        assert here.events.results == ["ok", "ok", "failed"]
        assert len(pool.idle) == 1


# ---- who is checked -----------------------------------------------------------------------------------------------


@virtual_time
async def test_checks_follow_the_set_of_endpoints() -> None:
    async with place() as here:
        (gone, gone_pool), (stays, stays_pool), (new, new_pool) = map(endpoint, (1, 2, 3))
        here.checker.watch([gone, stays])
        await here.results(2)
        here.checker.watch([stays, new])
        await here.results(4)

        assert [len(pool.asked_at) for pool in (gone_pool, stays_pool, new_pool)] == [1, 2, 1]
        assert stays_pool.asked_at[1] - stays_pool.asked_at[0] == 5.0, "undisturbed"
        assert repr(here.checker) == "HealthChecker(payments, 2 endpoints)"


@virtual_time
async def test_a_running_check_ends_when_its_endpoint_leaves() -> None:
    async with place(timeout_s=1e6) as here:
        state, pool = endpoint()
        pool.answer = silence
        here.checker.watch([state])
        await until(lambda: pool.asked_at)

        here.checker.watch([])
        await settle()

        assert pool.made[0].names == ["write_head", "abandon"]
        assert (here.events.results, state.health.is_known) == ([], False)
        assert len(here.tasks) == 0


@virtual_time
async def test_the_end_of_all_tasks_is_the_end_of_checking() -> None:
    """What the end of the process cancels must not begin anew."""
    async with place() as here:
        state, _ = endpoint()
        here.checker.watch([state])
        await here.results(1)

        await here.tasks.close()
        await settle()

        assert len(here.tasks) == 0


@virtual_time
async def test_a_bug_in_a_check_is_told_and_does_not_end_the_checking() -> None:
    async with place() as here:
        state, pool = endpoint()
        here.events.bugs = [ValueError("a bug")]
        here.checker.watch([state])
        await here.results(2)

        assert here.crashes == [f"health check payments {state.address_text}"]
        pauses = [after - before for before, after in pairwise(pool.asked_at)]
        assert min(pauses) >= 5.0, "a bug at every check must not fill the log"


@virtual_time
async def test_an_endpoint_that_left_after_a_bug_is_checked_no_more() -> None:
    async with place() as here:
        state, pool = endpoint()
        here.events.bugs = [ValueError("a bug")]
        here.checker.watch([state])
        await until(lambda: here.crashes)

        here.checker.watch([])
        await asyncio.sleep(60)

        assert len(pool.asked_at) == 1


@virtual_time
async def test_an_endpoint_that_leaves_by_the_very_report_that_fails_is_not_started_again() -> None:
    async with place() as here:
        state, pool = endpoint()

        def leave(*_: Any) -> None:
            here.checker.watch([])
            raise ValueError("a bug")

        here.events.health_checked = leave  # type: ignore[method-assign]
        here.checker.watch([state])
        await until(lambda: here.crashes)
        await asyncio.sleep(60)

        assert len(pool.asked_at) == 1
        assert len(here.tasks) == 0


@virtual_time
async def test_the_first_checks_of_many_endpoints_are_spread() -> None:
    """1000 handshakes at once would stop everybody for a second."""
    async with place() as here:
        many = [endpoint(number) for number in range(1000)]
        here.checker.watch([state for state, _ in many])
        await until(lambda: all(pool.asked_at for _, pool in many))

        first = [pool.asked_at[0] for _, pool in many]
        by_half_second = Counter(int(at * 2) for at in first)
        assert max(first) <= 1000 / FIRST_CHECKS_PER_S + FIRST_SPREAD_S
        assert max(by_half_second.values()) < 1000 / 6


@virtual_time
async def test_the_first_check_of_a_few_endpoints_comes_at_once() -> None:
    async with place() as here:
        state, pool = endpoint()
        here.checker.watch([state])
        await here.results(1)

        assert pool.asked_at[0] <= FIRST_SPREAD_S + 1 / FIRST_CHECKS_PER_S


@virtual_time
async def test_a_probe_prints_its_state() -> None:
    _, pool = endpoint()
    settings = HealthCheckSettings(timeout_s=1.0)
    probe = Probe(pool, settings, host="a", loop=asyncio.get_running_loop())
    pool.answer = lambda events: texts.append(repr(events))
    texts = [repr(probe)]

    assert await probe.check() == "timeout"

    assert [text.split(", ")[-1] for text in texts] == ["idle)", "running)"]


# ---- real sockets -------------------------------------------------------------------------------------------------


class PoolEvents:
    """What a pool reports."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def dialled(self, service: str, dialled: Any) -> None:
        self.names.append("dialled")

    def dial_failed(self, service: str, address: Address, error: Any) -> None:
        self.names.append(error.reason)

    def callback_crashed(self, error: BaseException) -> None:
        raise error


class Server:
    """An endpoint that answers every request with `answer`; `heard` is what came."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.heard: list[bytes] = []
        self.ended = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heard.append(head)
                writer.write(self.answer)
        except asyncio.IncompleteReadError:
            self.ended += 1
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def real(
    server: Server, tls: Any = None, accepting: Any = None, **settings: Any
) -> AsyncIterator[tuple[Place, Service, PoolEvents]]:
    """Give a checker, and a service whose only endpoint is `server`."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=accepting)
    address = Address("127.0.0.1", listening.sockets[0].getsockname()[1])
    async with place(**settings) as here:
        events = PoolEvents()
        environment = Environment(
            asyncio.get_running_loop(),
            tasks=here.tasks,
            cache=LineCache(classify),
            limits=HeadLimits(),
            events=events,
            wall=handshakes.TodayClock().wall,
            forbidden=lambda _: False,
            budget=Budget(1 << 20),
        )
        config = ServiceConfig("payments", (Endpoint(address),), pool=PoolConfig())
        service = Service(config, environment, tls=tls, random=random.Random(1))
        try:
            yield here, service, events
        finally:
            here.checker.close()
            await settle()
            service.close()
            service.abort()
            listening.close()
            await listening.wait_closed()
            await settle()
            assert service.connections() == {"idle": 0, "busy": 0}
            assert here.crashes == []


@virtual_time
async def test_a_check_over_a_real_pool_keeps_its_connection_for_the_next() -> None:
    server = Server()
    async with real(server) as (here, service, _):
        here.checker.watch(service.endpoints)
        await here.results(3)

        assert here.events.results == ["ok"] * 3
        assert (
            server.heard
            == [b"GET /healthz HTTP/1.1\r\nHost: payments\r\nUser-Agent: ambassador\r\n\r\n"] * 3
        )
        assert server.connections == 1
        assert service.connections() == {"idle": 1, "busy": 0}


@virtual_time
async def test_a_bad_status_over_a_real_pool_is_a_failure_that_keeps_the_connection() -> None:
    server = Server()
    server.answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with real(server) as (here, service, _):
        here.checker.watch(service.endpoints)
        await here.results(2)

        assert service.endpoints[0].health.reason == "status_503"
        assert service.connections() == {"idle": 1, "busy": 0}


@virtual_time
async def test_what_is_no_http_is_a_failure() -> None:
    server = Server()
    server.answer = b"220 smtp.example.org ESMTP\r\n\r\n"
    async with real(server) as (here, service, _):
        here.checker.watch(service.endpoints)
        await here.results(1)

        assert service.endpoints[0].health.reason == "bad_status_line"
        assert service.connections() == {"idle": 0, "busy": 0}


@virtual_time
async def test_nobody_who_listens_is_a_failure() -> None:
    server = Server()
    async with real(server) as (here, service, events):
        service.update((Endpoint(Address("127.0.0.1", 1)),))
        here.checker.watch(service.endpoints)
        await here.results(1)

        assert service.endpoints[0].health.reason == "connect_refused"
        assert events.names == ["connect_refused"]


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize(("name", "reason"), [("payments", ""), ("stranger", "wrong_peer")])
def test_a_check_asks_for_the_same_peer_as_requests_do(
    authority: Authority, tmp_path: Path, kind: str, name: str, reason: str
) -> None:
    """An endpoint that shows another's certificate is unhealthy, and hears no byte of ours."""
    ours = handshakes.store(
        tmp_path, authority.issue(spiffe="spiffe://example.org/web"), authority.pem
    )
    wanted = handshakes.Service(peer=(PeerPattern("spiffe", "spiffe://example.org/payments"),))
    shown = authority.issue(spiffe=f"spiffe://example.org/{name}")
    accepting = server_context(authority, shown, alpn=["http/1.1"])

    @virtual_time
    async def scenario() -> None:
        server = Server()
        async with real(server, lambda: ours.client(wanted), accepting, kind=kind) as (
            here,
            service,
            _,
        ):
            here.checker.watch(service.endpoints)
            await here.results(1)
            await settle()

            assert service.endpoints[0].health.reason == reason
            assert len(server.heard) == (kind == "http" and not reason)
            if kind == "tcp" and not reason:
                assert server.ended == 1, "an orderly end: no reset in the endpoint's log"

    scenario()
