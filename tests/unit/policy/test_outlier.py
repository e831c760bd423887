"""Who is ejected, how many at once, for how long, and how one returns (config.md §3: outlier_detection)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ambassador.policy.outlier import NEVER, Ejection, Outlier, OutlierDetector, OutlierSettings

SETTINGS = OutlierSettings(
    consecutive=3, interval_s=10, ejection_s=30, max_ejection_s=75, max_ejected=0.5
)
RATED = OutlierSettings(consecutive=100, max_ejected=0.5, success_rate=0.8, min_requests=5)


def made(
    number: int, settings: OutlierSettings = SETTINGS
) -> tuple[OutlierDetector, list[Outlier]]:
    """Give a detector and the records of its endpoints."""
    detector = OutlierDetector(settings)
    records = [Outlier() for _ in range(number)]
    assert detector.update(records, 0.0) == []
    return detector, records


def fail(
    detector: OutlierDetector, record: Outlier, times: int, now: float = 0.0
) -> Ejection | None:
    """Let as many requests fail, and give what the last one did."""
    ejection = None
    for _ in range(times):
        ejection = detector.failed(record, now, "5xx")
    return ejection


def served(detector: OutlierDetector, record: Outlier, good: int, bad: int) -> None:
    """Let as many requests end well and badly."""
    for _ in range(good):
        detector.succeeded(record, 0.0)
    for _ in range(bad):
        detector.failed(record, 0.0, "5xx")


def ejected(records: Iterable[Outlier]) -> list[bool]:
    return [record.is_ejected for record in records]


def test_an_endpoint_is_ejected_by_failures_in_a_row() -> None:
    """Envoy's consecutive_5xx."""
    detector, (one, _) = made(2)
    assert fail(detector, one, 2) is None
    assert detector.succeeded(one, 0.0) is False
    assert fail(detector, one, 2, now=7.0) is None

    ejection = detector.failed(one, 7.0, "reset")

    assert ejection == Ejection(one, "reset", 30.0, 1)
    assert (one.reason, one.next_event_at) == ("reset", 37.0)


def test_a_success_without_failures_before_changes_nothing_that_decides() -> None:
    """The hot path does not even call then."""
    detector, (one, _) = made(2)
    assert one.failures == 0

    assert detector.succeeded(one, 0.0) is False

    assert (one.failures, one.state(0.0), one.next_event_at) == (0, "ok", NEVER)


@pytest.mark.parametrize(
    ("number", "max_ejected", "most"),
    [
        (0, 0.5, 0),
        (1, 0.5, 0),
        (1, 1.0, 0),
        (2, 0.1, 1),
        (2, 1.0, 1),
        (3, 0.5, 1),
        (5, 0.5, 2),
        (5, 1.0, 4),
        (10, 0.3, 3),
        (100, 0.29, 29),
    ],
)
def test_no_more_than_the_allowed_part_is_ejected_and_never_the_last(
    number: int, max_ejected: float, most: int
) -> None:
    """Rounded down, but one of two or more; 0.29 * 100 is 28.999… in binary."""
    detector, records = made(number, OutlierSettings(consecutive=1, max_ejected=max_ejected))

    for record in records:
        fail(detector, record, 1)

    assert sum(ejected(records)) == most


def test_who_could_not_be_ejected_is_ejected_by_its_next_failure_when_there_is_room() -> None:
    detector, (one, two) = made(2)
    fail(detector, one, 3)
    assert fail(detector, two, 3) is None
    detector.may_probe(one, 30.0)
    detector.succeeded(one, 30.0)

    assert detector.failed(two, 31.0, "5xx") is not None


def test_results_while_it_is_ejected_decide_nothing() -> None:
    """They are of requests that began before."""
    detector, (one, _) = made(2)
    fail(detector, one, 3)

    assert fail(detector, one, 5, now=10.0) is None
    assert detector.succeeded(one, 10.0) is False

    assert (one.state(29.9), one.next_event_at, one.times) == ("ejected", 30.0, 1)


def test_a_success_of_an_ejected_endpoint_is_always_told() -> None:
    """`failures` is what the hot path looks at: 0 would hide the probing request's success."""
    detector, (one, *_) = made(4, RATED)
    served(detector, one, good=0, bad=5)
    one.failures = 0

    detector.tick(10.0)

    assert one.is_ejected
    assert one.failures > 0


def test_when_the_time_is_over_exactly_one_request_is_let_through() -> None:
    """Linkerd's probation: one real request."""
    detector, (one, other) = made(2)
    fail(detector, one, 3)
    assert (one.state(29.0), detector.may_probe(one, 29.0)) == ("ejected", False)
    assert one.state(30.0) == "probing"

    assert [detector.may_probe(one, 30.0) for _ in range(3)] == [True, False, False]

    assert one.state(30.0) == "probing"
    assert detector.may_probe(other, 30.0) is False, "it needs none"


