"""Which of the eligible endpoints gets the next attempt.

Knows weights and how much is outstanding; must not know why a candidate is eligible. Who gives the same tuple as
long as the set is unchanged pays only once for what depends on the set alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Final, Generic, Protocol, TypeVar


class Candidate(Protocol):
    """An endpoint as balancing sees it; hashable by identity."""

    @property
    def outstanding(self) -> int: ...

    @property
    def weight(self) -> int: ...


C = TypeVar("C", bound=Candidate)

_EXACT_BELOW: Final = 5  # up to four candidates are compared one and all


class RoundRobin(Generic[C]):
    """Smooth weighted round robin: 5:1:1 gives a a b a c a a, not a a a a a b c.

    Source: nginx, ngx_http_upstream_round_robin (commit 52327e0627f4).
    """

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: dict[C, int] = {}

    def pick(self, candidates: Sequence[C], random: Random) -> C:
        """Give the next candidate; there must be one. What is left out for a while loses its turn, no more."""
        current = self._current
        if len(current) > 2 * len(candidates) + 8:  # endpoints come and go: forget those that went
            self._current = current = {x: current[x] for x in candidates if x in current}
        best = candidates[0]
        total = 0
        for candidate in candidates:
            weight = candidate.weight
            total += weight
            value = current[candidate] = current.get(candidate, 0) + weight
            if value > current[best]:  # values below zero are possible once the set has changed
                best = candidate
        current[best] -= total
        return best

    def __repr__(self) -> str:
        return f"RoundRobin({len(self._current)} known)"


class LeastRequest(Generic[C]):
    """The less busy one of two random candidates, busy being outstanding by weight; of few, the least of all.

    The first is drawn by weight and stays unless the other is strictly less busy, so an idle service is
    shared out by weight.
    Source: Mitzenmacher, The Power of Two Choices, 2001; Envoy's LEAST_REQUEST.
    """

    __slots__ = ("_bounds", "_seen")

    def __init__(self) -> None:
        self._seen: Sequence[C] = ()
        self._bounds: list[int] | None = (
            None  # running sums of the weights; None when all are equal
        )

    def pick(self, candidates: Sequence[C], random: Random) -> C:
        """Give a candidate; there must be one. See `benchmarks/micro/policy_balancing.py`."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        if (
            candidates is not self._seen or type(candidates) is not tuple
        ):  # a list may have been changed
            self._study(candidates)
        first = self._draw(random)
        best = candidates[first]
        if count < _EXACT_BELOW:
            for rival in candidates:
                if rival.outstanding * best.weight < best.outstanding * rival.weight:
                    best = rival
            return best
        second = self._draw(random)
        if second == first:
            second = (first + 1) % count
        rival = candidates[second]
        return rival if rival.outstanding * best.weight < best.outstanding * rival.weight else best

    def _study(self, candidates: Sequence[C]) -> None:
        self._seen = candidates
        weights = [candidate.weight for candidate in candidates]
        self._bounds = list(accumulate(weights)) if len(set(weights)) > 1 else None

    def _draw(self, random: Random) -> int:
        """Give an index by weight."""
        bounds = self._bounds
        if bounds is None:
            return int(random.random() * len(self._seen))
        return bisect_right(bounds, random.random() * bounds[-1])

    def __repr__(self) -> str:
        return f"LeastRequest({len(self._seen)} candidates)"
