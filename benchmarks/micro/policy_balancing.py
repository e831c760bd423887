"""Microseconds of picking an endpoint, each in a loop of its own: python -m benchmarks.micro.policy_balancing."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from ambassador.policy.balancing import BalanceSettings, LeastRequest, RoundRobin
from ambassador.policy.eligibility import choose
from ambassador.policy.peak_ewma import LeastLatency, PeakEwma
from ambassador.policy.ring_hash import RingHash


@dataclass(eq=False, slots=True)
class _Place:
    key: str
    weight: int = 1
    outstanding: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)
    priority: int = 0
    zone: str = ""
    available: bool = True
    is_impostor: bool = False
    unreachable: bool = False


def _places(count: int) -> tuple[_Place, ...]:
    return tuple(_Place(f"10.0.0.{number}:8443") for number in range(count))


def _report(name: str, step: Callable[[], object], count: int = 100_000) -> None:
    best = min(timeit.repeat(step, number=count, repeat=5)) / count
    sys.stdout.write(f"{name:45} {best * 1e6:9.3f} us\n")


def _without_latency_or_key() -> None:
    random = Random(1)
    least: LeastRequest[_Place] = LeastRequest()
    turn: RoundRobin[_Place] = RoundRobin()
    for count in (1, 3, 100):
        places = _places(count)
        listed = list(places)
        _report(f"LeastRequest.pick of a tuple of {count}", lambda p=places: least.pick(p, random))
        _report(f"LeastRequest.pick of a list of {count}", lambda p=listed: least.pick(p, random))
        _report(f"RoundRobin.pick of {count}", lambda p=places: turn.pick(p, random))


def _by_latency() -> None:
    random = Random(1)
    quick: LeastLatency[_Place] = LeastLatency()
    for count in (3, 100):
        places = _places(count)
        for place in places:
            place.latency.observe(0.01, 1.0)
        _report(f"LeastLatency.pick of {count}", lambda p=places: quick.pick(p, random, now=2.0))
    latency = PeakEwma()
    latency.observe(0.02, 1.0)
    _report("PeakEwma.observe", lambda: latency.observe(0.01, 1.1))


def _by_key() -> None:
    random = Random(1)
    for count in (3, 100):
        places = _places(count)
        ring: RingHash[_Place] = RingHash(1.25)
        _report(
            f"RingHash.pick of {count}, idle", lambda p=places, r=ring: r.pick(p, random, key=b"u7")
        )
        for place in places:
            place.outstanding = 1
        _report(
            f"RingHash.pick of {count}, each with one",
            lambda p=places, r=ring: r.pick(p, random, key=b"u7"),
            10_000,
        )
        _report(
            f"RingHash.pick of {count}, ring built anew",
            lambda p=places: RingHash(1.25).pick(p, random, key=b"u7"),
            5,
        )


def main() -> None:
    """Print one line per step."""
    _without_latency_or_key()
    _by_latency()
    _by_key()
    settings = BalanceSettings()
    places = _places(100)
    _report("choose of 100", lambda: choose(places, settings=settings, zone="a"), 1_000)


if __name__ == "__main__":
    main()
