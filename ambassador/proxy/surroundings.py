"""What every exchange of a process shares: clocks, chance, sinks.

Knows where things are; decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.proxy.local_reply import DateLine

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable

    from ambassador.core.clock import Clock
    from ambassador.net.transport import Budget


class Surroundings:
    """Clocks, chance and sinks of the process, bound once so that the hot path looks nothing up."""

    __slots__ = (
        "budget",
        "chance",
        "crashed",
        "date",
        "loop",
        "loop_time",
        "monotonic",
        "random_bits",
        "wall",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Clock,
        chance: random.Random,
        crashed: Callable[[BaseException], None],
        budget: Budget,
    ) -> None:
        self.budget = budget
        self.loop = loop
        self.loop_time = loop.time
        self.monotonic = clock.monotonic
        self.wall = clock.wall
        self.chance = chance.random
        self.random_bits = chance.getrandbits
        self.date = DateLine()
        self.crashed = crashed
