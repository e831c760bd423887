"""The order of stopping: not ready, delay, stop accepting, let exchanges end, then go.

Inbound goes first: the app's last answers may need what the outbound listeners lead to.
Source: Kubernetes removes a Pod from its endpoints only while SIGTERM is already there, hence the delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

#: How often the drain looks whether the last exchange has ended. Units: seconds.
LOOK_EVERY_S = 0.02


class Doors(Protocol):
    """One listener's connections."""

    direction: str
    connections: set[object]

    def drain(self) -> None: ...

    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Closing:
    """One listener: how to stop accepting, and its connections."""

    stop_accepting: Callable[[], None]
    doors: Doors


async def drain(closings: Sequence[Closing], *, delay_s: float, timeout_s: float) -> bool:
    """Stop in order; True when everything ended by itself, False when the timeout cut it.

    Units: seconds; `timeout_s` includes the delay.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(delay_s)
            for direction in ("inbound", "outbound"):
                of_direction = [
                    closing for closing in closings if closing.doors.direction == direction
                ]
                for closing in of_direction:
                    closing.stop_accepting()
                    closing.doors.drain()
                # One loop at the end of the process; an event would be one more thing for every connection to tell.
                while any(closing.doors.connections for closing in of_direction):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        return False
    return True
