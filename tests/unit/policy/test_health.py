"""Thresholds and pauses of active checks (config.md §3: health_check)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.health import FIRST_SPREAD_S, Health, HealthCheckSettings

SETTINGS = HealthCheckSettings(rise=2, fall=3)


def observed(results: str, settings: HealthCheckSettings = SETTINGS) -> Health:
    """Give an endpoint after these results: `+` is a success, anything else a failure with that reason."""
    health = Health()
    for result in results:
        health.observe(result == "+", "" if result == "+" else result, settings)
    return health


def test_an_endpoint_counts_as_healthy_until_it_was_checked() -> None:
    """Start must not wait for a check; Envoy's endpoints are the same with `ignore_new_hosts_until_first_hc` off."""
    health = Health()

    assert (health.is_healthy, health.is_known, health.reason) == (True, False, "")


@pytest.mark.parametrize(("ok", "changed"), [(True, False), (False, True)])
def test_the_first_result_decides_at_once(ok: bool, changed: bool) -> None:
    """protocols.md §5: one success at start; healthy was assumed, so only a failure is a change."""
    health = Health()

    assert health.observe(ok, "" if ok else "timeout", SETTINGS) is changed
    assert (health.is_healthy, health.is_known) == (ok, True)
    assert health.reason == ("" if ok else "timeout")


@pytest.mark.parametrize(
    ("results", "is_healthy"),
    [
        ("+aa", True),
        ("+aaa", False),
        ("+aa+aa", True),  # in a row
        ("a+", False),
        ("a++", True),
        ("a+a+", False),
        ("a++aa", True),
    ],
)
def test_the_state_changes_after_enough_results_in_a_row(results: str, is_healthy: bool) -> None:
    """`rise` and `fall`, HAProxy's words."""
    assert observed(results).is_healthy is is_healthy


@given(st.text("+a", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_a_change_is_told_exactly_when_the_last_results_agree_against_the_state(
    results: str, rise: int, fall: int
) -> None:
    settings = HealthCheckSettings(rise=rise, fall=fall)
    health = Health()
    since = 0  # the last change: what came before it counts no more
    for at, result in enumerate(results):
        threshold = fall if health.is_healthy else rise
        against = "a" if health.is_healthy else "+"
        first = at == 0 and result == "a"
        run = results[since : at + 1][-threshold:] == against * threshold
        expected = first or (at > 0 and run)

        before = health.is_healthy
        if at == 0:
            since = 1

        assert health.observe(result == "+", result, settings) is expected
        assert (health.is_healthy != before) is expected
        if expected:
            since = at + 1


def test_the_reason_is_that_of_the_newest_failure_and_goes_with_the_return() -> None:
    """What an operator reads in /services is why it is unhealthy now."""
    health = observed("ab")
    assert health.reason == "b"

    health.observe(True, "", SETTINGS)
    assert health.reason == "b"
    health.observe(True, "", SETTINGS)
    assert health.reason == ""


def test_a_failure_below_the_threshold_leaves_no_reason() -> None:
    assert observed("+a").reason == ""


@pytest.mark.parametrize(
    ("results", "has_traffic", "pause_s"),
    [("+", True, 5.0), ("+", False, 60.0), ("a", True, 1.0), ("a", False, 1.0)],
)
def test_the_pause_follows_the_state_and_the_traffic(
    results: str, has_traffic: bool, pause_s: float
) -> None:
    """interval, no_traffic_interval, unhealthy_interval."""
    health = observed(results)

    assert health.next_check_s(SETTINGS, has_traffic=has_traffic, chance=0.5) == pause_s


@pytest.mark.parametrize(("chance", "pause_s"), [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)])
def test_jitter_lies_evenly_on_both_sides(chance: float, pause_s: float) -> None:
    """Checks of many proxies must not fall into step."""
    pause = observed("+").next_check_s(SETTINGS, has_traffic=True, chance=chance)

    assert pause == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("interval_s", "most_s"), [(5.0, FIRST_SPREAD_S), (FIRST_SPREAD_S / 5, FIRST_SPREAD_S / 5)]
)
@pytest.mark.parametrize("has_traffic", [True, False])
def test_the_first_check_comes_at_once_within_a_small_spread(
    interval_s: float, most_s: float, has_traffic: bool
) -> None:
    settings = HealthCheckSettings(interval_s=interval_s)

    pauses = [
        Health().next_check_s(settings, has_traffic=has_traffic, chance=chance)
        for chance in (0.0, 0.5, 1.0)
    ]

    assert pauses == [0.0, most_s / 2, most_s]


@pytest.mark.parametrize(
    ("results", "text"),
    [("", "Health(unknown)"), ("+", "Health(healthy)"), ("a", "Health(unhealthy, a)")],
)
def test_it_prints_its_state(results: str, text: str) -> None:
    assert repr(observed(results)) == text
