"""A clock that stands still until the test moves it."""

from __future__ import annotations


class FakeClock:
    """Both readings of `core.clock.Clock`; they move together and only by `advance`.

    Units: seconds.
    """

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Give the monotonic reading."""
        return self._monotonic

    def wall(self) -> float:
        """Give the Unix time."""
        return self._wall

    def advance(self, seconds: float) -> float:
        """Move both readings on and give the new monotonic one."""
        if seconds < 0:
            raise ValueError("time does not run backwards; to step the wall clock use step_wall")
        self._monotonic += seconds
        self._wall += seconds
        return self._monotonic

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock on or back, as NTP or an administrator does."""
        self._wall += seconds
