"""A named group of endpoints: which of them is tried next.

Knows which endpoints failed to connect just now and how many exchanges each has; the choice itself is
`policy.balancing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import ExchangeError, NoHealthyUpstream, ResolveFailed
from ambassador.policy.balancing import LeastRequest, RoundRobin
from ambassador.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from random import Random

    from ambassador.config.model import ServiceConfig
    from ambassador.core.model import Endpoint
    from ambassador.upstream.pool import Environment, SessionTls

#: How long an endpoint that refused a connection is tried only after the others; doubled up to the second number.
SHUNNED_S: Final = (1.0, 30.0)


class EndpointState:
    """One endpoint with its connections and what has been seen of it."""

    __slots__ = (
        "_failures", "address_text", "endpoint", "outstanding", "pool", "priority", "shunned_until",
        "weight",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, pool: Pool) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.weight = endpoint.weight
        self.priority = endpoint.priority
        self.address_text = str(endpoint)
        self.outstanding = 0
        self.shunned_until = 0.0
        self._failures = 0

    def __repr__(self) -> str:
        return f"EndpointState({self.address_text}, {self.outstanding} outstanding)"

    def connect_failed(self, now: float) -> None:
        """Prefer the others for a while."""
        shortest, longest = SHUNNED_S
        self.shunned_until = now + min(longest, shortest * 2**self._failures)
        self._failures = min(self._failures + 1, 8)

    def connected(self) -> None:
        """It answers."""
        self._failures = 0
        self.shunned_until = 0.0


class Service:
    """Endpoints, their balancer and their pools."""

    __slots__ = (
        "_balancer", "_environment", "_first", "_leaving", "_now", "_random", "_shunned_until",
        "_tls", "config", "endpoints", "is_pending", "name",
    )  # fmt: skip

    def __init__(
        self,
        config: ServiceConfig,
        environment: Environment,
        *,
        tls: Callable[[], SessionTls] | None,
        random: Random,
    ) -> None:
        self.config = config
        self.name = config.name
        self._random = random
        self._environment = environment
        self._tls = tls
        self._leaving: set[EndpointState] = set()  # removed, with exchanges that still run
        # A tuple that stays the same: the balancer computes what depends on the set once per tuple.
        self.endpoints = tuple(self._state(endpoint) for endpoint in config.endpoints)
        self._first = _first_tier(self.endpoints)
        self.is_pending = config.discovery is not None
        self._now = environment.loop.time
        self._shunned_until = (
            0.0  # the latest of all endpoints: before it they are looked at one by one
        )
        self._balancer: RoundRobin[EndpointState] | LeastRequest[EndpointState] = (
            RoundRobin() if config.balance == "round_robin" else LeastRequest()
        )

    def __repr__(self) -> str:
        return f"Service({self.name}, {self.endpoints})"

    def _state(self, endpoint: Endpoint) -> EndpointState:
        return EndpointState(endpoint, Pool(endpoint, self.config, self._environment, self._tls))

    def update(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Take a new set of endpoints; exchanges in flight go on where they are.

        Who stays keeps connections and statistics, who is new or comes again begins afresh, who is gone takes no
        new exchange and closes what becomes idle.
        """
        before = {state.endpoint.address: state for state in self.endpoints}
        after = []
        for endpoint in endpoints:
            state = before.pop(endpoint.address, None)
            if state is None:
                state = self._state(endpoint)
            state.endpoint = endpoint
            state.weight, state.priority = endpoint.weight, endpoint.priority
            after.append(state)
        for state in before.values():
            state.pool.close()
        self._forget_empty()
        self._leaving.update(before.values())
        self.endpoints = tuple(after)
        self._first = _first_tier(self.endpoints)
        self.is_pending = False

    def exhausted(self) -> ExchangeError:
        """Say why `pick` gave nothing."""
        if self.is_pending:
            kind = self.config.discovery.kind if self.config.discovery is not None else ""
            return ResolveFailed(
                "discovery_pending",
                f"The service {self.name} has no endpoints yet: kind {kind} has not answered.",
            )
        return NoHealthyUpstream(
            "no_endpoint", f"The service {self.name} has no endpoint that can be tried."
        )

    def untried(self, tried: Collection[EndpointState]) -> int:
        """Give the number of endpoints at which no attempt has been made."""
        return sum(1 for state in self.endpoints if state not in tried)

    def pick(self, tried: Collection[EndpointState]) -> EndpointState | None:
        """Give the endpoint for the next attempt, or None when all were tried.

        Of the lowest `priority` as long as one of these is left. Endpoints that failed to connect just now come last:
        when there is no other, one of them is worth a try.
        """
        endpoints = self.endpoints
        if len(endpoints) == 1:
            return None if endpoints[0] in tried else endpoints[0]
        now = self._now()
        if not tried and self._shunned_until <= now and endpoints:
            return self._balancer.pick(self._first, self._random)
        left = tuple(state for state in endpoints if state not in tried)
        if self._shunned_until > now:
            left = tuple(state for state in left if state.shunned_until <= now) or left
        return self._balancer.pick(_first_tier(left), self._random) if left else None

    def connect_failed(self, state: EndpointState) -> None:
        """Prefer the others for a while."""
        state.connect_failed(self._now())
        self._shunned_until = max(self._shunned_until, state.shunned_until)

    def states(self, now: float) -> dict[str, int]:
        """Give the number of endpoints by state."""
        shunned = sum(1 for state in self.endpoints if state.shunned_until > now)
        return {"healthy": len(self.endpoints) - shunned, "unreachable": shunned}

    def connections(self) -> dict[str, int]:
        """Give the number of connections by state."""
        self._forget_empty()
        pools = [state.pool for state in self._all()]
        return {
            "idle": sum(len(p.idle) for p in pools),
            "busy": sum(len(p.busy) + len(p.tunnels) for p in pools),
        }

    def retire(self) -> None:
        """Use no connection again that was made with the credentials that have been replaced."""
        for state in self._all():
            state.pool.retire()

    def close(self) -> None:
        """Close idle connections; busy ones close when their exchange has ended."""
        for state in self._all():
            state.pool.close()

    def abort(self) -> None:
        """Cut what is left, at the end of the process."""
        for state in self._all():
            state.pool.abort()

    def _forget_empty(self) -> None:
        self._leaving = {
            state for state in self._leaving if state.outstanding or not state.pool.is_empty()
        }

    def _all(self) -> tuple[EndpointState, ...]:
        return (*self.endpoints, *self._leaving)


def _first_tier(states: tuple[EndpointState, ...]) -> tuple[EndpointState, ...]:
    """Give those of the lowest priority; the same tuple when these are all."""
    lowest = min((state.priority for state in states), default=0)
    if all(state.priority == lowest for state in states):
        return states
    return tuple(state for state in states if state.priority == lowest)
