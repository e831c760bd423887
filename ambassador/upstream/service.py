"""A named group of endpoints: which of them is tried next, and what their answers mean for that.

Knows the endpoints' states and gathers who may be picked; the decisions are `policy`'s. That is done when something
has changed or a time is over (`_due`), not per request: a request finds tuples that stay the same, for which the
balancer has computed what depends on the set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import (
    ConnectFailed,
    ExchangeError,
    NoHealthyUpstream,
    ResolveFailed,
)
from ambassador.net.alarm import NEVER
from ambassador.policy.balancing import make_balancer
from ambassador.policy.eligibility import choose
from ambassador.policy.hashing import hash_key
from ambassador.policy.outlier import OutlierDetector
from ambassador.policy.retry import retry_after_s
from ambassador.upstream.admission import Admission
from ambassador.upstream.endpoint import EndpointState
from ambassador.upstream.health_check import HealthChecker
from ambassador.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from random import Random

    from ambassador.config.model import ServiceConfig
    from ambassador.core.model import Endpoint, RequestHead, ResponseHead
    from ambassador.core.record import ExchangeRecord
    from ambassador.policy.balancing import Balancer
    from ambassador.policy.outlier import Ejection
    from ambassador.upstream.pool import Environment, SessionTls

_LOOK_NOW: Final = float("-inf")
_TOO_MANY: Final = 429
_WRONG_PEER: Final = "wrong_peer"
_SERVER_ERROR: Final = 500
#: The weight of a warming endpoint is renewed so often in its window.
_STEPS_OF_WARMING: Final = 20


class Service:
    """Endpoints, their balancer and their pools."""

    __slots__ = (
        "_balancer", "_checker", "_due", "_environment", "_far", "_far_balancer", "_is_plain", "_leaving", "_near",
        "_near_share",
        "_now", "_outliers", "_probes", "_random", "_served_before", "_tick_at", "_tls", "_used_at", "admission",
        "breaker", "config", "endpoints", "hashes", "is_panicking", "is_pending", "name", "zone",
    )  # fmt: skip

    def __init__(
        self,
        config: ServiceConfig,
        environment: Environment,
        *,
        tls: Callable[[], SessionTls] | None,
        random: Random,
        zone: str = "",
    ) -> None:
        self.config = config
        self.name = config.name
        self.zone = zone
        self._random = random
        self._environment = environment
        self._tls = tls
        self._leaving: set[EndpointState] = set()  # removed, with exchanges that still run
        self.admission = Admission(
            config.name,
            config.circuit_breaker,
            environment.loop,
            evict=self._evict,
            crashed=environment.events.callback_crashed,
        )
        self.breaker = self.admission.breaker
        self.hashes = config.balance.kind == "ring_hash"
        self._now = environment.loop.time
        settings = config.outlier_detection
        self._outliers = OutlierDetector(settings) if settings is not None else None
        self._tick_at = self._now() + settings.interval_s if settings is not None else NEVER
        self._balancer: Balancer[EndpointState] = make_balancer(config.balance)
        self._far_balancer: Balancer[EndpointState] = make_balancer(config.balance)
        self.endpoints = tuple(self._state(endpoint) for endpoint in config.endpoints)
        self.is_pending = config.discovery is not None
        self._checker: HealthChecker | None = None
        self._served_before = 0
        self._used_at = self._now()
        self._near: tuple[EndpointState, ...] = ()
        self._far: tuple[EndpointState, ...] = ()
        self._near_share = 1.0
        self._is_plain = False  # there is somebody near, and nothing else to think of
        self._probes: list[EndpointState] = []  # ejected ones whose time is over
        self.is_panicking = False
        self._due = _LOOK_NOW
        self._take_records()

    def __repr__(self) -> str:
        return f"Service({self.name}, {self.endpoints})"

    # ---- the set -------------------------------------------------------------------------------------------

    def _state(self, endpoint: Endpoint) -> EndpointState:
        pool = Pool(endpoint, self.config, self._environment, self._tls, self.admission)
        state = EndpointState(endpoint, pool, self)
        rated = self._outliers is not None and self._outliers.is_rated
        state.watched = rated or self.config.balance.kind == "peak_ewma"
        return state

    def update(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Take a new set of endpoints; exchanges in flight go on where they are.

        Who stays keeps connections and statistics, who is new or comes again begins afresh, who is gone takes no
        new exchange and closes what becomes idle.
        """
        before = {state.endpoint.address: state for state in self.endpoints}
        is_first = not before  # then all are equally cold
        after = []
        for endpoint in endpoints:
            state = before.pop(endpoint.address, None)
            if state is None:
                state = self._state(endpoint)
                state.born_at = state.born_at if is_first else self._now()
            state.take(endpoint)
            after.append(state)
        for state in before.values():
            state.pool.close()
        self._forget_empty()
        self._leaving.update(before.values())
        self.endpoints = tuple(after)
        self.is_pending = False
        self._take_records()
        self.look_again()
        if self._checker is not None:
            self._checker.watch(self.endpoints)

    def _take_records(self) -> None:
        if self._outliers is not None:
            records = [state.outlier for state in self.endpoints]
            for record in self._outliers.update(records, self._now()):
                self._returned(self._state_of(record))

    def exhausted(self) -> ExchangeError:
        """Say why `pick` gave nothing."""
        if self.is_pending:
            kind = self.config.discovery.kind if self.config.discovery is not None else ""
            return ResolveFailed(
                "discovery_pending",
                f"The service {self.name} has no endpoints yet: kind {kind} has not answered.",
            )
        if self.endpoints and all(state.is_impostor for state in self.endpoints):
            return ConnectFailed(
                _WRONG_PEER,
                f"Somebody else answers at every endpoint of {self.name}; see its peer.",
            )
        if self.endpoints and not self._near:
            return NoHealthyUpstream(
                "no_healthy_endpoint",
                f"None of the {len(self.endpoints)} endpoints of {self.name} is healthy.",
            )
        return NoHealthyUpstream(
            "no_endpoint", f"The service {self.name} has no endpoint that can be tried."
        )

    # ---- picking -------------------------------------------------------------------------------------------

    def untried(self, tried: Collection[EndpointState]) -> int:
        """Give the number of endpoints at which no attempt has been made."""
        return sum(1 for state in self.endpoints if state not in tried)

    def key_of(self, head: RequestHead, record: ExchangeRecord) -> bytes | None:
        """Give what ring_hash goes by in a request; None: it has nothing of the kind.

        A peer without a certificate, as an app is, is told by its address.
        """
        peer = record.peer or record.peer_address.rpartition(":")[0]
        return hash_key(self.config.balance, head, peer)

    def pick(
        self, tried: Collection[EndpointState], key: bytes | None = None
    ) -> EndpointState | None:
        """Give the endpoint for the next attempt, or None when all were tried or none may be."""
        now = self._now()
        if now >= self._due:
            self._look(now)
        near = self._near
        if self._is_plain and not tried:  # nearly always
            return near[0] if len(near) == 1 else self._balancer.pick(near, self._random, key, now)
        if tried:
            return self._pick_another(tried, key, now)
        if self._probes and (probe := self._next_probe(now)) is not None:
            return probe
        if self._far and self._random.random() >= self._near_share:
            return self._far_balancer.pick(self._far, self._random, key, now)
        return self._balancer.pick(near, self._random, key, now) if near else None

    def _pick_another(
        self, tried: Collection[EndpointState], key: bytes | None, now: float
    ) -> EndpointState | None:
        """Give one that was not tried: of those that are eligible first, then whoever may be good, then any."""
        trusted = [state for state in self.endpoints if not state.is_impostor]
        groups = [self._near, self._far, [state for state in trusted if state.available]]
        if self.config.balance.panic_threshold:  # nothing may be: fail open
            groups.append(trusted)
        for states in groups:
            left = [state for state in states if state not in tried]
            if left:
                return self._balancer.pick(left, self._random, key, now)
        return None

    def has_good(self, tried: Collection[EndpointState]) -> bool:
        """Say whether there is an endpoint beside these that is worth a retry."""
        return any(
            state.available and not state.is_impostor
            for state in self.endpoints
            if state not in tried
        )

    def _next_probe(self, now: float) -> EndpointState | None:
        probe = self._probes.pop()
        if self._outliers is None or not probe.outlier.is_ejected:
            return None
        if not probe.health.is_healthy or not self._outliers.may_probe(probe.outlier, now):
            return None
        self.look_again()
        return probe

    def look_again(self) -> None:
        """Something has changed: before the next pick, see who may be picked."""
        self._due = _LOOK_NOW

    def _look(self, now: float) -> None:
        """Gather who may be picked, until something changes or the first of their times is over."""
        due = self._tick(now)
        window_s = self.config.balance.slow_start_s
        self._probes = []
        for state in self.endpoints:
            state.unreachable = state.shunned_until > now
            if state.unreachable:
                due = min(due, state.shunned_until)
            if state.outlier.is_ejected:
                if state.outlier.next_event_at <= now:
                    self._probes.append(state)
                else:
                    due = min(due, state.outlier.next_event_at)
            # Not on a ring, where each step would move keys.
            if window_s is not None and not self.hashes and state.warm(now, window_s):
                due = min(due, now + window_s / _STEPS_OF_WARMING)
        choice = choose(self.endpoints, settings=self.config.balance, zone=self.zone)
        self._near, self._far, self._near_share = choice.near, choice.far, choice.near_share
        if self.hashes and choice.far:  # a key keeps its endpoint, whatever chance says
            self._near, self._far = choice.near + choice.far, ()
        self._is_plain = bool(self._near) and not self._far and not self._probes
        if choice.panicking != self.is_panicking:
            self.is_panicking = choice.panicking
            self._environment.events.panic_changed(self.name, panicking=choice.panicking)
        self._due = due

    def _tick(self, now: float) -> float:
        """End the interval of outlier detection when its time is over; give when the next one is."""
        settings = self.config.outlier_detection
        if self._outliers is None or settings is None:
            return NEVER
        if now >= self._tick_at:
            self._tick_at = now + settings.interval_s
            for ejection in self._outliers.tick(now):
                self._ejected(ejection)
        return self._tick_at

    # ---- what was seen -------------------------------------------------------------------------------------

    def answered(self, state: EndpointState, head: ResponseHead, seconds: float) -> None:
        """An endpoint has given a final response: a failure of its own, or a good answer of one that is watched."""
        now, status = self._now(), head.status
        if status >= _SERVER_ERROR:
            state.latency.penalise(now)
            self._failure(state, f"status_{status}", now)
            return
        if status == _TOO_MANY:
            # It is busy, not broken (Linkerd's load biaser); outlier detection has nothing to say about it.
            state.latency.penalise(now, *_asked(head))
            return
        state.latency.observe(seconds, now)
        if self._outliers is not None and self._outliers.succeeded(state.outlier, now):
            self._returned(state)
        state.watched = self._watches(state)

    def late(self, state: EndpointState, seconds: float) -> None:
        """It had not answered after so long, and nobody waits for it any more."""
        state.latency.observe(seconds, self._now())

    def failed(self, state: EndpointState, reason: str) -> None:
        """An attempt at an endpoint ended without a response, by its fault."""
        now = self._now()
        state.latency.penalise(now)
        self._failure(state, reason, now)

    def connect_failed(self, state: EndpointState, reason: str) -> None:
        """It took no connection: prefer the others for a while."""
        now = self._now()
        state.connect_failed(reason, now)
        self.look_again()
        self.failed(state, reason)

    def _failure(self, state: EndpointState, reason: str, now: float) -> None:
        if self._outliers is None:
            return
        state.watched = True
        ejection = self._outliers.failed(state.outlier, now, reason)
        if ejection is not None:
            self._ejected(ejection)

    def _watches(self, state: EndpointState) -> bool:
        rated = self._outliers is not None and self._outliers.is_rated
        return bool(rated or self.config.balance.kind == "peak_ewma" or state.outlier.failures)

    def _ejected(self, ejection: Ejection) -> None:
        state = self._state_of(ejection.record)
        if state is not None:
            state.watched = True
            self.look_again()
            self._environment.events.endpoint_ejected(
                self.name, state.address_text, ejection.reason, seconds=ejection.duration_s
            )

    def _returned(self, state: EndpointState | None) -> None:
        if state is not None:
            state.born_at = self._now()
            self.look_again()
            self._environment.events.endpoint_returned(self.name, state.address_text)

    def _state_of(self, record: object) -> EndpointState | None:
        return next((state for state in self.endpoints if state.outlier is record), None)

    # ---- active checks -------------------------------------------------------------------------------------

    def start_checks(self) -> None:
        """Begin to check the endpoints' health, if the service asks for it."""
        settings = self.config.health_check
        if settings is None:
            return
        self._checker = HealthChecker(
            self.name,
            settings,
            tasks=self._environment.tasks,
            chance=self._random,
            loop=self._environment.loop,
            events=self,
            has_traffic=lambda _: self._had_traffic(settings.no_traffic_interval_s),
        )
        self._checker.watch(self.endpoints)

    def _had_traffic(self, span_s: float) -> bool:
        """Say whether the service was used in such a time. Not the endpoint: who is left out has no traffic."""
        now, served = self._now(), self.breaker.served
        if served != self._served_before or self.breaker.requests:
            self._served_before, self._used_at = served, now
        return now - self._used_at < span_s

    def health_checked(self, service: str, result: str) -> None:
        """A check has ended."""
        self._environment.events.health_checked(service, result)

    def health_changed(self, state: EndpointState, healthy: bool, reason: str) -> None:  # noqa: FBT001
        """A check has changed what is thought of an endpoint."""
        if healthy:
            state.born_at = self._now()
        self.look_again()
        self._environment.events.health_changed(
            self.name, state.address_text, healthy=healthy, reason=reason
        )

    # ---- for metrics and readiness -------------------------------------------------------------------------

    def states(self, now: float) -> dict[str, int]:
        """Give the number of endpoints by state."""
        counts = {"healthy": 0, "unhealthy": 0, "ejected": 0, "unreachable": 0}
        for state in self.endpoints:
            counts[state.state(now)] += 1
        return counts

    def connections(self) -> dict[str, int]:
        """Give the number of connections by state."""
        self._forget_empty()
        pools = [state.pool for state in self._all()]
        return {
            "idle": sum(len(p.idle) for p in pools),
            "busy": sum(len(p.busy) + len(p.tunnels) for p in pools),
        }

    def open_ceilings(self) -> dict[str, bool]:
        """Say of each ceiling whether it turns requests away now."""
        return self.breaker.open_ceilings(len(self.admission.waiting))

    # ---- the end -------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Use no connection again that was made with the credentials that have been replaced."""
        for state in self._all():
            state.pool.retire()

    def close(self) -> None:
        """Close idle connections; busy ones close when their exchange has ended. Nobody is checked any more."""
        if self._checker is not None:
            self._checker.close()
        for state in self._all():
            state.pool.close()

    def abort(self) -> None:
        """Cut what is left, at the end of the process."""
        for state in self._all():
            state.pool.abort()

    def _evict(self) -> bool:
        return any(state.pool.evict() for state in self._all())

    def _forget_empty(self) -> None:
        self._leaving = {
            state for state in self._leaving if state.outstanding or not state.pool.is_empty()
        }

    def _all(self) -> tuple[EndpointState, ...]:
        return (*self.endpoints, *self._leaving)


def _asked(head: ResponseHead) -> tuple[float, ...]:
    """Give the pause that a 429 asks for, if it does."""
    for field in head.fields:
        if field.name == b"retry-after" and (seconds := retry_after_s(field.value)) is not None:
            return (seconds,)
    return ()
