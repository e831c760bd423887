"""Which endpoints are ejected for what their answers were, and when they may return.

Knows results and moments; must not know what a request is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

NEVER: Final = math.inf
_ROUNDING: Final = 1e-9  # of a fraction times a number: 0.29 of 100 is 29


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """When an endpoint is ejected, and for how long.

    Units: seconds; `max_ejected` and `success_rate` are fractions, `success_rate` None is off.
    Source: Envoy's outlier_detection (defaults), Linkerd's success-rate policy (80 %, a probing request).
    """

    consecutive: int = 5
    interval_s: float = 10.0
    ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_ejected: float = 0.5
    success_rate: float | None = None
    min_requests: int = 5


class Outlier:
    """What the answers of one endpoint have said.

    `failures` (in a row) is 0 only when a success changes nothing: so the hot path compares this and goes on.
    `next_event_at`: when an ejected endpoint may be probed (again), NEVER when it is not ejected.
    `requests` and `successes` are those of the running interval, `reason` that of the last ejection.
    """

    __slots__ = (
        "failures", "is_ejected", "is_probed", "next_event_at", "reason", "requests", "returned_at",
        "successes", "times",
    )  # fmt: skip

    def __init__(self) -> None:
        self.failures = self.requests = self.successes = 0
        self.times = 0  # ejections in a row, lessened while it behaves
        self.is_ejected = False
        self.is_probed = False  # the one request that may return it has been let through
        self.reason = ""
        self.next_event_at = NEVER
        self.returned_at = -NEVER

    def __repr__(self) -> str:
        ejected = f"ejected for {self.reason}" if self.is_ejected else "ok"
        return f"Outlier({ejected}, {self.failures} failures, {self.times} times)"

    def state(self, now: float) -> Literal["ok", "ejected", "probing"]:
        """Say how it stands: `probing` waits for one request, or for its result."""
        if not self.is_ejected:
            return "ok"
        return "probing" if self.is_probed or now >= self.next_event_at else "ejected"


@dataclass(frozen=True, slots=True)
class Ejection:
    """One endpoint is ejected. Units: seconds; `times` is how often in a row."""

    record: Outlier
    reason: str
    duration_s: float
    times: int


class OutlierDetector:
    """Decides for the endpoints of one service.

    Rules:
    * At most `max_ejected` of them are ejected at once (one at least), and never the last one.
    * Each ejection in a row is longer; each interval without one makes the next shorter again.
    * An endpoint whose time is over returns by one request: until that has succeeded it counts as ejected.
    * Results while it is left out decide nothing: they are of requests begun before. Once the one request is under
      way the first result decides, whosoever it is: telling them apart would cost every exchange a mark.

    The caller need not tell of a success when `record.failures` is 0 and `is_rated` false; of a result that is
    neither (429), never.
    """

    __slots__ = ("_ejected", "_limit", "_records", "_settings", "is_rated")

    def __init__(self, settings: OutlierSettings) -> None:
        self._settings = settings
        self.is_rated = settings.success_rate is not None  # then every success has to be told
        self._records: dict[Outlier, None] = {}
        self._ejected = self._limit = 0

    def __repr__(self) -> str:
        return f"OutlierDetector({self._ejected} of {len(self._records)} ejected)"

    def update(self, records: Iterable[Outlier], now: float) -> list[Outlier]:
        """Take the records of a new set of endpoints; those that left are forgotten.

        Gives those that return because too many of the rest would be ejected: the ones whose time is over first.
        """
        left, self._records = self._records, dict.fromkeys(records)
        for record in left.keys() - self._records.keys():
            _return(record, now)  # exchanges that still run there find nothing to decide
        number = len(self._records)
        wanted = max(1, math.floor(self._settings.max_ejected * number + _ROUNDING))
        self._limit = max(0, min(wanted, number - 1))
        ejected = [record for record in self._records if record.is_ejected]
        ejected.sort(key=_next_event_at)
        self._ejected = min(len(ejected), self._limit)
        returned = ejected[: len(ejected) - self._ejected]
        for record in returned:
            _return(record, now)
        return returned

    def failed(self, record: Outlier, now: float, reason: str) -> Ejection | None:
        """Take a failure; an Ejection when the endpoint is to be left out from now on.

        Source: Envoy's consecutive_5xx; Linkerd's failure accrual for the probing request.
        """
        record.requests += 1
        record.failures += 1
        if record.is_ejected:
            return self._eject(record, now, reason) if record.is_probed else None
        if record.failures < self._settings.consecutive:
            return None
        return self._eject_within_limit(record, now, reason)

    def succeeded(self, record: Outlier, now: float) -> bool:
        """Take a success; True when the endpoint returns by it."""
        record.requests += 1
        record.successes += 1
        if not record.is_ejected:
            record.failures = 0
            return False
        if not record.is_probed:
            return False
        self._ejected -= 1
        _return(record, now)
        return True

    def may_probe(self, record: Outlier, now: float) -> bool:
        """Say whether this request may go to an ejected endpoint; True takes the only place.

        A probing request that never ends holds the place as long as an ejection or an interval, the longer of them.
        """
        if now < record.next_event_at:
            return False
        record.is_probed = True
        record.next_event_at = now + max(self._settings.ejection_s, self._settings.interval_s)
        return True

    def tick(self, now: float) -> list[Ejection]:
        """End an interval, which the caller does each `interval_s`: give whom its success rate ejects.

        Source: Linkerd's success-rate policy; Envoy lessens the count of ejections by one each interval.
        """
        poor = [record for record in self._records if self._is_poor(record)]
        poor.sort(key=_success_rate)  # the worst first: the limit may not allow all
        changes = [self._eject_within_limit(record, now, "success_rate") for record in poor]
        for record in self._records:
            self._end_interval(record, now)
        return [change for change in changes if change is not None]

    def _is_poor(self, record: Outlier) -> bool:
        least = self._settings.success_rate
        return (
            least is not None
            and not record.is_ejected
            and record.requests >= self._settings.min_requests
            and record.successes < least * record.requests - _ROUNDING
        )

    def _end_interval(self, record: Outlier, now: float) -> None:
        record.requests = record.successes = 0
        behaved = now - record.returned_at >= self._settings.interval_s
        if record.times and behaved and not record.is_ejected:
            record.times -= 1

    def _eject_within_limit(self, record: Outlier, now: float, reason: str) -> Ejection | None:
        if self._ejected >= self._limit or record not in self._records:
            return None
        self._ejected += 1
        return self._eject(record, now, reason)

    def _eject(self, record: Outlier, now: float, reason: str) -> Ejection:
        settings = self._settings
        # No higher than what makes a difference, so that one that behaves is soon back at the shortest.
        if settings.ejection_s * record.times < settings.max_ejection_s:
            record.times += 1
        duration_s = min(settings.ejection_s * record.times, settings.max_ejection_s)
        # Also of one ejected by its rate: the hot path is to tell of the probing request's success.
        record.failures = max(record.failures, 1)
        record.is_ejected = True
        record.is_probed = False
        record.reason = reason
        record.next_event_at = now + duration_s
        return Ejection(record, reason, duration_s, record.times)


def _return(record: Outlier, now: float) -> None:
    record.is_ejected = record.is_probed = False
    record.failures = 0
    record.next_event_at = NEVER
    record.returned_at = now


def _next_event_at(record: Outlier) -> float:
    return record.next_event_at


def _success_rate(record: Outlier) -> float:
    return record.successes / record.requests
