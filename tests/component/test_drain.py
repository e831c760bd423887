"""The order of stopping, under virtual time."""

from __future__ import annotations

import asyncio

from ambassador.control.drain import Closing, drain
from tests.support.virtual_time import virtual_time


class Doors:
    """One listener's connections; notes what it is told, and when."""

    def __init__(self, direction: str, log: list[tuple[str, str, float]]) -> None:
        self.direction = direction
        self.connections: set[object] = set()
        self._log = log

    def note(self, what: str) -> None:
        self._log.append((self.direction, what, round(asyncio.get_running_loop().time(), 1)))

    def drain(self) -> None:
        self.note("drain")

    def abort(self) -> None:
        self.note("abort")

    def closing(self) -> Closing:
        return Closing(lambda: self.note("stop"), self)


def pair() -> tuple[Doors, Doors, list[tuple[str, str, float]]]:
    log: list[tuple[str, str, float]] = []
    return Doors("inbound", log), Doors("outbound", log), log


@virtual_time
async def test_inbound_ends_before_outbound_and_both_after_the_delay() -> None:
    """The app's last answers may need what the outbound listeners lead to."""
    inbound, outbound, log = pair()
    inbound.connections.add(1)
    asyncio.get_running_loop().call_later(8, inbound.connections.clear)

    ended = await drain([outbound.closing(), inbound.closing()], delay_s=5, timeout_s=25)

    assert ended
    assert log == [
        ("inbound", "stop", 5.0),
        ("inbound", "drain", 5.0),
        ("outbound", "stop", 8.0),
        ("outbound", "drain", 8.0),
    ]


@virtual_time
async def test_what_has_not_ended_in_time_is_said_and_left_to_the_caller() -> None:
    inbound, _, log = pair()
    inbound.connections.add(1)

    ended = await drain([inbound.closing()], delay_s=5, timeout_s=25)

    assert not ended
    assert round(asyncio.get_running_loop().time(), 3) == 25
    assert [what for _, what, _ in log] == ["stop", "drain"]


@virtual_time
async def test_a_delay_above_the_timeout_is_cut_too() -> None:
    inbound, _, log = pair()

    assert not await drain([inbound.closing()], delay_s=30, timeout_s=25)
    assert log == []


@virtual_time
async def test_nothing_open_ends_at_once() -> None:
    assert await drain([], delay_s=0, timeout_s=25)
    assert asyncio.get_running_loop().time() == 0
