"""Endpoints from Consul's health API: the instances of a service whose checks all pass.

Knows blocking queries (Consul's documentation, "Blocking queries"). Rules
* Every answer has the index to wait with. One that is lower than the last: begin anew with 0, which is answered at
  once (the servers were restored from a snapshot). Below 1: wait with 1, else no query would block any more.
* That an answer came does not mean that anything changed: it is compared.
* Two queries begin at least `LEAST_INTERVAL_S` apart. A service that flaps, or a server that never blocks, costs no
  more than that.
* Who may not read the service is told that it is empty, and a header says so: that is refused, not believed.
"""

from __future__ import annotations

import asyncio
import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from ambassador.config.words import printable
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    import httpx

    from ambassador.config.model import ConsulDiscovery

#: How long the server holds a query back; it adds up to a sixteenth. Units: seconds.
WAIT_S: Final = 300
_AT_ONCE_S: Final = 10.0
_HELD_BACK_S: Final = WAIT_S * 17 / 16 + _AT_ONCE_S
LEAST_INTERVAL_S: Final = 1.0
_SPREAD: Final = 0.1
_HIGHEST_PORT: Final = 65535
_HIGHEST_WEIGHT: Final = 1_000_000
_LONGEST_ZONE: Final = 255
#: Ten thousand instances, the output of whose checks takes up to 4 KiB each.
_MOST_BYTES: Final = 64 << 20
_DIGITS: Final = 20  # of an unsigned number of 64 bits


class _Node(msgspec.Struct, rename="pascal"):
    address: str = ""
    meta: dict[str, str] | None = None


class _Weights(msgspec.Struct, rename="pascal"):
    passing: int = 1


class _Service(msgspec.Struct, rename="pascal"):
    port: int
    address: str = ""
    meta: dict[str, str] | None = None
    weights: _Weights | None = None


class _Entry(msgspec.Struct, rename="pascal"):
    node: _Node
    service: _Service


_entries = msgspec.json.Decoder(list[_Entry])


class FromConsul:
    """Asks one agent with blocking queries."""

    __slots__ = ("_chance", "_endpoints", "_settings")

    #: Units: seconds. The agent is mostly on the same machine.
    longest_pause_s = 10.0

    def __init__(self, settings: ConsulDiscovery, *, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._endpoints: tuple[Endpoint, ...] = ()

    def __repr__(self) -> str:
        return f"FromConsul({self._settings.service}, {self._settings.address})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        clock = asyncio.get_running_loop().time
        index = 0
        agent = await asyncio.to_thread(self._open)
        async with agent:
            while True:
                asked = clock()
                answer = await self._ask(agent, index)
                index = _next_index(answer, index)
                # In a thread: ten thousand instances take long enough to be felt.
                endpoints = await asyncio.to_thread(self._read, answer)
                if endpoints != self._endpoints:
                    self._endpoints = endpoints
                yield self._endpoints
                least_s = LEAST_INTERVAL_S * (1 + _SPREAD * self._chance.random())
                await asyncio.sleep(max(0.0, asked + least_s - clock()))

    def _open(self) -> httpx.AsyncClient:
        settings = self._settings
        headers = {} if settings.token is None else {"X-Consul-Token": settings.token}
        if not all(web.is_header(value) for value in headers.values()):
            raise self._error("forbidden", "the token is no line of printable ASCII")
        return web.client(settings.address, ca_file=None, reason_prefix="consul", headers=headers)

    async def _ask(self, agent: httpx.AsyncClient, index: int) -> web.Answer:
        settings = self._settings
        query = {"passing": "1", "dc": settings.datacenter, "tag": settings.tag}
        if index:
            query |= {"index": str(index), "wait": f"{WAIT_S}s"}
        answer = await web.ask(
            agent,
            "GET",
            f"/v1/health/service/{quote(settings.service, safe='')}",
            reason_prefix="consul",
            within_s=_HELD_BACK_S if index else _AT_ONCE_S,
            max_bytes=_MOST_BYTES,
            params={name: value for name, value in query.items() if value is not None},
        )
        if answer.status == HTTPStatus.FORBIDDEN:
            raise self._error("forbidden", f"the token may not read it; {answer}")
        if answer.status != HTTPStatus.OK:
            raise self._error("failed", str(answer))
        return answer

    def _read(self, answer: web.Answer) -> tuple[Endpoint, ...]:
        try:
            entries = _entries.decode(answer.content)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise self._error("malformed", f"not a list of instances: {error}") from None
        if not entries and answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            raise self._error("forbidden", "the token sees none of its instances")
        found = tuple(endpoint for entry in entries if (endpoint := _endpoint(entry)) is not None)
        if entries and not found:
            service = entries[0].service
            shown = f"{service.address or entries[0].node.address}:{service.port}"
            raise self._error(
                "no_address", f"no instance has an IP address and a port; the first says {shown}"
            )
        return found

    def _error(self, reason: str, what: str) -> DiscoveryError:
        return DiscoveryError(f"consul_{reason}", printable(f"{self._settings.service}: {what}"))


def _endpoint(entry: _Entry) -> Endpoint | None:
    """Give an endpoint; None for an instance without a port, or whose address is a name.

    Consul refuses a weight of 0 for passing instances, so a 0 can only be one that an old registration left out.
    """
    service, node = entry.service, entry.node
    try:
        address = ipaddress.ip_address(service.address or node.address)
    except ValueError:
        return None
    if not 0 < service.port <= _HIGHEST_PORT:
        return None
    weight = service.weights.passing if service.weights is not None else 1
    return Endpoint(
        Address(str(address), service.port),
        min(max(weight, 1), _HIGHEST_WEIGHT),
        _zone(service.meta) or _zone(node.meta),
    )


def _zone(meta: dict[str, str] | None) -> str:
    zone = (meta or {}).get("zone", "")
    return zone if zone.isprintable() and len(zone) <= _LONGEST_ZONE else ""


def _next_index(answer: web.Answer, before: int) -> int:
    """Give the index to wait with. Errors: DiscoveryError when there is none, as with who is not Consul."""
    given = answer.headers.get("X-Consul-Index", "")
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS):
        raise DiscoveryError("consul_malformed", "X-Consul-Index is missing or not a number")
    index = max(int(given), 1)
    return 0 if index < before else index
