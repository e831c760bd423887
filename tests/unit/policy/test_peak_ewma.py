"""Latencies and the choice by them (protocols.md §5: Peak-EWMA P2C)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.peak_ewma import LeastLatency, PeakEwma


@dataclass(eq=False)
class Place:
    """An endpoint as the balancer sees it."""

    weight: float = 1
    outstanding: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)


def heard(rtt_s: float, now: float = 0.0, *, weight: float = 1, outstanding: int = 0) -> Place:
    """Give an endpoint that answered once."""
    place = Place(weight, outstanding)
    place.latency.observe(rtt_s, now)
    return place


def expected(place: Place, now: float) -> float:
    """Give the latency of a first request."""
    return place.latency.cost(0, now)


def test_a_slower_answer_counts_at_once_and_whole() -> None:
    """Peak-sensitive: rtt > ewma makes it the average."""
    place = heard(0.01, 100.0)
    place.latency.observe(2.0, 100.1)

    assert expected(place, 100.1) == 2.0


def test_quicker_answers_bring_the_average_down_by_their_age() -> None:
    """An exponential average with τ = 10 s, whatever the rate of the requests."""
    place = heard(1.0, 100.0)
    place.latency.observe(0.1, 105.0)

    assert expected(place, 105.0) == pytest.approx(0.1 + 0.9 * exp(-0.5))


def test_answers_of_one_moment_do_not_bring_it_down() -> None:
    """No time went by, and a clock that stands still or goes back is no reason to forget a peak."""
    place = heard(1.0, 100.0)
    place.latency.observe(0.1, 100.0)
    place.latency.observe(0.1, 99.0)

    assert expected(place, 99.0) == 1.0


def test_who_is_not_heard_of_decays() -> None:
    """τ = 10 s: who was slow is tried again."""
    place = heard(1.0, 100.0)

    assert expected(place, 110.0) == pytest.approx(exp(-1))
    assert place.latency.cost(3, 110.0) == pytest.approx(4 * exp(-1))


def test_a_failure_is_as_bad_as_five_seconds() -> None:
    """Linkerd's load biaser: else fast failures attract traffic."""
    place = heard(0.001, 100.0)
    place.latency.penalise(100.0)

    assert expected(place, 100.0) == 5.0


@pytest.mark.parametrize(("asked_s", "given_s"), [(60.0, 60.0), (86_400.0, 300.0)])
def test_a_retry_after_counts_up_to_five_minutes(asked_s: float, given_s: float) -> None:
    """Linkerd honours Retry-After up to 300 s; who sends more must not leave for a day."""
    place = Place()
    place.latency.penalise(100.0, asked_s)

    assert expected(place, 100.0) == given_s


def test_who_was_never_heard_of_gets_a_first_request_and_then_waits_for_its_answer() -> None:
    """Without an assumption behind the first one, a newcomer that hangs would get all that comes."""
    known, newcomer = heard(0.05), Place()
    balancer: LeastLatency[Place] = LeastLatency()
    places = (known, newcomer)

    assert balancer.pick(places, Random(1)) is newcomer

    newcomer.outstanding = 1

    assert {balancer.pick(places, Random(seed)) for seed in range(20)} == {known}


def test_who_was_not_heard_of_for_long_is_as_a_newcomer() -> None:
    """Back from an ejection of five minutes, its average has decayed to nothing: one request, not all of them."""
    known, back = heard(0.05, 400.0), heard(0.01, 100.0)
    balancer: LeastLatency[Place] = LeastLatency()

    assert balancer.pick((known, back), Random(1), now=400.0) is back

    back.outstanding = 1

    assert balancer.pick((known, back), Random(1), now=400.0) is known


@pytest.mark.parametrize("count", [2, 4, 5, 12])
def test_the_slow_one_is_never_picked_while_others_are_idle(count: int) -> None:
    """Of two different ones the slower loses; of few all are compared."""
    places = (heard(1.0), *(heard(0.1) for _ in range(count - 1)))
    balancer: LeastLatency[Place] = LeastLatency()
    random = Random(4)

    assert places[0] not in {balancer.pick(places, random) for _ in range(100)}


