"""Every balancer against the same trouble, in virtual time: slow, dying and flapping endpoints.

A small discrete-event simulation: no loop, no sleep, nothing that waits. Twenty endpoints work off one request after
the other, three of them ten times slower; one dies, one goes up and down. Requests come at random (Poisson), the same
ones for each balancer. The balancers and `eligibility` are the real ones; ejection is as simple as can be. There are
no retries, so that every error shows. The end of the run shows the table.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random

import pytest

from ambassador.policy.balancing import Balancer, BalanceSettings, make_balancer
from ambassador.policy.eligibility import choose
from ambassador.policy.peak_ewma import PeakEwma

KINDS = ("round_robin", "least_request", "peak_ewma", "ring_hash")

DURATION_S = 40.0
RATE = 1000.0  # of 1730 a second that the endpoints can do together
QUICK_S, SLOW_S = 0.010, 0.100
REFUSED_S = 0.001  # until a refused connection is known
DIES_AT_S = 5.0
FLAPS_S = 2.0
CONSECUTIVE = 5
EJECTION_S = 30.0
KEYS = 2000


@dataclass(eq=False)
class Server:
    """An endpoint: what balancing and eligibility see of it, and its queue."""

    key: str
    mean_s: float
    weight: float = 1.0
    outstanding: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)
    priority: int = 0
    zone: str = ""
    available: bool = True
    is_impostor: bool = False
    unreachable: bool = False

    is_up: bool = True
    free_at: float = 0.0
    running: dict[int, float] = field(default_factory=dict)  # number of a request -> its start
    failures: int = 0  # in a row
    ejections: int = 0
    picked: int = 0
    errors: int = 0
    cut: int = 0  # of the errors: ran when the server went down


@dataclass(frozen=True)
class Request:
    """One arrival; the work is a multiple of the server's mean."""

    at: float
    work: float
    key: bytes


@cache
def requests() -> tuple[Request, ...]:
    """Give the same arrivals to everybody."""
    random = Random(2024)
    found: list[Request] = []
    at = random.expovariate(RATE)
    while at < DURATION_S:
        key = b"user-%d" % random.randrange(KEYS)
        found.append(Request(at, random.expovariate(1.0), key))
        at += random.expovariate(RATE)
    return tuple(found)


