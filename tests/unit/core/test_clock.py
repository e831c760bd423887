from __future__ import annotations

import time

from ambassador.core.clock import Clock, SystemClock
from tests.support.clock import FakeClock


def test_the_system_clock_reads_the_machine() -> None:
    clock: Clock = SystemClock()

    before = (time.monotonic(), time.time())
    reading = (clock.monotonic(), clock.wall())
    after = (time.monotonic(), time.time())

    assert before[0] <= reading[0] <= after[0]
    assert before[1] <= reading[1] <= after[1]


def test_the_clock_of_tests_is_a_clock_and_moves_only_by_advance() -> None:
    fake = FakeClock(monotonic=10.0, wall=100.0)
    clock: Clock = fake

    fake.advance(2.5)

    assert (clock.monotonic(), clock.wall()) == (12.5, 102.5)


def test_stepping_the_wall_clock_leaves_the_monotonic_one() -> None:
    clock = FakeClock(monotonic=10.0, wall=100.0)

    clock.step_wall(-50)

    assert (clock.monotonic(), clock.wall()) == (10.0, 50.0)
