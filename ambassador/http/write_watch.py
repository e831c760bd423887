"""The end of a peer that takes nothing of what it is sent (threats E1).

Knows progress of a transport in time; must not know what is written, nor what its end means to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.net.alarm import NEVER, Alarm, nobody

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.transport import Transport


_LOOKS: Final = 8
#: What a timer may come too early. Units: seconds.
_TICK_S: Final = 0.002


class WriteWatch:
    """Calls `gave_up` when bytes have waited for `timeout_s` and the peer's side took none of what was on its way.

    It looks eight times in `timeout_s`, so it is late by an eighth at most.
    """

    __slots__ = ("_alarm", "_gave_up", "_loop", "_mark", "_since", "_timeout_s", "_transport")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        timeout_s: float,
        gave_up: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._timeout_s = timeout_s
        self._gave_up = gave_up
        self._mark = 0  # what had been taken
        self._since = 0.0  # when it was last seen to have grown
        self._alarm = Alarm(loop, self._look, transport.crash)

    def begin(self) -> None:
        """Watch until everything has gone; nothing new while it watches already."""
        if self._alarm.at == NEVER:
            self._since = self._loop.time()
            self._mark = self._transport.taken()
            self._look_again()

    def end(self) -> None:
        """Watch no more: the transport is closed."""
        self._alarm.end()
        self._gave_up = nobody

    def _look(self) -> None:
        if not self._transport.stalled:
            return
        taken, now = self._transport.taken(), self._loop.time()
        if taken != self._mark:
            self._mark, self._since = taken, now
        elif now - self._since >= self._timeout_s - _TICK_S:
            self._gave_up()
            return
        self._look_again()

    def _look_again(self) -> None:
        self._alarm.set(self._loop.time() + self._timeout_s / _LOOKS)
