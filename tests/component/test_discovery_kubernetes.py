"""EndpointSlices, listed and watched at a fake API server over real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ambassador.config.model import DiscoveryConfig, KubernetesDiscovery
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Endpoint
from ambassador.discovery import keeper, kinds, kubernetes, web
from ambassador.discovery.kubernetes import FromKubernetes
from tests.support.certificates import Authority, server_context
from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.fake_kubernetes_rules import Refusal
from tests.support.peers import App, response
from tests.support.waiting import eventually_async

A, B, C = "10.0.0.1:8443", "10.0.0.2:8443", "10.0.0.3:8443"
PORTS: dict[str, int | None] = {"mtls": 8443}
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between rounds, shortened."""
    monkeypatch.setattr(kubernetes, "_LEAST_PAUSE_S", 0.01)
    monkeypatch.setattr(kubernetes, "_PAUSE_BASE_S", 0.01)


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path / "server", authority) as running:
        running.grant("reader", "get", "list", "watch")
        running.use_token("reader")
        yield running


def backend(server: FakeKubernetes, *, zone: str = "", **settings: Any) -> FromKubernetes:
    given = {
        "service": "payments", "namespace": "shop", "port": "mtls", "api_server": server.url,
        "token_file": server.token_file, "ca_file": server.ca_file, **settings,
    }  # fmt: skip
    return FromKubernetes(KubernetesDiscovery(**given), zone=zone, chance=random.Random(1))


class Watched:
    """What a backend gave, called again after each error as the keeper does."""

    def __init__(self, found: FromKubernetes) -> None:
        self.found = found
        self.sets: list[tuple[Endpoint, ...]] = []
        self.errors: list[DiscoveryError] = []

    async def run(self) -> None:
        while True:
            try:
                async for endpoints in self.found.watch():
                    self.sets.append(endpoints)
            except DiscoveryError as error:
                self.errors.append(error)
            await asyncio.sleep(0.02)

    @property
    def addresses(self) -> set[str]:
        return {str(each) for each in self.sets[-1]} if self.sets else set()

    async def until(self, *addresses: str) -> None:
        await eventually_async(
            lambda: self.addresses == set(addresses), f"{addresses}: {self.sets}"
        )

    async def until_accepted(self) -> None:
        """Wait for what a list and the beginning of its watch give."""
        await eventually_async(lambda: len(self.sets) == 2, "list and watch")

    async def until_error(self, reason: str) -> DiscoveryError:
        await eventually_async(lambda: self.errors, reason)
        assert self.errors[0].reason == reason, self.errors
        return self.errors[0]


@asynccontextmanager
async def watching(found: FromKubernetes) -> AsyncIterator[Watched]:
    watched = Watched(found)
    task = asyncio.create_task(watched.run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task


async def first(found: FromKubernetes) -> list[Endpoint]:
    """Give the first set, sorted by address."""
    async for endpoints in found.watch():
        return sorted(endpoints, key=str)
    raise AssertionError("it ended")


async def failure(found: FromKubernetes) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        await first(found)
    return caught.value


async def until_watched(server: FakeKubernetes) -> None:
    await eventually_async(lambda: server.watches, "a watch")


# --- lists


async def test_all_slices_of_the_service_count_and_each_address_once(
    server: FakeKubernetes,
) -> None:
    """kubernetes.io, EndpointSlices, "Duplicate endpoints": consumers have to merge."""
    server.put("payments-a", "payments", ["10.0.0.1", "10.0.0.2"], ports=PORTS)
    server.put("payments-b", "payments", ["10.0.0.2", "10.0.0.3"], ports=PORTS)
    server.put("ledger-a", "ledger", ["10.0.0.9"], ports=PORTS)

    found = await first(backend(server))

    assert [str(each) for each in found] == [A, B, C]


async def test_an_address_that_one_slice_calls_ready_is_ready(server: FakeKubernetes) -> None:
    """While an endpoint moves between slices, the old one may say what is no longer so."""
    stale = {"addresses": ["10.0.0.1"], "conditions": {"ready": False}}
    server.put("payments-a", "payments", places=[stale], ports=PORTS)
    server.put("payments-b", "payments", ["10.0.0.1"], ports=PORTS)

    assert [str(each) for each in await first(backend(server))] == [A]


async def test_a_list_is_read_to_its_last_page(server: FakeKubernetes) -> None:
    server.pages = 2
    for number in range(1, 6):
        server.put(f"payments-{number}", "payments", [f"10.0.0.{number}"], ports=PORTS)

    found = await first(backend(server))

    assert len(found) == 5
    assert len(server.asked("limit=500", "continue=")) == 2


async def test_a_list_whose_pages_are_forgotten_half_way_begins_anew(
    server: FakeKubernetes,
) -> None:
    """410 for a continue token: "start a new list without it"."""
    server.pages = 1
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
    server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)
    tokens = []

    def compact(target: str) -> None:
        if "continue=" in target and not tokens:
            tokens.append(target)
            server.compact()

    server.before = compact

    found = await first(backend(server))

    assert [str(each) for each in found] == [A, B]
    assert tokens


