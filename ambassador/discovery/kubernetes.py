"""Endpoints from Kubernetes' EndpointSlices, listed and watched at the API server without a client library.

Knows the API's list, watch and slices; must not know what becomes of a set. Rules
* A list gives everything at one version, a watch what happened since; what a watch tells moves the version on, and a
  watch that ends goes on from there. A version that the server no longer knows (410) means a new list; until that is
  whole, the old slices stand.
* Slices of one service are pieces without meaning of their own: an address may be in two while it moves between them.
* The token changes about hourly, so it is read before each request.
* A round is a list or a watch. Between two is a pause, which grows while watches bring nothing: permission to list
  without that to watch, or a server that ends every watch at once, must not become a flood of lists.

Source: kubernetes.io, "Efficient detection of changes" and "EndpointSlices"; RBAC: get, list, watch.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar
from urllib.parse import quote

import msgspec

from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import web
from ambassador.policy.backoff import pause_s

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
    from random import Random

    import httpx

    from ambassador.config.model import KubernetesDiscovery

T = TypeVar("T")
POD_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: A watch is asked to end after so long, up to a tenth earlier, so that a fleet does not ask at once. Longer silence
#: means a dead connection: a server ends the watch, and before sends a bookmark about every minute. Units: seconds.
WATCH_S, MARGIN_S = 300.0, 15.0
_SPREAD: Final = 0.1
_LIST_S: Final = 60.0
#: Between rounds: the least, and full jitter out of so much, doubled per watch that brought nothing. Units: seconds.
_LEAST_PAUSE_S, _PAUSE_BASE_S = 0.25, 0.5
_PAGE: Final = 500
_MAX_PAGES: Final = 100
#: A hundred thousand endpoints as Kubernetes cuts them; a slice may have a thousand.
MAX_SLICES: Final = 1000
_MAX_FILE_BYTES: Final = 64 << 10
_MAX_SHOWN: Final = 300


class FromKubernetes:
    """Lists the slices of a service, then watches them."""

    __slots__ = (
        "_chance", "_current", "_environment", "_folder", "_fruitless", "_rounds", "_settings", "_slices", "_stale",
        "_version", "_zone",
    )  # fmt: skip

    longest_pause_s = 30.0

    def __init__(
        self,
        settings: KubernetesDiscovery,
        *,
        zone: str,
        chance: Random,
        folder: Path = POD_FOLDER,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._zone = zone
        self._chance = chance
        self._folder = folder
        self._environment = environment
        self._slices: dict[str, _Part] = {}
        self._version = ""  # none: list first
        self._current: tuple[Endpoint, ...] = ()
        self._stale = True
        self._rounds = 0
        self._fruitless = 0

    def __repr__(self) -> str:
        return f"FromKubernetes({self._settings.namespace or 'own'}/{self._settings.service})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        self._version = ""
        source = await asyncio.to_thread(self._open)
        async with source:
            path = await asyncio.to_thread(self._path)
            while True:
                await self._pause()
                try:
                    if not self._version:
                        await self._list(source, path)
                        yield self._merged()
                    async with aclosing(self._changes(source, path)) as changes:
                        async for _ in changes:
                            yield self._merged()
                except _Gone:
                    self._version = ""
                    self._fruitless += 1

    # --- where

    def _open(self) -> httpx.AsyncClient:
        url = self._settings.api_server or self._own_server()
        if not url.startswith("https://"):
            detail = f"{url}: expected https://, the token is not sent in the clear"
            raise DiscoveryError("kubernetes_address", detail)
        ca_file = self._settings.ca_file or self._folder / "ca.crt"
        return web.client(
            url,
            ca_file=ca_file,
            reason_prefix="kubernetes",
            headers={"Accept": "application/json"},
        )

    def _own_server(self) -> str:
        find = self._environment.get
        host = find("KUBERNETES_SERVICE_HOST")
        port = find("KUBERNETES_SERVICE_PORT_HTTPS") or find("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            detail = "KUBERNETES_SERVICE_HOST is not set: this is no Pod, say api_server, token_file and ca_file"
            raise DiscoveryError("kubernetes_address", detail)
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def _path(self) -> str:
        namespace = self._settings.namespace or _read_word(self._folder / "namespace")
        return f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace, safe='')}/endpointslices"

    async def _headers(self) -> dict[str, str]:
        path = self._settings.token_file or self._folder / "token"
        return {"Authorization": f"Bearer {await asyncio.to_thread(_read_word, path)}"}

    # --- rounds

    async def _pause(self) -> None:
        self._rounds += 1
        if self._rounds > 1:
            pause = pause_s(
                self._fruitless,
                base_s=_PAUSE_BASE_S,
                max_s=self.longest_pause_s,
                chance=self._chance.random(),
            )
            await asyncio.sleep(_LEAST_PAUSE_S + pause)

    async def _list(self, source: httpx.AsyncClient, path: str) -> None:
        """Replace all slices, or raise and replace none."""
        slices: dict[str, _Part] = {}
        params = {"labelSelector": self._selector, "limit": str(_PAGE)}
        for _ in range(_MAX_PAGES):
            page = await self._page(source, path, params)
            for raw in page.items or ():
                self._put(slices, _decode(raw, _Slice))
                await asyncio.sleep(
                    0
                )  # a page may be megabytes: the traffic goes between two slices
            if not page.metadata.next:
                self._slices, self._version = slices, page.metadata.version
                self._stale = True
                break
            params["continue"] = page.metadata.next
        else:
            raise DiscoveryError("kubernetes_too_large", f"a list of more than {_MAX_PAGES} pages")
        if not self._version:
            raise DiscoveryError("kubernetes_malformed", "a list without resourceVersion")

    async def _page(self, source: httpx.AsyncClient, path: str, params: dict[str, str]) -> _List:
        headers = await self._headers()
        try:
            async with (
                asyncio.timeout(_LIST_S),
                web.answer(
                    source,
                    "GET",
                    path,
                    reason_prefix="kubernetes",
                    params=params,
                    headers=headers,
                ) as response,
            ):
                await self._check(response)
                return _decode(await web.body(response, reason_prefix="kubernetes"), _List)
        except TimeoutError:
            detail = f"{source.base_url.host}: the list took longer than {_LIST_S:g} s"
            raise DiscoveryError("kubernetes_timeout", detail) from None

    async def _changes(self, source: httpx.AsyncClient, path: str) -> AsyncGenerator[None, None]:
        """Follow one watch to its end; give a turn when it is accepted and after everything that it tells.

        Errors: DiscoveryError; _Gone.
        """
        seconds = int(WATCH_S * (1 - _SPREAD * self._chance.random())) or 1
        params = {
            "labelSelector": self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        self._fruitless += 1
        async with web.answer(
            source,
            "GET",
            path,
            reason_prefix="kubernetes",
            params=params,
            headers=await self._headers(),
            read_timeout_s=seconds + MARGIN_S,
        ) as response:
            await self._check(response)
            yield
            async with aclosing(web.lines(response, reason_prefix="kubernetes")) as bursts:
                async for burst in bursts:
                    for line in burst:
                        self._apply(_decode(line, _Event))
                    yield

    @property
    def _selector(self) -> str:
        return f"kubernetes.io/service-name={self._settings.service}"

    # --- what is told

    def _apply(self, event: _Event) -> None:
        if event.type == "ERROR":
            raise _failure(_decode(event.object, _Status))
        if event.type == "BOOKMARK":
            version = _decode(event.object, _Marked).metadata.version
        elif event.type in {"ADDED", "MODIFIED", "DELETED"}:
            found = _decode(event.object, _Slice)
            version = found.metadata.version
            self._stale = True
            if event.type == "DELETED":
                self._slices.pop(found.metadata.name, None)
            else:
                self._put(self._slices, found)
        else:
            raise DiscoveryError("kubernetes_malformed", f"a watch event {event.type[:20]!a}")
        if not version:
            raise DiscoveryError("kubernetes_malformed", "a watch event without resourceVersion")
        self._version = version
        self._fruitless = 0

    def _put(self, slices: dict[str, _Part], found: _Slice) -> None:
        slices[found.metadata.name] = _read_slice(found, self._settings, self._zone)
        if len(slices) > MAX_SLICES:
            raise DiscoveryError("kubernetes_too_large", f"more than {MAX_SLICES} slices")

    def _merged(self) -> tuple[Endpoint, ...]:
        """Give the set; the same object as before unless it differs."""
        if self._stale:
            endpoints = _merge([self._slices[name] for name in sorted(self._slices)])
            if endpoints != self._current:
                self._current = endpoints
            self._stale = False
        return self._current

    async def _check(self, response: httpx.Response) -> None:
        if response.status_code == 200:  # noqa: PLR2004  # OK
            return
        content = await web.body(response, reason_prefix="kubernetes")
        try:
            status = _decode(content, _Status)
        except DiscoveryError:  # a load balancer in between, or a crash: the status line has to do
            status = _Status()
        status.code = response.status_code
        raise _failure(status)


class _Gone(Exception):
    """The server no longer knows the version that it was asked for."""


def _failure(status: _Status) -> DiscoveryError | _Gone:
    said = (
        f"{status.message[:_MAX_SHOWN]!a}"  # theirs: no control character of it reaches a terminal
    )
    match status.code:
        case 401:
            detail = "the API server does not accept the token"
            return DiscoveryError("kubernetes_unauthorized", f"{detail}: {said}")
        case 403:
            detail = (
                "the ServiceAccount needs the verbs get, list and watch on endpointslices"
                " of discovery.k8s.io in this namespace"
            )
            return DiscoveryError("kubernetes_forbidden", f"{detail}: {said}")
        case 404:
            detail = "no discovery.k8s.io/v1, which Kubernetes has since 1.21"
            return DiscoveryError("kubernetes_not_found", f"{detail}: {said}")
        case 410:
            return _Gone()
    return DiscoveryError("kubernetes_failed", f"status {status.code}: {said}")


def _read_word(path: Path) -> str:
    """Read a token or a namespace. Errors: DiscoveryError, which never shows what is in the file."""
    try:
        if not path.is_file():  # a FIFO would wait for its writer for ever
            raise DiscoveryError("kubernetes_file", f"{path}: no such file")
        with path.open("rb") as file:
            word = file.read(_MAX_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise DiscoveryError("kubernetes_file", f"{path}: {error.strerror}") from None
    if not word or not word.isascii() or not word.isprintable() or " " in word:
        raise DiscoveryError("kubernetes_file", f"{path}: expected one word of ASCII")
    return word


# --- the API's objects, as far as they count. What Kubernetes calls nullable is None here.


class _Meta(msgspec.Struct):
    name: str = ""
    version: str = msgspec.field(name="resourceVersion", default="")
    next: str = msgspec.field(name="continue", default="")


class _Marked(msgspec.Struct):
    metadata: _Meta


class _List(msgspec.Struct):
    metadata: _Meta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Zone(msgspec.Struct):
    name: str


class _Hints(msgspec.Struct):
    zones: list[_Zone] | None = msgspec.field(name="forZones", default=None)


class _Place(msgspec.Struct):
    addresses: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)]
    conditions: _Conditions | None = None
    zone: str | None = None
    hints: _Hints | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    protocol: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'without a name'} ({self.port or 'all'})"


class _Slice(msgspec.Struct):
    metadata: _Meta
    kind: str = msgspec.field(name="addressType")
    endpoints: Annotated[list[_Place], msgspec.Meta(max_length=1000)] | None = None
    ports: Annotated[list[_Port], msgspec.Meta(max_length=100)] | None = None


def _decode(content: bytes | msgspec.Raw, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        name = wanted.__name__.strip("_").lower()
        raise DiscoveryError("kubernetes_malformed", f"{name}: {error}") from None


# --- what they mean


@dataclass(frozen=True, slots=True)
class _Part:
    """A slice, read. `draining` still serve while they end; `problem` says why there is no port for them."""

    ready: tuple[Endpoint, ...] = ()
    draining: tuple[Endpoint, ...] = ()
    problem: DiscoveryError | None = None


_AMBIGUOUS: Final = "kubernetes_port_ambiguous"


def _read_slice(found: _Slice, settings: KubernetesDiscovery, zone: str) -> _Part:
    """Read a slice; one of names (FQDN) or without endpoints says nothing."""
    if found.kind not in {"IPv4", "IPv6"} or not found.endpoints:
        return _Part()
    port = _port(found.ports or [], settings)
    if isinstance(port, DiscoveryError):
        return _Part(problem=port)
    ready, draining = [], []
    for place in found.endpoints:
        conditions = place.conditions or _Conditions()
        if conditions.ready is not False:  # null means true
            ready.append(_endpoint(place, port, zone))
        elif conditions.serving and conditions.terminating:
            draining.append(_endpoint(place, port, zone))
    return _Part(tuple(ready), tuple(draining))


def _endpoint(place: _Place, port: int, zone: str) -> Endpoint:
    """Give the first address: all of a place reach the same (EndpointSlice v1, `addresses`)."""
    hinted = (place.hints and place.hints.zones) or ()
    ours = any(each.name == zone for each in hinted)
    return Endpoint(
        Address(_canonical(place.addresses[0]), port), zone=zone if ours else place.zone or ""
    )


def _canonical(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host  # the keeper leaves it out, and says so


def _port(ports: list[_Port], settings: KubernetesDiscovery) -> int | DiscoveryError:
    """Find the port: a number may also be one that the slice does not restrict."""
    wanted = settings.port
    offered = [port for port in ports if port.protocol in {None, "TCP"}]
    if isinstance(wanted, int):
        if not ports or any(port.port in {None, wanted} for port in offered):
            return wanted
        fitting = []
    else:
        fitting = [port for port in offered if wanted is None or (port.name or "") == wanted]
    names = ", ".join(map(str, offered))[:_MAX_SHOWN] or "none"
    if len(fitting) > 1:
        detail = f"service {settings.service} has several ports, say one by `port`: {names!a}"
        return DiscoveryError(_AMBIGUOUS, detail)
    if not fitting:
        detail = f"service {settings.service} has no port {wanted or ''}: it has {names!a}"
        return DiscoveryError("kubernetes_no_such_port", detail)
    if fitting[0].port is None:
        detail = f"service {settings.service} names no number for its port: say it by `port`"
        return DiscoveryError("kubernetes_no_such_port", detail)
    return fitting[0].port


def _merge(parts: Iterable[_Part]) -> tuple[Endpoint, ...]:
    """Give each address once: those that are ready, or else those that still serve.

    Slices differ in their ports while Pods with another one roll out; a port that only some have is used there.
    Errors: DiscoveryError when a port is ambiguous, or nowhere.
    """
    parts = list(parts)
    problems = [part.problem for part in parts if part.problem is not None]
    usable = any(part.ready or part.draining for part in parts)
    for problem in problems:
        if problem.reason == _AMBIGUOUS or not usable:
            raise problem
    ready = [endpoint for part in parts for endpoint in part.ready]
    found = ready or [endpoint for part in parts for endpoint in part.draining]
    unique: dict[tuple[str, int], Endpoint] = {}
    for endpoint in found:
        unique.setdefault((endpoint.address.host, endpoint.address.port), endpoint)
    return tuple(unique.values())
