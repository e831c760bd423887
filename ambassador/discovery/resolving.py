"""Questions to name servers, for every kind that has some.

Knows queries and lifetimes (RFC 1035, RFC 2308); the wire is dnspython's, with TCP for what UDP cuts off. Must not
know what a kind makes of an answer. Rules
* Both families are asked at once. One that fails keeps what it said last, as long as the other answers: a resolver
  that cannot do AAAA must not hide the A records, and a lost answer must not take half of the endpoints away.
* A name that fails keeps its addresses, as long as another one answers; it is asked again soon.
* The next question comes when the shortest lifetime is over, within `min_ttl` and `max_ttl`, and up to a tenth later,
  so that a fleet does not ask at once.
* Where the system is asked, its hosts file comes first, as everywhere: compose and Kubernetes write names into it.
* After a failure the resolver is made anew: `/etc/resolv.conf` may have changed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from ambassador.core.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from random import Random

    from ambassador.core.model import Address

FAMILIES: Final = {"any": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}
#: Where the system says whom to ask, and their port.
_SYSTEM, _PORT = "/etc/resolv.conf", 53
_HOSTS: Final = Path("/etc/hosts")
#: One question to one server, and to all of them. Units: seconds.
_TIMEOUT_S, _LIFETIME_S = 2.0, 5.0
#: A set with a name that failed is asked for again so soon. Units: seconds.
_RETRY_S: Final = 5.0
_SPREAD: Final = 0.1
#: An answer may hold a thousand targets; each question is a socket.
_AT_ONCE: Final = 16


class Resolver:
    """Asks these servers, or those of the system."""

    __slots__ = ("_resolver", "_servers", "_turns")

    def __init__(self, servers: tuple[Address, ...] = ()) -> None:
        self._servers = servers
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, name: str, kind: str) -> dns.resolver.Answer:
        """Give the answer; its `rrset` is None when the name is there without such a record (RFC 2308 §2.2).

        Errors: DiscoveryError.
        """
        async with self._turns:
            try:
                return await self._ask(name, kind)
            except DiscoveryError:
                self._resolver = None
                raise

    def written_down(self, name: str) -> tuple[str, ...]:
        """Give the addresses that the hosts file has for a name; none where servers are given."""
        return () if self._servers else in_hosts_file(name, _HOSTS)

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer:
        resolver = self._resolver = self._resolver or self._make()
        try:
            return await resolver.resolve(name, kind, raise_on_no_answer=False, search=True)
        except dns.resolver.NXDOMAIN:
            raise DiscoveryError("dns_no_such_name", f"{name}: there is no such name") from None
        except dns.exception.Timeout:
            message = f"{name} {kind}: no answer in {_LIFETIME_S:g} s"
            raise DiscoveryError("dns_timeout", message) from None
        except (dns.exception.DNSException, OSError) as error:
            raise DiscoveryError("dns_failed", f"{name} {kind}: {error}") from None

    def _make(self) -> dns.asyncresolver.Resolver:
        servers = self._servers
        try:
            resolver = dns.asyncresolver.Resolver(_SYSTEM, configure=not servers)
        except dns.exception.DNSException as error:
            raise DiscoveryError("dns_failed", f"{_SYSTEM}: {error}") from None
        resolver.port = _PORT
        if servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(server.host, server.port) for server in servers
            ]
        resolver.timeout, resolver.lifetime = _TIMEOUT_S, _LIFETIME_S
        return resolver


class Name:
    """The addresses of one name, as it said them last."""

    __slots__ = ("_kinds", "_last", "name")

    def __init__(self, name: str, *, family: str = "any") -> None:
        self.name = name
        self._kinds = FAMILIES[family]
        self._last: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"Name({self.name}: {', '.join(self.hosts)})"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its IP addresses, IPv4 first."""
        return tuple(host for kind in self._kinds for host in self._last.get(kind, ()))

    def told(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        """Take addresses by kind of record that came unasked: all there are."""
        self._last = dict(hosts)

    async def ask(self, resolver: Resolver) -> float:
        """Ask for every family, and give the shortest lifetime.

        Units: seconds; infinite when the name has no address.
        Errors: DiscoveryError when no family answers.
        """
        known = resolver.written_down(self.name)
        if known:
            self._last = {
                "A": tuple(host for host in known if ":" not in host),
                "AAAA": tuple(host for host in known if ":" in host),
            }
            return _RETRY_S
        answers = await asyncio.gather(*(self._one(resolver, kind) for kind in self._kinds))
        failures = [answer for answer in answers if isinstance(answer, DiscoveryError)]
        if len(failures) == len(answers):
            raise failures[0]
        return min(answer for answer in answers if not isinstance(answer, DiscoveryError))

    async def _one(self, resolver: Resolver, kind: str) -> float | DiscoveryError:
        try:
            answer = await resolver.ask(self.name, kind)
        except DiscoveryError as error:
            return error
        if answer.rrset is None:  # most names have one family: its absence must not hurry the other
            self._last[kind] = ()
            return math.inf
        self._last[kind] = tuple(record.address for record in answer.rrset)
        return lifetime_s(answer)


def in_hosts_file(name: str, file: Path) -> tuple[str, ...]:
    """Give the addresses of a name by hosts(5), in their order; none when it is not there, or cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found: dict[str, None] = {}
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if name.lower().rstrip(".") in (one.lower() for one in names) and _is_address(address):
            found[address] = None
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


async def ask_all(
    names: Collection[Name], resolver: Resolver
) -> tuple[float, list[DiscoveryError]]:
    """Ask for these names at once; give the shortest lifetime, and what failed: those names keep their addresses."""
    answers = await asyncio.gather(*(_settled(name, resolver) for name in names))
    failures = [answer for answer in answers if isinstance(answer, DiscoveryError)]
    ttls = [answer for answer in answers if not isinstance(answer, DiscoveryError)]
    return min(*ttls, _RETRY_S if failures else math.inf, math.inf), failures


async def _settled(name: Name, resolver: Resolver) -> float | DiscoveryError:
    try:
        return await name.ask(resolver)
    except DiscoveryError as error:
        return error


def lifetime_s(answer: dns.resolver.Answer) -> float:
    """Give the shortest lifetime of an answer and of the aliases on the way to it (RFC 1034 §3.6.2)."""
    return float(answer.chaining_result.minimum_ttl)


async def wait(ttl_s: float, *, least_s: float, most_s: float, chance: Random) -> None:
    """Wait until it is time for the next question."""
    ttl_s = min(max(ttl_s, least_s), most_s)
    await asyncio.sleep(ttl_s * (1 + _SPREAD * chance.random()))