async def test_an_empty_service_is_an_empty_set(server: FakeKubernetes) -> None:
    """The controller leaves a slice without endpoints and ports for it."""
    server.put("payments-a", "payments")

    assert await first(backend(server)) == []


# --- watches


async def test_changes_arrive_by_the_watch_without_a_second_list(server: FakeKubernetes) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A)
        server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)
        await watched.until(A, B)
        server.put("payments-b", "payments", ["10.0.0.3"], ports=PORTS)
        await watched.until(A, C)
        server.remove("payments-a")
        await watched.until(C)
        server.relabel("payments-b", "ledger")
        await watched.until()

    assert len(server.asked("limit=500")) == 1
    assert watched.errors == []


async def test_a_watch_that_ends_goes_on_from_the_last_version(server: FakeKubernetes) -> None:
    """kubernetes.io, "Efficient detection of changes": nothing is missed, and nothing is listed again."""
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A)
        await until_watched(server)
        server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)
        await watched.until(A, B)
        version = server.version
        server.end_watches()
        await eventually_async(lambda: server.asked("watch=1", f"resourceVersion={version}"))
        server.put("payments-c", "payments", ["10.0.0.3"], ports=PORTS)
        await watched.until(A, B, C)

    assert len(server.asked("limit=500")) == 1


async def test_a_bookmark_moves_the_version_on_and_gives_the_same_set(
    server: FakeKubernetes,
) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await until_watched(server)
        server.put(
            "ledger-a", "ledger", ["10.0.0.9"]
        )  # moves the server's version, and says nothing to us
        count = len(watched.sets)
        server.bookmark()
        await eventually_async(lambda: len(watched.sets) > count, "a set")
        server.end_watches()
        await eventually_async(
            lambda: server.asked("watch=1", f"resourceVersion={server.version}"), "the version"
        )

    assert len({id(endpoints) for endpoints in watched.sets}) == 1


async def test_a_slice_that_changes_nothing_gives_the_same_set(server: FakeKubernetes) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until_accepted()
        server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
        await eventually_async(lambda: len(watched.sets) > 2, "a set")

    assert len({id(endpoints) for endpoints in watched.sets}) == 1


@pytest.mark.parametrize("gone_by", ["event", "status"])
async def test_a_forgotten_version_means_a_new_list_and_takes_nothing_away(
    server: FakeKubernetes, gone_by: str
) -> None:
    """410 Gone, as HTTP status or as ERROR event."""
    server.gone_by = gone_by
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A)
        await until_watched(server)
        server.put("ledger-a", "ledger", ["10.0.0.9"])
        server.compact()
        server.end_watches()
        await eventually_async(lambda: len(server.asked("limit=500")) == 2, "a second list")
        server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)
        await watched.until(A, B)

    assert watched.errors == []
    assert all(A in map(str, endpoints) for endpoints in watched.sets)


async def test_what_went_away_while_the_version_was_forgotten_is_gone(
    server: FakeKubernetes,
) -> None:
    """No DELETED event will ever tell: the new list replaces all."""
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
    server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A, B)
        await until_watched(server)
        server.kill()
        await watched.until_error("kubernetes_unreachable")
        server.remove("payments-a")
        server.compact()
        server.restart()
        await watched.until(B)


