"""What keeps a failure small: limits, retries, faults on purpose, circuit breaker, health, outliers, balance.

Knows the keys; their meaning is in the settings of `policy`. Where one place of the file has to be one object,
however many routes have it, its section makes it.
"""

from functools import cached_property
from typing import Annotated

from ambassador.config.annotations import Filled, Or
from ambassador.config.leaves import (
    Condition,
    CookieName,
    Duration,
    DurationOrNone,
    Flag,
    HeaderName,
    HeaderValue,
    HostName,
    Method,
    NormalPath,
    Percent,
    PercentOrNone,
    Rate,
    Statuses,
    one_of,
    percentage,
    sized,
    whole,
)
from ambassador.config.model import FaultConfig
from ambassador.config.schema_base import Section, key
from ambassador.config.schema_peers import Rule, rules
from ambassador.policy import rate_limit as limits

_MANY = 1_000_000


class RateLimit(Section):
    """A token bucket: beyond it requests get 429."""

    rate: Rate = key("Requests that may begin.")
    burst: Annotated[int, whole(1, 1_000_000)] | None = key(
        "As many at once; default: one second's worth.", None
    )
    by: Annotated[str, one_of("all", "peer")] = key("Counted together, or for each peer.", "all")

    @cached_property
    def limit(self) -> limits.RateLimit:
        """Give the meaning: one object for this place of the file, however many routes have it."""
        burst = self.burst or max(1, round(self.rate))
        return limits.RateLimit(self.rate, burst, by_peer=self.by == "peer")


class Backoff(Section):
    """The pause before a repetition: random, below a bound that doubles."""

    base: Duration = key("Bound of the first pause.", "25ms")
    max: Duration = key("Bound of every pause.", "250ms")


class Retry(Section):
    """When and how often a failed request is repeated."""

    attempts: Annotated[int, whole(1, 100)] = key("The first one counts.", 2)
    when: Annotated[list[Condition], Filled()] = key(
        "What is repeated: words, or statuses one by one.",
        ["connect_failure", "reset", "gateway_error"],
    )
    max_body: Annotated[int, sized("1B", "1024GiB")] = key(
        "Larger request bodies are not repeated.", "64KiB"
    )
    backoff: Backoff = key("The pause before a repetition.", {})
    retry_after: Flag = key("The response's Retry-After counts.", True)
    unsafe_methods: list[Method] = key("Repeated although not idempotent, such as POST.", [])


class Fault(Section):
    """Delay or failure on purpose, in effect only with `run --enable-faults`."""

    delay: Duration | None = key("Wait so long first.", None)
    abort: Annotated[int, whole(400, 599)] | None = key("Answer with this status.", None)
    percent: Percent = key("Share of the requests.", "100%")
    headers: Annotated[dict[HeaderName, HeaderValue] | None, Filled()] = key(
        "Exact value, or `present`; all must hold.", None
    )
    allow: Annotated[list[Rule] | None, Filled()] = key(
        "Whose requests may have it; required in inbound.", None
    )

    @cached_property
    def fault(self) -> FaultConfig:
        """Give the meaning: one object for this place of the file, however many routes have it."""
        return FaultConfig(
            delay_s=self.delay or 0.0,
            abort=self.abort,
            percent=self.percent,
            headers=fields(self.headers),
            allow=rules(self.allow or (), "allow"),
        )


def fields(given: dict[str, str] | None) -> tuple[tuple[str, str | None], ...]:
    """Give names of header fields with the value that each must have, None for `present`."""
    return tuple(
        (name, None if value == "present" else value) for name, value in (given or {}).items()
    )


class CircuitBreaker(Section):
    """Ceilings of a service in each worker."""

    connections: Annotated[int, whole(1, _MANY)] = key("Open and being made.", 256)
    pending: Annotated[int, whole(0, _MANY)] = key("Waiting for one of them.", 256)
    requests: Annotated[int, whole(1, _MANY)] = key("In flight.", 1024)
    retry_budget: Percent = key("Share of those in flight that may be retries.", "20%")
    min_retries: Annotated[int, whole(0, _MANY)] = key("As many may be, whatever the share.", 3)


class HealthCheck(Section):
    """Asking each endpoint whether it is well."""

    http_only = frozenset({"path", "host", "expect"})  # with kind tcp they are errors

    kind: Annotated[str, one_of("http", "tcp")] = key("A request, or a connection alone.", "http")
    path: NormalPath = key("What is asked for.", "/")
    host: HostName | None = key("Default: the service's name.", None)
    expect: Annotated[list[Statuses], Filled()] = key(
        'Good answers: a status, or a range such as "200-299".', [200]
    )
    interval: Duration = key("Asked so often.", "5s")
    unhealthy_interval: Duration = key("While it is unhealthy.", "1s")
    no_traffic_interval: Duration = key("While nobody uses the service.", "60s")
    timeout: Duration = key("Until the answer.", "1s")
    rise: Annotated[int, whole(1, 1000)] = key("Good ones in a row until healthy.", 2)
    fall: Annotated[int, whole(1, 1000)] = key("Bad ones in a row until unhealthy.", 3)
    jitter: Percent = key("Share of the interval that is random.", "10%")


class OutlierDetection(Section):
    """Ejecting endpoints for what they answered."""

    consecutive: Annotated[int, whole(1, _MANY)] = key("Failures in a row.", 5)
    interval: Duration = key("Between two looks.", "10s")
    ejection: Duration = key("So long, times how often already.", "30s")
    max_ejection: Duration = key("At most so long.", "300s")
    max_ejected: Percent = key("Share of the endpoints; never the last.", "50%")
    success_rate: PercentOrNone = key("Ejected below it, or none.", "none")
    min_requests: Annotated[int, whole(1, _MANY)] = key("Before the rate says anything.", 5)


class Hash(Section):
    """What a request must share with another to meet the same endpoint: one of both."""

    header: HeaderName | None = key("The value of this header field.", None)
    cookie: CookieName | None = key("The value of this cookie.", None)


#: The word `peer`: the identity of who sent the request.
PEER = Hash.model_construct()


class Balance(Section):
    """Which endpoint gets a request."""

    kind: Annotated[str, one_of("least_request", "round_robin", "peak_ewma", "ring_hash")] = key(
        "least_request is the better of two random ones.", "least_request"
    )
    hash: Annotated[Hash | None, Or("peer", PEER)] = key(
        "{header: NAME}, {cookie: NAME} or peer (the peer's identity); required with ring_hash.",
        None,
    )
    load_bound: Annotated[float, percentage(100, 1000)] = key(
        "Of the mean; an endpoint above it is passed over by ring_hash.", "125%"
    )
    slow_start: DurationOrNone = key("How long a new endpoint gets less than its share.", "none")
    zone: Annotated[str, one_of("prefer", "ignore")] = key("Endpoints of our own first.", "prefer")
    panic_threshold: Percent = key("With fewer eligible, all but the wrong ones.", "50%")
