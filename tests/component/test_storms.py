"""Ten thousand exchanges over three endpoints of which one dies, flaps or slows down: real service, scripted pools.

Time is a number that moves from one timer to the next, so that a storm is the same each time.
"""

from __future__ import annotations

from typing import Any

import pytest

from ambassador.config.model import RouteSettings
from ambassador.core.errors import ConnectFailed, UpstreamReset
from ambassador.policy.retry import RetrySettings
from ambassador.upstream.pool import Dial
from tests.support.streams import RecordingStream
from tests.unit.proxy.make import Scene, answer

COUNT = 10_000
APART_S = 0.002
SETTINGS = RouteSettings(retry=RetrySettings(attempts=3), timeout_s=5.0)


class Connection(RecordingStream):
    """Answers when its endpoint does."""

    def __init__(self, pool: ScriptedPool) -> None:
        super().__init__()
        self._pool = pool
        self._timer: Any = None
        pool.open.add(self)

    def send_head(self, events: Any, head: Any, extra: bytes, end: bool) -> None:
        self.receiver = events
        self._pool.received += 1
        self._timer = self._pool.loop.call_later(self._pool.delay_s, self._answer)

    def _answer(self) -> None:
        self.receiver.response_whole(answer(self._pool.status, length=0), b"")

    def lose(self) -> None:
        """Its endpoint is gone."""
        if self in self._pool.idle:
            self._pool.idle.remove(self)
        elif self._timer is not None:
            self._timer.cancel()
            self.receiver.attempt_failed(UpstreamReset("reset_before_response", "Reset."))

    def release(self) -> None:
        self._timer = None
        self._pool.idle.append(self)

    def abandon(self) -> None:
        self._pool.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class ScriptedPool:
    """The connections of an endpoint that is up or not, and answers after `delay_s`."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.is_up, self.status, self.delay_s, self.received = True, 200, 0.01, 0
        self.idle: list[Connection] = []
        self.open: set[Connection] = set()

    def take(self, *, checked: bool) -> Connection | None:
        return self.idle.pop() if self.idle else None

    def evict(self) -> bool:
        return False

    def dial(self, waiter: Any) -> Dial:
        dial = Dial(waiter)
        self.loop.call_later(0.001, self._dialled, dial)
        return dial

    def _dialled(self, dial: Dial) -> None:
        waiter: Any = dial.waiter
        if waiter is None:
            return
        if self.is_up:
            waiter.connection_ready(Connection(self))
        else:
            waiter.connection_failed(ConnectFailed("connect_refused", "Nobody listens."))

    def turn(self, *, up: bool) -> None:
        """Come, or go with every connection."""
        self.is_up = up
        if not up:
            lost, self.open = self.open, set()
            for connection in lost:
                connection.lose()


class Storm:
    """A scene with scripted pools, and the most retries that were in flight."""

    def __init__(self) -> None:
        self.scene = Scene(settings=SETTINGS, endpoints=3, warm=False)
        self.pools = [ScriptedPool(self.scene.loop) for _ in range(3)]
        for state, pool in zip(self.scene.service.endpoints, self.pools, strict=True):
            state.pool = pool  # type: ignore[assignment]
        self.most_retries = 0

    def pass_time(self, seconds: float) -> None:
        """Go from timer to timer."""
        clock, loop = self.scene.clock, self.scene.loop
        until = clock.monotonic() + seconds
        while due := [timer.at for timer in loop.timers if timer.at <= until]:
            clock.advance(max(0.0, min(due) - clock.monotonic()))
            loop.run()
        clock.advance(max(0.0, until - clock.monotonic()))

    def run(self, step: Any) -> list[int]:
        """Let all requests come; `step(number, pools)` moves the endpoints. Give the statuses in order of the ends."""
        for number in range(COUNT):
            step(number, self.pools)
            self.scene.beside().send()
            breaker = self.scene.service.breaker
            self.most_retries = max(self.most_retries, breaker.retries)
            self.pass_time(APART_S)
        self.pass_time(10.0)
        self.check_end()
        return [exchange.status for exchange in self.scene.door.ended]

    def check_end(self) -> None:
        """Nothing is left: no place, no attempt, no timer; one end of each exchange."""
        breaker, scene = self.scene.service.breaker, self.scene
        assert (breaker.requests, breaker.retries, len(scene.service.admission.waiting)) == (
            0,
            0,
            0,
        )
        assert [state.outstanding for state in scene.service.endpoints] == [0, 0, 0]
        assert len(scene.door.ended) == len(set(scene.door.ended)) == COUNT
        assert scene.loop.timers == []
        assert scene.crashes == []


def dies(number: int, pools: list[ScriptedPool]) -> None:
    if number == COUNT // 4:
        pools[0].turn(up=False)


def flaps(number: int, pools: list[ScriptedPool]) -> None:
    if number % 500 == 250:
        pools[0].turn(up=not pools[0].is_up)


def slows(number: int, pools: list[ScriptedPool]) -> None:
    if number == COUNT // 4:
        pools[0].delay_s = 0.2


@pytest.mark.parametrize("step", [dies, flaps, slows])
def test_trouble_at_one_of_three_endpoints_is_not_seen(step: Any) -> None:
    """RFC 9110 §9.2.2: GET is asked elsewhere; and each storm ends with every count at zero."""
    statuses = Storm().run(step)

    assert statuses == [200] * COUNT


def test_a_service_that_refuses_all_is_asked_little_more_than_its_clients_ask() -> None:
    """Envoy's retry_budget: a fifth of what is in flight, or three."""

    def refuse(number: int, pools: list[ScriptedPool]) -> None:
        for pool in pools:
            pool.status, pool.delay_s = 503, 0.1

    storm = Storm()
    statuses = storm.run(refuse)

    assert set(statuses) == {503}
    assert storm.most_retries > 0
    assert COUNT < sum(pool.received for pool in storm.pools) <= COUNT * 1.2 + 3


def test_a_storm_is_the_same_each_time() -> None:
    """Chance comes in as a seeded generator: a failure here can be played again."""
    first, second = Storm(), Storm()
    first.run(flaps)
    second.run(flaps)

    assert [p.received for p in first.pools] == [p.received for p in second.pools]
