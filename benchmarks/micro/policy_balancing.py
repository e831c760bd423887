"""Microseconds of picking an endpoint, each in a loop of its own: python -m benchmarks.micro.policy_balancing."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ambassador.policy.balancing import LeastRequest, RoundRobin


@dataclass(eq=False, slots=True)
class _Place:
    weight: int = 1
    outstanding: int = 0


def _report(name: str, step: Callable[[], object], count: int = 100_000) -> None:
    best = min(timeit.repeat(step, number=count, repeat=5)) / count
    sys.stdout.write(f"{name:45} {best * 1e6:7.3f} us\n")


def main() -> None:
    """Print one line per step."""
    random = Random(1)
    least: LeastRequest[_Place] = LeastRequest()
    turn: RoundRobin[_Place] = RoundRobin()
    for count in (1, 3, 100):
        places = tuple(_Place() for _ in range(count))
        listed = list(places)
        _report(f"LeastRequest.pick of a tuple of {count}", lambda p=places: least.pick(p, random))
        _report(f"LeastRequest.pick of a list of {count}", lambda p=listed: least.pick(p, random))
        _report(f"RoundRobin.pick of {count}", lambda p=places: turn.pick(p, random))


if __name__ == "__main__":
    main()
