"""Measures how late the event loop runs what it was asked to run.

Knows a timer and a clock handed in; must not know what is done with the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S: Final = 0.5


class Timer(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> object:
        """Give it back."""


class LoopLag:
    """Sets a timer twice a second and reports by how much it was late.

    Units: seconds; `now` is the loop's monotonic time.
    """

    __slots__ = ("_call_later", "_due", "_now", "_report", "_timer")

    def __init__(
        self,
        report: Callable[[float], None],
        *,
        call_later: Callable[[float, Callable[[], None]], Timer],
        now: Callable[[], float],
    ) -> None:
        self._report = report
        self._call_later = call_later
        self._now = now
        self._due = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Measure from now on."""
        self._due = self._now() + PERIOD_S
        self._timer = self._call_later(PERIOD_S, self._fired)

    def stop(self) -> None:
        """Give the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        lag_s = self._now() - self._due
        self.start()
        self._report(max(0.0, lag_s))
