"""Keeps what discovery last said about one service: a backend that fails takes no endpoint away.

Knows back-off, the last good set and its age; must not know what a service does with a set. Rules
* An error, a set that is too large, and (unless `on_empty: drop`) an empty one leave the endpoints as they are.
* Addresses outside the allowed networks are left out of a set, each said once as long as it stays in the set.
* Nothing is published that equals what was published before: endpoints keep their statistics and connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final, Protocol

from ambassador.core.errors import DiscoveryError
from ambassador.policy.backoff import pause_s
from ambassador.policy.networks import is_allowed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from ambassador.config.model import DiscoveryConfig
    from ambassador.core.model import Endpoint
    from ambassador.discovery.base import Discovery

#: The least pause after a failure, and what is added evenly out of 0 to so much, doubled per failure up to what the
#: backend allows. Units: seconds.
LEAST_PAUSE_S: Final = 0.25
PAUSE_BASE_S: Final = 0.5
#: Of how many ignored addresses one event tells at most.
_SHOWN: Final = 5


class KeeperEvents(Protocol):
    """What a keeper reports."""

    def endpoints_changed(self, service: str, endpoints: tuple[Endpoint, ...]) -> None: ...

    def endpoints_kept(self, service: str, reason: str, detail: str) -> None:
        """The source failed, or said nothing that can be believed: said once per reason until it succeeds."""

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None: ...


class Keeper:
    """Watches one backend for one service.

    Units: `last_success` is Unix time in seconds, 0 before the first one.
    """

    __slots__ = (
        "_chance", "_config", "_discovery", "_events", "_failure", "_ignored", "_published", "_raw", "_wall",
        "kind", "last_success", "service",
    )  # fmt: skip

    def __init__(
        self,
        service: str,
        config: DiscoveryConfig,
        discovery: Discovery,
        *,
        events: KeeperEvents,
        wall: Callable[[], float],
        chance: Random,
    ) -> None:
        self.service = service
        self.kind = config.kind
        self._config = config
        self._discovery = discovery
        self._events = events
        self._wall = wall
        self._chance = chance
        self._raw: tuple[Endpoint, ...] | None = None
        self._published: tuple[Endpoint, ...] | None = None
        self._ignored: frozenset[str] = frozenset()
        self._failure = ""
        self.last_success = 0.0

    def __repr__(self) -> str:
        return f"Keeper({self.service}, {self._discovery!r}, {self._failure or 'fine'})"

    @property
    def is_pending(self) -> bool:
        """Say whether there has been no answer yet that could be used."""
        return self._published is None

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            try:
                async for endpoints in self._discovery.watch():
                    self._take(endpoints)
                    failures = 0
            except DiscoveryError as error:
                self._keep(error.reason, error.message)
            pause = pause_s(
                failures,
                base_s=PAUSE_BASE_S,
                max_s=self._discovery.longest_pause_s,
                chance=self._chance.random(),
            )
            failures += 1
            await asyncio.sleep(LEAST_PAUSE_S + pause)

    def _take(self, endpoints: tuple[Endpoint, ...]) -> None:
        if len(endpoints) > self._config.max_endpoints:
            most = self._config.max_endpoints
            raise DiscoveryError(
                "too_many_endpoints", f"{len(endpoints)} endpoints, max_endpoints is {most}"
            )
        self.last_success = self._wall()
        if endpoints is self._raw:
            self._failure = ""
            return
        self._raw = endpoints
        allowed = self._allowed(endpoints)
        if not allowed and self._config.on_empty == "keep" and self._published:
            self._keep("empty", "no endpoint in the answer; the last ones are kept")
            return
        self._failure = ""
        if allowed != self._published:
            self._published = allowed
            self._events.endpoints_changed(self.service, allowed)

    def _allowed(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Give those that may be dialled, each address once, in one order whatever the source's."""
        allowed: dict[str, Endpoint] = {}
        ignored = set()
        for endpoint in endpoints:
            if is_allowed(endpoint.address.host, self._config.allowed_networks):
                allowed.setdefault(str(endpoint), endpoint)
            else:
                ignored.add(str(endpoint))
        fresh = sorted(ignored - self._ignored)
        self._ignored = frozenset(ignored)
        if fresh:
            self._events.endpoints_ignored(self.service, fresh[:_SHOWN], len(fresh))
        return tuple(sorted(allowed.values(), key=_order))

    def _keep(self, reason: str, detail: str) -> None:
        if reason != self._failure:
            self._failure = reason
            self._events.endpoints_kept(self.service, reason, detail)


def _order(endpoint: Endpoint) -> tuple[int, bytes, int]:
    address = ipaddress.ip_address(endpoint.address.host)
    return address.version, address.packed, endpoint.address.port
