"""Discovery from etcd: against a real one, and over scripted answers in virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from ambassador.config.model import DiscoveryConfig, EtcdDiscovery
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import etcd, kinds, web
from ambassador.discovery.etcd import FromEtcd, bounds, parse
from tests.support.certificates import Authority
from tests.support.etcd import Etcd, encoded
from tests.support.invariants import nothing_left_on_loop
from tests.support.ports import reserve_port
from tests.support.virtual_time import virtual_time

PASSWORD = "pa55-secret"
PREFIX = "/services/payments/"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """An etcd for all tests that only write below a prefix of their own."""
    with Etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"/{request.node.name}/"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def only_by_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that the watch does not tell is not seen within the time of a test."""
    monkeypatch.setattr(etcd, "LOOK_S", 3600.0)
    monkeypatch.setattr(etcd, "LEAST_INTERVAL_S", 0.0)


def discovery(*urls: str, prefix: str = PREFIX, **settings: Any) -> FromEtcd:
    return FromEtcd(
        EtcdDiscovery(urls, prefix, **settings),
        chance=random.Random(1),  # repeatable
    )


def watching(found: FromEtcd) -> Any:
    sets: Any = found.watch()
    return aclosing(sets)


async def first(found: FromEtcd) -> tuple[Endpoint, ...]:
    async with watching(found) as sets:
        result: tuple[Endpoint, ...] = await anext(sets)
        return result


async def failure(found: FromEtcd) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as raised:
        await first(found)
    return raised.value


