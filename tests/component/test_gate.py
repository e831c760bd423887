"""Who may begin a handshake, in virtual time (threats D3)."""

from __future__ import annotations

import asyncio

from ambassador.net.gate import HandshakeGate
from tests.support.virtual_time import virtual_time


class Queue:
    """A listener that waits at the gate."""

    def __init__(self, gate: HandshakeGate) -> None:
        self.gate = gate
        self.resumed = 0
        gate.waiting.add(self)

    def resume_accepting(self) -> None:
        self.resumed += 1
        self.gate.waiting.discard(self)


class Parked:
    """A handshake of a source that had its share."""

    def __init__(self, gate: HandshakeGate, source: str, slots: int = 4) -> None:
        self.gate, self.source, self.slots = gate, source, slots
        self.begun = False
        gate.park(self)

    def may_begin(self) -> bool:
        return not self.gate.has_share(self.source, self.slots)

    def begin(self) -> None:
        self.begun = True
        self.gate.take(self.source)


def gate_of(ceiling: int = 4, rate: float = 100.0) -> HandshakeGate:
    return HandshakeGate(asyncio.get_running_loop(), ceiling=ceiling, rate=rate)


@virtual_time
async def test_a_source_has_half_of_the_slots_over_all_listeners() -> None:
    gate = gate_of()

    gate.take("flood")
    assert not gate.has_share("flood", 4)
    gate.take("flood")

    assert gate.has_share("flood", 4)
    assert not gate.has_share("good", 4)
    assert not gate.has_share("", 4), "Unix peers all look alike"


@virtual_time
async def test_the_next_of_a_source_begins_when_one_of_its_own_ends() -> None:
    gate = gate_of()
    gate.take("flood")
    gate.take("flood")
    first, second = Parked(gate, "flood"), Parked(gate, "flood")

    gate.give_back("flood")
    await asyncio.sleep(0.1)

    assert (first.begun, second.begun) == (True, False)
    assert gate.in_flight == 2


@virtual_time
async def test_who_stands_unaccepted_goes_first() -> None:
    """They are of others: several sources with their share each must not fill every slot that gets free."""
    gate = gate_of(ceiling=2)
    gate.take("a")
    gate.take("b")
    assert gate.pause_s(0.0) is None
    queue, parked = Queue(gate), Parked(gate, "a", slots=2)

    gate.give_back("a")
    assert queue.resumed == 1
    gate.take("good")
    await asyncio.sleep(0.1)

    assert not parked.begun
    gate.give_back("good")
    await asyncio.sleep(0.1)
    assert parked.begun


@virtual_time
async def test_parked_ones_obey_the_rate_too() -> None:
    gate = gate_of(ceiling=64, rate=10.0)
    for _ in range(12):
        gate.take("flood")
    handshakes = [Parked(gate, "flood", slots=64) for _ in range(20)]

    gate.give_back("flood")
    await asyncio.sleep(0.05)
    assert not any(each.begun for each in handshakes)
    await asyncio.sleep(1)

    assert 1 <= sum(each.begun for each in handshakes) <= 10


@virtual_time
async def test_one_that_ended_before_it_began_is_forgotten() -> None:
    gate = gate_of()
    gate.take("flood")
    gate.take("flood")
    gone, next_one = Parked(gate, "flood"), Parked(gate, "flood")

    gate.unpark(gone)
    gate.unpark(gone)
    gate.give_back("flood")
    await asyncio.sleep(0.1)

    assert (gone.begun, next_one.begun) == (False, True)