async def test_a_server_that_is_killed_and_comes_back_is_asked_again(
    server: FakeKubernetes,
) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A)
        await until_watched(server)
        server.kill()
        await watched.until_error("kubernetes_unreachable")
        server.put("payments-a", "payments", ["10.0.0.2"], ports=PORTS)
        server.restart()
        await watched.until(B)

    assert set(map(len, watched.sets)) == {1}


async def test_a_watch_that_falls_silent_is_dead(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server ends a watch after timeoutSeconds at the latest; a firewall that forgot us ends nothing."""
    monkeypatch.setattr(kubernetes, "WATCH_S", 1.0)
    monkeypatch.setattr(kubernetes, "MARGIN_S", -0.5)
    server.silent = True

    async with watching(backend(server)) as watched:
        await watched.until_error("kubernetes_timeout")

    server.silent = False
    assert server.asked("timeoutSeconds=1", "allowWatchBookmarks=true")


async def test_a_watch_that_ends_in_time_is_no_error(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "WATCH_S", 1.0)

    async with watching(backend(server)) as watched:
        await eventually_async(lambda: len(server.asked("watch=1")) >= 2, "a second watch")

    assert watched.errors == []


async def test_who_stops_listening_leaves_no_watch_behind(server: FakeKubernetes) -> None:
    async with watching(backend(server)):
        await until_watched(server)

    await eventually_async(lambda: _ends_watches(server), "the end")


async def test_a_set_that_the_keeper_refuses_leaves_no_watch_behind(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper leaves the watch with an error, and begins another; a fleet must not gather dead ones."""
    monkeypatch.setattr(keeper, "LEAST_PAUSE_S", 0.01)
    monkeypatch.setattr(keeper, "PAUSE_BASE_S", 0.01)
    heard = Heard()
    config = DiscoveryConfig("kubernetes", KubernetesDiscovery("payments"), max_endpoints=1)
    kept = keeper.Keeper(
        "payments", config, backend(server), events=heard, wall=lambda: 0.0, chance=random.Random(1)
    )
    task = asyncio.create_task(kept.run())
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
    await until_watched(server)
    server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)
    await eventually_async(lambda: heard.reasons, "a refusal")
    await eventually_async(
        lambda: _ends_watches(server), "the end of the watch"
    )  # lists are refused from here on
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert heard.reasons == {"too_many_endpoints"}


def _ends_watches(server: FakeKubernetes) -> bool:
    """A server sees that a peer is gone when it says something."""
    server.bookmark()
    return server.watches == 0


class Heard:
    """What a keeper reported."""

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def endpoints_changed(self, service: str, endpoints: tuple[Endpoint, ...]) -> None:
        """Not looked at."""

    def endpoints_kept(self, service: str, reason: str, detail: str) -> None:
        self.reasons.add(reason)

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None:
        """Not looked at."""


async def test_pauses_grow_while_watches_bring_nothing_and_not_otherwise(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def pause(attempt: int, **_: float) -> float:
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr(kubernetes, "pause_s", pause)
    server.grant("lister", "list")
    server.use_token("lister")
    async with watching(backend(server)) as watched:
        await eventually_async(lambda: len(attempts) >= 4, "rounds")
        fruitless = attempts[:4]
        server.use_token("reader")
        await until_watched(server)
        server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
        await watched.until(A)
        count = len(attempts)
        server.end_watches()
        await eventually_async(lambda: len(attempts) > count, "the next round")

    assert fruitless == [1, 2, 3, 4]
    assert attempts[count] == 0


async def test_many_changes_at_once_are_few_sets(server: FakeKubernetes) -> None:
    """A set is built for a burst, not for each of its events."""
    async with watching(backend(server)) as watched:
        await until_watched(server)
        with server.changed:  # the watch reads when we let go
            for number in range(1, 201):
                server.put(f"payments-{number}", "payments", [f"10.0.1.{number}"], ports=PORTS)
        await eventually_async(lambda: len(watched.addresses) == 200, "all of them")

    assert len(watched.sets) < 200


# --- what slices mean


def place(host: str, **more: Any) -> Json:
    return {"addresses": [host], **more}


def conditions(**given: bool | None) -> Json:
    return {"conditions": given}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([place("10.0.0.1", **conditions(ready=None))], [A]),
        ([place("10.0.0.1", **conditions())], [A]),
        ([place("10.0.0.1", **conditions(ready=False))], []),
        ([place("10.0.0.1", **conditions(ready=False, serving=True))], []),
        ([place("10.0.0.1", **conditions(ready=False, serving=True, terminating=True))], [A]),
        ([place("10.0.0.1", **conditions(ready=False, serving=False, terminating=True))], []),
        ([place("10.0.0.1", **conditions(ready=False, serving=None, terminating=True))], []),
        ([place("10.0.0.1", **conditions(ready=True, serving=True, terminating=True))], [A]),
        (
            [
                place("10.0.0.1", **conditions(ready=False, serving=True, terminating=True)),
                place("10.0.0.2", **conditions(ready=True)),
            ],
            [B],
        ),
    ],
)
async def test_ready_counts_and_what_still_serves_only_when_nothing_is_ready(
    server: FakeKubernetes, places: list[Json], expected: list[str]
) -> None:
    """EndpointSlice v1, EndpointConditions: nil ready is true; serving and terminating as kube-proxy uses them."""
    server.put("payments-a", "payments", places=places, ports=PORTS)

    assert [str(each) for each in await first(backend(server))] == expected