def test_of_few_the_only_quick_one_is_always_picked() -> None:
    """Two random ones of four would miss it half of the time."""
    quick = heard(0.1)
    places = (heard(1.0), heard(1.0), quick, heard(1.0))
    balancer: LeastLatency[Place] = LeastLatency()

    assert {balancer.pick(places, Random(seed)) for seed in range(40)} == {quick}


def test_a_slow_one_is_picked_when_the_quick_one_is_busy_enough() -> None:
    """cost = latency * (outstanding + 1)."""
    quick, slow = heard(0.1, outstanding=8), heard(1.0)
    balancer: LeastLatency[Place] = LeastLatency()

    assert balancer.pick((quick, slow), Random(1)) is quick

    quick.outstanding = 10

    assert balancer.pick((quick, slow), Random(1)) is slow


def test_a_heavier_one_takes_more_at_a_time() -> None:
    """Outstanding counts by weight: four at weight 3 are less than two at weight 1."""
    light, heavy = heard(0.1, weight=1, outstanding=2), heard(0.1, weight=3, outstanding=4)
    balancer: LeastLatency[Place] = LeastLatency()

    assert {balancer.pick((light, heavy), Random(seed)) for seed in range(20)} == {heavy}


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize(
    "weights", [(1, 1), (1, 3), (0.1, 1, 1), (1, 1, 1, 1, 1, 1), (1, 2, 3, 1, 2, 3)]
)
def test_idle_ones_that_are_equally_quick_are_picked_by_weight(
    weights: tuple[float, ...], is_known: bool
) -> None:
    """Fairness: nobody is starved because another one is heavier; the seed makes it exact enough."""
    places = tuple(heard(0.1, weight=w) if is_known else Place(w) for w in weights)
    balancer: LeastLatency[Place] = LeastLatency()
    random = Random(7)
    picked = Counter(balancer.pick(places, random) for _ in range(12_000))

    for place in places:
        assert picked[place] == pytest.approx(12_000 * place.weight / sum(weights), rel=0.12)


@pytest.mark.parametrize("count", [3, 10])
def test_nobody_starves_however_slow_it_was(count: int) -> None:
    """Decay brings everybody back, also who failed; within ten minutes of virtual time."""
    places = tuple(heard(0.01) for _ in range(count))
    places[0].latency.penalise(0.0, 300.0)
    balancer: LeastLatency[Place] = LeastLatency()
    random = Random(5)
    picked: Counter[Place] = Counter()
    for tenth in range(6000):
        place = balancer.pick(places, random, now=tenth / 10)
        place.latency.observe(0.01 * random.uniform(0.9, 1.1), tenth / 10 + 0.01)
        picked[place] += 1

    assert set(picked) == set(places)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(0.05, 9), st.floats(0, 400)),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 1e7),
    st.integers(0, 99),
)
def test_the_pick_is_always_one_of_the_candidates(
    seen: list[tuple[int, float, float]], now: float, seed: int
) -> None:
    """Any state, any time, also one before what was heard."""
    places = [heard(rtt, 1e6, weight=weight, outstanding=busy) for busy, weight, rtt in seen]
    balancer: LeastLatency[Place] = LeastLatency()

    assert balancer.pick(places, Random(seed), key=b"k", now=now) in places


def test_a_list_that_was_changed_in_place_is_seen() -> None:
    """Only a tuple is trusted to be what it was."""
    balancer: LeastLatency[Place] = LeastLatency()
    places = [Place(number) for number in range(1, 7)]
    balancer.pick(places, Random(1))
    del places[2:]

    assert {balancer.pick(places, Random(seed)) for seed in range(20)} <= set(places)
    assert repr(balancer) == "LeastLatency(2 candidates)"


def test_an_average_prints_what_it_knows() -> None:
    """House §8: state in __repr__."""
    assert repr(heard(0.25, 7.0).latency) == "PeakEwma(0.250000 s at 7.000)"
