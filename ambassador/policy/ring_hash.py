"""Balancing by key: the same key goes to the same endpoint, as long as that one is there and not overloaded.

Knows keys, weights and how much is outstanding; must not know where a key comes from. A key is chosen by the client,
who may aim all of them at one endpoint: the bound on the load is what protects it (threats.md H6).

Theory of operation. Each endpoint stands on a ring of 64-bit numbers with many points; a key belongs to the owner of
the nearest point below it. The points of an endpoint depend on its own key and on its weight beside the heaviest, so
all proxies agree, and who comes or goes moves only its own keys. A set that is part of the one whose ring was built
(some were tried, some are not available) is served from the same ring: those that are missing are passed over.

Known ugliness: beyond 16 endpoints there are fewer points for each, in order that building the ring stays a matter of
milliseconds. A newcomer then also moves some keys between others, at most as many again as it gets itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil
from random import Random
from struct import unpack
from typing import Final, Generic, Protocol, TypeVar

from ambassador.policy.weights import Loaded

_POINTS: Final = 1024  # of the heaviest endpoint
_MAX_POINTS: Final = 16 * _POINTS  # of all
_POINTS_IN_A_DIGEST: Final = 8


class Keyed(Loaded, Protocol):
    """A candidate with a place on the ring: `key` stays the same for the same endpoint, on every proxy."""

    @property
    def key(self) -> str: ...


K = TypeVar("K", bound=Keyed)


class RingHash(Generic[K]):
    """A consistent ring with bounded loads.

    `load_bound` is the multiple of its share of all outstanding requests that an endpoint takes, 1 at least.
    Source: Karger et al., Consistent Hashing, 1997; Mirrokni et al., Consistent Hashing with Bounded Loads, 2016
    (Envoy's hash_balance_factor).
    """

    __slots__ = ("_load_bound", "_owners", "_points", "_ring", "_seen", "_total", "_weights")

    def __init__(self, load_bound: float) -> None:
        self._load_bound = load_bound
        self._seen: Sequence[K] = ()
        self._weights: dict[K, float] = {}  # of `_seen`
        self._total = 0.0  # of `_weights`
        self._ring: dict[K, float] = {}  # weights with which the ring was built
        self._points: list[int] = []
        self._owners: list[K] = []

    def __repr__(self) -> str:
        return f"RingHash({len(self._ring)} endpoints, {len(self._points)} points)"

    def pick(
        self, candidates: Sequence[K], random: Random, key: bytes | None = None, now: float = 0.0
    ) -> K:
        """Give the candidate of a key, of a random place without one; there must be one. `now` is not used."""
        if len(candidates) == 1:
            return candidates[0]
        if candidates is not self._seen or type(candidates) is not tuple:
            self._study(candidates)
        place = random.getrandbits(64) if key is None else _place(key)
        return self._from(bisect_right(self._points, place) - 1)

    def _from(self, at: int) -> K:
        """Give the first owner from a point on that takes one more. Downwards: an index below 0 goes round."""
        owners, weights = self._owners, self._weights
        fair = 0.0
        for step in range(len(owners)):
            owner = owners[at - step]
            weight = weights.get(owner)
            if weight is None:
                continue
            if not owner.outstanding:
                return owner  # a bound is never below 1
            fair = fair or self._fair()
            if owner.outstanding < ceil(fair * weight):
                return owner
        # Without effect unless two candidates share a key: bounds of 1 and more leave room somewhere.
        return min(weights, key=lambda one: one.outstanding / weights[one])

    def _fair(self) -> float:
        """Give how much one unit of weight takes, with the request that is to be placed."""
        outstanding = sum(candidate.outstanding for candidate in self._weights)
        return self._load_bound * (outstanding + 1) / self._total

    def _study(self, candidates: Sequence[K]) -> None:
        self._seen = candidates
        self._weights = {candidate: candidate.weight for candidate in candidates}
        self._total = sum(self._weights.values())
        known = self._weights.items() <= self._ring.items()
        # A list is what is left after some tries, a tuple a new set: then forget those that went.
        is_set = type(candidates) is tuple
        if not known or (is_set and len(self._ring) > 2 * len(candidates) + 8):
            self._build()

    def _build(self) -> None:
        self._ring = weights = self._weights
        density = min(_POINTS / max(weights.values()), _MAX_POINTS / self._total)
        owner_of = {
            point: candidate
            for candidate, weight in weights.items()
            for point in _points(candidate.key, max(1, round(weight * density)))
        }
        self._points = sorted(owner_of)
        self._owners = [owner_of[point] for point in self._points]


def _place(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


def _points(key: str, wanted: int) -> list[int]:
    """Give as many points as wanted; a longer list begins with the shorter one."""
    points: list[int] = []
    for number in range(0, wanted, _POINTS_IN_A_DIGEST):
        points += unpack(f"<{_POINTS_IN_A_DIGEST}Q", blake2b(f"{number} {key}".encode()).digest())
    return points[:wanted]