async def test_what_ends_in_one_slice_is_not_used_while_another_has_something_ready(
    server: FakeKubernetes,
) -> None:
    ending = place("10.0.0.1", **conditions(ready=False, serving=True, terminating=True))
    server.put("payments-a", "payments", places=[ending], ports=PORTS)
    server.put("payments-b", "payments", ["10.0.0.2"], ports=PORTS)

    assert [str(each) for each in await first(backend(server))] == [B]


@pytest.mark.parametrize(
    ("ports", "wanted", "expected"),
    [
        ({"mtls": 8443}, None, 8443),
        ({"": 8443}, None, 8443),
        ({"mtls": 8443, "http": 8080}, "http", 8080),
        ({"mtls": 8443, "http": 8080}, 8080, 8080),
        ({"mtls": None}, 9000, 9000),
        ({}, 9000, 9000),
    ],
)
async def test_a_port_is_the_only_one_or_found_by_name_or_number(
    server: FakeKubernetes,
    ports: dict[str, int | None],
    wanted: str | int | None,
    expected: int,
) -> None:
    """EndpointPort: without a number the consumer decides; then only a number in the file can."""
    server.put("payments-a", "payments", ["10.0.0.1"], ports=ports)

    found = await first(backend(server, port=wanted))

    assert [each.address.port for each in found] == [expected]


@pytest.mark.parametrize(
    ("ports", "wanted", "reason", "words"),
    [
        ({"mtls": 8443, "http": 8080}, None, "kubernetes_port_ambiguous", ("mtls (8443)", "http (8080)")),
        ({"http": 8080}, "mtls", "kubernetes_no_such_port", ("mtls", "http (8080)")),
        ({"http": 8080}, 8443, "kubernetes_no_such_port", ("8443", "http (8080)")),
        ({"mtls": None}, "mtls", "kubernetes_no_such_port", ("number",)),
        ({"mtls": None}, None, "kubernetes_no_such_port", ("number",)),
        ({}, None, "kubernetes_no_such_port", ("none",)),
    ],
)  # fmt: skip
async def test_a_port_that_cannot_be_told_is_an_error_that_names_what_there_is(
    server: FakeKubernetes,
    ports: dict[str, int | None],
    wanted: str | int | None,
    reason: str,
    words: tuple[str, ...],
) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=ports)

    error = await failure(backend(server, port=wanted))

    assert error.reason == reason
    assert "payments" in error.message
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize("wanted", [None, "dns-tcp", 53])
async def test_ports_of_other_protocols_do_not_count(
    server: FakeKubernetes, wanted: str | int | None
) -> None:
    server.put(
        "payments-a",
        "payments",
        ["10.0.0.1"],
        ports={"dns-tcp": 53},
        datagram_ports={"dns": 53, "quic": 443},
    )

    assert [str(each) for each in await first(backend(server, port=wanted))] == ["10.0.0.1:53"]
    assert (await failure(backend(server, port=443))).reason == "kubernetes_no_such_port"


