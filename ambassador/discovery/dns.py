"""Endpoints from the addresses of a name, all on one port.

How names are asked for, and what a failure does, is told in `resolving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.model import Address, Endpoint
from ambassador.discovery.resolving import Name, Resolver, wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from ambassador.config.model import DnsDiscovery


class FromDns:
    """Asks for A and AAAA again and again."""

    __slots__ = ("_chance", "_name", "_resolver", "_settings")

    longest_pause_s = 30.0

    def __init__(self, settings: DnsDiscovery, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._resolver = Resolver(settings.servers)
        self._name = Name(settings.name, family=settings.family)

    def __repr__(self) -> str:
        return f"FromDns({self._settings.name})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        settings = self._settings
        while True:
            ttl_s = await self._name.ask(self._resolver)
            yield tuple(Endpoint(Address(host, settings.port)) for host in self._name.hosts)
            await wait(
                ttl_s, least_s=settings.min_ttl_s, most_s=settings.max_ttl_s, chance=self._chance
            )
