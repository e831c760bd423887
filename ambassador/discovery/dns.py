"""Endpoints from the addresses of a name.

Knows queries and lifetimes (RFC 1035, RFC 2308); the wire is dnspython's. Rules
* Both families are asked at once. One that fails keeps what it said last, as long as the other answers: a resolver
  that cannot do AAAA must not hide the A records, and a lost answer must not take half of the endpoints away.
* The next question comes when the shortest lifetime is over, within `min_ttl` and `max_ttl`, and up to a tenth later,
  so that a fleet does not ask at once.
* The resolver is made anew after a failure: `/etc/resolv.conf` may have changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from ambassador.config.model import DnsDiscovery

_TYPES: Final = {"any": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}
#: One question to one server, and to all of them. Units: seconds.
_TIMEOUT_S, _LIFETIME_S = 2.0, 5.0
_SPREAD: Final = 0.1


class FromDns:
    """Asks for A and AAAA again and again."""

    __slots__ = ("_chance", "_last", "_settings")

    longest_pause_s = 30.0

    def __init__(self, settings: DnsDiscovery, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._last: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"FromDns({self._settings.name})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        settings = self._settings
        resolver = self._resolver()
        while True:
            hosts, ttl_s = await self._ask(resolver)
            yield tuple(Endpoint(Address(host, settings.port)) for host in hosts)
            ttl_s = min(max(ttl_s, settings.min_ttl_s), settings.max_ttl_s)
            await asyncio.sleep(ttl_s * (1 + _SPREAD * self._chance.random()))

    def _resolver(self) -> dns.asyncresolver.Resolver:
        servers = self._settings.servers
        try:
            resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.exception.DNSException as error:
            raise DiscoveryError("dns_failed", f"/etc/resolv.conf: {error}") from None
        if servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(server.host, server.port) for server in servers
            ]
        resolver.timeout, resolver.lifetime = _TIMEOUT_S, _LIFETIME_S
        return resolver

    async def _ask(self, resolver: dns.asyncresolver.Resolver) -> tuple[list[str], float]:
        """Give addresses and the shortest lifetime. Errors: DiscoveryError when no family answers."""
        types = _TYPES[self._settings.family]
        answers = await asyncio.gather(*(self._one(resolver, kind) for kind in types))
        failures = [answer for answer in answers if isinstance(answer, DiscoveryError)]
        if len(failures) == len(answers):
            raise failures[0]
        ttls = []
        for kind, answer in zip(types, answers, strict=True):
            if not isinstance(answer, DiscoveryError):
                self._last[kind], ttl_s = answer
                ttls.append(ttl_s)
        return [host for kind in types for host in self._last.get(kind, ())], min(ttls)

    async def _one(
        self, resolver: dns.asyncresolver.Resolver, kind: str
    ) -> tuple[tuple[str, ...], float] | DiscoveryError:
        name = self._settings.name
        try:
            answer = await resolver.resolve(name, kind, raise_on_no_answer=False, search=True)
        except dns.resolver.NXDOMAIN:
            return DiscoveryError("dns_no_such_name", f"{name}: there is no such name")
        except dns.exception.Timeout:
            return DiscoveryError("dns_timeout", f"{name} {kind}: no answer in {_LIFETIME_S:g} s")
        except (dns.exception.DNSException, OSError) as error:
            return DiscoveryError("dns_failed", f"{name} {kind}: {error}")
        if answer.rrset is None:  # the name is there, without such a record (RFC 2308 §2.2)
            return (), self._settings.max_ttl_s
        return tuple(record.address for record in answer.rrset), float(answer.rrset.ttl)
