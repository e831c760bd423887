"""How a service gathers who may be picked, from what was seen of its endpoints."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from ambassador.config.model import ServiceConfig
from ambassador.core.errors import ConnectFailed, NoHealthyUpstream, Overflow
from ambassador.core.model import Address, Endpoint, Field, ResponseHead
from ambassador.net.tasks import TaskGroup
from ambassador.net.transport import Budget
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.policy.headers import classify
from ambassador.policy.health import HealthCheckSettings
from ambassador.policy.outlier import OutlierSettings
from ambassador.upstream.admission import Admission
from ambassador.upstream.pool import Environment
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.nobody import Nobody
from tests.support.virtual_time import virtual_time

NOTHING: Any = None


class Events(Nobody):
    """Notes what a service reports."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def endpoint_ejected(self, service: str, address: str, reason: str, *, seconds: float) -> None:
        self.log.append(f"ejected {address} {reason} {seconds:g}")

    def endpoint_returned(self, service: str, address: str) -> None:
        self.log.append(f"returned {address}")

    def panic_changed(self, service: str, *, panicking: bool) -> None:
        self.log.append(f"panic {panicking}")

    def health_changed(self, service: str, address: str, *, healthy: bool, reason: str) -> None:
        self.log.append(f"healthy {address} {healthy} {reason}".strip())


def make(*endpoints: Endpoint, zone: str = "", **config: Any) -> tuple[Service, Events]:
    events = Events()
    environment = Environment(
        asyncio.get_running_loop(),
        tasks=TaskGroup(NOTHING),
        cache=LineCache(classify),
        limits=HeadLimits(),
        events=events,
        wall=lambda: 0.0,
        forbidden=lambda _: False,
        budget=Budget(1 << 20),
    )
    made = ServiceConfig("a", endpoints, plaintext="loopback", **config)
    return Service(made, environment, tls=None, random=random.Random(1), zone=zone), events


def at(*numbers: int, **more: Any) -> list[Endpoint]:
    return [Endpoint(Address(f"10.0.0.{number}", 80), **more) for number in numbers]


def picked(service: Service, times: int = 300) -> Counter[str]:
    """Pick so often, each request over at once."""
    counts: Counter[str] = Counter()
    for _ in range(times):
        state = service.pick(())
        counts[state.endpoint.address.host[-1] if state is not None else "-"] += 1
    return counts


def head(status: int, *fields: tuple[bytes, bytes]) -> ResponseHead:
    lines = [Field(name, value, 0, b"") for name, value in fields]
    return ResponseHead(status, b"", lines, 0)


@virtual_time
async def test_five_failures_in_a_row_eject_and_one_good_answer_returns() -> None:
    """config.md §3, outlier_detection."""
    service, events = make(*at(1, 2, 3))
    bad = service.endpoints[0]

    for _ in range(5):
        service.answered(bad, head(500), 0.1)
    assert "1" not in picked(service)
    await asyncio.sleep(30.1)
    assert picked(service)["1"] == 1, "one request, to see"
    service.answered(bad, head(200), 0.1)

    assert picked(service)["1"] > 50
    assert events.log == ["ejected 10.0.0.1:80 status_500 30", "returned 10.0.0.1:80"]


@virtual_time
async def test_a_probe_that_fails_ejects_for_longer() -> None:
    service, events = make(*at(1, 2, 3))
    bad = service.endpoints[0]
    for _ in range(5):
        service.failed(bad, "reset_before_response")
    await asyncio.sleep(30.1)

    assert picked(service)["1"] == 1
    service.failed(bad, "reset_before_response")

    assert events.log[-1] == "ejected 10.0.0.1:80 reset_before_response 60"


@virtual_time
async def test_the_only_endpoint_is_never_ejected() -> None:
    service, events = make(*at(1))

    for _ in range(50):
        service.failed(service.endpoints[0], "reset_before_response")

    assert picked(service)["1"] == 300
    assert events.log == []


@virtual_time
async def test_a_good_answer_in_between_begins_the_count_anew() -> None:
    service, events = make(*at(1, 2))
    state = service.endpoints[0]

    for _ in range(4):
        for _ in range(4):
            service.answered(state, head(503), 0.1)
        assert state.watched
        service.answered(state, head(200), 0.1)

    assert not state.watched, "a good answer of one without failures costs nothing"
    assert events.log == []


