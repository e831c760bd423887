"""Active checks of a service's endpoints: one after the other at each, as long as the endpoint is there.

Knows when to check and whom to tell; must not know how a check is made (`probe`) or what its results add up to
(`policy.health`). Checks pass by the service: they count in no circuit breaker and in no `outstanding`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ambassador.upstream.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from ambassador.net.tasks import TaskGroup
    from ambassador.policy.health import HealthCheckSettings
    from ambassador.upstream.endpoint import EndpointState

#: A handshake takes about a millisecond of our time: with that many a second they take a fifth of it.
FIRST_CHECKS_PER_S: Final = 200


class HealthEvents(Protocol):
    """What a checker reports."""

    def health_changed(self, state: EndpointState, healthy: bool, reason: str) -> None:  # noqa: FBT001
        """`reason` is empty for one that became healthy. Not called when the first result is good."""

    def health_checked(self, service: str, result: Literal["ok", "failed"]) -> None: ...


class HealthChecker:
    """Checks the endpoints of one service."""

    __slots__ = (
        "_chance", "_events", "_has_traffic", "_loop", "_running", "_service", "_settings", "_tasks",
    )  # fmt: skip

    def __init__(
        self,
        service_name: str,
        settings: HealthCheckSettings,
        *,
        tasks: TaskGroup,
        chance: Random,
        loop: asyncio.AbstractEventLoop,
        events: HealthEvents,
        has_traffic: Callable[[EndpointState], bool],
    ) -> None:
        self._service = service_name
        self._settings = settings
        self._tasks = tasks
        self._chance = chance
        self._loop = loop
        self._events = events
        self._has_traffic = has_traffic
        self._running: dict[EndpointState, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"HealthChecker({self._service}, {len(self._running)} endpoints)"

    def watch(self, states: Iterable[EndpointState]) -> None:
        """Check these from now on, and no others; who is watched already goes on undisturbed."""
        wanted = dict.fromkeys(states)
        for state in self._running.keys() - wanted.keys():
            self._running.pop(state).cancel()
        fresh = [state for state in wanted if state not in self._running]
        spread_s = len(fresh) / FIRST_CHECKS_PER_S
        for state in fresh:
            self._start(state, pause_s=self._chance.random() * spread_s)

    def close(self) -> None:
        """Check nobody any more."""
        self.watch(())

    def _start(self, state: EndpointState, *, pause_s: float) -> None:
        name = f"health check {self._service} {state.address_text}"
        task = self._tasks.start(self._check_for_ever(state, pause_s), name=name)
        self._running[state] = task
        task.add_done_callback(partial(self._ended, state))

    def _ended(self, state: EndpointState, task: asyncio.Task[None]) -> None:
        """Go on after a bug, which `net.tasks` has reported; it is no result."""
        if not task.cancelled() and self._running.get(state) is task:
            # The pause: a bug at every check must not fill the log.
            self._start(state, pause_s=self._settings.interval_s)

    async def _check_for_ever(self, state: EndpointState, pause_s: float) -> None:
        settings = self._settings
        probe = Probe(state.pool, settings, host=settings.host or self._service, loop=self._loop)
        await asyncio.sleep(pause_s)
        while True:
            has_traffic = self._has_traffic(state)
            chance = self._chance.random()
            pause_s = state.health.next_check_s(settings, has_traffic=has_traffic, chance=chance)
            await asyncio.sleep(pause_s)
            self._take(state, await probe.check())

    def _take(self, state: EndpointState, reason: str) -> None:
        ok = not reason
        changed = state.health.observe(ok, reason, self._settings)
        self._events.health_checked(self._service, "ok" if ok else "failed")
        if changed:
            self._events.health_changed(state, ok, reason)