async def test_a_port_of_its_own_in_each_slice_is_used_there(server: FakeKubernetes) -> None:
    """A named targetPort may have another number in each Pod; those that lack it are left out."""
    server.put("payments-a", "payments", ["10.0.0.1"], ports={"mtls": 8443})
    server.put("payments-b", "payments", ["10.0.0.2"], ports={"mtls": 9443})
    server.put("payments-c", "payments", ["10.0.0.3"], ports={"http": 8080})

    found = await first(backend(server))

    assert [str(each) for each in found] == [A, "10.0.0.2:9443"]


async def test_both_families_count_and_names_do_not(server: FakeKubernetes) -> None:
    server.put("payments-4", "payments", ["10.0.0.1"], ports=PORTS)
    server.put("payments-6", "payments", ["fd00:0::1"], ports=PORTS, kind="IPv6")
    server.put("payments-n", "payments", ["pay.example.org"], ports=PORTS, kind="FQDN")

    found = await first(backend(server))

    assert [str(each) for each in found] == [A, "[fd00::1]:8443"]


async def test_the_first_of_several_addresses_of_one_endpoint_counts(
    server: FakeKubernetes,
) -> None:
    """EndpointSlice v1: they are fungible, and clients may use the first."""
    server.put(
        "payments-a", "payments", places=[{"addresses": ["10.0.0.1", "10.0.0.2"]}], ports=PORTS
    )

    assert [str(each) for each in await first(backend(server))] == [A]


@pytest.mark.parametrize(
    ("zone", "expected"), [("", ["a", "b", ""]), ("c", ["c", "b", ""]), ("b", ["a", "b", ""])]
)
async def test_a_hint_for_our_zone_makes_an_endpoint_ours(
    server: FakeKubernetes, zone: str, expected: list[str]
) -> None:
    """Topology aware routing: the hint, not the place, says who should use it."""
    hinted = {"zone": "a", "hints": {"forZones": [{"name": "a"}, {"name": "c"}]}}
    places = [place("10.0.0.1", **hinted), place("10.0.0.2", zone="b"), place("10.0.0.3")]
    server.put("payments-a", "payments", places=places, ports=PORTS)

    found = await first(backend(server, zone=zone))

    assert [each.zone for each in found] == expected


# --- who we are and who they are


async def test_the_token_is_read_anew_for_each_request(server: FakeKubernetes) -> None:
    """The kubelet rotates it about hourly."""
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await until_watched(server)
        server.grant("rotated", "get", "list", "watch")
        server.use_token("rotated")
        del server.tokens["reader"]
        server.end_watches()
        await eventually_async(lambda: server.headers[-1]["Authorization"] == "Bearer rotated")
        server.put("payments-a", "payments", ["10.0.0.2"], ports=PORTS)
        await watched.until(B)

    assert watched.errors == []


async def test_a_token_that_is_not_accepted_is_said(server: FakeKubernetes) -> None:
    server.use_token("forged")

    error = await failure(backend(server))

    assert error.reason == "kubernetes_unauthorized"
    assert "forged" not in error.message


async def test_missing_permission_is_said_with_what_is_needed(server: FakeKubernetes) -> None:
    server.grant("reader", "get")

    error = await failure(backend(server))

    assert error.reason == "kubernetes_forbidden"
    assert all(word in error.message for word in ("get", "list", "watch", "endpointslices"))
    assert "system:serviceaccount:shop:web" in error.message


async def test_permission_to_list_alone_still_gives_a_set(server: FakeKubernetes) -> None:
    server.grant("reader", "list")
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until_error("kubernetes_forbidden")

    assert watched.addresses == {A}


async def test_in_a_pod_everything_comes_from_the_pod(
    server: FakeKubernetes, authority: Authority, tmp_path: Path
) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
    pod = tmp_path / "pod"
    pod.mkdir()
    (pod / "token").write_text("reader")
    (pod / "namespace").write_text("shop")
    (pod / "ca.crt").write_bytes(authority.pem)
    environment = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT_HTTPS": str(server.port),
    }
    found = FromKubernetes(
        KubernetesDiscovery("payments"),
        zone="",
        chance=random.Random(1),
        folder=pod,
        environment=environment,
    )

    assert [str(each) for each in await first(found)] == [A]


