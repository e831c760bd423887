"""How late the loop is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.telemetry.loop_lag import PERIOD_S, LoopLag
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable


class Handle:
    def __init__(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Scene:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.handles: list[Handle] = []
        self.reported: list[float] = []
        self.lag = LoopLag(
            self.reported.append, call_later=self._call_later, now=self.clock.monotonic
        )

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> Handle:
        self.handles.append(Handle(delay_s, callback))
        return self.handles[-1]


def test_lateness_is_reported_and_the_next_timer_set() -> None:
    scene = Scene()
    scene.lag.start()
    scene.clock.advance(PERIOD_S + 0.25)

    scene.handles[0].callback()

    assert scene.reported == [0.25]
    assert [handle.delay_s for handle in scene.handles] == [PERIOD_S, PERIOD_S]


def test_a_timer_within_the_loops_resolution_is_not_early() -> None:
    """asyncio fires timers up to its clock's resolution before their time."""
    scene = Scene()
    scene.lag.start()
    scene.clock.advance(PERIOD_S - 0.001)

    scene.handles[0].callback()

    assert scene.reported == [0.0]


def test_stopping_leaves_no_timer() -> None:
    scene = Scene()
    scene.lag.stop()
    scene.lag.start()

    scene.lag.stop()
    scene.lag.stop()

    assert [handle.cancelled for handle in scene.handles] == [True]
