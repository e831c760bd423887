"""An asyncio loop whose time jumps to the next timer, so that an hour of it costs no waiting.

Real sockets and threads still work: what is ready comes before any jump. A loop with nothing ready and no timer
can never go on; after `PATIENCE_S` of real time (a thread may still answer) that is an error, not a hang.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")
PATIENCE_S = 5.0


class Stuck(RuntimeError):
    """Nothing is ready and nothing is scheduled."""


class _JumpingSelector(selectors.EpollSelector):
    """Selects without waiting, and tells how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(PATIENCE_S)
            if not ready:
                raise Stuck(
                    "nothing is ready and no timer is set: the test waits for an event that cannot come"
                )
            return ready
        self.skipped_s += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` starts at 0 and `advance` is `asyncio.sleep`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Give virtual seconds since the loop was made."""
        return self._jumping.skipped_s


def run_virtual(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end on a `VirtualTimeLoop`; tasks that it leaves behind are an error."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(_without_leftovers(coroutine))


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Decorate an `async def test_…` so that it runs under virtual time; fixtures work as usual."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


async def settle(rounds: int = 10) -> None:
    """Let everything that is ready run, without moving time."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def _without_leftovers(work: Awaitable[None]) -> None:
    await work
    await settle()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if left:
        raise AssertionError(f"tasks left behind: {left}")
