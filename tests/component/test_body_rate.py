"""The minimum rate of a request body, in virtual time (threats E1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from ambassador.http.http1.body_rate import RATE_WINDOW_S, BodyRate
from tests.support.virtual_time import virtual_time

RATE = 500.0
ENOUGH = int(RATE * RATE_WINDOW_S)


class Watched:
    """A rate, and when it said that a body is too slow."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        transport: Any = SimpleNamespace(crash=print)
        self.slow_at: list[float] = []
        begin = loop.time()
        self.rate = BodyRate(
            loop, transport, RATE, lambda: self.slow_at.append(round(loop.time() - begin, 3))
        )
        self.rate.begin()


@virtual_time
async def test_too_few_bytes_in_a_window_are_too_slow() -> None:
    watched = Watched()
    watched.rate.bytes = ENOUGH - 1

    await asyncio.sleep(60)

    assert watched.slow_at == [RATE_WINDOW_S]


@virtual_time
async def test_each_window_is_judged_by_its_own_bytes() -> None:
    watched = Watched()
    watched.rate.bytes = ENOUGH * 5

    await asyncio.sleep(60)

    assert watched.slow_at == [2 * RATE_WINDOW_S]


@virtual_time
async def test_time_in_which_we_do_not_read_does_not_count() -> None:
    """A moment's pause, for a dial, must not forgive the whole window either."""
    watched = Watched()

    await asyncio.sleep(5)
    watched.rate.pause()
    watched.rate.pause()
    await asyncio.sleep(100)
    watched.rate.resume()
    watched.rate.resume()
    await asyncio.sleep(60)

    assert watched.slow_at == [100 + RATE_WINDOW_S]


@virtual_time
async def test_nothing_is_said_after_the_end_of_a_body() -> None:
    watched = Watched()

    watched.rate.pause()
    watched.rate.stop()
    watched.rate.resume()
    await asyncio.sleep(60)

    assert watched.slow_at == []
