"""Keeps what discovery last said about one service: a backend that fails takes no endpoint away.

Knows back-off, the last good set and its age; must not know what a service does with a set. Rules
* An error, a set that is too large, and (unless `on_empty: drop`) an empty one leave the endpoints as they are.
* Addresses outside the allowed networks are left out of a set, each said once as long as it stays in the set.
* Nothing is published that equals what was published before: endpoints keep their statistics and connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Protocol

from ambassador.config.model import NamesDiscovery
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

    def watch_crashed(self, error: Exception) -> None: ...

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None: ...


class Keeper:
    """Watches one backend for one service.

    `failure` is the reason word of what keeps the last set in use, empty when all is well.
    Units: `last_success` is Unix time in seconds, 0 before the first one.
    """

    __slots__ = (
        "_chance", "_config", "_discovery", "_events", "_ignored", "_published", "_raw", "_said_of_raw",
        "_typed", "_verdicts", "_wall",
        "failure", "kind", "last_success", "service",
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
        settings = config.settings
        self._typed = frozenset(
            [one.address for one in settings.endpoints]
            if isinstance(settings, NamesDiscovery)
            else ()
        )
        self._verdicts: dict[str, bool] = {}  # by host: most of a set are those of the last one
        self._raw: tuple[Endpoint, ...] | None = None
        self._published: tuple[Endpoint, ...] | None = None
        self._ignored: frozenset[str] = frozenset()
        self.failure = self._said_of_raw = ""
        self.last_success = 0.0

    def __repr__(self) -> str:
        return f"Keeper({self.service}, {self._discovery!r}, {self.failure or 'fine'})"

    @property
    def is_pending(self) -> bool:
        """Say whether there has been no answer yet that could be used."""
        return self._published is None

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            watch = self._discovery.watch()
            try:
                async for endpoints in watch:
                    self._take(endpoints)
                    failures = 0
            except DiscoveryError as error:
                self._keep(error.reason, error.message)
            except Exception as error:  # a bug of a backend must not end its watch for ever (E8)
                self._events.watch_crashed(error)
                self._keep("internal_error", type(error).__name__)
            finally:
                if isinstance(watch, AsyncGenerator):  # its connections end now, not some day
                    await watch.aclose()
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
            self.failure = self._said_of_raw
            return
        self._raw = endpoints
        allowed = self._allowed(endpoints)
        if not allowed and self._config.on_empty == "keep" and self._published:
            self._said_of_raw = "empty"
            self._keep("empty", "no endpoint in the answer; the last ones are kept")
            return
        self._said_of_raw = self.failure = ""
        if allowed != self._published:
            self._published = allowed
            self._events.endpoints_changed(self.service, allowed)

    def _allowed(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Give those that may be dialled, each address once, in one order whatever the source's."""
        allowed: dict[str, Endpoint] = {}
        ignored = set()
        for endpoint in endpoints:
            is_typed = endpoint.address in self._typed  # by who wrote the file, beside names
            if is_typed or self._may_dial(endpoint):
                allowed.setdefault(str(endpoint), endpoint)
            else:
                ignored.add(str(endpoint))
        fresh = sorted(ignored - self._ignored)
        self._ignored = frozenset(ignored)
        if fresh:
            self._events.endpoints_ignored(self.service, fresh[:_SHOWN], len(fresh))
        return tuple(sorted(allowed.values(), key=_order))

    def _may_dial(self, endpoint: Endpoint) -> bool:
        """Say whether its address is allowed; a Unix socket that somebody else names never is (threats H2)."""
        host = endpoint.address.host
        verdict = self._verdicts.get(host)
        if verdict is None:
            if len(self._verdicts) > 2 * self._config.max_endpoints:
                self._verdicts.clear()
            verdict = is_allowed(host, self._config.allowed_networks)
            self._verdicts[host] = verdict
        return verdict and not endpoint.address.path

    def _keep(self, reason: str, detail: str) -> None:
        if reason != self.failure:
            self.failure = reason
            self._events.endpoints_kept(self.service, reason, detail)


def _order(endpoint: Endpoint) -> tuple[int, bytes, int]:
    place = endpoint.address
    if place.path or place.host == "localhost":  # typed
        return 0, str(place).encode(), place.port
    address = ipaddress.ip_address(place.host)
    return address.version, address.packed, place.port
