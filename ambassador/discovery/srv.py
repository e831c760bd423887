"""Endpoints from the SRV records of a name: addresses, ports, weights and priorities (RFC 2782).

How names are asked for, and what a failure does, is told in `resolving`. Nothing here says who must answer: a target
is where to dial, never an identity. Rules
* A target whose addresses came along in the Additional section is not asked for.
* One that fails keeps its last addresses, or is left out, as long as another one is known; when none is, nothing is
  said, so that the keeper keeps the last endpoints.
* Weights are relative: a target shares its weight among its addresses, and 0 is a tenth of 1 ("very small", RFC 2782).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from ambassador.core.model import Address, Endpoint
from ambassador.discovery.resolving import FAMILIES, Name, Resolver, ask_all, lifetime_s, wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Mapping
    from random import Random

    import dns.name
    import dns.resolver

    from ambassador.config.model import SrvDiscovery

#: "A Target of "." means that the service is decidedly not available at this domain."
_NOT_AVAILABLE: Final = "."
#: How much heavier than 0 a weight of 1 is, and into how many parts that is cut: as many addresses divide it.
_TINY, _PARTS = 10, 60
_MOST_TIERS: Final = 100


class Record(NamedTuple):
    """One SRV record; sorted, the better and the heavier one comes first."""

    priority: int
    lightness: int
    target: str
    port: int

    @property
    def weight(self) -> int:
        """The weight of the record."""
        return -self.lightness


class FromSrv:
    """Asks for SRV, and for the addresses of the targets, again and again."""

    __slots__ = ("_chance", "_resolver", "_settings", "_targets")

    longest_pause_s = 30.0

    def __init__(self, settings: SrvDiscovery, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._resolver = Resolver(settings.servers)
        self._targets: dict[str, Name] = {}

    def __repr__(self) -> str:
        return f"FromSrv({self._settings.name})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        settings = self._settings
        while True:
            answer = await self._resolver.ask(settings.name, "SRV")
            records = _records(answer)
            ttl_s = min(lifetime_s(answer), await self._find(records, answer))
            yield endpoints(records, {name: one.hosts for name, one in self._targets.items()})
            await wait(
                ttl_s, least_s=settings.min_ttl_s, most_s=settings.max_ttl_s, chance=self._chance
            )

    async def _find(self, records: list[Record], answer: dns.resolver.Answer) -> float:
        """Learn the addresses of the targets, and give their shortest lifetime. Errors: DiscoveryError."""
        wanted = dict.fromkeys(record.target for record in records)
        targets = {name: self._targets.get(name) or Name(name) for name in wanted}
        told, ttl_s = _additional(answer, wanted)
        for name, hosts in told.items():
            targets[name].told(hosts)
        asked = [one for name, one in targets.items() if name not in told]
        asked_ttl_s, failures = await ask_all(asked, self._resolver)
        if failures and len(failures) == len(targets):
            raise failures[0]
        self._targets = targets
        return min(ttl_s, asked_ttl_s)


def _records(answer: dns.resolver.Answer) -> list[Record]:
    records = (
        Record(one.priority, -one.weight, _text(one.target), one.port)
        for one in answer.rrset or ()
        if one.port  # nobody listens on 0
    )
    return sorted(record for record in records if record.target != _NOT_AVAILABLE)


def _additional(
    answer: dns.resolver.Answer, wanted: Container[str]
) -> tuple[dict[str, dict[str, tuple[str, ...]]], float]:
    """Give the addresses that came along for these, by name and kind of record, and their shortest lifetime."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    ttl_s = math.inf
    for rrset in answer.response.additional:
        name, kind = _text(rrset.name), rrset.rdtype.name
        if kind in FAMILIES["any"] and rrset.rdclass == answer.rdclass and name in wanted:
            found.setdefault(name, {})[kind] = tuple(record.address for record in rrset)
            ttl_s = min(ttl_s, rrset.ttl)
    return found, ttl_s


def _text(name: dns.name.Name) -> str:
    return name.canonicalize().to_text()


def endpoints(records: list[Record], hosts: Mapping[str, tuple[str, ...]]) -> tuple[Endpoint, ...]:
    """Give what sorted records and the addresses of their targets say; of two at one address the first counts."""
    priorities = sorted({record.priority for record in records})
    numbers = {priority: number for number, priority in enumerate(priorities)}
    shares = {record: _share(record.weight, len(hosts[record.target])) for record in records}
    unit = math.gcd(*shares.values())
    found: dict[Address, Endpoint] = {}
    for record, share in shares.items():
        tier = min(numbers[record.priority], _MOST_TIERS)
        for host in hosts[record.target]:
            address = Address(host, record.port)
            found.setdefault(address, Endpoint(address, share // unit, priority=tier))
    return tuple(found.values())


def _share(weight: int, addresses: int) -> int:
    return max(1, (weight * _TINY or 1) * _PARTS // max(1, addresses))
