"""Endpoints from the keys below a prefix in etcd, over the JSON gateway of its v3 API.

Knows ranges, watches and tokens. Rules
* What is there is told by a range, always; a watch from the revision after it only tells *that* something changed,
  and the range is asked anew. So no lost, doubled or misread event can make the set wrong, and a watch that was
  compacted or cancelled, or whose server died, needs no care of its own.
* A range is asked every `LOOK_S` in any case: a watch whose server is gone without a word stays silent for ever, and
  etcd's own sign of life (`progress_notify`) comes every ten minutes only.
* All pages of a range are read at the revision of the first, so that no change falls between two of them.
* One value that is malformed takes only its own endpoint away; when none is sound, that is an error.
* The servers are asked in turn from the one that answered last; a token that is no longer accepted is renewed once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from contextlib import AsyncExitStack, aclosing, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec

from ambassador.config import checks
from ambassador.config.words import printable
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Endpoint
from ambassador.discovery import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from random import Random

    import httpx

    from ambassador.config.model import EtcdDiscovery
    from ambassador.core.model import Address

#: Units: seconds.
LOOK_S: Final = 60.0
LEAST_INTERVAL_S: Final = 1.0
_ANSWER_S: Final = 10.0
_SPREAD: Final = 0.1
PAGE: Final = 1000
_MOST_PAGES: Final = 100

# int64 comes as text (proto3's JSON), and what has its default value does not come at all.


class _Header(msgspec.Struct):
    revision: int


class _KeyValue(msgspec.Struct):
    key: str
    value: str = ""


class _Range(msgspec.Struct):
    header: _Header
    kvs: list[_KeyValue] = []  # a Struct copies it
    more: bool = False


class _Token(msgspec.Struct):
    token: str


class _Watched(msgspec.Struct):
    events: list[msgspec.Raw] = []
    canceled: bool = False


class _Message(msgspec.Struct):
    result: _Watched | None = None


class _Value(msgspec.Struct):
    address: str
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    zone: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


_MALFORMED: Final = (ValueError, RecursionError)  # msgspec's errors are ValueErrors
_value = msgspec.json.Decoder(_Value)
T = TypeVar("T")


class FromEtcd:
    """Asks one cluster."""

    __slots__ = ("_chance", "_endpoints", "_settings", "_token", "_turn")

    #: Units: seconds.
    longest_pause_s = 30.0

    def __init__(self, settings: EtcdDiscovery, *, chance: Random) -> None:
        self._settings = settings
        self._chance = chance
        self._endpoints: tuple[Endpoint, ...] = ()
        self._token: str | None = None
        self._turn = 0

    def __repr__(self) -> str:
        return f"FromEtcd({self._settings.prefix}, {self._turned(self._settings.urls)})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        async with AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(await asyncio.to_thread(self._open, url))
                for url in self._settings.urls
            ]
            while True:
                pairs, revision = await self._somewhere(servers)
                # In a thread: ten thousand values take long enough to be felt.
                endpoints = await asyncio.to_thread(_endpoints, pairs, self._settings.prefix)
                if endpoints != self._endpoints:
                    self._endpoints = endpoints
                yield self._endpoints
                # Before the watch: many changes in a row, as with a deployment, are one range.
                await asyncio.sleep(self._spread(LEAST_INTERVAL_S))
                await self._change(self._turned(servers), revision + 1)

    def _open(self, url: str) -> httpx.AsyncClient:
        return web.client(url, ca_file=self._settings.ca_file, reason_prefix="etcd")

    def _turned(self, servers: Sequence[T]) -> T:
        return servers[self._turn % len(servers)]

    def _spread(self, seconds: float) -> float:
        return seconds * (1 + _SPREAD * self._chance.random())

    async def _somewhere(self, servers: Sequence[httpx.AsyncClient]) -> tuple[list[_KeyValue], int]:
        """Ask the servers in turn, each once. Errors: DiscoveryError of the last."""
        for _ in servers[1:]:
            try:
                return await self._everything(self._turned(servers))
            except DiscoveryError:
                self._turn += 1
        try:
            return await self._everything(self._turned(servers))
        except DiscoveryError:
            self._turn += 1
            raise

    async def _everything(self, server: httpx.AsyncClient) -> tuple[list[_KeyValue], int]:
        """Give all pairs below the prefix and the revision at which they were so."""
        key, end = bounds(self._settings.prefix.encode())
        pairs: list[_KeyValue] = []
        revision = 0
        for _ in range(_MOST_PAGES):
            question = {"range_end": _base64(end), "limit": PAGE, "revision": revision}
            page = await self._range(server, {"key": _base64(key), **question})
            pairs += page.kvs
            revision = revision or page.header.revision
            if not page.more:
                return pairs, revision
            if not page.kvs:
                raise DiscoveryError("etcd_malformed", "a page without a key is not the last")
            key = _plain(page.kvs[-1].key) + b"\0"
        raise DiscoveryError("etcd_too_large", f"more than {_MOST_PAGES * PAGE} keys")

    async def _range(self, server: httpx.AsyncClient, question: dict[str, object]) -> _Range:
        """Ask with our token; when that is refused, which a token is after five minutes, with a new one.

        Source: etcd, rpctypes: an expired token is 401, a missing one and one of older rules 400.
        """
        had = self._token
        answer = await self._ask(server, question)
        if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED} and had is not None:
            self._token = None
            answer = await self._ask(server, question)
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise DiscoveryError("etcd_forbidden", str(answer))
        if answer.status != HTTPStatus.OK:
            raise DiscoveryError("etcd_failed", str(answer))
        return _decode(answer.content, _Range)

    async def _ask(self, server: httpx.AsyncClient, question: dict[str, object]) -> web.Answer:
        if self._settings.username is not None and self._token is None:
            self._token = await self._authenticate(server)
        return await _post(server, "kv/range", question, headers=self._headers)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    async def _authenticate(self, server: httpx.AsyncClient) -> str:
        """Give a token; an empty one where nobody needs any, so that a cluster can be closed under its users."""
        who = {"name": self._settings.username, "password": self._settings.password}
        answer = await _post(server, "auth/authenticate", who, headers={})
        if answer.status == HTTPStatus.OK:
            token = _decode(answer.content, _Token).token
            if not web.is_header(token):
                raise DiscoveryError("etcd_malformed", "a token that no header can carry")
            return token
        if b"authentication is not enabled" in answer.content:
            return ""
        raise DiscoveryError("etcd_forbidden", f"user {self._settings.username}: {answer}")

    async def _change(self, server: httpx.AsyncClient, revision: int) -> None:
        """Return when something below the prefix changed, or it is time to look; whatever else ends the watch, too."""
        key, end = bounds(self._settings.prefix.encode())
        create = {"key": _base64(key), "range_end": _base64(end), "start_revision": str(revision)}
        with suppress(DiscoveryError, TimeoutError):  # the range says what is wrong, if it is still
            async with (
                asyncio.timeout(self._spread(LOOK_S)),
                web.answer(
                    server,
                    "POST",
                    "/v3/watch",
                    reason_prefix="etcd",
                    headers=self._headers,
                    content=msgspec.json.encode({"create_request": create}),
                    read_timeout_s=2 * LOOK_S,
                ) as response,
                aclosing(web.lines(response, reason_prefix="etcd")) as bursts,
            ):
                async for burst in bursts:
                    if any(_tells_change(line) for line in burst):
                        return


async def _post(
    server: httpx.AsyncClient,
    method: str,
    question: Mapping[str, object],
    *,
    headers: Mapping[str, str],
) -> web.Answer:
    return await web.ask(
        server,
        "POST",
        f"/v3/{method}",
        reason_prefix="etcd",
        within_s=_ANSWER_S,
        headers=headers,
        content=msgspec.json.encode(question),
    )


def _tells_change(line: bytes) -> bool:
    """Say whether the range must be asked: events, a watch that ended, or what we do not understand.

    That the watch was created, and progress, say nothing.
    """
    try:
        result = _decode(line, _Message).result
    except DiscoveryError:
        return True
    return result is None or result.canceled or bool(result.events)


def _endpoints(pairs: list[_KeyValue], prefix: str) -> tuple[Endpoint, ...]:
    """Give the sound ones, in the order of their keys. Errors: DiscoveryError when none of several is."""
    found = []
    problem = ""
    for pair in pairs:
        try:
            found.append(parse(_plain(pair.value)))
        except (DiscoveryError, *_MALFORMED) as error:
            problem = problem or f"{_shown(pair.key)}: {error}"
    if pairs and not found:
        raise DiscoveryError(
            "etcd_malformed", printable(f"no value below {prefix} is an endpoint; {problem}")
        )
    return tuple(found)


def parse(value: bytes) -> Endpoint:
    """Give the endpoint of a value: IP:PORT, or JSON `{"address", "weight", "zone", "priority"}`.

    Other keys are ignored: who registers may be newer than we are, and its endpoints would vanish.
    Errors: ValueError, RecursionError.
    """
    if not value.lstrip().startswith(b"{"):
        return Endpoint(_address(value.decode().strip()))
    given = _value.decode(value)
    zone = checks.text(given.zone) if given.zone else ""
    return Endpoint(_address(given.address), given.weight, zone, given.priority)


def _address(text: str) -> Address:
    address: Address = checks.dial_address(text)
    # Neither `localhost` nor a Unix path is for a registry to give.
    ipaddress.ip_address(address.host)
    return address


def bounds(prefix: bytes) -> tuple[bytes, bytes]:
    """Give the first key of a prefix and the first behind it; a zero byte is etcd's word for no end.

    Source: etcd, RangeRequest.range_end.
    """
    stem = prefix.rstrip(b"\xff")
    return prefix or b"\0", stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except _MALFORMED as error:
        raise DiscoveryError(
            "etcd_malformed", printable(f"not an answer of etcd: {error}")
        ) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _plain(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DiscoveryError("etcd_malformed", f"not base64: {error}") from None


def _shown(key: str) -> str:
    try:
        return _plain(key).decode("utf-8", "replace")
    except DiscoveryError:
        return key
