"""Fairness and preference of the balancers (config.md §3: balance)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.balancing import (
    Balancer,
    BalanceSettings,
    LeastRequest,
    RoundRobin,
    make_balancer,
)
from ambassador.policy.peak_ewma import LeastLatency, PeakEwma
from ambassador.policy.ring_hash import RingHash

KINDS = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "peak_ewma": LeastLatency,
    "ring_hash": RingHash,
}


@dataclass(eq=False)
class Place:
    """An endpoint as a balancer sees it."""

    name: str
    weight: float = 1
    outstanding: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)

    @property
    def key(self) -> str:
        return self.name


def make(kind: str) -> Balancer[Place]:
    return make_balancer(BalanceSettings(kind=kind))


def places(*weights: float) -> tuple[Place, ...]:
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


@pytest.mark.parametrize("weights", [(0.1, 1, 1), (0.5, 0.25), (1.7, 3, 0.3)])
def test_round_robin_shares_by_fractions_of_weights_too(weights: tuple[float, ...]) -> None:
    """Slow start: an endpoint that warms up weighs a fraction; nobody is a whole turn off."""
    balancer: RoundRobin[Place] = RoundRobin()
    candidates = places(*weights)
    picked = Counter(balancer.pick(candidates, Random(1)).name for _ in range(1000))

    for place in candidates:
        assert abs(picked[place.name] - 1000 * place.weight / sum(weights)) < 2


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


@pytest.mark.parametrize(
    "weights", [(1, 1), (1, 3), (1, 1, 1, 1, 1, 1), (1, 2, 3, 1, 2, 3), (0.5, 1, 1, 1, 1)]
)
def test_an_idle_service_is_shared_out_by_weight(weights: tuple[float, ...]) -> None:
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


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_the_file_has_its_balancer(kind: str) -> None:
    """config.md: balance.kind."""
    assert type(make(kind)) is KINDS[kind]


def test_the_bound_of_the_file_binds_the_ring() -> None:
    """config.md: load_bound; of four at two endpoints, 300 % lets one have six and 100 % only two."""
    a, b = places(1, 1)
    strict: Balancer[Place] = make_balancer(BalanceSettings(kind="ring_hash", load_bound=1.0))
    loose: Balancer[Place] = make_balancer(BalanceSettings(kind="ring_hash", load_bound=3.0))
    owner = loose.pick((a, b), Random(1), key=b"k")
    owner.outstanding = 3

    assert loose.pick((a, b), Random(1), key=b"k") is owner
    assert strict.pick((a, b), Random(1), key=b"k") is not owner


@pytest.mark.parametrize("kind", KINDS)
@given(
    loads=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0.1, 1, 2.5, 7])), min_size=1, max_size=9
    ),
    seed=st.integers(0, 99),
    key=st.none() | st.binary(max_size=9),
)
def test_every_kind_picks_one_of_the_candidates(
    kind: str, loads: list[tuple[int, float]], seed: int, key: bytes | None
) -> None:
    """One call for all: the same arguments, whether needed or not."""
    candidates = tuple(Place(str(n), weight, busy) for n, (busy, weight) in enumerate(loads))
    balancer = make(kind)

    assert balancer.pick(candidates, Random(seed), key=key, now=5.0) in candidates
    assert balancer.pick(candidates, Random(seed)) in candidates


@pytest.mark.parametrize("kind", KINDS)
@given(weights=st.lists(st.sampled_from([0.5, 1, 3]), min_size=1, max_size=12))
def test_no_kind_starves_a_candidate(kind: str, weights: list[float]) -> None:
    """Requests that never end make everybody busy in the end, the lightest too."""
    candidates = places(*weights)
    balancer = make(kind)
    random = Random(3)
    for _ in range(80 * len(weights)):
        balancer.pick(candidates, random).outstanding += 1

    assert all(place.outstanding for place in candidates)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_balances_what_is_outstanding_by_weight(kind: str) -> None:
    """In the long run, whatever the way: a load that only grows is shared by weight."""
    candidates = places(1, 1, 2, 4, 1, 1)
    balancer = make(kind)
    random = Random(3)
    for _ in range(2000):
        balancer.pick(candidates, random).outstanding += 1

    for place in candidates:
        assert place.outstanding == pytest.approx(200 * place.weight, rel=0.26)
