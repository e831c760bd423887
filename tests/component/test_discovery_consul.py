"""Discovery from Consul: against a strict fake of its health API, and over scripted answers in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import httpx
import pytest

from ambassador.config.model import ConsulDiscovery, DiscoveryConfig
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import consul, kinds, web
from ambassador.discovery.consul import FromConsul
from tests.support.fake_consul import FakeConsul, instance
from tests.support.invariants import nothing_left_on_loop
from tests.support.peers import response
from tests.support.virtual_time import virtual_time
from tests.support.waiting import eventually_async

Sets = AsyncGenerator[tuple[Endpoint, ...], None]
TOKEN = "0b1c-secret"
ONE, TWO = instance("10.0.0.1", 8443), instance("10.0.0.2", 8443)


@pytest.fixture
def fake() -> Iterator[FakeConsul]:
    with FakeConsul() as server:
        yield server


def discovery(address: str, **settings: Any) -> FromConsul:
    return FromConsul(
        ConsulDiscovery("payments", address, **settings),
        chance=random.Random(1),  # repeatable
    )


def watching(found: FromConsul) -> Any:
    sets: Any = found.watch()
    return aclosing(sets)


async def first(found: FromConsul) -> tuple[Endpoint, ...]:
    async with watching(found) as sets:
        return await anext(sets)


async def failure(found: FromConsul) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as raised:
        await first(found)
    return raised.value


def hosts(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.address.host for endpoint in endpoints]


# --- against the fake


async def test_a_fake_consul_gives_address_port_weight_and_zone(fake: FakeConsul) -> None:
    """Consul's documentation, "List nodes for service": Service.Address is empty where the node's counts."""
    on_node = instance("", 81, node="fd00::7", Weights={"Passing": 7, "Warning": 1})
    on_node["Node"]["Meta"] = {"zone": "b"}
    own = instance("10.0.0.1", 80, Meta={"zone": "a"})
    own["Node"]["Meta"] = {"zone": "b"}
    fake.register("payments", own, on_node)

    async with nothing_left_on_loop():
        endpoints = await first(discovery(fake.address))

    assert endpoints == (
        Endpoint(Address("10.0.0.1", 80), 1, "a"),
        Endpoint(Address("fd00::7", 81), 7, "b"),
    )


@pytest.mark.parametrize(
    ("weights", "weight"),
    [(None, 1), ({"Passing": 0}, 1), ({}, 1), ({"Passing": 3}, 3), ({"Passing": 9**9}, 1_000_000)],
)
async def test_a_fake_consul_cannot_give_a_weight_that_balancing_does_not_know(
    fake: FakeConsul, weights: Any, weight: int
) -> None:
    fake.register("payments", instance("10.0.0.1", 80, Weights=weights))

    assert [endpoint.weight for endpoint in await first(discovery(fake.address))] == [weight]


async def test_only_what_the_fake_consul_calls_passing_and_tagged_is_found(
    fake: FakeConsul,
) -> None:
    fake.register(
        "payments",
        instance("10.0.0.1", 80, tags=("v1",)),
        instance("10.0.0.2", 80, tags=("v2",)),
        instance("10.0.0.3", 80, tags=("v1",), check="critical"),
    )

    tagged = await first(discovery(fake.address, tag="v1", datacenter="dc1"))
    every = await first(discovery(fake.address))

    assert (hosts(tagged), hosts(every)) == (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"])
    assert fake.queries[0] == {"passing": "1", "dc": "dc1", "tag": "v1"}


async def test_a_change_answers_the_query_that_blocks_at_the_fake_consul(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consul's documentation, "Blocking queries"."""
    monkeypatch.setattr(consul, "LEAST_INTERVAL_S", 0.0)
    fake.register("payments", ONE)
    async with watching(discovery(fake.address)) as sets:
        before = await anext(sets)
        waiting = asyncio.create_task(anext(sets))
        await eventually_async(lambda: len(fake.queries) == 2, "the query that blocks")
        fake.register("payments", ONE, TWO)
        after = await waiting

    assert (hosts(before), hosts(after)) == (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"])
    assert fake.queries[1] == {"passing": "1", "index": "11", "wait": "300s"}


async def test_an_answer_of_the_fake_consul_without_a_change_is_the_same_object(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A return is no guarantee of a change; also over the end of a watch."""
    monkeypatch.setattr(consul, "LEAST_INTERVAL_S", 0.0)
    fake.register("payments", ONE)
    found = discovery(fake.address)
    async with watching(found) as sets:
        before = await anext(sets)
        fake.touch()
        after = await anext(sets)

    assert after is before
    assert await first(found) is before


async def test_a_service_that_the_fake_consul_does_not_know_has_no_endpoints(
    fake: FakeConsul,
) -> None:
    assert await first(discovery(fake.address)) == ()


async def test_a_name_with_odd_characters_reaches_the_fake_consul_whole(fake: FakeConsul) -> None:
    fake.register("a/b?c=d&e", ONE)
    settings = ConsulDiscovery("a/b?c=d&e", fake.address)

    assert hosts(await first(FromConsul(settings, chance=random.Random(1)))) == ["10.0.0.1"]


async def test_a_token_opens_the_fake_consul_and_a_wrong_one_is_said() -> None:
    with FakeConsul(token=TOKEN) as fake:
        fake.register("payments", ONE)
        endpoints = await first(discovery(fake.address, token=TOKEN))
        wrong = await failure(discovery(fake.address, token="guessed"))

    assert hosts(endpoints) == ["10.0.0.1"]
    assert wrong.reason == "consul_forbidden"
    assert "ACL not found" in wrong.message
    assert "guessed" not in wrong.message


async def test_an_empty_list_is_not_believed_when_the_fake_consul_hid_the_rest() -> None:
    """A token without service:read gets 200 and []; X-Consul-Results-Filtered-By-ACLs tells."""
    with FakeConsul(token=TOKEN) as fake:
        fake.register("payments", ONE)

        error = await failure(discovery(fake.address, token=fake.blind_token))

    assert error.reason == "consul_forbidden"


async def test_names_and_missing_ports_are_left_out_of_what_the_fake_consul_says(
    fake: FakeConsul,
) -> None:
    fake.register("payments", instance("db.example.org", 80), instance("10.0.0.9", 0), ONE)

    assert hosts(await first(discovery(fake.address))) == ["10.0.0.1"]


@pytest.mark.parametrize("other", [instance("db.example.org", 80), instance("10.0.0.9", 0)])
async def test_a_fake_consul_that_has_no_address_to_dial_is_an_error(
    fake: FakeConsul, other: dict[str, Any]
) -> None:
    """An empty set would mean that the service is gone."""
    fake.register("payments", other)

    error = await failure(discovery(fake.address))

    assert error.reason == "consul_no_address"
    assert f"{other['Service']['Address']}:{other['Service']['Port']}" in error.message


async def test_a_fake_consul_that_does_not_know_the_datacenter_is_an_error(
    fake: FakeConsul,
) -> None:
    error = await failure(discovery(fake.address, datacenter="elsewhere"))

    assert error.reason == "consul_failed"
    assert "No path to datacenter" in error.message


async def test_a_fake_consul_that_is_killed_fails_the_watch_and_the_next_one_goes_on(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "LEAST_INTERVAL_S", 0.0)
    fake.register("payments", ONE)
    found = discovery(fake.address)
    async with nothing_left_on_loop():
        async with watching(found) as sets:
            before = await anext(sets)
            waiting = asyncio.create_task(anext(sets))
            await eventually_async(lambda: len(fake.queries) == 2, "the query that blocks")
            await asyncio.to_thread(fake.kill)
            with pytest.raises(DiscoveryError, match=str(fake.port)) as cut:
                await waiting
        refused = await failure(found)
        fake.start()
        after = await first(found)

    assert cut.value.reason == refused.reason == "consul_unreachable"
    assert after is before


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", ["X-Consul-Index: 1"]),
        (b"[{]", ["X-Consul-Index: 1"]),
        (b"\xff", ["X-Consul-Index: 1"]),
        (b"{}", ["X-Consul-Index: 1"]),
        (b"null", ["X-Consul-Index: 1"]),
        (b"[1]", ["X-Consul-Index: 1"]),
        (b'[{"Node": {}}]', ["X-Consul-Index: 1"]),
        (b'[{"Node": {}, "Service": {"Port": "80"}}]', ["X-Consul-Index: 1"]),
        (b'[{"Node": {}, "Service": {"Port": 80, "Meta": {"zone": 1}}}]', ["X-Consul-Index: 1"]),
        (b'[{"x":' * 100_000, ["X-Consul-Index: 1"]),
        (b"[]", []),
        (b"[]", ["X-Consul-Index: soon"]),
        (b"[]", ["X-Consul-Index: -1"]),
        (b"[]", ["X-Consul-Index: " + "9" * 5000]),
    ],
)
async def test_a_fake_consul_that_answers_nonsense_is_not_believed(
    fake: FakeConsul, body: bytes, lines: list[str]
) -> None:
    """Whatever is wrong is a sentence, never a traceback."""
    fake.lies.append(response(body, "200 OK", *lines))

    assert (await failure(discovery(fake.address))).reason == "consul_malformed"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (response(b"\x1b[31mred", "500 Oh"), "consul_failed"),
        (response(b"", "301 Moved", "Location: /v1/health/service/payments"), "consul_failed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "consul_unreachable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "consul_unreachable"),
    ],
)
async def test_a_fake_consul_that_answers_otherwise_is_told_in_printable_words(
    fake: FakeConsul, lie: bytes, reason: str
) -> None:
    fake.lies.append(lie)
    waiting = asyncio.create_task(failure(discovery(fake.address)))
    await eventually_async(lambda: not fake.lies, "the lie")
    if reason == "consul_unreachable":
        await asyncio.to_thread(fake.kill)

    error = await waiting

    assert error.reason == reason
    assert error.message.isprintable()
    assert len(fake.queries) == 1, "a redirect is not followed"


async def test_a_fake_consul_that_answers_without_end_is_cut_off(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "_MOST_BYTES", 1000)
    fake.register("payments", *[ONE] * 100)

    assert (await failure(discovery(fake.address))).reason == "consul_too_large"


async def test_the_environment_leads_nobody_past_the_fake_consul(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment would see the token."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake.register("payments", ONE)

    assert hosts(await first(discovery(fake.address))) == ["10.0.0.1"]


@pytest.mark.parametrize("token", ["two\nlines", "schlüssel"])
async def test_a_token_that_no_header_can_carry_is_said_without_it(token: str) -> None:
    found = discovery("http://127.0.0.1:1", token=token)

    error = await failure(found)

    assert error.reason == "consul_forbidden"
    assert token not in error.message
    assert token not in repr(found)


def test_the_kind_consul_is_built_and_names_no_secret() -> None:
    settings = ConsulDiscovery("payments", token=TOKEN)

    built = kinds.make(DiscoveryConfig("consul", settings), random.Random(1))

    assert isinstance(built, FromConsul)
    assert repr(built) == "FromConsul(payments, http://127.0.0.1:8500)"


# --- over scripted answers


class Script:
    """Answers in turn, without a socket: (index, hosts) each, or None for no answer at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, list[str]] | None):
        self.asked: list[tuple[float, str | None]] = []
        self._answers = list(answers)
        transport = httpx.MockTransport(self._answer)
        monkeypatch.setattr(
            web,
            "client",
            lambda url, **_: httpx.AsyncClient(base_url=url, transport=transport, trust_env=False),
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((asyncio.get_running_loop().time(), request.url.params.get("index")))
        answer = self._answers.pop(0)
        if answer is None:
            await asyncio.Event().wait()
            raise AssertionError("nothing wakes it")
        index, found = answer
        body = json.dumps([instance(host, 80) for host in found]).encode()
        return httpx.Response(200, headers={"X-Consul-Index": str(index)}, stream=Pieces(body))


class Pieces(httpx.AsyncByteStream):
    """A body in two pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> Any:
        yield self._body[:5]
        yield self._body[5:]


async def take(script: Script, count: int) -> list[list[str]]:
    async with watching(discovery("http://consul.test")) as sets:
        found = [hosts(await anext(sets)) for _ in range(count)]
    assert len(script.asked) == count
    return found


def test_an_index_that_goes_back_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consul's documentation, "Blocking queries": reset the index if it goes backwards."""
    script = Script(monkeypatch, (7, ["10.0.0.1"]), (3, ["10.0.0.2"]), (3, ["10.0.0.3"]), (3, []))

    virtual_time(take)(script, 4)

    assert [index for _, index in script.asked] == [None, "7", None, "3"]


def test_an_index_of_zero_is_waited_for_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same: a query with 0 never blocks."""
    script = Script(monkeypatch, (0, []), (0, []), (5, []))

    virtual_time(take)(script, 3)

    assert [index for _, index in script.asked] == [None, "1", "1"]


def test_a_server_that_answers_at_once_is_asked_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same: clients must limit their rate."""
    script = Script(monkeypatch, *[(index, []) for index in range(1, 21)])

    virtual_time(take)(script, 20)

    times = [time for time, _ in script.asked]
    pauses = [after - before for before, after in pairwise(times)]
    assert all(1.0 <= pause <= 1.2 for pause in pauses)


@pytest.mark.parametrize(("before", "within_s"), [([], 10), ([(7, [])], 300 * 17 / 16 + 10)])
def test_an_agent_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, before: list[Any], within_s: float
) -> None:
    """The server adds up to a sixteenth to the wait; a query without an index does not block."""
    script = Script(monkeypatch, *before, None)

    @virtual_time
    async def run() -> None:
        async with watching(discovery("http://consul.test")) as sets:
            for _ in before:
                await anext(sets)
            with pytest.raises(DiscoveryError) as raised:
                await anext(sets)
        waited_s = asyncio.get_running_loop().time() - script.asked[-1][0]

        assert raised.value.reason == "consul_timeout"
        assert waited_s == pytest.approx(within_s, abs=0.5)

    run()