def test_a_success_of_the_probing_request_returns_the_endpoint() -> None:
    detector, (one, _) = made(2)
    fail(detector, one, 3)
    detector.may_probe(one, 30.0)

    assert detector.succeeded(one, 30.5) is True

    assert (one.state(30.5), one.failures, one.next_event_at) == ("ok", 0, NEVER)
    assert fail(detector, one, 2, now=31.0) is None, "it begins afresh"


def test_each_failure_of_the_probing_request_ejects_for_longer_up_to_the_most() -> None:
    """Envoy: ejection time x times, at most max_ejection_time."""
    detector, (one, _) = made(2)
    fail(detector, one, 3)
    now, durations = 30.0, []
    for _ in range(4):
        assert detector.may_probe(one, now)
        ejection = detector.failed(one, now, "timeout")
        assert ejection is not None
        assert one.state(now) == "ejected"
        durations.append((ejection.duration_s, ejection.times))
        now = one.next_event_at

    assert durations == [(60.0, 2), (75.0, 3), (75.0, 3), (75.0, 3)]
    assert one.reason == "timeout"


@pytest.mark.parametrize(("interval_s", "wait_s"), [(10.0, 30.0), (45.0, 45.0)])
def test_a_probing_request_that_never_ends_does_not_block_for_ever(
    interval_s: float, wait_s: float
) -> None:
    settings = OutlierSettings(consecutive=1, interval_s=interval_s, ejection_s=30)
    detector, (one, _) = made(2, settings)
    fail(detector, one, 1)
    assert detector.may_probe(one, 30.0)
    assert one.next_event_at == 30.0 + wait_s
    assert not detector.may_probe(one, 29.9 + wait_s)

    assert detector.may_probe(one, 30.0 + wait_s)

    assert one.state(30.0 + wait_s) == "probing"


def test_the_count_of_ejections_is_lessened_by_each_interval_without_one() -> None:
    """Envoy: one less for each interval in which the endpoint was not ejected."""
    detector, (one, _) = made(2)
    fail(detector, one, 3)
    detector.may_probe(one, 30.0)
    detector.failed(one, 30.0, "5xx")
    detector.tick(40.0)
    assert one.times == 2, "ejected is not behaving"
    detector.may_probe(one, 90.0)
    detector.succeeded(one, 95.0)

    times = []
    for now in (100.0, 105.0, 115.0, 125.0):
        detector.tick(now)
        times.append(one.times)

    assert times == [2, 1, 0, 0], "the interval of its return was no whole one"


def test_an_endpoint_that_fails_again_at_once_is_ejected_for_longer() -> None:
    detector, (one, _) = made(2)
    fail(detector, one, 3)
    detector.may_probe(one, 30.0)
    detector.succeeded(one, 30.0)

    ejection = fail(detector, one, 3, now=31.0)

    assert ejection is not None
    assert ejection.duration_s == 60.0


@pytest.mark.parametrize(
    ("good", "bad", "is_ejected"),
    [(4, 1, False), (3, 2, True), (0, 4, False), (0, 5, True), (8, 2, False), (79, 21, True)],
)
def test_an_endpoint_is_ejected_by_its_success_rate_over_an_interval(
    good: int, bad: int, is_ejected: bool
) -> None:
    """Linkerd: below 80 % over 10 s with at least 5 requests; the rate itself is good enough."""
    detector, records = made(3, RATED)
    served(detector, records[0], good, bad)

    changes = detector.tick(10.0)

    assert [change.record for change in changes] == records[:is_ejected]
    assert [change.reason for change in changes] == ["success_rate"] * is_ejected


def test_a_rate_that_is_met_exactly_ejects_nobody() -> None:
    """0.55 * 100 is 55.000…01 in binary."""
    detector, (one, _) = made(2, OutlierSettings(consecutive=100, success_rate=0.55))
    served(detector, one, good=55, bad=45)

    assert detector.tick(10.0) == []


def test_an_interval_counts_its_own_requests_only() -> None:
    detector, (one, *_) = made(3, RATED)
    served(detector, one, good=0, bad=4)
    detector.tick(10.0)
    served(detector, one, good=0, bad=4)

    assert detector.tick(20.0) == []


def test_the_worst_go_first_when_not_all_may() -> None:
    detector, (poor, good, worst) = made(3, RATED)
    served(detector, poor, good=3, bad=2)
    served(detector, good, good=5, bad=0)
    served(detector, worst, good=1, bad=4)

    changes = detector.tick(10.0)

    assert [change.record for change in changes] == [worst]
    assert ejected([poor, good, worst]) == [False, False, True]


def test_a_rate_ejects_nobody_twice() -> None:
    detector, (one, *_) = made(4, RATED)
    served(detector, one, good=0, bad=5)
    detector.tick(10.0)
    served(detector, one, good=0, bad=5)

    assert detector.tick(20.0) == []
    assert one.times == 1


def test_without_a_success_rate_nobody_is_ejected_by_it() -> None:
    detector, (one, _) = made(2, OutlierSettings(consecutive=100))
    served(detector, one, good=0, bad=50)

    assert detector.tick(10.0) == []


@pytest.mark.parametrize(("settings", "is_rated"), [(SETTINGS, False), (RATED, True)])
def test_it_says_whether_every_success_has_to_be_told(
    settings: OutlierSettings, is_rated: bool
) -> None:
    assert OutlierDetector(settings).is_rated is is_rated