async def test_outside_of_a_pod_the_error_names_the_keys(tmp_path: Path) -> None:
    found = FromKubernetes(
        KubernetesDiscovery("payments"), zone="", chance=random.Random(1), folder=tmp_path, environment={}
    )  # fmt: skip

    error = await failure(found)

    assert error.reason == "kubernetes_address"
    assert "api_server" in error.message


async def test_an_api_server_of_ipv6_gets_its_brackets(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "namespace").write_text("shop")
    (tmp_path / "token").write_text("t")
    with socket.socket(socket.AF_INET6) as nobody:
        nobody.bind(("::1", 0))  # and never listens
        port = nobody.getsockname()[1]
        environment = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": str(port)}
        found = FromKubernetes(
            KubernetesDiscovery("payments"),
            zone="",
            chance=random.Random(1),
            folder=tmp_path,
            environment=environment,
        )

        error = await failure(found)

    assert error.reason == "kubernetes_unreachable"


async def test_the_token_never_goes_in_the_clear(server: FakeKubernetes) -> None:
    error = await failure(backend(server, api_server=f"http://127.0.0.1:{server.port}"))

    assert error.reason == "kubernetes_address"


async def test_a_server_of_another_authority_is_not_believed(
    server: FakeKubernetes, stranger: Authority, tmp_path: Path
) -> None:
    ca_file = tmp_path / "stranger.crt"
    ca_file.write_bytes(stranger.pem)

    error = await failure(backend(server, ca_file=ca_file))

    assert error.reason == "kubernetes_untrusted"
    assert server.requests == []


async def test_a_server_of_another_name_is_not_believed(
    authority: Authority, tmp_path: Path
) -> None:
    with FakeKubernetes(tmp_path, authority, names=["127.0.0.2"]) as server:
        error = await failure(backend(server))

        assert error.reason == "kubernetes_untrusted"
        assert server.requests == []


async def test_the_systems_trust_does_not_count(
    server: FakeKubernetes, authority: Authority, stranger: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    system, ca_file = tmp_path / "system.crt", tmp_path / "stranger.crt"
    system.write_bytes(authority.pem)
    ca_file.write_bytes(stranger.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))

    assert (await failure(backend(server, ca_file=ca_file))).reason == "kubernetes_untrusted"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "kubernetes_ca_file"), ("rubbish", "kubernetes_ca_file")]
)
async def test_a_ca_file_that_is_none_is_said(
    server: FakeKubernetes, tmp_path: Path, content: str | None, reason: str
) -> None:
    ca_file = tmp_path / "other.crt"
    if content is not None:
        ca_file.write_text(content)

    error = await failure(backend(server, ca_file=ca_file))

    assert error.reason == reason
    assert str(ca_file) in error.message


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"secret word", b"secret\nX: y", b"s\xc3\xa9cret"]
)
async def test_a_token_file_that_is_no_token_is_said_and_not_shown(
    server: FakeKubernetes, content: bytes | None
) -> None:
    """A line break in it would be another header."""
    server.token_file.unlink()
    if content is not None:
        server.token_file.write_bytes(content)

    error = await failure(backend(server))

    assert error.reason == "kubernetes_file"
    assert str(server.token_file) in error.message
    assert "secret" not in error.message


async def test_a_token_file_that_cannot_be_read_is_said(server: FakeKubernetes) -> None:
    error = await failure(backend(server, token_file=server.token_file.with_name("x" * 300)))

    assert error.reason == "kubernetes_file"
    assert "name too long" in error.message


async def test_the_environment_has_no_effect(
    server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    await first(backend(server))

    assert not keys.exists()
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer reader"}


# --- what a server should not send


def event(kind: str, **found: Any) -> bytes:
    import json

    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


SLICE = {
    "metadata": {"name": "x", "resourceVersion": "7"},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"]}],
    "ports": [{"name": "mtls", "port": 8443}],
}


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON\n",
        b"[]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "\xff", "object": {}}\n',
        b'{"type": "ADDED", "object": ' + b"[" * 100_000 + b"\n",
        event("RENAMED", **SLICE),
        event("ADDED", **{**SLICE, "metadata": {"name": "x"}}),
        event("ADDED", **{**SLICE, "ports": [{"port": 0}]}),
        event("ADDED", **{**SLICE, "endpoints": [{"addresses": []}]}),
        event("ADDED", **{**SLICE, "endpoints": [{"addresses": ["10.0.0.1"]}] * 1001}),
        event("ADDED", **{**SLICE, "endpoints": [{"addresses": [7]}]}),
        event("BOOKMARK", metadata={}),
    ],
)
async def test_a_watch_that_says_what_cannot_be_is_not_believed(
    server: FakeKubernetes, line: bytes
) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports=PORTS)
    server.inject(line)

    async with watching(backend(server)) as watched:
        await watched.until_error("kubernetes_malformed")

    assert watched.addresses == {A}


