"""Which of the eligible endpoints gets the next attempt.

Knows weights and how much is outstanding; must not know why a candidate is eligible. Who gives the same tuple as
long as the set and its weights are unchanged pays only once for what depends on them alone. A balancer is for one
such set and parts of it: of two sets in turns each deserves its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final, Generic, Protocol, TypeVar

from ambassador.policy.peak_ewma import LeastLatency, Timed
from ambassador.policy.ring_hash import Keyed, RingHash
from ambassador.policy.weights import Loaded, draw, running_sums


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """How a service's endpoints share its requests.

    `hash_header`, `hash_cookie` and `hash_peer` belong to ring_hash: exactly one is set. `load_bound` is a multiple
    of the mean (1.25), `panic_threshold` a fraction. Units: seconds, `slow_start_s` None is off.
    """

    kind: str = "least_request"  # or round_robin, peak_ewma, ring_hash
    hash_header: bytes | None = None  # lower case
    hash_cookie: bytes | None = None
    hash_peer: bool = False
    load_bound: float = 1.25
    slow_start_s: float | None = None
    prefers_zone: bool = True
    panic_threshold: float = 0.5


class Candidate(Keyed, Timed, Protocol):
    """An endpoint that every kind of balancer can pick."""


C = TypeVar("C", bound=Candidate)
L = TypeVar("L", bound=Loaded)
Picked = TypeVar("Picked")

_EXACT_BELOW: Final = 5  # up to four candidates are compared one and all
_LOWEST: Final = -inf  # of a turn: values below zero are possible once the set has changed


class Balancer(Protocol[Picked]):
    """What every kind can: give one of the candidates, of which there must be one.

    `key` decides for ring_hash and `now` matters to peak_ewma; the others need neither.
    Units: `now` is monotonic seconds.
    """

    def pick(
        self,
        candidates: Sequence[Picked],
        random: Random,
        key: bytes | None = None,
        now: float = 0.0,
    ) -> Picked: ...


def make_balancer(settings: BalanceSettings) -> Balancer[C]:
    """Give the balancer of a service; its kind has been checked."""
    match settings.kind:
        case "round_robin":
            return RoundRobin()
        case "peak_ewma":
            return LeastLatency()
        case "ring_hash":
            return RingHash(settings.load_bound)
        case _:
            return LeastRequest()


class RoundRobin(Generic[L]):
    """Smooth weighted round robin: 5:1:1 gives a a b a c a a, not a a a a a b c.

    Source: nginx, ngx_http_upstream_round_robin (commit 52327e0627f4).
    """

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: dict[L, float] = {}

    # Not keyword-only: that alone would make each call 30 ns dearer, and what has a default is not used here.
    def pick(
        self, candidates: Sequence[L], random: Random, key: bytes | None = None, now: float = 0.0
    ) -> L:
        """Give the next candidate; there must be one. What is left out for a while loses its turn, no more."""
        current = self._current
        if len(current) > 2 * len(candidates) + 8:  # endpoints come and go: forget those that went
            self._current = current = {x: current[x] for x in candidates if x in current}
        best = candidates[0]
        highest = _LOWEST
        total: float = 0  # integers stay integers, and so exact
        for candidate in candidates:
            weight = candidate.weight
            total += weight
            value = current[candidate] = current.get(candidate, 0) + weight
            if value > highest:
                best, highest = candidate, value
        current[best] = highest - total
        return best

    def __repr__(self) -> str:
        return f"RoundRobin({len(self._current)} known)"


class LeastRequest(Generic[L]):
    """The less busy one of two random candidates, busy being outstanding by weight; of few, the least of all.

    The first is drawn by weight and stays unless the other is strictly less busy, so an idle service is
    shared out by weight.
    Source: Mitzenmacher, The Power of Two Choices, 2001; Envoy's LEAST_REQUEST.
    """

    __slots__ = ("_bounds", "_seen")

    def __init__(self) -> None:
        self._seen: Sequence[L] = ()
        self._bounds: list[float] | None = None

    # Not keyword-only: see RoundRobin.
    def pick(
        self, candidates: Sequence[L], random: Random, key: bytes | None = None, now: float = 0.0
    ) -> L:
        """Give a candidate; there must be one. See `benchmarks/micro/policy_balancing.py`."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        if (
            candidates is not self._seen or type(candidates) is not tuple
        ):  # a list may have been changed
            self._study(candidates)
        # --- `draw`, inlined for equal weights, as nearly all are: 0.3 us of 1.1 with three candidates
        bounds = self._bounds
        first = int(random.random() * count) if bounds is None else draw(bounds, count, random)
        # ---
        best = candidates[first]
        if not best.outstanding:  # nobody is less busy
            return best
        if count < _EXACT_BELOW:
            return _least(candidates, best)
        second = draw(bounds, count, random)
        if second == first:
            second = (first + 1) % count
        rival = candidates[second]
        return rival if rival.outstanding * best.weight < best.outstanding * rival.weight else best

    def _study(self, candidates: Sequence[L]) -> None:
        self._seen = candidates
        self._bounds = running_sums(candidates)

    def __repr__(self) -> str:
        return f"LeastRequest({len(self._seen)} candidates)"


def _least(candidates: Sequence[L], best: L) -> L:
    """Give the least busy by weight; `best` stays unless another is strictly less busy."""
    load, weight = best.outstanding, best.weight
    for rival in candidates:
        if rival.outstanding * weight < load * rival.weight:
            best, load, weight = rival, rival.outstanding, rival.weight
    return best
