"""`python -m benchmarks.load`: plan, run all repetitions interleaved, print."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import closed_loop, report, services
from benchmarks.load.errors import LoadError
from benchmarks.load.machine import facts
from benchmarks.load.measures import LATENCY, MEASURES, Figures, Plan, measure, windows
from benchmarks.load.processes import Cores, choose_cores
from benchmarks.load.results import Results
from benchmarks.load.targets import DIRECT, KINDS, NAMES, Arena

_QUICK_TARGETS = (DIRECT, "envoy", "ambassador")


def _words(allowed: tuple[str, ...], text: str) -> list[str]:
    chosen = [word.strip() for word in text.split(",")]
    for word in chosen:
        if word not in allowed:
            raise argparse.ArgumentTypeError(f'"{word}" is none of {", ".join(allowed)}')
    return [word for word in allowed if word in chosen]


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in text.split(","))
    if not all(1 <= number <= 100_000 for number in numbers):
        raise argparse.ArgumentTypeError("expected numbers between 1 and 100000")
    return numbers


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Measure Ambassador beside other proxies on this machine.",
        epilog="Example: python -m benchmarks.load --quick --only cpu --connections 16",
    )
    add = parser.add_argument
    add("--targets", type=lambda text: _words(NAMES, text), help=f"of {','.join(NAMES)}")
    add("--repeat", type=int, help="repetitions (8, with --quick 2)")
    add("--quick", action="store_true", help="direct, envoy and ambassador, short windows")
    add("--only", type=lambda text: _words(MEASURES, text), help=f"of {','.join(MEASURES)}")
    add("--connections", type=_numbers, default=(1, 16, 64), help="of the CPU windows (1,16,64)")
    add("--rates", type=_numbers, help="requests/s of the latency windows (200,1000)")
    add("--services", action="store_true", help="instead: one endpoint against three with checks")
    add("-o", "--output", choices=("md", "json"), default="md")
    return parser.parse_args(arguments)


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    return Plan(
        measures=tuple(options.only or MEASURES),
        connections=options.connections,
        rates=options.rates or ((1000,) if quick else (200, 1000)),
        cpu_s=1.0 if quick else 2.5,
        warm_up_requests=1500 if quick else 3000,
        latency_s=3.0 if quick else 5.0,
        latency_warm_up_s=0.5 if quick else 1.0,
        handshakes=150 if quick else 600,  # half a second each for the quickest: less is noise
        bulk_files=3 if quick else 8,
    )


def _targets(options: argparse.Namespace, plan: Plan) -> list[str]:
    """Choose the targets; what is added by a proxy needs the direct way beside it."""
    chosen = options.targets or list(_QUICK_TARGETS if options.quick else NAMES)
    if LATENCY in plan.measures and DIRECT not in chosen:
        chosen = [DIRECT, *chosen]
    for problem in [closed_loop.missing(), KINDS["nginx"].missing()]:
        if problem:
            raise LoadError(problem)
    for name in chosen:
        if name != DIRECT and (problem := KINDS[name].missing()):
            raise LoadError(f"{problem}; leave {name} out with --targets")
    return list(chosen)


def _repetition(
    number: int, folder: Path, cores: Cores, plan: Plan, targets: list[str]
) -> dict[str, Figures]:
    """Serve every window to every target, neighbours in time, each window beginning with another target."""
    figures: dict[str, Figures] = {name: {} for name in targets}
    arena = Arena(folder / "arena", cores)
    try:
        arena.start(targets)
        for position, window in enumerate(windows(plan)):
            first = (number + position) % len(targets)
            for name in targets[first:] + targets[:first]:
                _merge(figures[name], measure(arena, arena.targets[name], plan, window))
    finally:
        arena.stop()
    arena.check_logs()
    return figures


def _merge(figures: Figures, found: Figures) -> None:
    """Add a window's figures; of the doubts that several windows report the worst stays."""
    for key, value in found.items():
        figures[key] = max(value, figures.get(key, value))


def _run(plan: Plan, targets: list[str], repeat: int) -> Results:
    results, cores = Results(), choose_cores()
    for number in range(repeat):
        started_ns = time.monotonic_ns()
        with tempfile.TemporaryDirectory(
            prefix="load-"
        ) as folder:  # its logs may hold hundreds of MB
            results.add(_repetition(number, Path(folder), cores, plan, targets))
        seconds = (time.monotonic_ns() - started_ns) / 1e9
        sys.stderr.write(f"repetition {number + 1} of {repeat}: {seconds:.0f} s\n")
    return results


def _stop(*_: object) -> None:
    raise SystemExit(143)


def _services(starts: int, arguments: list[str]) -> int:
    try:
        known = facts(["ambassador"], arguments)
        result = services.run(starts)
    except LoadError as error:
        sys.stderr.write(f"no result: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    lines = "\n".join(f"* {name}: {value}" for name, value in known.items())
    sys.stdout.write(f"{lines}\n\n{result}\n")
    return 0


def main(arguments: list[str]) -> int:
    """Run; 0 with a result, 1 without one, 2 for wrong usage, 130 after ^C."""
    options = _arguments(arguments)
    signal.signal(signal.SIGTERM, _stop)
    if options.services:
        return _services(options.repeat or 4, arguments)
    plan = _plan(options)
    repeat = options.repeat or (2 if options.quick else 8)
    try:
        targets = _targets(options, plan)
        known = facts(targets, arguments)
        results = _run(plan, targets, repeat)
    except LoadError as error:
        sys.stderr.write(f"no result: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    render = report.as_json if options.output == "json" else report.markdown
    sys.stdout.write(render(known, plan, results, targets) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
