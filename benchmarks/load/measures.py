"""The windows of load: each gives named figures of one target in one repetition."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import closed_loop, handshakes, open_loop
from benchmarks.load.place import BULK_BYTES, BULK_PATH
from benchmarks.load.processes import Cpu, Process
from benchmarks.load.targets import Arena, Target

CPU, LATENCY, HANDSHAKE, BULK, MEMORY = MEASURES = ("cpu", "latency", "handshake", "bulk", "memory")
_SETTLE_S = 0.05  # after a window the proxies still close connections; their CPU belongs to it
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what. Times are of one window of one target."""

    measures: tuple[str, ...]
    connections: tuple[int, ...]
    rates: tuple[int, ...]
    cpu_s: float
    warm_up_requests: int
    latency_s: float
    latency_warm_up_s: float
    handshakes: int
    bulk_files: int


def windows(plan: Plan) -> list[tuple[str, int]]:
    """Give the windows of a repetition in order: a measure with its number of connections or its rate."""
    wanted = {
        MEMORY: [0],
        CPU: list(plan.connections),
        LATENCY: list(plan.rates),
        HANDSHAKE: [0],
        BULK: [0],
    }
    return [(name, number) for name in wanted if name in plan.measures for number in wanted[name]]


def measure(arena: Arena, target: Target, plan: Plan, window: tuple[str, int]) -> Figures:
    """Serve one window to one target.

    Errors: LoadError.
    """
    name, number = window
    if name == CPU:
        return _cpu(arena, target, plan, number)
    if name == LATENCY:
        return _latency(arena, target, plan, number)
    if name == HANDSHAKE:
        return _handshake(arena, target, plan) if target.inbound else {}
    if name == BULK:
        return _bulk(arena, target, plan)
    return _memory(arena, target) if target.proxies else {}


def _cpu(arena: Arena, target: Target, plan: Plan, connections: int) -> Figures:
    """CPU per request and proxy, and requests/s, of a closed loop."""
    load = arena.load(target)
    warm_up = plan.warm_up_requests
    rate = warm_up / closed_loop.run(load, connections, warm_up)
    requests = max(int(rate * plan.cpu_s) // connections * connections, 10 * connections)
    time.sleep(_SETTLE_S)
    watch = _Watch(arena, target)
    seconds = closed_loop.run(load, connections, requests)
    figures = watch.busy()
    used = watch.used()
    figures[f"rps@{connections}"] = requests / seconds
    if used:
        for part in ("total", "user", "system"):
            mean = sum(getattr(one, part) for one in used) / len(used)
            figures[f"cpu_{part}_us@{connections}"] = mean / requests * 1e6
        for process, one in zip(("outbound", "inbound"), used, strict=True):
            figures[f"cpu_{process}_us@{connections}"] = one.total / requests * 1e6
    return figures


def _latency(arena: Arena, target: Target, plan: Plan, rate: int) -> Figures:
    """Latency of an open loop; what a target adds is computed from the direct figures of the repetition."""
    found = open_loop.run(
        target.name,
        target.port,
        arena.cores.generator,
        rate,
        plan.latency_s,
        plan.latency_warm_up_s,
    )
    return {
        f"p50_ms@{rate}": found.p50,
        f"p99_ms@{rate}": found.p99,
        f"late_p99_ms@{rate}": found.late_p99,
    }


def _handshake(arena: Arena, target: Target, plan: Plan) -> Figures:
    """CPU of the inbound proxy per handshake: a connection with one request less a request on a kept one."""
    place = arena.place
    peer = handshakes.Peer(
        target.name,
        target.inbound_port,
        place.web,
        place.payments.dns,
        place.folder,
        arena.cores.generator,
    )
    cpu_s: dict[str, float] = {}
    for mode in (handshakes.KEPT, handshakes.FULL, handshakes.RESUMED):
        handshakes.run(peer, mode, max(10, plan.handshakes // 10))
        time.sleep(_SETTLE_S)
        watch = _Watch(arena, target)
        handshakes.run(peer, mode, plan.handshakes)
        cpu_s[mode] = watch.used()[-1].total / plan.handshakes
    request_s = cpu_s[handshakes.KEPT]
    return {
        "handshake_full_us": (cpu_s[handshakes.FULL] - request_s) * 1e6,
        "handshake_resumed_us": (cpu_s[handshakes.RESUMED] - request_s) * 1e6,
    }


def _bulk(arena: Arena, target: Target, plan: Plan) -> Figures:
    """CPU per GiB and proxy, and MB/s, of large files over one connection."""
    load = arena.load(target, BULK_PATH, BULK_BYTES)
    closed_loop.run(load, 1, 1)
    time.sleep(_SETTLE_S)
    watch = _Watch(arena, target)
    seconds = closed_loop.run(load, 1, plan.bulk_files)
    used = watch.used()
    size = plan.bulk_files * BULK_BYTES
    figures = {"bulk_mb_s": size / 1e6 / seconds}
    if used:
        gib = size / 2**30
        figures["bulk_cpu_s"] = sum(one.total for one in used) / len(used) / gib
        figures["bulk_inbound_cpu_s"] = used[-1].total / gib
        figures["bulk_outbound_cpu_s"] = used[0].total / gib
    return figures


def _memory(arena: Arena, target: Target) -> Figures:
    """Memory of a proxy that has served a few requests and rests."""
    closed_loop.run(arena.load(target), 1, 20)
    time.sleep(_SETTLE_S)
    found = [process.memory() for process in target.proxies]
    return {
        f"idle_{part}_mib": sum(getattr(one, part) for one in found) / len(found)
        for part in ("rss", "pss", "private")
    }


class _Watch:
    """CPU of the proxies, and of everything else on their core, since it was made."""

    def __init__(self, arena: Arena, target: Target) -> None:
        self._cores = arena.cores
        self._processes: list[Process] = target.proxies
        self._before = self._read()
        self._idle_before = self._idle_ticks()
        self._started_ns = time.monotonic_ns()

    def used(self) -> list[Cpu]:
        """Give the CPU of outbound and inbound proxy after the window has settled."""
        time.sleep(_SETTLE_S)
        return [now.since(before) for now, before in zip(self._read(), self._before, strict=True)]

    def busy(self) -> Figures:
        """Give how busy the generator's core was, and what strangers took of the proxies' core (1.0 is a core)."""
        seconds = (time.monotonic_ns() - self._started_ns) / 1e9
        idle = [
            now - before for now, before in zip(self._idle_ticks(), self._idle_before, strict=True)
        ]
        generator, proxies = (max(0.0, 1 - ticks / _TICKS_PER_SECOND / seconds) for ticks in idle)
        ours = sum(
            now.total - before.total for now, before in zip(self._read(), self._before, strict=True)
        )
        if not self._processes or self._cores.generator == self._cores.proxies:
            return {"generator_busy": generator}
        return {"generator_busy": generator, "strangers": max(0.0, proxies - ours / seconds)}

    def _read(self) -> list[Cpu]:
        return [process.cpu() for process in self._processes]

    def _idle_ticks(self) -> tuple[int, int]:
        # proc_stat(5): of each cpuN line, fields 4 and 5 are idle and iowait, in ticks.
        lines = {
            line.split()[0]: line.split()[1:]
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("cpu")
        }
        found = [lines[f"cpu{core}"] for core in (self._cores.generator, self._cores.proxies)]
        return tuple(int(one[3]) + int(one[4]) for one in found)  # type: ignore[return-value]
