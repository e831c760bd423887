"""What the keys of resilience mean: sections of the schema -> the settings of `policy`.

Knows how both say it; decides nothing, as all of `build.py`.
"""

from __future__ import annotations

from ambassador.config import schema_resilience as schema
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.policy.health import HealthCheckSettings
from ambassador.policy.outlier import OutlierSettings
from ambassador.policy.retry import RetrySettings


def retry(given: schema.Retry | None) -> RetrySettings | None:
    """Give when a route repeats; None is never."""
    if given is None:
        return None
    return RetrySettings(
        attempts=given.attempts,
        conditions=frozenset(one for one in given.when if isinstance(one, str)),
        statuses=frozenset(one for one in given.when if isinstance(one, int)),
        max_body=given.max_body,
        backoff_base_s=given.backoff.base,
        backoff_max_s=given.backoff.max,
        retry_after=given.retry_after,
        unsafe_methods=frozenset(one.encode() for one in given.unsafe_methods),
    )


def circuit_breaker(given: schema.CircuitBreaker) -> CircuitBreakerSettings:
    """Give the ceilings of a service."""
    return CircuitBreakerSettings(
        connections=given.connections,
        pending=given.pending,
        requests=given.requests,
        retry_budget=given.retry_budget,
        min_retries=given.min_retries,
    )


def health_check(given: schema.HealthCheck | None) -> HealthCheckSettings | None:
    """Give how endpoints are asked; None is never."""
    if given is None:
        return None
    return HealthCheckSettings(
        kind=given.kind,
        path=given.path,
        host=given.host,
        expect=tuple(given.expect),
        interval_s=given.interval,
        unhealthy_interval_s=given.unhealthy_interval,
        no_traffic_interval_s=given.no_traffic_interval,
        timeout_s=given.timeout,
        rise=given.rise,
        fall=given.fall,
        jitter=given.jitter,
    )


def outlier_detection(given: schema.OutlierDetection | None) -> OutlierSettings | None:
    """Give when endpoints are ejected; None is never."""
    if given is None:
        return None
    return OutlierSettings(
        consecutive=given.consecutive,
        interval_s=given.interval,
        ejection_s=given.ejection,
        max_ejection_s=given.max_ejection,
        max_ejected=given.max_ejected,
        success_rate=given.success_rate,
        min_requests=given.min_requests,
    )


def balance(given: schema.Balance) -> BalanceSettings:
    """Give which endpoint gets a request."""
    by = given.hash
    return BalanceSettings(
        kind=given.kind,
        hash_header=by.header.encode() if by is not None and by.header is not None else None,
        hash_cookie=by.cookie.encode() if by is not None and by.cookie is not None else None,
        hash_peer=by is schema.PEER,
        load_bound=given.load_bound,
        slow_start_s=given.slow_start,
        prefers_zone=given.zone == "prefer",
        panic_threshold=given.panic_threshold,
    )
