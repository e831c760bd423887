"""The end of a peer that takes nothing of what it is sent (threats E1).

Knows progress of a transport in time; must not know what is written, nor what its end means to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.net.alarm import NEVER, Alarm, nobody

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.transport import Transport


class WriteWatch:
    """Calls `gave_up` when bytes have waited for `timeout_s` and the peer's side took none of what was on its way."""

    __slots__ = ("_alarm", "_gave_up", "_loop", "_mark", "_timeout_s", "_transport")

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
        self._mark = 0
        self._alarm = Alarm(loop, self._look, transport.crash)

    def begin(self) -> None:
        """Watch until everything has gone; nothing new while it watches already."""
        if self._alarm.at == NEVER:
            self._mark = self._transport.taken()
            self._alarm.set(self._loop.time() + self._timeout_s)

    def end(self) -> None:
        """Watch no more: the transport is closed."""
        self._alarm.end()
        self._gave_up = nobody

    def _look(self) -> None:
        if not self._transport.stalled:
            return
        if self._transport.taken() != self._mark:
            self.begin()
        else:
            self._gave_up()
