"""Stability and bounded loads of the ring (config.md §3: balance, kind ring_hash)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy import ring_hash
from ambassador.policy.ring_hash import RingHash

KEYS = [f"user-{number}".encode() for number in range(2000)]


@dataclass(eq=False)
class Place:
    """An endpoint as the ring sees it."""

    key: str
    weight: float = 1
    outstanding: int = 0


def places(*weights: float) -> tuple[Place, ...]:
    """Give candidates 10.0.0.0:8443, 10.0.0.1:8443, …"""
    return tuple(Place(f"10.0.0.{number}:8443", weight) for number, weight in enumerate(weights))


def owners(balancer: RingHash[Place], candidates: Sequence[Place]) -> dict[bytes, Place]:
    """Give who gets which key."""
    return {key: balancer.pick(candidates, Random(1), key=key) for key in KEYS}


def shares(candidates: tuple[Place, ...]) -> Counter[Place]:
    return Counter(owners(RingHash(1.25), candidates).values())


def moved(before: dict[bytes, Place], after: dict[bytes, Place]) -> float:
    """Give the fraction of keys that changed their endpoint, by name."""
    return sum(before[key].key != after[key].key for key in before) / len(before)


def test_a_key_stays_with_its_endpoint() -> None:
    """What a ring is for; another proxy, which knows the endpoints in another order, agrees."""
    candidates = places(1, 1, 2, 0.5)
    other_proxy = places(1, 1, 2, 0.5)[::-1]
    balancer: RingHash[Place] = RingHash(1.25)
    first = owners(balancer, candidates)

    assert owners(balancer, candidates) == first
    assert moved(first, owners(RingHash(1.25), other_proxy)) == 0


@pytest.mark.parametrize(
    "weights", [(1, 1), (1,) * 10, (1,) * 40, (1, 2, 5), (100, 50, 50), (0.1, 1, 1)]
)
def test_keys_are_shared_out_by_weight(weights: tuple[float, ...]) -> None:
    """Points in proportion to the weight; the rest is the chance of the points, and bounded loads."""
    candidates = places(*weights)
    found = shares(candidates)

    for place in candidates:
        share = place.weight / sum(weights)
        assert found[place] == pytest.approx(len(KEYS) * share, rel=0.2, abs=25)


def test_without_a_key_the_place_on_the_ring_is_random() -> None:
    """A request without the header is spread as the keys are."""
    candidates = places(1, 1, 1)
    balancer: RingHash[Place] = RingHash(1.25)
    random = Random(3)
    found = Counter(balancer.pick(candidates, random) for _ in range(3000))

    for place in candidates:
        assert found[place] == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 16])
def test_who_leaves_moves_only_its_own_keys(count: int) -> None:
    """Consistent hashing: 1/n of the keys; a ring built for the rest and a ring that passes over agree."""
    everybody = places(*[1] * count)
    rest = everybody[:1] + everybody[2:]
    balancer: RingHash[Place] = RingHash(1.25)
    before = owners(balancer, everybody)
    after = owners(balancer, rest)

    assert all(after[key] is before[key] for key in KEYS if before[key] is not everybody[1])
    assert moved(before, after) <= 1 / count + 0.05
    if len(rest) > 1:  # a single one is given without any ring
        assert moved(after, owners(RingHash(1.25), rest)) == 0


@pytest.mark.parametrize("count", [17, 40])
def test_beyond_sixteen_a_newcomer_moves_at_most_as_many_again(count: int) -> None:
    """The points of each become fewer, so that a ring stays cheap to build."""
    fewer, more = places(*[1] * (count - 1)), places(*[1] * count)
    share = moved(owners(RingHash(1.25), fewer), owners(RingHash(1.25), more))

    assert share <= 2 / count + 0.02


def test_the_ring_is_built_only_for_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building takes a millisecond for two endpoints; retries hand in parts of a set, which need none."""
    built: list[str] = []
    points = ring_hash._points

    def counted(key: str, wanted: int) -> list[int]:
        built.append(key)
        return points(key, wanted)

    monkeypatch.setattr(ring_hash, "_points", counted)
    candidates = places(1, 1, 1)
    balancer: RingHash[Place] = RingHash(1.25)

    def builds(given_now: Sequence[Place]) -> int:
        built.clear()
        balancer.pick(given_now, Random(1))
        return len(built)

    assert builds(candidates) == 3
    assert builds(candidates) == 0, "the same tuple"
    assert builds(list(candidates)) == 0, "the same ones"
    assert builds(candidates[1:]) == 0, "a part"
    assert builds((*candidates, *places(1))) == 4, "one more"
    assert builds(candidates) == 0, "a part again"

    candidates[0].weight = 2

    assert builds(candidates) == 0, "the same tuple is trusted"
    assert builds((*candidates,)) == 3, "another weight"


def test_endpoints_that_went_are_forgotten() -> None:
    """House §7: no state without a bound."""
    many = places(*[1] * 20)
    balancer: RingHash[Place] = RingHash(1.25)
    balancer.pick(many, Random(1))
    balancer.pick(many[:6], Random(1))

    assert repr(balancer) == "RingHash(20 endpoints, 16380 points)"

    balancer.pick(many[:5], Random(1))

    assert repr(balancer) == "RingHash(5 endpoints, 5120 points)"


