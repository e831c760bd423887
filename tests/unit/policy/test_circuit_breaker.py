"""Ceilings of a service, and the budget of its retries."""

from __future__ import annotations

import pytest

from ambassador.policy.circuit_breaker import CircuitBreaker, CircuitBreakerSettings


def test_it_is_full_when_as_many_requests_are_in_flight_as_may() -> None:
    breaker = CircuitBreaker(CircuitBreakerSettings(requests=2))
    breaker.requests = 1

    assert not breaker.is_full
    breaker.requests = 2
    assert breaker.is_full


@pytest.mark.parametrize(
    ("requests", "retries", "allowed"),
    [
        (0, 2, True),
        (10, 3, False),
        (120, 19, True),
        (120, 20, False),
        (19, 3, True),
        (18, 3, False),
    ],
)
def test_retries_are_a_share_of_the_requests_or_the_few_that_are_free(
    requests: int, retries: int, *, allowed: bool
) -> None:
    """Envoy's retry_budget: 20 %, at least 3."""
    breaker = CircuitBreaker(CircuitBreakerSettings())
    breaker.requests, breaker.retries = requests, retries

    assert breaker.has_retry is allowed


def test_each_ceiling_says_whether_it_turns_somebody_away() -> None:
    breaker = CircuitBreaker(CircuitBreakerSettings(connections=1, pending=1, requests=1))
    none = {"connections": False, "pending": False, "requests": False, "retries": False}
    calm = breaker.open_ceilings(0)
    breaker.requests = breaker.connections = 1
    breaker.retries = 3

    assert calm == none
    assert breaker.open_ceilings(1) == dict.fromkeys(none, True)


def test_it_prints_its_counts() -> None:
    breaker = CircuitBreaker(CircuitBreakerSettings())

    assert repr(breaker) == "CircuitBreaker(0 requests, 0 retries, 0 connections)"
