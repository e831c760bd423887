"""Fairness and preference of the balancers (config.md §3: balance)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.balancing import LeastRequest, RoundRobin


@dataclass(eq=False)
class Place:
    """An endpoint as a balancer sees it."""

    name: str
    weight: int = 1
    outstanding: int = 0


def places(*weights: int) -> tuple[Place, ...]:
    """Give candidates named a, b, c …"""
    return tuple(Place(chr(97 + number), weight) for number, weight in enumerate(weights))


def test_round_robin_interleaves_by_weight() -> None:
    """nginx's own example: 5:1:1."""
    balancer: RoundRobin[Place] = RoundRobin()
    candidates = places(5, 1, 1)

    assert "".join(balancer.pick(candidates, Random(1)).name for _ in range(7)) == "aabacaa"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 3))
def test_round_robin_is_exact_over_each_full_turn(weights: list[int], turns: int) -> None:
    """Fairness: after sum(weights) picks each has had its weight."""
    balancer: RoundRobin[Place] = RoundRobin()
    candidates = places(*weights)
    picked = Counter(balancer.pick(candidates, Random(1)).name for _ in range(turns * sum(weights)))

    assert [picked[place.name] for place in candidates] == [turns * weight for weight in weights]


def test_round_robin_goes_on_in_turn_when_some_are_left_out() -> None:
    """What was tried already is not a candidate; the others take turns, whatever came before."""
    balancer: RoundRobin[Place] = RoundRobin()
    a, b, c, d, e = places(1, 1, 1, 1, 1)
    before = [balancer.pick([a, b, c, d, e], Random(1)) for _ in range(3)]

    assert before == [a, b, c]
    assert [balancer.pick([a, b], Random(1)) for _ in range(4)] == [a, b, a, b]
    assert balancer.pick([a, b, c, d, e], Random(1)) is d


def test_round_robin_forgets_endpoints_that_went() -> None:
    """Discovery may bring thousands over time; house §7: no state without a bound."""
    balancer: RoundRobin[Place] = RoundRobin()
    for _ in range(100):
        balancer.pick(places(1, 1), Random(1))

    assert repr(balancer) in {f"RoundRobin({known} known)" for known in range(15)}


@pytest.mark.parametrize("kind", [RoundRobin, LeastRequest])
def test_one_candidate_is_the_pick(kind: type[RoundRobin[Place] | LeastRequest[Place]]) -> None:
    """There is no choice, and nothing is drawn."""
    (only,) = places(3)

    assert kind().pick((only,), Random(1)) is only


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=2, max_size=4),
    st.integers(0, 99),
)
def test_among_few_the_least_busy_by_weight_is_picked(
    loads: list[tuple[int, int]], seed: int
) -> None:
    """config.md: least_request; with few endpoints it is exact."""
    candidates = tuple(Place(str(n), weight, busy) for n, (busy, weight) in enumerate(loads))
    balancer: LeastRequest[Place] = LeastRequest()
    picked = balancer.pick(candidates, Random(seed))

    assert picked.outstanding / picked.weight == min(x.outstanding / x.weight for x in candidates)


@given(st.integers(5, 30), st.integers(0, 99), st.data())
def test_among_many_the_busiest_is_never_picked_while_others_are_free(
    count: int, seed: int, data: st.DataObject
) -> None:
    """Two different ones are compared, so the only busy one always loses."""
    candidates = places(*[1] * count)
    busy = data.draw(st.sampled_from(candidates))
    busy.outstanding = 1
    balancer: LeastRequest[Place] = LeastRequest()
    random = Random(seed)

    assert busy not in {balancer.pick(candidates, random) for _ in range(50)}


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 1, 1, 1, 1, 1), (1, 2, 3, 1, 2, 3)])
def test_an_idle_service_is_shared_out_by_weight(weights: tuple[int, ...]) -> None:
    """Nobody is starved because another one is heavier; the seed makes it exact enough."""
    candidates = places(*weights)
    balancer: LeastRequest[Place] = LeastRequest()
    random = Random(7)
    picked = Counter(balancer.pick(candidates, random).name for _ in range(6000))

    for place in candidates:
        assert picked[place.name] == pytest.approx(6000 * place.weight / sum(weights), rel=0.12)


def test_a_list_that_was_changed_in_place_is_seen() -> None:
    """Only a tuple is trusted to be what it was."""
    balancer: LeastRequest[Place] = LeastRequest()
    candidates = list(places(1, 1, 1, 1, 1, 1))
    balancer.pick(candidates, Random(1))
    del candidates[2:]

    assert {balancer.pick(candidates, Random(seed)) for seed in range(20)} == set(candidates)
    assert repr(balancer) == "LeastRequest(2 candidates)"


def test_a_request_goes_where_the_last_ones_did_not() -> None:
    """With picks counted as outstanding, many candidates stay level within two choices' bound."""
    candidates = places(*[1] * 10)
    balancer: LeastRequest[Place] = LeastRequest()
    random = Random(3)
    for _ in range(1000):
        balancer.pick(candidates, random).outstanding += 1

    loads = [place.outstanding for place in candidates]
    assert max(loads) - min(loads) <= 6