def test_what_left_is_never_ejected_and_holds_no_place() -> None:
    """Exchanges in flight still report the results of an endpoint that discovery has taken away."""
    detector, (gone, one, two) = made(3)
    fail(detector, gone, 3)
    detector.may_probe(gone, 30.0)
    detector.update([one, two], 31.0)

    assert fail(detector, gone, 9, now=32.0) is None
    assert detector.succeeded(gone, 32.0) is False
    assert detector.may_probe(gone, 99.0) is False
    assert fail(detector, one, 3, now=33.0) is not None


def test_when_the_set_shrinks_those_return_whose_time_is_over_first() -> None:
    """Never the last one, also when the others leave."""
    detector, (early, late, *rest) = made(4)
    fail(detector, late, 3, now=5.0)
    fail(detector, early, 3, now=0.0)

    assert detector.update([late, early, rest[0]], 10.0) == [early]
    assert detector.update([late], 11.0) == [late]

    assert ejected([early, late]) == [False, False]


def test_a_set_that_grows_keeps_who_is_ejected_and_makes_room() -> None:
    detector, (one, two) = made(2)
    fail(detector, one, 3)

    assert detector.update([one, two, Outlier(), Outlier()], 1.0) == []

    assert one.is_ejected
    assert fail(detector, two, 3, now=1.0) is not None


def test_records_and_detectors_print_their_state() -> None:
    detector, (one, two) = made(2)
    fail(detector, one, 3)

    assert repr(one) == "Outlier(ejected for 5xx, 3 failures, 1 times)"
    assert repr(two) == "Outlier(ok, 0 failures, 0 times)"
    assert repr(detector) == "OutlierDetector(1 of 2 ejected)"


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, the ceilings hold."""

    settings = OutlierSettings(
        consecutive=2, interval_s=5, ejection_s=3, max_ejection_s=10, max_ejected=0.4,
        success_rate=0.7, min_requests=2,
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.detector = OutlierDetector(self.settings)
        self.records: list[Outlier] = []
        self.gone: list[Outlier] = []

    def one(self, at: int) -> Outlier | None:
        everybody = self.records + self.gone
        return everybody[at % len(everybody)] if everybody else None

    @rule(number=st.integers(0, 6), kept=st.integers(0, 6))
    def set_changes(self, number: int, kept: int) -> None:
        self.gone = self.records[kept:]
        self.records = self.records[:kept] + [Outlier() for _ in range(number)]
        returned = self.detector.update(self.records, self.now)
        assert not any(ejected(returned))

    @rule(at=st.integers(0, 11), times=st.integers(1, 3))
    def requests_fail(self, at: int, times: int) -> None:
        if (record := self.one(at)) is not None:
            for _ in range(times):
                ejection = self.detector.failed(record, self.now, "5xx")
                if ejection is not None:
                    assert record in self.records
                    assert 0 < ejection.duration_s <= self.settings.max_ejection_s

    @rule(at=st.integers(0, 11))
    def request_succeeds(self, at: int) -> None:
        if (record := self.one(at)) is not None:
            was = record.is_ejected
            assert self.detector.succeeded(record, self.now) is (was and not record.is_ejected)

    @rule(at=st.integers(0, 11))
    def request_probes(self, at: int) -> None:
        if (record := self.one(at)) is not None and self.detector.may_probe(record, self.now):
            assert not self.detector.may_probe(record, self.now), "exactly one"

    @rule(seconds=st.floats(0, 12))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def interval_ends(self) -> None:
        for change in self.detector.tick(self.now):
            assert change.record.is_ejected

    @invariant()
    def no_more_than_allowed_are_ejected(self) -> None:
        number = sum(ejected(self.records))
        allowed = max(1, math.floor(0.4 * len(self.records) + 1e-9))
        assert number <= min(allowed, max(0, len(self.records) - 1))

    @invariant()
    def every_ejected_one_has_a_moment_and_only_these(self) -> None:
        for record in self.records + self.gone:
            assert record.is_ejected is (record.next_event_at != NEVER)
            assert record.is_ejected is (record.state(self.now) != "ok")
            assert record.failures or not record.is_ejected

    @invariant()
    def the_detector_counts_right(self) -> None:
        text = f"OutlierDetector({sum(ejected(self.records))} of {len(self.records)} ejected)"
        assert repr(self.detector) == text


TestAnyHistory = AnyHistory.TestCase


@given(st.lists(st.sampled_from(["ok", "failed"]), max_size=40))
def test_one_endpoint_alone_is_never_ejected(results: list[str]) -> None:
    """There is nothing else to turn to."""
    detector, (only,) = made(1, OutlierSettings(consecutive=1, success_rate=0.9, min_requests=1))
    for now, result in enumerate(results):
        if result == "ok":
            detector.succeeded(only, float(now))
        else:
            detector.failed(only, float(now), "5xx")

        assert detector.tick(float(now)) == []
        assert only.state(float(now)) == "ok"
