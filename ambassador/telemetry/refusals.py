"""Logs what is refused, or would be, without letting a flood of it become a flood of lines.

Knows rates per reason; must not know what a refusal is. Time is handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PER_SECOND: Final = 10
_MAX_REASONS: Final = 64


class _Window:
    """The events of one reason since `start`."""

    __slots__ = ("logged", "start", "suppressed")

    def __init__(self, start: float) -> None:
        self.start = start
        self.logged = 0
        self.suppressed = 0


class RefusalLog:
    """Logs at most ten refusals a second for each reason; once the second is over, one event with the sum of the rest.

    `emit` is a logger's method, such as `log.warning`; `event` names one refusal, `sum_event` the rest of a second;
    `call_later` is the event loop's: a timer runs only while something is suppressed.

    Units: `now` gives monotonic seconds.
    """

    __slots__ = ("_armed", "_call_later", "_emit", "_event", "_now", "_sum_event", "_windows")

    def __init__(
        self,
        emit: Callable[..., None],
        *,
        event: str,
        sum_event: str,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._emit = emit
        self._event = event
        self._sum_event = sum_event
        self._now = now
        self._call_later = call_later
        self._windows: dict[str, _Window] = {}
        self._armed = False

    def refused(self, reason: str, **fields: object) -> None:
        """Log a refusal, or count it. Fields may be foreign text: the logger cleans what it writes."""
        now = self._now()
        window = self._window(reason, now)
        if now - window.start >= 1.0:
            self._end(reason, window)
            window.start = now
        if window.logged < PER_SECOND:
            window.logged += 1
            self._emit(self._event, reason=reason, **fields)
            return
        window.suppressed += 1
        if not self._armed:
            self._armed = True
            self._call_later(1.0, self._time_passed)

    def flush(self) -> None:
        """Log the sums of all reasons now: the drain ends with this."""
        for reason, window in self._windows.items():
            self._end(reason, window)
        self._windows.clear()

    def _window(self, reason: str, now: float) -> _Window:
        window = self._windows.get(reason)
        if window is None:
            if len(self._windows) >= _MAX_REASONS:  # reasons are our words; this is for a mistake
                self.flush()
            window = self._windows[reason] = _Window(now)
        return window

    def _end(self, reason: str, window: _Window) -> None:
        if window.suppressed:
            self._emit(self._sum_event, reason=reason, suppressed=window.suppressed)
        window.logged = window.suppressed = 0

    def _time_passed(self) -> None:
        # The timer was set within the window, so at most a second of it is left.
        self._armed = False
        now = self._now()
        for reason, window in list(self._windows.items()):
            if now - window.start >= 1.0:
                self._end(reason, window)
                del self._windows[reason]
            elif window.suppressed and not self._armed:
                self._armed = True
                self._call_later(1.0, self._time_passed)