def texts(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [str(endpoint) for endpoint in endpoints]


# --- a real etcd


async def test_values_below_the_prefix_are_endpoints_in_the_order_of_their_keys(
    shared: Etcd, prefix: str
) -> None:
    shared.put(f"{prefix}2", "10.0.0.2:80")
    value = {"address": "[fd00::1]:80", "weight": 3, "zone": "a", "priority": 1}
    shared.put(f"{prefix}1", json.dumps(value))
    shared.put(prefix.rstrip("/") + "-next/1", "10.0.0.9:80")

    async with nothing_left_on_loop():
        endpoints = await first(discovery(shared.url, prefix=prefix))

    assert endpoints == (
        Endpoint(Address("fd00::1", 80), 3, "a", 1),
        Endpoint(Address("10.0.0.2", 80)),
    )


async def test_keys_that_are_put_and_deleted_are_told_by_the_watch(
    shared: Etcd, prefix: str, only_by_watch: None
) -> None:
    """A PUT has no `type`, a DELETE no value (proto3's JSON)."""
    found = []
    async with watching(discovery(shared.url, prefix=prefix)) as sets:
        found.append(texts(await anext(sets)))
        for change in (
            lambda: shared.put(f"{prefix}1", "10.0.0.1:80"),
            lambda: shared.put(f"{prefix}2", "10.0.0.2:80"),
            lambda: shared.delete(f"{prefix}1"),
        ):
            waiting = asyncio.create_task(anext(sets))
            await asyncio.to_thread(change)
            found.append(texts(await waiting))

    assert found == [[], ["10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.2:80"], ["10.0.0.2:80"]]


async def test_a_value_that_is_written_again_gives_the_same_object(
    shared: Etcd, prefix: str, only_by_watch: None
) -> None:
    """As whoever registers does with every lease; also over the end of a watch."""
    shared.put(f"{prefix}1", "10.0.0.1:80")
    found = discovery(shared.url, prefix=prefix)
    async with watching(found) as sets:
        before = await anext(sets)
        shared.put(f"{prefix}1", "10.0.0.1:80")
        after = await anext(sets)

    assert after is before
    assert await first(found) is before


async def test_a_history_that_was_compacted_away_is_not_needed(
    shared: Etcd, prefix: str, only_by_watch: None
) -> None:
    """The watch begins at a revision that is gone: `canceled` with `compact_revision`."""
    shared.put(f"{prefix}1", "10.0.0.1:80")
    async with watching(discovery(shared.url, prefix=prefix)) as sets:
        await anext(sets)
        shared.delete(f"{prefix}1")
        shared.compact(shared.put(f"{prefix}2", "10.0.0.2:80"))
        after = await anext(sets)

    assert texts(after) == ["10.0.0.2:80"]


async def test_more_keys_than_a_page_holds_are_all_found(
    shared: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "PAGE", 2)
    for number in range(5):
        shared.put(f"{prefix}{number}", f"10.0.0.{number}:80")

    endpoints = await first(discovery(shared.url, prefix=prefix))

    assert texts(endpoints) == [f"10.0.0.{number}:80" for number in range(5)]


async def test_a_malformed_value_takes_only_its_own_endpoint_away(
    shared: Etcd, prefix: str
) -> None:
    shared.put(f"{prefix}1", "10.0.0.1")
    shared.put(f"{prefix}2", "10.0.0.2:80")

    assert texts(await first(discovery(shared.url, prefix=prefix))) == ["10.0.0.2:80"]


async def test_values_that_are_all_malformed_are_an_error_that_names_the_first(
    shared: Etcd, prefix: str
) -> None:
    """An empty set would mean that the service is gone."""
    shared.put(f"{prefix}\x1b[31m", "db.example.org:80")
    shared.put(f"{prefix}b", "{")

    error = await failure(discovery(shared.url, prefix=prefix))

    assert error.reason == "etcd_malformed"
    assert f"{prefix}\\x1b[31m" in error.message


async def test_a_prefix_without_keys_has_no_endpoints(shared: Etcd, prefix: str) -> None:
    assert await first(discovery(shared.url, prefix=prefix)) == ()


async def test_the_next_server_is_asked_when_one_does_not_answer(shared: Etcd, prefix: str) -> None:
    shared.put(f"{prefix}1", "10.0.0.1:80")
    found = discovery(NOBODY, f"{shared.url}/", prefix=prefix)

    assert texts(await first(found)) == ["10.0.0.1:80"]
    assert shared.url in repr(found), "it is the first that is asked the next time"


async def test_a_server_that_is_killed_hands_over_to_the_next_without_an_error(
    shared: Etcd, own: Etcd, prefix: str, only_by_watch: None
) -> None:
    """The watch that broke says nothing; the range that follows finds who answers."""
    own.put(f"{prefix}1", "10.0.0.1:80")
    shared.put(f"{prefix}1", "10.0.0.2:80")
    async with watching(discovery(own.url, shared.url, prefix=prefix)) as sets:
        before = await anext(sets)
        own.program.kill()
        after = await anext(sets)

    assert (texts(before), texts(after)) == (["10.0.0.1:80"], ["10.0.0.2:80"])


async def test_an_etcd_that_is_killed_fails_the_watch_and_the_next_one_goes_on(
    own: Etcd, only_by_watch: None
) -> None:
    own.put(f"{PREFIX}1", "10.0.0.1:80")
    found = discovery(own.url)
    async with nothing_left_on_loop():
        async with watching(found) as sets:
            before = await anext(sets)
            waiting = asyncio.create_task(anext(sets))
            await asyncio.to_thread(own.program.kill)
            with pytest.raises(DiscoveryError, match=str(own.port)) as cut:
                await waiting
        await asyncio.to_thread(own.restart)
        async with watching(found) as sets:
            same = await anext(sets)
            own.put(f"{PREFIX}2", "10.0.0.2:80")
            after = await anext(sets)

    assert cut.value.reason == "etcd_unreachable"
    assert same is before
    assert texts(after) == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_a_user_may_read_and_is_known_again_after_its_token_is_lost(
    own: Etcd, only_by_watch: None
) -> None:
    """etcd's simple tokens are forgotten after five minutes, and by a restart: 401."""
    own.put(f"{PREFIX}1", "10.0.0.1:80")
    own.demand_users("reader", PASSWORD, prefix=PREFIX, end="/services/payments0")
    found = discovery(own.url, username="reader", password=PASSWORD)
    async with watching(found) as sets:
        before = await anext(sets)
    await asyncio.to_thread(own.program.kill)
    await asyncio.to_thread(own.restart)
    root = own.call("auth/authenticate", {"name": "root", "password": "r00t"})["token"]
    value = {"key": encoded(f"{PREFIX}2"), "value": encoded("10.0.0.2:80")}
    async with watching(found) as sets:
        again = await anext(sets)
        waiting = asyncio.create_task(anext(sets))
        await asyncio.to_thread(own.call, "kv/put", value, token=root)
        after = await waiting

    assert again is before
    assert texts(after) == ["10.0.0.1:80", "10.0.0.2:80"], "the watch has the new token, too"


async def test_who_may_not_read_is_told_so_without_the_password(own: Etcd) -> None:
    own.demand_users("reader", PASSWORD, prefix=PREFIX, end="/services/payments0")

    wrong = await failure(discovery(own.url, username="reader", password="guessed"))
    elsewhere = await failure(
        discovery(own.url, username="reader", password=PASSWORD, prefix="/other/")
    )
    nobody = await failure(discovery(own.url))

    assert (wrong.reason, elsewhere.reason) == ("etcd_forbidden", "etcd_forbidden")
    assert "reader" in wrong.message
    assert "guessed" not in wrong.message
    assert "permission denied" in elsewhere.message
    assert nobody.reason == "etcd_failed"
    assert "user name is empty" in nobody.message


async def test_a_cluster_may_begin_to_demand_users_under_those_who_have_a_name(own: Etcd) -> None:
    """Until then it refuses to give tokens: `authentication is not enabled`."""
    own.put(f"{PREFIX}1", "10.0.0.1:80")
    found = discovery(own.url, username="reader", password=PASSWORD)
    before = await first(found)
    own.demand_users("reader", PASSWORD, prefix=PREFIX, end="/services/payments0")

    assert await first(found) is before


async def test_over_tls_the_server_must_be_who_the_ca_says(tmp_path: Path) -> None:
    authority, stranger = Authority(), tmp_path / "stranger.crt"
    folder = authority.issue(ips=["127.0.0.1"]).write(tmp_path / "tls", authority.pem)
    stranger.write_bytes(Authority().pem)
    with Etcd(tmp_path / "etcd", tls=folder) as server:
        server.put(f"{PREFIX}1", "10.0.0.1:80")
        endpoints = await first(discovery(server.url, ca_file=folder / "ca.crt"))
        refused = [
            await failure(discovery(server.url, ca_file=stranger)),
            await failure(discovery(server.url)),
            await failure(discovery(f"https://localhost:{server.port}", ca_file=folder / "ca.crt")),
        ]

    assert texts(endpoints) == ["10.0.0.1:80"]
    assert {error.reason for error in refused} == {"etcd_untrusted"}


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    port = reserve_port()

    error = await failure(discovery(f"http://127.0.0.1:{port}"))

    assert error.reason == "etcd_unreachable"
    assert f"127.0.0.1:{port}" in error.message


def test_the_kind_etcd_is_built_and_names_no_secret() -> None:
    settings = EtcdDiscovery((NOBODY,), PREFIX, "reader", PASSWORD)

    built = kinds.make(DiscoveryConfig("etcd", settings), random.Random(1))

    assert isinstance(built, FromEtcd)
    assert repr(built) == f"FromEtcd({PREFIX}, {NOBODY})"


# --- values and keys


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        (b"10.0.0.1:80", Endpoint(Address("10.0.0.1", 80))),
        (b"[fd00::1]:80\n", Endpoint(Address("fd00::1", 80))),
        (b' {"address": "10.0.0.1:80"}', Endpoint(Address("10.0.0.1", 80))),
        (
            b'{"address": "10.0.0.1:80", "zone": null, "id": 7}',
            Endpoint(Address("10.0.0.1", 80)),
        ),
    ],
)
def test_a_value_is_an_address_or_an_object(value: bytes, endpoint: Endpoint) -> None:
    """config.md, kind etcd; what is unknown is for others."""
    assert parse(value) == endpoint


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"10.0.0.1",
        b"10.0.0.1:0",
        b"0.0.0.0:80",
        b"localhost:80",
        b"unix:/run/docker.sock",
        b"db.example.org:80",
        b"{",
        b"{}",
        b'["10.0.0.1:80"]',
        b'{"address": 7}',
        b'{"address": "10.0.0.1:80", "weight": 0}',
        b'{"address": "10.0.0.1:80", "weight": "3"}',
        b'{"address": "10.0.0.1:80", "weight": true}',
        b'{"address": "10.0.0.1:80", "priority": 101}',
        b'{"address": "10.0.0.1:80", "zone": "\\u001b[31m"}',
    ],
)
def test_anything_else_is_malformed(value: bytes) -> None:
    """Neither a name, nor a socket of this machine."""
    with pytest.raises(ValueError):  # noqa: PT011  # each has its own words
        parse(value)


