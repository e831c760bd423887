"""What stands behind `/ready`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ambassador.control.detail import MAX_ENDPOINTS, describe
from tests.unit.proxy.make import Scene


def keeper(**more: Any) -> Any:
    return SimpleNamespace(
        **{"service": "payments", "kind": "dns", "last_success": 0.0, "failure": "", **more}
    )


def lines(scene: Scene, *, names_addresses: bool = True) -> list[str]:
    return describe(
        [scene.service],
        [],
        mono_now=scene.clock.monotonic(),
        wall_now=1000.0,
        names_addresses=names_addresses,
    )


def test_each_discovery_says_when_it_last_succeeded_and_what_is_wrong() -> None:
    keepers = [
        keeper(last_success=940.0),
        keeper(last_success=1001.0, failure="dns_timeout"),
        keeper(),
    ]

    assert describe([], keepers, mono_now=0.0, wall_now=1000.0, names_addresses=True) == [
        "discovery:payments dns last_success 60s ago",
        "discovery:payments dns last_success 0s ago dns_timeout",
        "discovery:payments dns never succeeded",
    ]


def test_each_endpoint_says_how_it_does_and_why_the_others_last() -> None:
    scene = Scene(endpoints=4)
    _, unhealthy, ejected, unreachable = scene.service.endpoints
    unhealthy.health.is_healthy, unhealthy.health.reason = False, "status_503"
    for _ in range(5):
        scene.service.failed(ejected, "reset_before_response")
    scene.service.connect_failed(unreachable, "connect_refused")

    assert lines(scene) == [
        "endpoint:payments 10.0.0.7:8444 unhealthy status_503",
        "endpoint:payments 10.0.0.7:8445 ejected reset_before_response 30s left",
        "endpoint:payments 10.0.0.7:8446 unreachable connect_refused",
        "endpoint:payments 10.0.0.7:8443 healthy",
    ]


def test_where_others_can_ask_endpoints_have_numbers() -> None:
    """Threats I1."""
    assert lines(Scene(), names_addresses=False) == ["endpoint:payments #1 healthy"]


def test_a_panic_is_said() -> None:
    scene = Scene(endpoints=3)
    for state in scene.service.endpoints:
        state.health.is_healthy, state.health.reason = False, "timeout"
    scene.service.look_again()
    scene.service.pick(())

    assert lines(scene)[0] == "panic:payments"


def test_a_long_list_is_cut() -> None:
    found = lines(Scene(endpoints=MAX_ENDPOINTS + 2))

    assert found[-1] == "endpoint:payments 2 more"
    assert len(found) == MAX_ENDPOINTS + 1
