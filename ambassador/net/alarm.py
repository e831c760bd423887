"""One lazily re-armed timer.

Knows a deadline and a callback. Moving the deadline later costs a float assignment, because the running timer
finds out when it fires; `call_later` and `cancel` for every request would cost a microsecond (house §8).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

NEVER = math.inf


class Alarm:
    """Calls `callback` once the deadline has passed, and `crashed` when that raises.

    Units: seconds of the loop's clock.
    """

    __slots__ = ("_armed", "_callback", "_crashed", "_handle", "_loop", "at")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._crashed = crashed
        self._handle: asyncio.TimerHandle | None = None
        self._armed = NEVER
        self.at = NEVER

    def set(self, at: float) -> None:
        """Move the deadline; NEVER switches it off."""
        self.at = at
        if at < self._armed:
            self._arm(at)

    def cancel(self) -> None:
        """Give the timer back to the loop; nothing fires afterwards."""
        self.at = self._armed = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def end(self) -> None:
        """Cancel for good, and let go of who would be called: it owns this alarm, a cycle for the rare collector."""
        self.cancel()
        self._callback = nobody
        self._crashed = nobody

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = at
        self._handle = self._loop.call_at(at, self._fired)

    def _fired(self) -> None:
        self._handle = None
        self._armed = NEVER
        if self.at == NEVER:
            return
        # A millisecond early is the loop's resolution, not another round.
        if self.at > self._loop.time() + 0.001:
            self._arm(self.at)
            return
        self.at = NEVER
        try:
            self._callback()
        except Exception as error:  # the guard of this callback (E8)
            self._crashed(error)


def nobody(*_: object) -> None:
    """Stand for who has gone."""
