"""Tiers, panic and zones (config.md §3: balance.zone, balance.panic_threshold, endpoints.priority)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.eligibility import Choice, choose


@dataclass(eq=False)
class Place:
    """What was seen of an endpoint."""

    name: str
    priority: int = 0
    zone: str = ""
    available: bool = True
    is_impostor: bool = False
    unreachable: bool = False


def places(text: str, *, zones: str = "", names: str = "abcdefghijklmnop") -> list[Place]:
    """Give endpoints a, b, c … by the letters of a text; tiers are parted by `|`.

    u: up; d: down (not available); x: unreachable; i: impostor; q: down and unreachable. A zone is a letter each,
    `-` is none.
    """
    found: list[Place] = []
    for priority, tier in enumerate(text.split("|")):
        for letter in tier:
            zone = zones[len(found)].strip("-") if zones else ""
            found.append(
                Place(
                    names[len(found)],
                    priority,
                    zone,
                    available=letter not in "dq",
                    is_impostor=letter == "i",
                    unreachable=letter in "xq",
                )
            )
    return found


def chosen(states: Sequence[Place], *, zone: str = "", threshold: float = 0.5) -> Choice[Place]:
    return choose(states, settings=BalanceSettings(panic_threshold=threshold), zone=zone)


def names(choice: Choice[Place]) -> str:
    """Give near and far as text, and a `!` for panic."""
    near, far = ("".join(place.name for place in part) for part in (choice.near, choice.far))
    return near + (f"+{far}" if far else "") + ("!" if choice.panicking else "")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("uuu", "abc"),
        ("udu", "ac"),
        ("uxu", "ac"),
        ("xx", "ab"),
        ("xxd", "ab"),
        ("uiu", "ac"),
        ("uqu", "ac"),
    ],
)
def test_of_one_tier_the_available_ones_that_can_be_reached(seen: str, expected: str) -> None:
    """Unreachable ones come last: only when nothing else is left; impostors are not available."""
    assert names(chosen(places(seen))) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("uu|uu", "ab"),
        ("ud|uu", "a"),
        ("udd|uu|uu", "ade"),
        ("udddd|d|uuuuu", "aghijk"),
        ("udddd|uud|uuuu", "afg"),
        ("udddd|ud|uuuu", "afhijk"),
        ("udddd|uu|uuuu", "afg"),
        ("dd|uu|uu", "cd"),
        ("xx|uu", "cd"),
        ("xx|dd|xx", "ab"),
        ("xx|xx", "ab"),
        ("ux|uu", "a"),
        ("dd|ux|uu", "c"),
        ("ii|uu", "cd"),
    ],
)
def test_the_next_tiers_help_a_tier_that_has_too_few(seen: str, expected: str) -> None:
    """Half of the first tier that can be reached must be there; what comes from below adds to it, tier by tier."""
    assert names(chosen(places(seen))) == expected


def test_help_ends_with_the_tiers() -> None:
    """Not enough anywhere, though no panic at this threshold: what there is."""
    states = places("udddddddd|ud|du")

    assert names(chosen(states, threshold=0.2)) == "aj"
    assert names(chosen(states, threshold=0.23)) == "ajm"


def test_tiers_need_not_be_next_to_each_other() -> None:
    """Priorities are numbers of the user's."""
    low, high = Place("a", priority=7), Place("b", priority=90)

    assert names(chosen([high, low])) == "a"
    low.available = False
    assert names(chosen([high, low])) == "b"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("udd", "abc!"),
        ("ddd", "abc!"),
        ("did", "ac!"),
        ("xdd", "bc!"),
        ("qqqd", "d!"),
        ("qqq", "abc!"),
        ("qiq|dd", "de!"),
        ("ii|dd", "cd!"),
        ("qq|qq", "abcd!"),
        ("ddd|u", "d"),
        ("udd|ddu", "af"),
        ("udd|ddd", "abc!"),
        ("iid", "c!"),
        ("iii", "!"),
        ("uiid", "ad!"),
    ],
)
def test_below_the_threshold_all_of_the_lowest_tier_but_impostors(seen: str, expected: str) -> None:
    """Fail open on checks, not on identities (threats.md H4); unreachable ones only if there is no other."""
    assert names(chosen(places(seen))) == expected


@pytest.mark.parametrize(
    ("seen", "threshold", "expected"),
    [
        ("ddd", 0, ""),
        ("ddu", 0, "c"),
        ("ddu|u", 0, "c"),
        ("dduu", 0.5, "cd"),
        ("ddu", 0.33, "c"),
        ("uud", 1, "abc!"),
    ],
)
def test_the_threshold_is_the_users(seen: str, threshold: float, expected: str) -> None:
    """With 0 there is no panic: a service that is down everywhere has nobody (UH)."""
    assert names(chosen(places(seen), threshold=threshold)) == expected


@pytest.mark.parametrize(
    ("seen", "expected"), [("u", "a"), ("d", "a!"), ("x", "a"), ("i", "a"), ("q", "a!")]
)
@pytest.mark.parametrize("threshold", [0, 0.5])
def test_the_only_endpoint_is_always_given(seen: str, expected: str, threshold: float) -> None:
    """The dial checks its identity again, and nothing better is left."""
    assert names(chosen(places(seen), threshold=threshold)) == expected