class Simulation:
    """Events in the order of their time, and what they do to servers."""

    def __init__(self, balancer: Balancer[Server]) -> None:
        self.balancer = balancer
        self.now = 0.0
        self.servers = tuple(
            Server(f"10.0.0.{n}:8443", SLOW_S if n < 3 else QUICK_S) for n in range(20)
        )
        self.dying, self.flapping = self.servers[-2:]
        self.good = self.servers[3:-2]
        self.latencies: list[float] = []
        self._random = Random(7)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._study()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Do it then; at the same time in the order of being asked."""
        heapq.heappush(self._events, (when, self._count, do))
        self._count += 1

    def run(self) -> None:
        """Let everything happen, to the end of the last request."""
        for number, request in enumerate(requests()):
            self.at(request.at, partial(self._arrive, number, request))
        self.at(DIES_AT_S, partial(self._down, self.dying))
        for turn in range(1, int(DURATION_S / FLAPS_S)):
            change = self._down if turn % 2 else self._up
            self.at(turn * FLAPS_S, partial(change, self.flapping))
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()

    def _arrive(self, number: int, request: Request) -> None:
        server = self.balancer.pick(self._eligible, self._random, key=request.key, now=self.now)
        assert server.available, "an ejected endpoint was picked"
        server.picked += 1
        server.outstanding += 1
        server.running[number] = self.now
        if not server.is_up:
            self.at(self.now + REFUSED_S, partial(self._end, server, number, has_failed=True))
            return
        server.free_at = max(server.free_at, self.now) + request.work * server.mean_s
        self.at(server.free_at, partial(self._end, server, number, has_failed=False))

    def _end(self, server: Server, number: int, *, has_failed: bool) -> None:
        started = server.running.pop(number, None)
        if started is None:
            return  # it was cut
        server.outstanding -= 1
        if has_failed:
            self._failed(server)
            return
        server.failures = 0
        server.latency.observe(self.now - started, self.now)
        self.latencies.append(self.now - started)

    def _failed(self, server: Server) -> None:
        server.errors += 1
        server.failures += 1
        server.latency.penalise(self.now)
        if server.failures >= CONSECUTIVE and server.available:
            server.available = False
            server.ejections += 1
            self._study()
            self.at(self.now + EJECTION_S, partial(self._back, server))

    def _back(self, server: Server) -> None:
        server.available = True
        server.failures = 0
        self._study()

    def _down(self, server: Server) -> None:
        server.is_up = False
        server.free_at = self.now
        for number in tuple(server.running):
            server.cut += 1
            self._end(server, number, has_failed=True)

    def _up(self, server: Server) -> None:
        server.is_up = True

    def _study(self) -> None:
        choice = choose(self.servers, settings=BalanceSettings(), zone="")
        assert not choice.panicking
        self._eligible = choice.near


@cache
def outcome(kind: str) -> Simulation:
    """Give the end of the only run of a balancer."""
    simulation = Simulation(make_balancer(BalanceSettings(kind=kind)))
    simulation.run()
    return simulation


def quantile_ms(kind: str, fraction: float) -> float:
    latencies = sorted(outcome(kind).latencies)
    return latencies[int(fraction * len(latencies))] * 1000


def test_every_request_ends_and_the_table_says_how(figures: Callable[[str], None]) -> None:
    """The invariant of a simulation: nothing is lost, nothing is left."""
    table = f"{'balancer':15}{'requests':>10}{'errors':>8}{'p50 ms':>9}{'p98 ms':>9}{'p99 ms':>10}{'to slow':>9}"
    for kind in KINDS:
        simulation = outcome(kind)
        servers = simulation.servers
        errors = sum(server.errors for server in servers)
        to_slow = sum(server.picked for server in servers[:3]) / len(requests())
        table += (
            f"\n{kind:15}{len(requests()):10}{errors:8}"
            f"{quantile_ms(kind, 0.5):9.1f}{quantile_ms(kind, 0.98):9.1f}"
            f"{quantile_ms(kind, 0.99):10.1f}{to_slow:9.1%}"
        )

        assert len(simulation.latencies) + errors == len(requests())
        assert not any(server.outstanding or server.running for server in servers)
    figures(table)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_only_those_before_an_endpoint_was_marked(kind: str) -> None:
    """Five in a row eject: what was cut or on its way then comes on top, and nothing else."""
    simulation = outcome(kind)
    failing = (simulation.dying, simulation.flapping)

    assert all(server.ejections for server in failing)
    assert not any(server.errors for server in simulation.servers if server not in failing)
    for server in failing:
        on_its_way = 3 * server.ejections  # within the millisecond that a refusal takes
        assert server.errors <= CONSECUTIVE * server.ejections + server.cut + on_its_way


def test_latency_keeps_peak_ewma_away_from_the_slow() -> None:
    """What it is for. Of twenty, three slow, one pair in fifty has no quick one: those are its last hundredths."""
    p98 = {kind: quantile_ms(kind, 0.98) for kind in KINDS}
    p99 = {kind: quantile_ms(kind, 0.99) for kind in KINDS}

    assert p98["peak_ewma"] < p98["least_request"] / 2
    assert p99["peak_ewma"] < p99["least_request"] < p99["round_robin"] / 10


def test_what_is_outstanding_keeps_least_request_from_drowning_the_slow() -> None:
    """Blind turns give a slow endpoint five times what it can do; its queue then grows without end."""
    to_slow = {
        kind: sum(server.picked for server in outcome(kind).servers[:3]) / len(requests())
        for kind in KINDS
    }

    assert to_slow["round_robin"] == pytest.approx(3 / 20, rel=0.2)
    assert to_slow["least_request"] < to_slow["round_robin"] / 2
    assert to_slow["peak_ewma"] < to_slow["least_request"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_good_endpoint_starves_or_drowns(kind: str) -> None:
    """All that are quick and stay up do a like amount of the work."""
    picked = [server.picked for server in outcome(kind).good]
    mean = sum(picked) / len(picked)

    assert min(picked) > mean / 2
    assert max(picked) < mean * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_slow_are_not_given_up(kind: str) -> None:
    """Who became quick again is noticed only by trying."""
    assert all(server.picked > 5 for server in outcome(kind).servers[:3])
