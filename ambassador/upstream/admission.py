"""Who may make a connection to a service, and who waits because too many are open.

Knows the service's ceilings and the order of those who wait; must not know endpoints or exchanges. Served from the
loop, not from the stack of whoever gave a connection back: one exchange's end is not the begin of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ambassador.core.errors import Overflow
from ambassador.policy.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.policy.circuit_breaker import CircuitBreakerSettings


class Asking(Protocol):
    """Who needs a connection."""

    def has_idle(self) -> bool:
        """Say whether one is there that needs no place."""

    def connection_allowed(self) -> None:
        """Take an idle one, or dial, now."""


class Admission:
    """The circuit breaker of one service with those who wait for a connection."""

    __slots__ = ("_armed", "_crashed", "_evict", "_loop", "_name", "breaker", "waiting")

    def __init__(
        self,
        name: str,
        settings: CircuitBreakerSettings,
        loop: asyncio.AbstractEventLoop,
        *,
        evict: Callable[[], bool],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._loop = loop
        self._evict = evict  # close an idle connection of any endpoint; False when there is none
        self._crashed = crashed
        self._armed = False
        self.breaker = CircuitBreaker(settings)
        self.waiting: dict[Asking, None] = {}  # in their order, and quickly forgotten

    def __repr__(self) -> str:
        return f"Admission({self._name}, {self.breaker!r}, {len(self.waiting)} waiting)"

    def admit(self) -> None:
        """Let an attempt begin. Errors: Overflow."""
        if self.breaker.is_full:
            raise self._overflow("requests", f"{self.breaker.requests} requests are in flight")

    def ask(self, asking: Asking, *, may_wait: bool = True) -> None:
        """Let it have a connection, at once or when one is free.

        A tunnel may not wait: its client would hang on a connection that says nothing, for hours (Envoy closes it too).
        Errors: Overflow when there is no place, or too many wait for one already.
        """
        if not self.waiting and self._has_place():
            asking.connection_allowed()
            return
        if not may_wait:
            what = f"{self.breaker.connections} connections are open"
            raise self._overflow("connections", what)
        if len(self.waiting) >= self.breaker.max_pending:
            raise self._overflow("pending", f"{len(self.waiting)} requests wait for a connection")
        self.waiting[asking] = None

    def forget(self, asking: Asking) -> None:
        """It does not wait any more."""
        self.waiting.pop(asking, None)

    def taken(self) -> None:
        """A connection is being made."""
        self.breaker.connections += 1

    def freed(self) -> None:
        """A connection has ended, or was not made."""
        self.breaker.connections -= 1
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        """Somebody who waits may be served now."""
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._armed = False
        while self.waiting:
            asking = next(iter(self.waiting))
            if not asking.has_idle() and not self._has_place():
                return
            del self.waiting[asking]
            try:
                asking.connection_allowed()
            except Exception as error:  # the guard of this callback (E8): the others are served
                self._crashed(error)

    def _has_place(self) -> bool:
        return self.breaker.connections < self.breaker.max_connections or self._evict()

    def _overflow(self, ceiling: str, what: str) -> Overflow:
        return Overflow(
            f"circuit_breaker_{ceiling}",
            f"The service {self._name} is full: {what}; see circuit_breaker.{ceiling}.",
        )
