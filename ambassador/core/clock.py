"""The two clocks, as one value that tests replace.

Knows how to ask the operating system for the time; nothing else in the package may.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of the time.

    Units: seconds; `monotonic` never jumps and has no meaning but differences, `wall` is Unix time.
    """

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
