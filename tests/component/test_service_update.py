"""A service whose endpoints change: who stays keeps everything, who is new begins afresh."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import pytest

from ambassador.config.model import DiscoveryConfig, ServiceConfig
from ambassador.core.errors import NoHealthyUpstream, ResolveFailed
from ambassador.core.model import Address, Endpoint
from ambassador.net.tasks import TaskGroup
from ambassador.net.transport import Budget
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.headers import classify
from ambassador.upstream.pool import Environment
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache
from tests.support.nobody import Nobody
from tests.support.virtual_time import virtual_time

NOTHING: Any = None
A, B, C = (Endpoint(Address(f"10.0.0.{n}", 80)) for n in (1, 2, 3))


def make(kind: str = "least_request") -> Service:
    environment = Environment(
        asyncio.get_running_loop(),
        tasks=TaskGroup(NOTHING),
        cache=LineCache(classify),
        limits=HeadLimits(),
        events=Nobody(),
        wall=lambda: 0.0,
        forbidden=lambda _: False,
        budget=Budget(1 << 20),
    )
    config = ServiceConfig(
        "a",
        (),
        balance=BalanceSettings(kind=kind),
        plaintext="loopback",
        discovery=DiscoveryConfig("fake", NOTHING),
    )
    return Service(config, environment, tls=None, random=random.Random(1))


@virtual_time
async def test_who_stays_keeps_its_statistics_and_takes_its_new_weight() -> None:
    service = make()
    service.update((A, B))
    first, second = service.endpoints
    first.outstanding = 3
    service.connect_failed(second, "connect_refused")

    service.update((dataclasses.replace(A, weight=7), B, C))

    assert service.endpoints[:2] == (first, second)
    assert (first.outstanding, first.weight, first.endpoint.weight) == (3, 7, 7)
    assert service.states(0.0) == {"healthy": 2, "unhealthy": 0, "ejected": 0, "unreachable": 1}


@virtual_time
async def test_who_comes_again_begins_afresh() -> None:
    service = make()
    service.update((A, B))
    before = service.endpoints[0]
    service.connect_failed(before, "connect_refused")
    service.update((B,))

    service.update((A, B))

    assert service.endpoints[0] is not before
    assert service.endpoints[0].shunned_until == 0.0


@virtual_time
async def test_who_is_gone_is_remembered_as_long_as_it_has_work() -> None:
    service = make()
    service.update((A,))
    gone = service.endpoints[0]
    gone.outstanding = 1
    service.update(())

    assert gone in service._all()
    gone.outstanding = 0
    service.connections()
    assert service._all() == ()


@pytest.mark.parametrize("balance", ["least_request", "round_robin"])
def test_the_balancer_sees_the_new_set_at_once(balance: str) -> None:
    async def run() -> None:
        service = make(balance)
        service.update((A, B))
        for _ in range(10):
            service.pick(())
        service.update((B, C))

        picked = {state.address_text for _ in range(50) if (state := service.pick(())) is not None}
        assert picked == {"10.0.0.2:80", "10.0.0.3:80"}

    virtual_time(run)()


@virtual_time
async def test_an_attempt_at_who_is_gone_does_not_count_among_the_tried() -> None:
    service = make()
    service.update((A,))
    tried = (service.endpoints[0],)
    service.update((B,))

    assert service.untried(tried) == 1
    picked = service.pick(tried)
    assert picked is not None
    assert picked.address_text == "10.0.0.2:80"


@virtual_time
async def test_nothing_to_pick_has_its_reason() -> None:
    service = make()
    assert service.pick(()) is None
    pending = service.exhausted()
    service.update(())
    assert service.pick(()) is None
    empty = service.exhausted()

    assert isinstance(pending, ResolveFailed)
    assert pending.detail == "discovery_pending"
    assert isinstance(empty, NoHealthyUpstream)


@virtual_time
async def test_the_first_tier_is_that_of_the_new_set() -> None:
    service = make()
    service.update((A, dataclasses.replace(B, priority=1)))
    assert service.pick(()) is service.endpoints[0]

    service.update((dataclasses.replace(A, priority=2), dataclasses.replace(B, priority=1)))

    assert service.pick(()) is service.endpoints[1]