async def test_an_address_that_is_none_is_left_to_the_keeper(server: FakeKubernetes) -> None:
    """The keeper leaves it out and says so; the others stay."""
    server.inject(event("ADDED", **{**SLICE, "endpoints": [{"addresses": ["10.0.0.1 "]}]}))

    async with watching(backend(server)) as watched:
        await watched.until("10.0.0.1 :8443")


async def test_empty_lines_say_nothing(server: FakeKubernetes) -> None:
    server.inject(b"\n \n" + event("ADDED", **SLICE))

    async with watching(backend(server)) as watched:
        await watched.until(A)

    assert watched.errors == []


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_without_measure_is_cut(server: FakeKubernetes, end: bytes) -> None:
    server.inject(b"x" * (web.MAX_LINE_BYTES + (1 << 17)) + end)

    async with watching(backend(server)) as watched:
        await watched.until_error("kubernetes_too_large")


async def test_slices_without_measure_are_not_kept(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MAX_SLICES", 2)
    for name in "ab":
        server.put(f"payments-{name}", "payments", ["10.0.0.1"], ports=PORTS)

    async with watching(backend(server)) as watched:
        await watched.until(A)
        await until_watched(server)
        server.put("payments-c", "payments", ["10.0.0.3"], ports=PORTS)
        await watched.until_error("kubernetes_too_large")

    assert watched.addresses == {A}


async def test_a_list_without_end_is_not_followed(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "_MAX_PAGES", 3)
    server.pages = 1
    for name in "abcd":
        server.put(f"payments-{name}", "payments", ["10.0.0.1"], ports=PORTS)

    assert (await failure(backend(server))).reason == "kubernetes_too_large"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(404, "kubernetes_not_found"), (429, "kubernetes_failed"), (500, "kubernetes_failed")],
)
async def test_any_other_status_is_an_error_with_the_servers_words(
    server: FakeKubernetes, code: int, reason: str
) -> None:
    def refuse(_: str) -> None:
        raise Refusal(code, "said\x1b[2J", "Because")

    server.before = refuse

    error = await failure(backend(server))

    assert error.reason == reason
    assert "said" in error.message
    assert error.message.isprintable(), "no control character of theirs reaches a terminal"


async def test_an_error_event_of_another_kind_is_an_error(server: FakeKubernetes) -> None:
    server.inject(event("ERROR", code=500, message="etcd is gone"))

    async with watching(backend(server)) as watched:
        error = await watched.until_error("kubernetes_failed")

    assert "etcd is gone" in error.message


def impostor(authority: Authority, answer: bytes) -> App:
    """Something with the server's certificate that is no API server."""
    issued = authority.issue(cn="load balancer", ips=["127.0.0.1"])
    return App(answering(answer), tls=server_context(authority, issued, client_certificate=False))


async def test_an_error_page_of_something_in_between_is_an_error(
    server: FakeKubernetes, authority: Authority
) -> None:
    with impostor(authority, response(b"<html>", "502 Bad Gateway")) as balancer:
        error = await failure(backend(server, api_server=f"https://127.0.0.1:{balancer.port}"))

    assert error.reason == "kubernetes_failed"
    assert "502" in error.message


async def test_a_list_without_a_version_is_not_believed(
    server: FakeKubernetes, authority: Authority
) -> None:
    """A watch could not go on from it, and would begin with everything again."""
    with impostor(authority, response(b'{"metadata": {}, "items": []}')) as other:
        error = await failure(backend(server, api_server=f"https://127.0.0.1:{other.port}"))

    assert error.reason == "kubernetes_malformed"


