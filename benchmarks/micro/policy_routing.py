"""Microseconds of finding a route, each in a loop of its own: python -m benchmarks.micro.policy_routing."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable

from ambassador.policy.routing import Match, RouteTable, by_name, normal_host


def _report(name: str, step: Callable[[], object], count: int = 100_000) -> None:
    best = min(timeit.repeat(step, number=count, repeat=5)) / count
    sys.stdout.write(f"{name:45} {best * 1e6:7.3f} us\n")


def main() -> None:
    """Print one line per step."""
    names = by_name([(f"service-{number}", (), number) for number in range(50)])
    prefixes = RouteTable(
        [(f"r{number}", Match(prefix=f"/p{number}"), number) for number in range(10)]
    )
    _report("normal_host, seen before", lambda: normal_host(b"Service-7.localhost:9000"))
    _report("find by name among 50", lambda: names.find(b"service-7", b"GET", b"/", []))
    _report("find the tenth prefix", lambda: prefixes.find(b"a", b"GET", b"/p9/x?y", []))


if __name__ == "__main__":
    main()