@pytest.mark.parametrize(
    ("prefix", "first_key", "end"),
    [
        (b"/a/", b"/a/", b"/a0"),
        (b"a\xff", b"a\xff", b"b"),
        (b"\xff\xff", b"\xff\xff", b"\0"),
        (b"", b"\0", b"\0"),
    ],
)
def test_the_range_of_a_prefix_ends_before_the_next(
    prefix: bytes, first_key: bytes, end: bytes
) -> None:
    """etcd, RangeRequest.range_end: the last byte plus one; a zero byte is everything from the key on."""
    assert bounds(prefix) == (first_key, end)


# --- over scripted answers


class Pieces(httpx.AsyncByteStream):
    """A body that comes in these pieces, then ends, or stays open and silent."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self._pieces = pieces
        self._ends = ends

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield piece
        if not self._ends:
            await asyncio.Event().wait()


SILENT = Pieces(ends=False)


class Script:
    """An etcd without a socket: every watch is `watch`, every range the next of `pages`, the last one for ever."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *pages: bytes, watch: Pieces = SILENT
    ) -> None:
        self.ranges: list[tuple[float, dict[str, Any]]] = []
        self.watches: list[dict[str, Any]] = []
        self.hosts: list[str] = []
        self.hung: set[str] = set()
        self._pages = list(pages) or [page()]
        self._watch = watch
        transport = httpx.MockTransport(self._answer)
        monkeypatch.setattr(
            web,
            "client",
            lambda url, **_: httpx.AsyncClient(base_url=url, transport=transport, trust_env=False),
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v3/watch":
            self.watches.append(json.loads(request.content)["create_request"])
            return httpx.Response(200, stream=self._watch)
        if request.url.path == "/v3/auth/authenticate":
            return httpx.Response(200, stream=Pieces(b'{"token": "two\\nlines"}'))
        self.hosts.append(request.url.host)
        if request.url.host in self.hung:
            await asyncio.Event().wait()
        self.ranges.append((asyncio.get_running_loop().time(), json.loads(request.content)))
        answer = self._pages.pop(0) if len(self._pages) > 1 else self._pages[0]
        return httpx.Response(200, stream=Pieces(answer))


def page(*values: str, revision: int = 7, more: bool = False) -> bytes:
    kvs = [
        {"key": encoded(f"{PREFIX}{number}"), "value": encoded(value)}
        for number, value in enumerate(values)
    ]
    answer: dict[str, Any] = {"header": {"revision": str(revision)}}
    if kvs:
        answer["kvs"] = kvs
    if more:
        answer["more"] = True
    return json.dumps(answer).encode()


async def take(count: int) -> None:
    async with watching(discovery("http://etcd.test")) as sets:
        for _ in range(count):
            await anext(sets)


def pause_s(script: Script) -> float:
    """Give the seconds between the first two ranges."""
    return script.ranges[1][0] - script.ranges[0][0]


CREATED = b'{"result":{"header":{"revision":"7"},"created":true}}\n'
PROGRESS = b'{"result":{"header":{"revision":"9"}}}\n'
EVENT = b'{"result":{"events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}\n'


@pytest.mark.parametrize(
    "pieces",
    [[], [CREATED], [CREATED, PROGRESS], [CREATED + PROGRESS], [EVENT[:-1]], [b"\n\n"]],
)
def test_a_watch_that_tells_no_change_is_looked_after_every_minute(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    """A server that is gone without a word leaves the watch silent for ever."""
    script = Script(monkeypatch, watch=Pieces(*pieces, ends=False))

    virtual_time(take)(2)

    assert script.watches[0]["start_revision"] == "8", "the one after the range"
    assert 60 <= pause_s(script) <= 70


@pytest.mark.parametrize(
    "pieces",
    [
        [CREATED, EVENT],
        [bytes([byte]) for byte in CREATED + EVENT],
        [CREATED + PROGRESS + EVENT],
        [CREATED, b'{"result":{"canceled":true,"compact_revision":"9"}}\n'],
        [b'{"error":{"grpc_code":14,"message":"no leader"}}\n'],
        [b"\xff\n"],
        [b"[" * 100_000 + b"\n"],
        [b"x" * (5 << 20)],
    ],
)
def test_whatever_else_a_watch_says_makes_us_look_after_a_second(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    script = Script(monkeypatch, watch=Pieces(*pieces, ends=False))

    virtual_time(take)(2)

    assert 1 <= pause_s(script) <= 2


def test_a_watch_that_ends_at_once_costs_one_range_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch, watch=Pieces())

    virtual_time(take)(10)

    assert 9 <= script.ranges[-1][0] - script.ranges[0][0] <= 11


def test_all_pages_are_asked_at_the_revision_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that moves between two pages would be found twice, or not at all."""
    script = Script(
        monkeypatch,
        page("10.0.0.1:80", more=True),
        page("10.0.0.2:80", revision=8, more=True),
        page("10.0.0.3:80", revision=9),
    )

    virtual_time(take)(1)

    questions = [question for _, question in script.ranges]
    assert [question["revision"] for question in questions] == [0, 7, 7]
    assert base64.b64decode(questions[1]["key"]) == f"{PREFIX}0\0".encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"header": {"revision": "soon"}}',
        b'{"header": {"revision": "7"}, "kvs": {}}',
        b'{"header": {"revision": "7"}, "kvs": [{"key": 1}]}',
        b'{"header": {"revision": "7"}, "kvs": [{"key": "YQ==", "value": "?"}]}',
        b'{"header": {"revision": "7"}, "kvs": [{"key": "?", "value": "YQ=="}]}',
        b'{"header": {"revision": "7"}, "kvs": [{"key": "?"}], "more": true}',
        b'{"header": {"revision": "7"}, "more": true}',
        b'{"x":' * 100_000,
    ],
)
def test_an_answer_that_is_not_of_etcd_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """Whatever is wrong is a sentence, never a traceback."""
    Script(monkeypatch, answer)

    @virtual_time
    async def run() -> None:
        error = await failure(discovery("http://etcd.test"))

        assert error.reason == "etcd_malformed"
        assert error.message.isprintable()

    run()


def test_a_token_that_no_header_can_carry_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx would refuse it with the token in its words."""
    script = Script(monkeypatch)

    @virtual_time
    async def run() -> None:
        found = discovery("http://etcd.test", username="reader", password=PASSWORD)
        error = await failure(found)

        assert error.reason == "etcd_malformed"
        assert "two" not in error.message
        assert not script.hosts

    run()


def test_pages_without_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, page("10.0.0.1:80", more=True))

    @virtual_time
    async def run() -> None:
        assert (await failure(discovery("http://etcd.test"))).reason == "etcd_too_large"

    run()


def test_a_server_that_hangs_is_given_up_and_the_next_one_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch, page("10.0.0.1:80"))
    script.hung = {"a.test"}

    @virtual_time
    async def run() -> None:
        endpoints = await first(discovery("http://a.test", "http://b.test"))
        error = await failure(discovery("http://a.test"))

        assert texts(endpoints) == ["10.0.0.1:80"]
        assert error.reason == "etcd_timeout"
        assert script.hosts == ["a.test", "b.test", "a.test"]

    run()