async def test_a_list_that_takes_too_long_is_given_up(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a byte comes now and then: the whole is measured, not the silence."""
    monkeypatch.setattr(kubernetes, "_LIST_S", 0.0)

    assert (await failure(backend(server))).reason == "kubernetes_timeout"


# --- the client that sources share


async def ask(url: str, **more: Any) -> tuple[int, bytes]:
    async with (
        web.client(url, ca_file=None, reason_prefix="source") as source,
        web.answer(source, "GET", "/path", reason_prefix="source", **more) as found,
    ):
        return found.status_code, await web.body(found, reason_prefix="source", max_bytes=100)


def answering(answer: bytes) -> Callable[[Any], bytes]:
    return lambda _: answer


async def test_a_redirect_is_not_followed() -> None:
    """Its target would get the token."""
    with App() as other:
        redirect = response(
            b"", "307 Temporary Redirect", f"Location: http://127.0.0.1:{other.port}/"
        )
        with App(answering(redirect)) as app:
            status, _ = await ask(f"http://127.0.0.1:{app.port}")

        assert status == 307
        assert other.requests == []


async def test_a_body_without_measure_is_cut() -> None:
    with (
        App(answering(response(b"x" * 101))) as app,
        pytest.raises(DiscoveryError) as caught,
    ):
        await ask(f"http://127.0.0.1:{app.port}")

    assert caught.value.reason == "source_too_large"


async def test_compression_is_neither_offered_nor_taken() -> None:
    """A thousand bytes of gzip are a megabyte of text."""
    packed = response(b"", "200 OK", "Content-Encoding: gzip")
    with App(answering(packed)) as app:
        with pytest.raises(DiscoveryError) as caught:
            await ask(f"http://127.0.0.1:{app.port}")

        assert caught.value.reason == "source_malformed"
        assert app.requests[0].value("accept-encoding") == b"identity"


async def test_an_answer_that_is_left_early_gives_its_connection_back() -> None:
    """A client has few of them, and a watch that says 410 is left before its end."""
    with App(answering(response(b"unread"))) as app:
        url = f"http://127.0.0.1:{app.port}"
        async with web.client(url, ca_file=None, reason_prefix="source") as source:
            for _ in range(6):
                async with web.answer(source, "GET", "/", reason_prefix="source", read_timeout_s=5):
                    continue

        assert len(app.requests) == 6


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "source_unreachable"),
        (b"rubbish\r\n\r\n", "source_unreachable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf", "source_unreachable"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_is_an_error(answer: bytes, reason: str) -> None:
    from tests.support.peers import ScriptedPeer, answer_once

    with ScriptedPeer(answer_once(answer)) as peer, pytest.raises(DiscoveryError) as caught:
        await ask(f"http://127.0.0.1:{peer.port}", read_timeout_s=5.0)

    assert caught.value.reason == reason


async def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    from tests.support.peers import ScriptedPeer, silent

    with ScriptedPeer(silent) as peer, pytest.raises(DiscoveryError) as caught:
        await ask(f"http://127.0.0.1:{peer.port}", read_timeout_s=0.1)

    assert caught.value.reason == "source_timeout"


async def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    with App() as app, pytest.raises(DiscoveryError) as caught:
        await ask(f"http://127.0.0.1:{app.port}", headers={"X-Token": "secret\r\nX: y"})

    assert caught.value.reason == "source_malformed"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["http://[::1", "ftp://127.0.0.1", "127.0.0.1:8500"])
async def test_an_address_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        await ask(url)

    assert caught.value.reason == "source_address"


async def test_the_kind_is_made_with_our_zone(server: FakeKubernetes) -> None:
    hinted = place("10.0.0.1", zone="a", hints={"forZones": [{"name": "c"}]})
    server.put("payments-a", "payments", places=[hinted], ports=PORTS)
    settings = KubernetesDiscovery(
        "payments", "shop", "mtls", server.url, server.token_file, server.ca_file
    )
    made = kinds.make(DiscoveryConfig("kubernetes", settings, zone="c"), random.Random(1))

    assert isinstance(made, FromKubernetes)
    assert "shop/payments" in repr(made)
    assert [each.zone for each in await first(made)] == ["c"]
