"""Balancing by latency: the quicker one of two candidates, a slow answer counting at once.

Knows latencies, weights and how much is outstanding; must not know what was asked. Who gives the same tuple as long
as the set and its weights are unchanged pays only once for what depends on them alone.

Theory of operation. A `PeakEwma` is an average that jumps up with every answer slower than itself and comes down with
the others. While nothing is heard it decays, so who was slow is tried again, a little at first: its cost is soon as
high as that of the others by what is outstanding there. Failures count as slow answers: else who fails at once would
look quick and attract everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random
from typing import Final, Generic, Protocol, TypeVar

from ambassador.policy.weights import Loaded, draw, running_sums

_DECAY_S: Final = 10.0
#: A decayed average below it, less than any network takes, says nothing any more.
_NOTHING_S: Final = 10e-6
#: What is assumed behind the first request to who was never heard of. One second is far above what a service takes
#: to answer, so until the first answer one request is enough; and where all are new, they fill up evenly.
_ASSUMED_S: Final = 1.0
_FAILURE_S: Final = 5.0
_LONGEST_S: Final = 300.0  # a Retry-After may say more
_EXACT_BELOW: Final = 5  # up to four candidates are compared one and all


class PeakEwma:
    """The latency of one endpoint: an exponentially weighted moving average that is sensitive to peaks.

    Units: seconds; `now` is monotonic.
    Source: Finagle's and Linkerd's PeakEwma (10 s); Linkerd's load biaser (failures and 429 as 5 s, Retry-After).
    """

    __slots__ = ("_at", "_average_s")

    def __init__(self) -> None:
        self._average_s = 0.0
        self._at = 0.0

    def __repr__(self) -> str:
        return f"PeakEwma({self._average_s:.6f} s at {self._at:.3f})"

    def observe(self, rtt_s: float, now: float) -> None:
        """Take in how long an answer took."""
        if rtt_s > self._average_s:
            self._average_s = rtt_s
        else:
            kept = exp((self._at - now) / _DECAY_S) if now > self._at else 1.0
            self._average_s = self._average_s * kept + rtt_s * (1.0 - kept)
        self._at = now

    def penalise(self, now: float, seconds: float = _FAILURE_S) -> None:
        """Take in a failure, or a 429 with its Retry-After, as an answer that took `seconds` (300 at most)."""
        self.observe(min(seconds, _LONGEST_S), now)

    def cost(self, load: float, now: float) -> float:
        """Give the latency to expect behind `load` requests; never heard of and idle costs nothing."""
        average = self._average_s
        if now > self._at:
            average *= exp((self._at - now) / _DECAY_S)
        if average < _NOTHING_S:
            return _ASSUMED_S * load
        return average * (load + 1.0)


class Timed(Loaded, Protocol):
    """A candidate that knows how long its answers took."""

    @property
    def latency(self) -> PeakEwma: ...


T = TypeVar("T", bound=Timed)


class LeastLatency(Generic[T]):
    """The cheaper one of two random candidates, cost being latency by what is outstanding; of few, the cheapest.

    The cost is latency * (outstanding / weight + 1), with weights as multiples of their mean: for equal weights
    latency * (outstanding + 1). Not (outstanding + 1) / weight: of idle ones that are equally quick the lightest would
    then get nothing. The first is drawn by weight and stays unless the other is strictly cheaper.
    """

    __slots__ = ("_bounds", "_mean", "_seen")

    def __init__(self) -> None:
        self._seen: Sequence[T] = ()
        self._bounds: list[float] | None = None
        self._mean = 1.0

    def __repr__(self) -> str:
        return f"LeastLatency({len(self._seen)} candidates)"

    def pick(
        self, candidates: Sequence[T], random: Random, key: bytes | None = None, now: float = 0.0
    ) -> T:
        """Give a candidate; there must be one. `key` is not used."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        if candidates is not self._seen or type(candidates) is not tuple:
            self._study(candidates)
        first = draw(self._bounds, count, random)
        best = candidates[first]
        if count < _EXACT_BELOW:
            return self._cheapest(best, candidates, now)
        second = draw(self._bounds, count, random)
        if second == first:
            second = (first + 1) % count
        return self._cheapest(best, (candidates[second],), now)

    def _study(self, candidates: Sequence[T]) -> None:
        self._seen = candidates
        self._bounds = running_sums(candidates)
        self._mean = sum(candidate.weight for candidate in candidates) / len(candidates)

    def _cheapest(self, best: T, rivals: Sequence[T], now: float) -> T:
        mean = self._mean
        least = best.latency.cost(best.outstanding * mean / best.weight, now)
        for rival in rivals:
            cost = rival.latency.cost(rival.outstanding * mean / rival.weight, now)
            if cost < least:
                best, least = rival, cost
        return best
