"""Whether the body of a request comes at its minimum rate (threats E1).

Knows bytes per window; must not know what they are, nor how a slow peer is answered. Time in which we do not read
says nothing about the peer: the window stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.net.alarm import NEVER, Alarm, nobody

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.transport import Transport

#: Units: seconds.
RATE_WINDOW_S: Final = 20.0


class BodyRate:
    """Calls `too_slow` when a window has passed with fewer `bytes` than `rate` wants.

    Units: `rate` is bytes per second.
    """

    __slots__ = ("_alarm", "_left_s", "_loop", "_rate", "_too_slow", "bytes")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        rate: float,
        too_slow: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._rate = rate
        self._too_slow = too_slow
        self._left_s = 0.0
        self._alarm = Alarm(loop, self._window_over, transport.crash)
        self.bytes = 0

    def begin(self) -> None:
        """Begin a window."""
        self.bytes = 0
        self._left_s = 0.0
        self._alarm.set(self._loop.time() + RATE_WINDOW_S)

    def pause(self) -> None:
        """Let the window stand still."""
        if self._alarm.at != NEVER:
            self._left_s = self._alarm.at - self._loop.time()
            self._alarm.at = NEVER

    def resume(self) -> None:
        """Let it go on."""
        if self._left_s:
            self._alarm.set(self._loop.time() + self._left_s)
            self._left_s = 0.0

    def stop(self) -> None:
        """Watch no more: the body has ended."""
        self._left_s = 0.0
        self._alarm.cancel()

    def end(self) -> None:
        """Watch no more, nor the next body: the transport is closed."""
        self._left_s = 0.0
        self._alarm.end()
        self._too_slow = nobody

    def _window_over(self) -> None:
        if self.bytes < self._rate * RATE_WINDOW_S:
            self._too_slow()
        else:
            self.begin()
