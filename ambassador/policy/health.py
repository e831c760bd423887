"""Whether an endpoint is healthy, from the results of active checks.

Knows counts, thresholds and pauses; must not know how a check is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: How far first checks are apart at most: they come at once, but not all in one turn of the loop.
FIRST_SPREAD_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class HealthCheckSettings:
    """How a service's endpoints are checked.

    `expect` are inclusive ranges of statuses. Units: seconds; `jitter` is a fraction of the interval.
    Source: Envoy's health_check; `rise` and `fall` are HAProxy's words.
    """

    kind: str = "http"  # or tcp
    path: str = "/"
    host: str | None = None  # None: the service's name
    expect: tuple[tuple[int, int], ...] = ((200, 200),)
    interval_s: float = 5.0
    unhealthy_interval_s: float = 1.0
    no_traffic_interval_s: float = 60.0
    timeout_s: float = 1.0
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1


class Health:
    """What the checks of one endpoint have said.

    `is_healthy` counts as true until the first result. `reason` says why it is unhealthy, by the newest failure;
    empty when healthy.
    """

    __slots__ = ("_against", "is_healthy", "is_known", "reason")

    def __init__(self) -> None:
        self.is_healthy = True
        self.is_known = False  # whether there has been a result
        self.reason = ""
        self._against = 0  # results in a row that speak against the state

    def __repr__(self) -> str:
        if not self.is_known:
            return "Health(unknown)"
        return "Health(healthy)" if self.is_healthy else f"Health(unhealthy, {self.reason})"

    def observe(self, ok: bool, reason: str, settings: HealthCheckSettings) -> bool:  # noqa: FBT001
        """Take a result; True when the endpoint became healthy or unhealthy by it.

        The very first result decides at once. A status that is not expected is a failure like any other: Envoy ejects
        at the first one that is not listed, but then a single 500 of a busy endpoint takes it away, which is what
        `fall` is there to prevent.
        Source: Envoy's health_check (one result decides at start); HAProxy's rise and fall.
        """
        threshold = 1
        if self.is_known:
            threshold = settings.rise if ok else settings.fall
        self.is_known = True
        if ok == self.is_healthy:
            self._against = 0
            self.reason = "" if ok else reason
            return False
        self._against += 1
        if self._against < threshold:
            return False
        self._against = 0
        self.is_healthy = ok
        self.reason = "" if ok else reason
        return True

    def next_check_s(
        self, settings: HealthCheckSettings, *, has_traffic: bool, chance: float
    ) -> float:
        """Give the pause before the next check.

        `has_traffic`: whether the service was used in the last `no_traffic_interval`; where nobody asks, a check need
        not hurry.
        Units: seconds; `chance` out of [0, 1).
        Source: Envoy's interval, unhealthy_interval, no_traffic_interval and their jitter.
        """
        if not self.is_known:
            return chance * min(FIRST_SPREAD_S, settings.interval_s)
        if not self.is_healthy:
            pause = settings.unhealthy_interval_s
        elif has_traffic or self._against:  # one that has begun to fail is looked at in time
            pause = settings.interval_s
        else:
            pause = settings.no_traffic_interval_s
        return pause * (1 + settings.jitter * (2 * chance - 1))
