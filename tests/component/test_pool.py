"""The connections to one endpoint: taken, kept, aged, dialled; sockets of loopback, virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ambassador.config.model import PoolConfig, ServiceConfig
from ambassador.core.errors import ExchangeError
from ambassador.core.model import Address, Endpoint, RequestHead
from ambassador.net.tasks import TaskGroup
from ambassador.net.transport import Budget
from ambassador.policy.headers import classify
from ambassador.upstream.directory import Directory
from ambassador.upstream.pool import Environment, Pool
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.virtual_time import settle, virtual_time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Waiter:
    """Who asked for a connection, and hears of the response."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.error: ExchangeError | None = None
        self.body = b""

    def connection_ready(self, connection: Any) -> None:
        self.connection = connection

    raw_connection_ready = connection_ready

    def connection_failed(self, error: ExchangeError) -> None:
        self.error = error

    def response_whole(self, head: Any, body: bytes) -> None:
        self.body += body
        self.connection.release()

    def response_burst_over(self) -> None: ...

    def attempt_failed(self, error: ExchangeError) -> None:
        self.error = error


class Events:
    """What a pool reports."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def dialled(self, service: str, dialled: Any) -> None:
        self.names.append(f"dialled {service}")

    def dial_failed(self, service: str, address: Address, error: Any) -> None:
        self.names.append(error.reason)

    def callback_crashed(self, error: BaseException) -> None:
        raise error


class Place:
    """A pool and the server that its endpoint is; the server's side is spoken by the test."""

    def __init__(self, settings: PoolConfig) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.accepted: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        self.events = Events()
        self.crashes: list[BaseException] = []
        self.tasks = TaskGroup(lambda _, error: self.crashes.append(error))
        address = Address("127.0.0.1", self.server.getsockname()[1])
        environment = Environment(
            loop,
            tasks=self.tasks,
            cache=LineCache(classify),
            limits=HeadLimits(),
            events=self.events,
            wall=lambda: 0.0,
            forbidden=lambda _: False,
            budget=Budget(1 << 20),
        )
        config = ServiceConfig("app", (Endpoint(address),), pool=settings)
        no_chance: Any = None  # there is one endpoint to choose from
        self.service = Service(config, environment, tls=None, random=no_chance)
        self.directory = Directory({"app": self.service})
        self.pool: Pool = self.service.endpoints[0].pool

    async def dial(self) -> Waiter:
        """Give somebody a connection."""
        waiter = Waiter()
        self.pool.dial(waiter)
        await self.ready()
        assert waiter.connection is not None
        return waiter

    async def ready(self) -> None:
        """Let the running dials end, and accept what they have made."""
        while len(self.tasks):
            await settle(3)
        self.server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.accepted.append(self.server.accept()[0])

    async def exchange(self, waiter: Waiter) -> None:
        """Let a whole exchange take place on the newest connection."""
        send(waiter)
        self.accepted[-1].settimeout(5)
        self.accepted[-1].recv(65536)
        self.accepted[-1].sendall(OK)
        await settle()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Idle and busy connections, and tunnels."""
        return len(self.pool.idle), len(self.pool.busy), len(self.pool.tunnels)

    def close(self) -> None:
        self.directory.close()
        self.directory.abort()
        for accepted in self.accepted:
            accepted.close()
        self.server.close()


def send(waiter: Waiter) -> None:
    head = RequestHead(b"GET", b"http", b"app", b"/", [], 0)
    waiter.connection.send_head(waiter, head, b"", True)


@contextlib.asynccontextmanager
async def place(**settings: Any) -> AsyncIterator[Place]:
    made = Place(PoolConfig(**settings))
    try:
        yield made
    finally:
        made.close()
        assert made.counts == (0, 0, 0)
        assert made.crashes == []


@virtual_time
async def test_a_connection_is_kept_after_its_exchange_and_taken_again() -> None:
    async with place() as here:
        waiter = await here.dial()
        assert here.counts == (0, 1, 0)
        await here.exchange(waiter)
        assert waiter.body == b"ok"
        assert here.counts == (1, 0, 0)
        assert here.service.connections() == {"idle": 1, "busy": 0}

        assert here.pool.take(checked=True) is waiter.connection

        assert here.pool.take(checked=False) is None
        assert here.counts == (0, 1, 0)
        await here.exchange(waiter)
        assert here.events.names == ["dialled app"]


@virtual_time
async def test_the_newest_is_taken_first_so_that_the_others_can_age() -> None:
    async with place() as here:
        first, second = await here.dial(), await here.dial()
        here.pool.connection_free(second.connection)
        await asyncio.sleep(1)
        here.pool.connection_free(first.connection)

        assert here.pool.take(checked=False) is first.connection


@virtual_time
async def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    """`pool.idle_timeout`."""
    async with place(idle_timeout_s=10) as here:
        first = await here.dial()
        here.pool.connection_free(first.connection)
        await asyncio.sleep(6)
        second = await here.dial()
        here.pool.connection_free(second.connection)

        await asyncio.sleep(6)

        assert here.pool.idle == [second.connection]
        await asyncio.sleep(6)
        assert here.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("settings", "age_s"), [({"max_age_s": 10}, 20), ({"max_idle": 0}, 0), ({"max_requests": 0}, 0)]
)
def test_what_is_too_old_or_too_many_is_not_kept(settings: dict[str, Any], age_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        async with place(**settings) as here:
            waiter = await here.dial()
            await asyncio.sleep(age_s)

            here.pool.connection_free(waiter.connection)

            assert here.counts == (0, 0, 0)

    scenario()


@virtual_time
async def test_what_has_aged_while_idle_is_not_taken() -> None:
    """`pool.max_age`."""
    async with place(max_age_s=10) as here:
        waiter = await here.dial()
        here.pool.connection_free(waiter.connection)
        await asyncio.sleep(11)

        assert here.pool.take(checked=False) is None
        assert here.counts == (0, 0, 0)


@virtual_time
async def test_a_connection_that_died_while_idle_is_never_taken_when_looked_at() -> None:
    async with place() as here:
        waiter = await here.dial()
        here.pool.connection_free(waiter.connection)
        here.accepted[0].close()

        assert here.pool.take(checked=True) is None
        assert here.counts == (0, 0, 0)


@virtual_time
async def test_bytes_on_an_idle_connection_close_it() -> None:
    """Threat G3: they would be taken for the answer to the next request."""
    async with place() as here:
        waiter = await here.dial()
        here.pool.connection_free(waiter.connection)
        here.accepted[0].sendall(OK)
        await settle()

        assert here.counts == (0, 0, 0)


@virtual_time
async def test_a_refused_connection_is_said_once() -> None:
    async with place() as here:
        here.server.close()
        waiter = Waiter()
        here.pool.dial(waiter)
        while len(here.tasks):
            await settle(3)

        assert waiter.error is not None
        assert waiter.error.detail == "connect_refused"
        assert here.events.names == ["connect_refused"]


@virtual_time
async def test_a_refusal_that_nobody_waits_for_is_counted_only() -> None:
    async with place() as here:
        here.server.close()
        waiter = Waiter()
        here.pool.dial(waiter).cancel()
        while len(here.tasks):
            await settle(3)

        assert waiter.error is None
        assert here.events.names == ["connect_refused"]


@virtual_time
async def test_a_connection_that_nobody_waits_for_any_more_is_kept_for_others() -> None:
    async with place() as here:
        here.pool.dial(Waiter()).cancel()
        await here.ready()

        assert here.counts == (1, 0, 0)


@virtual_time
async def test_a_tunnel_is_its_owner_s_and_never_kept() -> None:
    async with place() as here:
        waiter = Waiter()
        here.pool.dial_raw(waiter)
        await here.ready()
        assert here.counts == (0, 0, 1)
        assert here.service.connections() == {"idle": 0, "busy": 1}

        waiter.connection.start(waiter)
        waiter.connection.abandon()

        assert here.counts == (0, 0, 0)


@virtual_time
async def test_a_tunnel_that_nobody_waits_for_any_more_is_closed() -> None:
    async with place() as here:
        here.pool.dial_raw(Waiter()).cancel()
        await here.ready()

        assert here.counts == (0, 0, 0)
        assert here.accepted[0].recv(1) == b""


@virtual_time
async def test_a_tunnel_s_failed_dial_is_said_too() -> None:
    async with place() as here:
        here.server.close()
        waiter = Waiter()
        here.pool.dial_raw(waiter)
        while len(here.tasks):
            await settle(3)

        assert waiter.error is not None


@virtual_time
async def test_after_a_change_of_credentials_no_connection_serves_again() -> None:
    """House §7, Rotation."""
    async with place() as here:
        idle, busy = await here.dial(), await here.dial()
        here.pool.connection_free(idle.connection)

        here.directory.retire()

        assert here.counts == (0, 1, 0)
        await here.exchange(busy)
        assert busy.body == b"ok"
        assert here.counts == (0, 0, 0)


@virtual_time
async def test_the_end_of_the_process_cuts_what_is_left() -> None:
    async with place() as here:
        await here.dial()
        waiter = Waiter()
        here.pool.dial_raw(waiter)
        await here.ready()
        waiter.connection.start(waiter)
        assert here.counts == (0, 1, 1)

        here.directory.abort()

        assert here.counts == (0, 0, 0)


@virtual_time
async def test_everything_prints_its_state() -> None:
    async with place() as here:
        assert repr(here.pool).endswith("0 idle, 0 busy)")
        assert repr(here.directory) == "Directory(['app'])"
        assert repr(here.service).startswith("Service(app, (EndpointState(127.0.0.1:")
        assert here.directory["app"] is here.service
        assert here.service.states(0.0) == {
            "healthy": 1,
            "unhealthy": 0,
            "ejected": 0,
            "unreachable": 0,
        }