@pytest.mark.parametrize("weights", [(1, 1), (5000, 1), (0.1, 0.2), (1,) * 1000])
def test_a_ring_has_at_least_1024_points_and_one_for_each(weights: tuple[float, ...]) -> None:
    """Envoy's minimum_ring_size; and the lightest one does not starve."""
    candidates = places(*weights)
    balancer: RingHash[Place] = RingHash(1.25)
    balancer.pick(candidates, Random(1))

    assert 1024 <= len(balancer._points) <= 17_000
    assert set(balancer._owners) == set(candidates)


def test_a_longer_list_of_points_begins_with_the_shorter_one() -> None:
    """Else another weight would move all keys of an endpoint."""
    assert ring_hash._points("a", 21)[:9] == ring_hash._points("a", 9)
    assert len(set(ring_hash._points("a", 1024) + ring_hash._points("b", 1024))) == 2048


@given(
    st.lists(st.sampled_from([0.5, 1, 2, 3]), min_size=2, max_size=8),
    st.floats(1, 2),
    st.integers(1, 200),
    st.booleans(),
)
def test_no_load_exceeds_its_bound(
    weights: list[float], bound: float, requests: int, is_one_key: bool
) -> None:
    """Threat H6: whoever aims with one key at one endpoint spreads out instead."""
    candidates = places(*weights)
    balancer: RingHash[Place] = RingHash(bound)
    random = Random(9)
    for total in range(1, requests + 1):
        picked = balancer.pick(candidates, random, key=b"hot" if is_one_key else None)
        picked.outstanding += 1
        limit = ceil(bound * total * picked.weight / sum(weights) * (1 + 1e-9))

        assert picked.outstanding <= limit


def test_an_overloaded_endpoint_is_passed_over_for_the_same_next_one() -> None:
    """The next on the ring, not any: caches there stay warm too."""
    candidates = places(1, 1, 1, 1)
    balancer: RingHash[Place] = RingHash(1.25)
    owner = balancer.pick(candidates, Random(1), key=b"k")
    owner.outstanding = 9
    second = balancer.pick(candidates, Random(1), key=b"k")

    assert second is not owner
    assert balancer.pick(candidates, Random(2), key=b"k") is second
    assert second is balancer.pick([x for x in candidates if x is not owner], Random(1), key=b"k")


def test_an_endpoint_within_its_bound_keeps_its_keys() -> None:
    """125 % of the mean with the new one: of 17 at four endpoints, the owner takes up to six."""
    candidates = places(1, 1, 1, 1)
    balancer: RingHash[Place] = RingHash(1.25)
    owner = balancer.pick(candidates, Random(1), key=b"k")
    others = [place for place in candidates if place is not owner]
    owner.outstanding = 5
    others[0].outstanding, others[1].outstanding, others[2].outstanding = 4, 4, 3

    assert balancer.pick(candidates, Random(1), key=b"k") is owner

    owner.outstanding = 6

    assert balancer.pick(candidates, Random(1), key=b"k") is not owner


def test_a_list_that_was_changed_in_place_is_seen() -> None:
    """Only a tuple is trusted to be what it was."""
    candidates = list(places(1, 1, 1, 1))
    balancer: RingHash[Place] = RingHash(1.25)
    balancer.pick(candidates, Random(1))
    del candidates[2:]

    assert {balancer.pick(candidates, Random(seed)) for seed in range(40)} == set(candidates)


def test_two_candidates_of_one_key_do_not_stop_the_pick() -> None:
    """Discovery tells addresses apart; should two have one all the same, the less busy one is given."""
    twins = (Place("a"), Place("a"))
    balancer: RingHash[Place] = RingHash(1.25)
    balancer.pick(twins, Random(1))
    twins[0].outstanding, twins[1].outstanding = 1, 9

    assert balancer.pick(twins, Random(1), key=b"k") is twins[0]


def test_the_only_candidate_is_given_without_a_ring() -> None:
    """There is no choice."""
    (only,) = places(1)
    only.outstanding = 10
    balancer: RingHash[Place] = RingHash(1.25)

    assert balancer.pick((only,), Random(1), key=b"k") is only
    assert repr(balancer) == "RingHash(0 endpoints, 0 points)"


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.binary(max_size=20), st.data())
def test_the_pick_is_always_one_of_the_candidates(
    loads: list[int], key: bytes, data: st.DataObject
) -> None:
    """Also of a part, while the others stand on the ring."""
    candidates = places(*[1] * len(loads))
    for place, load in zip(candidates, loads, strict=True):
        place.outstanding = load
    balancer: RingHash[Place] = RingHash(1.25)
    balancer.pick(candidates, Random(1), key=key)
    some = data.draw(st.lists(st.sampled_from(candidates), min_size=1, unique=True))

    assert balancer.pick(some, Random(1), key=key) in some