@virtual_time
async def test_too_many_requests_is_no_failure_of_the_endpoint() -> None:
    """429 is neither good nor bad for outlier detection; peak_ewma stays away as long as it says."""
    service, events = make(*at(1, 2), balance=BalanceSettings(kind="peak_ewma"))
    one, two = service.endpoints
    service.answered(two, head(200), 0.1)

    for _ in range(9):
        service.answered(one, head(429, (b"retry-after", b"100")), 0.01)

    assert events.log == []
    assert picked(service) == {"2": 300}


@virtual_time
async def test_without_outlier_detection_nobody_is_ejected() -> None:
    service, events = make(*at(1, 2), outlier_detection=None)

    for _ in range(9):
        service.failed(service.endpoints[0], "reset_before_response")

    assert events.log == []


@virtual_time
async def test_a_poor_success_rate_ejects_at_the_end_of_the_interval() -> None:
    """Linkerd's success-rate policy."""
    service, events = make(*at(1, 2, 3), outlier_detection=OutlierSettings(success_rate=0.8))
    poor, good, _ = service.endpoints
    for number in range(10):
        service.answered(poor, head(500 if number % 2 else 200), 0.1)
        service.answered(good, head(200), 0.1)

    await asyncio.sleep(10.1)
    picked(service)

    assert events.log == ["ejected 10.0.0.1:80 success_rate 30"]


@virtual_time
async def test_an_unhealthy_endpoint_is_not_asked_and_below_half_all_are() -> None:
    """config.md §3, panic_threshold."""
    service, events = make(*at(1, 2, 3))

    for state in service.endpoints[:1]:
        state.health.is_healthy = False
        service.health_changed(state, False, "timeout")
    assert "1" not in picked(service)
    service.endpoints[1].health.is_healthy = False
    service.health_changed(service.endpoints[1], False, "timeout")
    assert len(picked(service)) == 3
    assert service.is_panicking
    service.endpoints[1].health.is_healthy = True
    service.health_changed(service.endpoints[1], True, "")

    assert set(picked(service)) == {"2", "3"}
    assert events.log == [
        "healthy 10.0.0.1:80 False timeout",
        "healthy 10.0.0.2:80 False timeout",
        "panic True",
        "healthy 10.0.0.2:80 True",
        "panic False",
    ]


@virtual_time
async def test_without_panic_a_service_without_healthy_endpoints_has_none() -> None:
    service, _ = make(*at(1, 2), balance=BalanceSettings(panic_threshold=0.0))
    for state in service.endpoints:
        state.health.is_healthy = False

    assert service.pick(()) is None
    error = service.exhausted()
    assert isinstance(error, NoHealthyUpstream)
    assert error.detail == "no_healthy_endpoint"


@virtual_time
async def test_where_somebody_else_answers_everywhere_that_is_the_reason() -> None:
    service, _ = make(*at(1, 2))
    for state in service.endpoints:
        service.connect_failed(state, "wrong_peer")

    assert service.pick(()) is None
    error = service.exhausted()
    assert isinstance(error, ConnectFailed)
    assert error.detail == "wrong_peer"
    await asyncio.sleep(1.1)
    assert service.pick(()) is not None, "it may have been mended"


@virtual_time
async def test_our_own_zone_is_preferred_and_helped_out_when_it_has_lost_too_much() -> None:
    near, far = at(1, 2, zone="a"), at(3, 4, zone="b")
    service, _ = make(*near, *far, zone="a")
    assert set(picked(service)) == {"1", "2"}

    for _ in range(5):
        service.failed(service.endpoints[0], "reset_before_response")

    counts = picked(service, 1000)
    assert 600 < counts["2"] < 800, "70 %: one of two, times 140 %"
    assert counts["1"] == 0


@virtual_time
async def test_a_newcomer_warms_up() -> None:
    """config.md §3, slow_start."""
    service, _ = make(*at(1), balance=BalanceSettings(kind="round_robin", slow_start_s=10.0))
    service.update(tuple(at(1, 2)))

    cold = picked(service, 110)["2"]
    await asyncio.sleep(5.0)
    warmer = picked(service, 110)["2"]
    await asyncio.sleep(5.1)
    warm = picked(service, 110)["2"]

    assert cold == 10
    assert 30 <= warmer <= 40
    assert warm == 55


