"""What balancing, health checks and outlier detection cost: one sidecar with one endpoint, with three, with all on.

The differences that matter are a few per cent, less than what a machine's pace changes in a minute. So windows are
short, all variants take turns in each round, and what is reported is the difference within a round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.load import ambassador, closed_loop
from benchmarks.load.errors import LoadError
from benchmarks.load.place import SMALL_PATH, Commands, Kind, Place, Ports, free_ports
from benchmarks.load.processes import choose_cores
from benchmarks.load.targets import KINDS, Arena

CONNECTIONS = 16
ROUNDS = 24  # of each start of the processes
REQUESTS = 2400  # of one window
_WARM_UP = 3000
_SETTLE_S = 0.02
_ALONE = "    outlier_detection: none\n"
_CHECKED = f"    health_check: {{kind: http, path: {SMALL_PATH}}}\n    outlier_detection: {{consecutive: 5}}\n"
ONE, THREE, CHECKED = NAMES = ("one", "three", "three-checked")
_WORDS = {
    ONE: "one endpoint, no checks",
    THREE: "three endpoints, no checks",
    CHECKED: "three endpoints, health checks, outlier detection",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, quartiles, and how far the median may be off (its standard error)."""

    median: float
    low: float
    high: float
    error: float


def run(starts: int) -> str:
    """Measure, and give the result as Markdown.

    Errors: LoadError.
    """
    for problem in (closed_loop.missing(), KINDS["nginx"].missing(), ambassador.KIND.missing()):
        if problem:
            raise LoadError(problem)
    rounds: list[dict[str, float]] = []
    for number in range(starts):
        rounds += _rounds_of_one_start()
        sys.stderr.write(f"start {number + 1} of {starts}\n")
    return _markdown(rounds)


def _rounds_of_one_start() -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        arena = Arena(Path(folder) / "arena", choose_cores(), kinds=KINDS_OF_SERVICES)
        try:
            arena.start(list(NAMES))
            for name in NAMES:
                closed_loop.run(arena.load(arena.targets[name]), CONNECTIONS, _WARM_UP)
            return [_round(arena, number) for number in range(ROUNDS)]
        finally:
            arena.stop()


def _round(arena: Arena, number: int) -> dict[str, float]:
    """Give the CPU per request of each outbound sidecar. Units: microseconds."""
    first = number % len(NAMES)
    return {name: _window(arena, name) for name in (*NAMES[first:], *NAMES[:first])}


def _window(arena: Arena, name: str) -> float:
    target = arena.targets[name]
    if target.outbound is None:
        raise LoadError(f"{name} has no sidecar")
    before = target.outbound.cpu().total
    closed_loop.run(arena.load(target), CONNECTIONS, REQUESTS)
    time.sleep(_SETTLE_S)
    return (target.outbound.cpu().total - before) / REQUESTS * 1e6


def spread(values: list[float]) -> Spread:
    """Give median, quartiles and standard error of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    # Of a normal distribution: sigma is 0.741 of the distance of the quartiles, the median's error 1.253 of the mean's.
    return Spread(middle, low, high, 1.253 * 0.741 * (high - low) / len(values) ** 0.5)


def _markdown(rounds: list[dict[str, float]]) -> str:
    lines = [
        f"CPU of the outbound sidecar at {CONNECTIONS} connections, {len(rounds)} rounds of {REQUESTS} requests each: "
        "median [quartiles]; differences and ratios are taken within a round, ± is the median's standard error.",
        "",
        "| variant | µs per request | more than one endpoint, µs | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in NAMES:
        cost = _cell(spread([one[name] for one in rounds]), 1)
        if name == ONE:
            lines.append(f"| {_WORDS[name]} | {cost} | | |")
            continue
        more = spread([one[name] - one[ONE] for one in rounds])
        ratio = spread([one[name] / one[ONE] for one in rounds])
        lines.append(
            f"| {_WORDS[name]} | {cost} | {_cell(more, 1)} ± {more.error:.1f} | {_cell(ratio, 3)} ± {ratio.error:.3f} |"
        )
    return "\n".join(lines)


def _cell(values: Spread, digits: int) -> str:
    return f"{values.median:.{digits}f} [{values.low:.{digits}f}, {values.high:.{digits}f}]"


def _prepare(place: Place, ports: Ports, *, name: str) -> Commands:
    """Three inbound listeners of one process stand for three endpoints: only the outbound one is measured."""
    return ambassador.commands(
        place,
        ports,
        label=name,
        inbound=[ports.inbound] if name == ONE else [ports.inbound, *free_ports(2)],
        service=_CHECKED if name == CHECKED else _ALONE,
    )


def _kind(name: str) -> Kind:
    kind = ambassador.KIND
    return Kind(name, kind.missing, kind.version, partial(_prepare, name=name), kind.log_suffix)


KINDS_OF_SERVICES = {name: _kind(name) for name in NAMES}
