"""One lazily re-armed timer, under virtual time."""

from __future__ import annotations

import asyncio

from ambassador.net.alarm import NEVER, Alarm
from tests.support.virtual_time import virtual_time


class Rings:
    """An alarm that notes when it rang."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.at: list[float] = []
        self.alarm = Alarm(
            self.loop, lambda: self.at.append(round(self.loop.time(), 2)), crashed=print
        )


@virtual_time
async def test_it_rings_once_at_its_deadline() -> None:
    rings = Rings()
    rings.alarm.set(5)

    await asyncio.sleep(60)

    assert rings.at == [5]
    assert rings.alarm.at == NEVER


@virtual_time
async def test_a_later_deadline_costs_no_timer_until_it_fires() -> None:
    rings = Rings()
    rings.alarm.set(5)
    handle = rings.alarm._handle
    rings.alarm.set(9)
    assert rings.alarm._handle is handle

    await asyncio.sleep(60)

    assert rings.at == [9]


@virtual_time
async def test_an_earlier_deadline_rings_earlier() -> None:
    rings = Rings()
    rings.alarm.set(9)
    rings.alarm.set(5)

    await asyncio.sleep(60)

    assert rings.at == [5]


@virtual_time
async def test_never_switches_it_off_until_it_is_set_again() -> None:
    rings = Rings()
    rings.alarm.set(5)
    rings.alarm.set(NEVER)
    await asyncio.sleep(10)
    assert rings.at == []

    rings.alarm.set(15)
    await asyncio.sleep(10)

    assert rings.at == [15]


@virtual_time
async def test_after_cancel_nothing_fires() -> None:
    rings = Rings()
    rings.alarm.cancel()
    rings.alarm.set(5)
    rings.alarm.cancel()

    await asyncio.sleep(60)

    assert rings.at == []


@virtual_time
async def test_it_may_be_set_while_it_rings() -> None:
    loop = asyncio.get_running_loop()
    rang: list[float] = []

    def ring() -> None:
        rang.append(round(loop.time(), 2))
        if len(rang) < 3:
            alarm.set(loop.time() + 5)

    alarm = Alarm(loop, ring, crashed=print)
    alarm.set(5)

    await asyncio.sleep(60)

    assert rang == [5, 10, 15]


@virtual_time
async def test_a_bug_in_what_it_calls_is_reported_and_it_may_be_set_again() -> None:
    """Threats E8: a deadline that fails must not leave its connection without any."""
    loop = asyncio.get_running_loop()
    bugs: list[BaseException] = []

    def fail() -> None:
        raise RuntimeError(round(loop.time(), 2))

    alarm = Alarm(loop, fail, crashed=bugs.append)
    alarm.set(5)
    await asyncio.sleep(10)
    alarm.set(15)
    await asyncio.sleep(10)

    assert [bug.args for bug in bugs] == [(5,), (15,)]