@virtual_time
async def test_a_key_keeps_its_endpoint_also_across_zones() -> None:
    settings = BalanceSettings(kind="ring_hash", hash_header=b"x-user")
    service, _ = make(*at(1, zone="a"), *at(2, 3, zone="b"), balance=settings, zone="a")

    for key in (b"a", b"b", b"c", b"d"):
        assert len({service.pick((), key) for _ in range(50)}) == 1


@virtual_time
async def test_who_was_tried_comes_last_and_who_is_ejected_before_that() -> None:
    service, _ = make(*at(1, 2, 3))
    one, two, three = service.endpoints
    for _ in range(5):
        service.failed(one, "reset_before_response")

    assert service.pick((two,)) is three
    assert service.pick((two, three)) is one
    assert service.pick((one, two, three)) is None


@virtual_time
async def test_beyond_the_requests_that_may_be_in_flight_admit_refuses() -> None:
    service, _ = make(*at(1), circuit_breaker=CircuitBreakerSettings(requests=1))
    service.admission.admit()
    service.breaker.requests = 1

    with pytest.raises(Overflow) as caught:
        service.admission.admit()
    assert caught.value.detail == "circuit_breaker_requests"
    assert service.open_ceilings()["requests"]


class Asking:
    """Needs a connection."""

    def __init__(self, log: list[str], name: str, *, bug: bool = False) -> None:
        self.log, self.name, self.bug = log, name, bug

    def has_idle(self) -> bool:
        return False

    def connection_allowed(self) -> None:
        self.log.append(self.name)
        if self.bug:
            raise RuntimeError(self.name)


@virtual_time
async def test_who_waits_is_served_in_order_and_a_bug_of_one_costs_nobody_else() -> None:
    log: list[str] = []
    crashes: list[BaseException] = []
    settings = CircuitBreakerSettings(connections=1, pending=3)
    admission = Admission(
        "a", settings, asyncio.get_running_loop(), evict=lambda: False, crashed=crashes.append
    )
    admission.taken()
    waiting = [Asking(log, "1", bug=True), Asking(log, "2"), Asking(log, "3")]
    for asking in waiting:
        admission.ask(asking)
    with pytest.raises(Overflow):
        admission.ask(Asking(log, "4"))
    admission.forget(waiting[2])

    admission.freed()
    assert log == [], "from the loop, not from this stack"
    await asyncio.sleep(0)

    assert log == ["1", "2"]
    assert [str(error) for error in crashes] == ["1"]
    assert repr(admission).endswith("0 waiting)")


@virtual_time
async def test_an_idle_connection_elsewhere_makes_room() -> None:
    """A pool full of idle connections to one endpoint must not starve the others."""
    log: list[str] = []
    evicted: list[bool] = []
    admission = Admission(
        "a",
        CircuitBreakerSettings(connections=1),
        asyncio.get_running_loop(),
        evict=lambda: evicted.append(True) is None,
        crashed=NOTHING,
    )
    admission.taken()

    admission.ask(Asking(log, "1"))

    assert (log, evicted) == (["1"], [True])


@virtual_time
async def test_checks_slow_down_when_the_service_was_not_used_for_a_while() -> None:
    """Envoy's no_traffic_interval; a fresh process is no silent one."""
    settings = HealthCheckSettings(no_traffic_interval_s=60.0)
    service, _ = make(*at(1), health_check=settings)
    fresh = service._had_traffic(60.0)
    await asyncio.sleep(60.1)
    silent = service._had_traffic(60.0)
    service.breaker.served += 1
    used = service._had_traffic(60.0)
    await asyncio.sleep(60.1)

    assert (fresh, silent, used) == (True, False, True)
    assert not service._had_traffic(60.0)


@virtual_time
async def test_a_tunnel_does_not_wait_for_a_place() -> None:
    """Its client would hang on a connection that says nothing."""
    log: list[str] = []
    admission = Admission(
        "a",
        CircuitBreakerSettings(connections=1),
        asyncio.get_running_loop(),
        evict=lambda: False,
        crashed=NOTHING,
    )
    admission.ask(Asking(log, "1"), may_wait=False)
    admission.taken()

    with pytest.raises(Overflow) as caught:
        admission.ask(Asking(log, "2"), may_wait=False)

    assert caught.value.detail == "circuit_breaker_connections"
    assert (log, admission.waiting) == (["1"], {})