@pytest.mark.parametrize("threshold", [0, 0.5])
def test_of_nobody_nobody_is_chosen(threshold: float) -> None:
    """A service whose discovery gave an empty set; that is no panic."""
    assert chosen([], threshold=threshold) == Choice((), (), 1.0, panicking=False)


@pytest.mark.parametrize(
    ("seen", "zones", "expected", "share"),
    [
        ("uuuu", "1122", "ab+cd", 1.0),
        ("uuuu", "1-12", "ac+bd", 1.0),
        ("uuuu", "2222", "abcd", 1.0),
        ("uuuu", "----", "abcd", 1.0),
        ("uuuu", "1111", "abcd", 1.0),
        ("uduu", "1122", "a+cd", 0.7),
        ("uuduu", "11122", "ab+de", 1.4 * 2 / 3),
        ("uddduuuu", "11112222", "a+efgh", 0.35),
        ("dduu", "1122", "cd", 1.0),
        ("xxuu", "1122", "cd", 1.0),
        ("xuuu", "1122", "b+cd", 1.0),
        ("iuuu", "1122", "b+cd", 0.7),
        ("uuxx", "1122", "ab", 1.0),
        ("uu|uu", "1211", "a+b", 1.0),
        ("ddd|uuuu", "1111212", "df+eg", 1.0),
        ("udd|uu", "11122", "a+de", 1.4 / 3),
        ("ddduu", "11122", "abcde!", 1.0),
    ],
)
def test_the_own_zone_gets_what_it_can_take(
    seen: str, zones: str, expected: str, share: float
) -> None:
    """Envoy's overprovisioning: 140 % of the fraction that is available; in a panic all are one."""
    choice = chosen(places(seen, zones=zones), zone="1")

    assert names(choice) == expected
    assert choice.near_share == pytest.approx(share)


@pytest.mark.parametrize(("prefers_zone", "zone"), [(False, "1"), (True, "")])
def test_zones_are_one_when_ours_does_not_matter_or_is_not_known(
    prefers_zone: bool, zone: str
) -> None:
    """`zone: ignore`, or no `zone` at the top of the file; an endpoint without a zone is no neighbour then."""
    settings = BalanceSettings(prefers_zone=prefers_zone)
    choice = choose(places("uuu", zones="12-"), settings=settings, zone=zone)

    assert choice.far == ()
    assert names(choice) == "abc"


STATES = st.lists(
    st.builds(
        Place,
        name=st.just("a"),
        priority=st.integers(0, 2),
        zone=st.sampled_from(["", "1", "2"]),
        available=st.booleans(),
        is_impostor=st.booleans(),
        unreachable=st.booleans(),
    ),
    min_size=2,
    max_size=12,
)


@given(STATES, st.sampled_from([0, 0.3, 0.5, 1.0]), st.sampled_from(["", "1"]))
def test_who_must_not_be_chosen_is_not(states: list[Place], threshold: float, zone: str) -> None:
    """Never an impostor beside others, nobody unavailable but in a panic, unreachable ones only among themselves."""
    choice = chosen(states, zone=zone, threshold=threshold)
    given_now = choice.near + choice.far

    assert not any(place.is_impostor for place in given_now)
    assert choice.panicking or all(place.available for place in given_now)
    assert len({place.unreachable for place in given_now}) <= 1
    assert len(set(given_now)) == len(given_now)
    assert set(given_now) <= set(states)


@given(STATES, st.sampled_from([0, 0.3, 0.5, 1.0]), st.sampled_from(["", "1"]))
def test_somebody_is_chosen_whenever_somebody_may_be(
    states: list[Place], threshold: float, zone: str
) -> None:
    """Nothing is eligible only when all are impostors, or all are down and there is no panic."""
    choice = chosen(states, zone=zone, threshold=threshold)
    trusted = [place for place in states if not place.is_impostor]
    is_hopeless = not trusted or (threshold == 0 and not any(place.available for place in trusted))

    assert bool(choice.near) is not is_hopeless
    assert choice.near or not choice.far


@given(STATES, st.sampled_from([0, 0.3, 0.5, 1.0]))
def test_panic_is_flagged_exactly_below_the_threshold(
    states: list[Place], threshold: float
) -> None:
    """config.md: below it all but those of wrong identity, flagged; a small whole tier is as good as a large one."""
    sound = [place for place in states if place.available and not place.is_impostor]
    first = min((place.priority for place in sound), default=None)
    tier = [place for place in states if first is None or place.priority == first]

    assert chosen(states, threshold=threshold).panicking is (len(sound) < threshold * len(tier))


@given(STATES)
def test_shares_are_fractions_and_whole_without_others(states: list[Place]) -> None:
    """near_share is used as a probability."""
    choice = chosen(states, zone="1")

    assert 0 < choice.near_share <= 1
    assert choice.far or choice.near_share == 1.0
