"""How much a service may be asked at once: ceilings per service, and the budget of its retries.

Knows counts; must not know what waits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CircuitBreakerSettings:
    """Ceilings of one service in one worker.

    `connections`: open and being made. `pending`: exchanges that wait because all of these are busy. `requests`:
    attempts in flight. `retry_budget`: how many of them may be retries or hedges, as a fraction of the others.
    Source: Envoy's circuit_breakers and retry_budget.
    """

    connections: int = 256
    pending: int = 256
    requests: int = 1024
    retry_budget: float = 0.2
    min_retries: int = 3


class CircuitBreaker:
    """The counts of one service; who takes a place gives it back.

    `requests` are attempts in flight, `retries` those of them that repeat or hedge, `connections` those open or being
    made; `served` counts attempts and is never given back.
    """

    __slots__ = ("_budget", "_min_retries", "connections", "max_connections", "max_pending", "max_requests",
                 "requests", "retries", "served")  # fmt: skip

    def __init__(self, settings: CircuitBreakerSettings) -> None:
        self.requests = self.retries = self.connections = self.served = 0
        self.max_requests = settings.requests
        self.max_connections = settings.connections
        self.max_pending = settings.pending
        self._budget = settings.retry_budget
        self._min_retries = settings.min_retries

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.requests} requests, {self.retries} retries, {self.connections} connections)"

    @property
    def is_full(self) -> bool:
        """Say whether no attempt more may begin."""
        return self.requests >= self.max_requests

    @property
    def has_retry(self) -> bool:
        """Say whether one more retry may be in flight: a share of the others, or the few that are always free.

        Of the others: a share of all would let 20 % become 25 (threats H6 wants at most 1.2 times the load).
        Source: Envoy's retry_budget (20 %, at least 3).
        """
        others = self.requests - self.retries
        return self.retries < max(self._min_retries, self._budget * others)

    def open_ceilings(self, pending: int) -> dict[str, bool]:
        """Say of each ceiling whether it turns somebody away now."""
        return {
            "connections": self.connections >= self.max_connections,
            "pending": pending >= self.max_pending,
            "requests": self.is_full,
            "retries": not self.has_retry,
        }
