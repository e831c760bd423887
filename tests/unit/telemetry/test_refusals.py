"""A flood of refused handshakes is no flood of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ambassador.telemetry.refusals import RefusalLog
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable


class Scene:
    """A refusal log under a clock; timers fire when their time has come."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[tuple[str, str, int | None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.log = RefusalLog(
            self._emit,
            event="handshake_refused",
            sum_event="handshakes_refused",
            now=self.clock.monotonic,
            call_later=self._call_later,
        )

    def _emit(self, event: str, *, reason: str, suppressed: int | None = None, **_: object) -> None:
        self.events.append((event, reason, suppressed))

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.monotonic() + delay_s, callback))

    def refuse(self, reason: str, count: int) -> None:
        for _ in range(count):
            self.log.refused(reason)

    def pass_time(self, seconds: float) -> None:
        now = self.clock.advance(seconds)
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, callback in due:
            callback()

    def count(self, event: str, reason: str = "expired") -> int:
        return sum(1 for name, word, _ in self.events if (name, word) == (event, reason))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_refusal_is_logged_with_its_fields() -> None:
    events: list[tuple[str, dict[str, object]]] = []
    clock = FakeClock()
    log = RefusalLog(
        lambda event, **fields: events.append((event, fields)),
        event="handshake_refused",
        sum_event="handshakes_refused",
        now=clock.monotonic,
        call_later=lambda *_: None,
    )

    log.refused("expired", peer="10.0.0.7", sni="web")

    assert events == [
        ("handshake_refused", {"reason": "expired", "peer": "10.0.0.7", "sni": "web"})
    ]


def test_ten_of_a_reason_are_logged_and_the_rest_counted(scene: Scene) -> None:
    """Threats I7."""
    scene.refuse("expired", 25)

    assert scene.events == [("handshake_refused", "expired", None)] * 10


def test_the_sum_comes_once_the_second_is_over(scene: Scene) -> None:
    scene.refuse("expired", 25)

    scene.pass_time(1.0)

    assert scene.events[10:] == [("handshakes_refused", "expired", 15)]
    assert scene.timers == []


def test_reasons_are_limited_apart(scene: Scene) -> None:
    scene.refuse("expired", 12)
    scene.refuse("not_tls", 3)

    assert scene.count("handshake_refused", "expired") == 10
    assert scene.count("handshake_refused", "not_tls") == 3


def test_the_next_second_has_ten_of_its_own(scene: Scene) -> None:
    scene.refuse("expired", 12)
    scene.pass_time(1.0)
    scene.refuse("expired", 12)

    assert scene.count("handshake_refused") == 20


def test_a_late_timer_changes_no_sum(scene: Scene) -> None:
    """A busy loop: the next refusal comes before the timer."""
    scene.refuse("expired", 12)
    scene.clock.advance(1.5)
    scene.refuse("expired", 1)
    scene.pass_time(0.0)

    assert scene.events[10:] == [
        ("handshakes_refused", "expired", 2),
        ("handshake_refused", "expired", None),
    ]


def test_a_window_that_began_before_the_timer_is_not_cut_short(scene: Scene) -> None:
    scene.refuse("expired", 11)
    scene.pass_time(0.5)
    scene.refuse("not_tls", 11)
    scene.pass_time(0.5)
    assert scene.count("handshakes_refused", "not_tls") == 0

    scene.pass_time(1.0)

    assert scene.count("handshakes_refused", "not_tls") == 1


def test_two_unfinished_windows_share_one_timer(scene: Scene) -> None:
    scene.refuse("expired", 11)
    scene.pass_time(0.5)
    scene.refuse("not_tls", 11)
    scene.refuse("timeout", 11)
    scene.refuse("revoked", 1)

    scene.pass_time(0.5)

    assert len(scene.timers) == 1


def test_without_a_flood_there_is_no_timer(scene: Scene) -> None:
    scene.refuse("expired", 10)

    assert scene.timers == []


def test_flush_says_what_is_still_owed(scene: Scene) -> None:
    scene.refuse("expired", 13)
    scene.refuse("not_tls", 1)

    scene.log.flush()

    assert scene.events[11:] == [("handshakes_refused", "expired", 3)]


def test_a_hundred_thousand_refusals_are_fewer_than_a_hundred_lines(scene: Scene) -> None:
    """Threats I7: within five seconds."""
    for _ in range(5):
        scene.refuse("expired", 20_000)
        scene.pass_time(1.0)

    assert len(scene.events) == 55
    assert sum(suppressed or 1 for _, _, suppressed in scene.events) == 100_000


def test_memory_is_bounded_even_if_reasons_are_not(scene: Scene) -> None:
    for number in range(1000):
        scene.log.refused(f"reason_{number}")

    assert len(scene.log._windows) <= 64
