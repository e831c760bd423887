"""Waiting for conditions, never for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 10.0
STEP_S = 0.01


def eventually(
    predicate: Callable[[], T | None], what: str = "", *, patience_s: float = PATIENCE_S
) -> T:
    """Give the first true value of `predicate`; AssertionError with `what` when none comes.

    Units: seconds; `patience_s` only decides how long a failing test takes.
    """
    deadline = time.monotonic() + patience_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < deadline, f"in vain: {what or predicate}; last value {value!r}"
        time.sleep(STEP_S)


async def eventually_async(
    predicate: Callable[[], T | None], what: str = "", *, patience_s: float = PATIENCE_S
) -> T:
    """Give what `eventually` gives while the loop goes on."""
    deadline = time.monotonic() + patience_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < deadline, f"in vain: {what or predicate}; last value {value!r}"
        await asyncio.sleep(STEP_S)
