"""Weights of candidates: drawing one in proportion to them, and warming one up.

Knows numbers; must not know what is behind a candidate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Final, Protocol

_COLDEST: Final = 0.1  # the fraction of its weight with which an endpoint begins


class Loaded(Protocol):
    """What is balanced by weight and by what is outstanding; hashable by identity."""

    @property
    def outstanding(self) -> int: ...

    @property
    def weight(self) -> float: ...


def running_sums(candidates: Sequence[Loaded]) -> list[float] | None:
    """Give what `draw` needs of a set; None when all weights are equal."""
    weights = [candidate.weight for candidate in candidates]
    return list(accumulate(weights)) if len(set(weights)) > 1 else None


def draw(bounds: list[float] | None, count: int, random: Random) -> int:
    """Give an index below `count` by weight, for the `running_sums` of as many candidates."""
    if bounds is None:
        return int(random.random() * count)
    return bisect_right(bounds, random.random() * bounds[-1])


def warm_up(weight: float, *, age_s: float, window_s: float | None) -> float:
    """Give the weight of an endpoint that began `age_s` ago: it grows with the age, from 10 % to all of it.

    Units: seconds; a `window_s` of None is no warming up.
    Source: Envoy's slow_start with its defaults (aggression 1, min_weight_percent 10 %).
    """
    if window_s is None or age_s >= window_s:
        return weight
    return weight * max(_COLDEST, age_s / window_s)
