"""Endpoints from the file, some of which are names.

How names are asked for, and what a failure does, is told in `resolving`. Endpoints that need no name server are there
from the first moment, whatever the names do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ambassador.core.model import Address, Endpoint
from ambassador.discovery.resolving import Name, Resolver, ask_all, wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from ambassador.config.model import NamesDiscovery

#: As the defaults of kind dns. Units: seconds.
_MIN_TTL_S: Final = 1.0
_MAX_TTL_S: Final = 60.0


class FromNames:
    """Asks for A and AAAA of each name again and again."""

    __slots__ = ("_chance", "_has_spoken", "_names", "_resolver", "_settings")

    longest_pause_s = 30.0

    def __init__(self, settings: NamesDiscovery, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._resolver = Resolver()
        self._names = {name: Name(name) for name, _, _ in settings.names}
        self._has_spoken = False

    def __repr__(self) -> str:
        return f"FromNames({', '.join(self._names)})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        while True:
            ttl_s, failures = await ask_all(self._names.values(), self._resolver)
            endpoints = self._endpoints()
            is_down = bool(failures) and len(failures) == len(self._names)
            # Once: the endpoints that have no name are known; from then on the keeper shall hear of it and wait.
            if is_down and (self._has_spoken or not endpoints):
                raise failures[0]
            self._has_spoken = True
            yield endpoints
            await wait(ttl_s, least_s=_MIN_TTL_S, most_s=_MAX_TTL_S, chance=self._chance)

    def _endpoints(self) -> tuple[Endpoint, ...]:
        named = [
            replace(endpoint, address=Address(host, port))
            for name, port, endpoint in self._settings.names
            for host in self._names[name].hosts
        ]
        return (*self._settings.endpoints, *named)
