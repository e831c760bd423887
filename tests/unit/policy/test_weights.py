"""Drawing by weight, and warming up (config.md §3: balance, slow_start)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.weights import draw, running_sums, warm_up


@dataclass(eq=False)
class Place:
    """An endpoint by its weight."""

    weight: float
    outstanding: int = 0


class Highest(Random):
    """A source of chance that gives the largest number below 1."""

    def random(self) -> float:
        return 1 - 2**-53


def drawn(weights: list[float], count: int) -> Counter[int]:
    bounds = running_sums([Place(weight) for weight in weights])
    random = Random(11)
    return Counter(draw(bounds, len(weights), random) for _ in range(count))


def test_equal_weights_need_no_sums() -> None:
    """The usual case costs one multiplication."""
    assert running_sums([Place(2), Place(2)]) is None
    assert running_sums([Place(2), Place(0.5)]) == [2, 2.5]


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 5], [0.1, 1, 1], [3, 0.25]])
def test_each_is_drawn_in_proportion_to_its_weight(weights: list[float]) -> None:
    """Also a fraction of a weight, of an endpoint that warms up."""
    found = drawn(weights, 20_000)

    for index, weight in enumerate(weights):
        assert found[index] == pytest.approx(20_000 * weight / sum(weights), rel=0.1)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=20))
def test_the_highest_chance_draws_the_last(weights: list[float]) -> None:
    """The product stays below the last bound, also when it is rounded: else the index would be one too high."""
    bounds = running_sums([Place(weight) for weight in weights])

    assert draw(bounds, len(weights), Highest()) == len(weights) - 1


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [(0, 0.4), (1, 0.4), (3, 0.4), (15, 2), (29.7, 3.96), (30, 4), (1000, 4)],
)
def test_an_endpoint_warms_up_from_a_tenth_of_its_weight(age_s: float, expected: float) -> None:
    """Envoy's slow_start with its defaults: max(10 %, age / window)."""
    assert warm_up(4, age_s=age_s, window_s=30) == pytest.approx(expected)


@pytest.mark.parametrize("window_s", [None, 0.0])
def test_without_a_window_there_is_no_warming_up(window_s: float | None) -> None:
    """slow_start is off by default."""
    assert warm_up(4, age_s=0, window_s=window_s) == 4
