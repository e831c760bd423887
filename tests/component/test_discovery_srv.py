"""Kind dns_srv against a name server that says what a test wants; virtual time, real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.rrset
import pytest

from ambassador.config.model import DiscoveryConfig, SrvDiscovery
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Endpoint
from ambassador.discovery import kinds, resolving
from ambassador.discovery.keeper import Keeper
from ambassador.discovery.srv import FromSrv
from tests.support.name_server import ScriptedNameServer
from tests.support.virtual_time import virtual_time

NAME = "_mtls._tcp.pay.test."
Found = dict[str, tuple[int, int]]  # address: weight, priority


class Least(random.Random):
    """No jitter."""

    def random(self) -> float:
        return 0.0


class Most(random.Random):
    """All the jitter there is, nearly."""

    def random(self) -> float:
        return 0.999


def from_srv(
    server: ScriptedNameServer, chance: random.Random | None = None, **ttl: float
) -> FromSrv:
    return FromSrv(SrvDiscovery(NAME, (server.address,), **ttl), chance or Least())


def spelled(endpoints: tuple[Endpoint, ...]) -> Found:
    return {str(endpoint): (endpoint.weight, endpoint.priority) for endpoint in endpoints}


@asynccontextmanager
async def watching(
    server: ScriptedNameServer, **settings: Any
) -> AsyncIterator[AsyncIterator[tuple[Endpoint, ...]]]:
    watch = from_srv(server, **settings).watch()
    try:
        yield watch
    finally:
        await watch.aclose()  # type: ignore[attr-defined]  # a generator


async def ask(server: ScriptedNameServer) -> Found:
    """Ask once."""
    async with watching(server) as watch:
        return spelled(await anext(watch))


def now() -> float:
    return asyncio.get_running_loop().time()


# --- what the records mean


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (["0 1 80 a.test."], {"10.0.0.1:80": (1, 0)}),
        (["0 0 80 a.test."], {"10.0.0.1:80": (1, 0)}),
        (["0 0 80 a.test.", "0 0 80 b.test."], {"10.0.0.1:80": (1, 0), "10.0.0.2:80": (1, 0)}),
        (["0 3 80 a.test.", "0 0 81 b.test."], {"10.0.0.1:80": (30, 0), "10.0.0.2:81": (1, 0)}),
        (["0 4 80 a.test.", "0 6 80 b.test."], {"10.0.0.1:80": (2, 0), "10.0.0.2:80": (3, 0)}),
        (["7 1 80 b.test.", "65535 1 80 a.test."], {"10.0.0.2:80": (1, 0), "10.0.0.1:80": (1, 1)}),
        (["2 9 80 a.test.", "1 9 80 a.test."], {"10.0.0.1:80": (1, 0)}),
        (["1 1 80 a.test.", "1 3 80 a.test."], {"10.0.0.1:80": (3, 0)}),
        (["1 1 80 a.test.", "1 1 81 a.test."], {"10.0.0.1:80": (1, 0), "10.0.0.1:81": (1, 0)}),
        (["0 0 0 ."], {}),
        (["0 0 80 .", "0 1 80 a.test."], {"10.0.0.1:80": (1, 0)}),
        (["0 1 0 a.test."], {}),
        (["0 1 80 A.TEST.", "0 1 80 b.test."], {"10.0.0.1:80": (1, 0), "10.0.0.2:80": (1, 0)}),
    ],
    ids=[
        "one", "weight-0", "all-0", "0-is-tiny", "weights", "priorities", "first-priority-wins",
        "heavier-wins", "ports", "not-available", "not-available-beside-one", "port-0", "upper-case",
    ],
)  # fmt: skip
def test_records_become_endpoints(records: list[str], found: Found) -> None:
    """RFC 2782: priority, weight, port, target."""

    async def run() -> None:
        async with ScriptedNameServer() as server:
            server.say(NAME, "SRV", *records)
            server.say("a.test.", "A", "10.0.0.1")
            server.say("b.test.", "A", "10.0.0.2")

            assert await ask(server) == found

    virtual_time(run)()


@virtual_time
async def test_the_addresses_of_a_target_share_its_weight() -> None:
    """Else a target would get the more, the more addresses it has."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "10.0.0.2", "10.0.0.3")
        server.say("b.test.", "AAAA", "fd00::4")

        found = await ask(server)

    assert {weight for address, (weight, _) in found.items() if address != "10.0.0.1:80"} == {1}
    assert found["10.0.0.1:80"] == (3, 0)
    assert "[fd00::4]:80" in found


@virtual_time
async def test_more_priorities_than_tiers_share_the_last_tier() -> None:
    """A priority of ours is 0 to 100."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", *(f"{n * 500} 1 {n + 1} a.test." for n in range(120)))
        server.say("a.test.", "A", "10.0.0.1")

        found = await ask(server)

    tiers = [found[f"10.0.0.1:{n + 1}"][1] for n in range(120)]
    assert tiers == [*range(100), *[100] * 20]


@virtual_time
async def test_a_name_without_srv_records_is_an_empty_set() -> None:
    """RFC 2308 §2.2: the name is there; whether the keeper believes it, `on_empty` decides."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "TXT", "hello")

        assert await ask(server) == {}


# --- where the addresses come from


@virtual_time
async def test_a_target_in_the_additional_section_is_not_asked_for() -> None:
    """RFC 2782: the additional section may hold the addresses of the targets."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1", along=True)
        server.say("a.test.", "AAAA", "fd00::1", along=True)
        server.say("b.test.", "A", "10.0.0.2")

        found = await ask(server)

        assert set(found) == {"10.0.0.1:80", "[fd00::1]:80", "10.0.0.2:80"}
        assert server.asked("a.test.") == []
        assert server.asked("b.test.") == ["A", "AAAA"]


@virtual_time
async def test_what_else_comes_along_is_no_endpoint() -> None:
    """Only the SRV records name targets."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.")
        server.say("a.test.", "A", "10.0.0.1", along=True)
        server.say("a.test.", "TXT", "10.0.0.8", along=True)
        server.say("evil.test.", "A", "10.0.0.9", along=True, ttl=1)

        async with watching(server) as watch:
            found = spelled(await anext(watch))
            before = now()
            await anext(watch)

            assert set(found) == {"10.0.0.1:80"}
            assert now() - before == pytest.approx(60), "nor does its lifetime count"


@virtual_time
async def test_an_address_of_another_class_is_none() -> None:
    """RFC 1035 §3.2.4: a record A of the class HS is no IP address of ours."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.odd.append(dns.rrset.from_text("a.test.", 60, "HS", "A", r"\# 4 0a000009"))

        assert set(await ask(server)) == {"10.0.0.1:80"}


@virtual_time
async def test_an_alias_is_followed() -> None:
    """RFC 2782 forbids a target that is an alias, and people do it."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "CNAME", "srv.test.")
        server.say("srv.test.", "SRV", "0 1 80 www.test.")
        server.say("www.test.", "CNAME", "a.test.")
        server.say("a.test.", "A", "10.0.0.1")

        assert set(await ask(server)) == {"10.0.0.1:80"}


@virtual_time
async def test_an_answer_that_udp_cuts_off_is_asked_for_on_tcp() -> None:
    """RFC 1035 §4.2.1, RFC 7766 §5."""
    targets = [f"target-number-{n}.payments.test." for n in range(60)]
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", *(f"0 1 {8000 + n} {target}" for n, target in enumerate(targets)))
        for target in targets:
            server.say(target, "A", "10.0.0.1")

        found = await ask(server)

        assert set(found) == {f"10.0.0.1:{8000 + n}" for n in range(60)}
        assert [transport for transport, name, _ in server.questions if name == NAME] == [
            "udp",
            "tcp",
        ]


# --- when it is asked again


@pytest.mark.parametrize(
    ("ttls", "seconds"),
    [
        ({"SRV": 20, "CNAME": 30, "A": 40}, 20),
        ({"SRV": 30, "CNAME": 20, "A": 40}, 20),
        ({"SRV": 30, "CNAME": 40, "A": 20}, 20),
        ({"SRV": 0, "CNAME": 40, "A": 30}, 2),
        ({"SRV": 900, "CNAME": 900, "A": 900}, 50),
    ],
    ids=["srv", "alias", "address", "least", "most"],
)
def test_the_shortest_lifetime_on_the_way_counts_within_its_bounds(
    ttls: dict[str, int], seconds: float
) -> None:
    """RFC 1034 §3.6.2; min_ttl and max_ttl."""

    async def run() -> None:
        async with ScriptedNameServer() as server:
            server.say(NAME, "SRV", "0 1 80 www.test.", ttl=ttls["SRV"])
            server.say("www.test.", "CNAME", "a.test.", ttl=ttls["CNAME"])
            server.say("a.test.", "A", "10.0.0.1", ttl=ttls["A"])
            async with watching(server, min_ttl_s=2.0, max_ttl_s=50.0) as watch:
                await anext(watch)
                before = now()
                await anext(watch)

                assert now() - before == pytest.approx(seconds)

    virtual_time(run)()


@virtual_time
async def test_the_lifetime_of_what_came_along_counts_too() -> None:
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", ttl=40)
        server.say("a.test.", "A", "10.0.0.1", ttl=7, along=True)
        async with watching(server) as watch:
            await anext(watch)
            before = now()
            await anext(watch)

            assert now() - before == pytest.approx(7)


@virtual_time
async def test_a_fleet_asks_up_to_a_tenth_later() -> None:
    """Else all sidecars of a fleet, started together, would ask together for ever."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", ttl=40)
        server.say("a.test.", "A", "10.0.0.1", ttl=40)
        async with watching(server, chance=Most()) as watch:
            await anext(watch)
            before = now()
            await anext(watch)

            assert 43.9 < now() - before < 44


# --- what a failure does


@virtual_time
async def test_a_target_that_fails_keeps_its_last_addresses_and_is_asked_again_soon() -> None:
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "10.0.0.2")
        async with watching(server) as watch:
            first = spelled(await anext(watch))
            server.fail("b.test.", "A", "AAAA")
            second = spelled(await anext(watch))
            server.say("b.test.", "A", "10.0.0.3")
            before = now()
            third = spelled(await anext(watch))

            assert set(first) == set(second) == {"10.0.0.1:80", "10.0.0.2:80"}
            assert set(third) == {"10.0.0.1:80", "10.0.0.3:80"}
            assert now() - before == pytest.approx(5)


@pytest.mark.parametrize("along", [False, True])
def test_a_target_that_never_answered_is_left_out(along: bool) -> None:
    async def run() -> None:
        async with ScriptedNameServer() as server:
            server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.", "1 1 80 gone.test.")
            server.say("a.test.", "A", "10.0.0.1", along=along)
            server.fail("b.test.", "A", "AAAA")

            assert set(await ask(server)) == {"10.0.0.1:80"}

    virtual_time(run)()


@virtual_time
async def test_addresses_that_came_along_are_kept_when_they_do_so_no_more() -> None:
    """Large answers lose their Additional section first (RFC 2181 §9)."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1", along=True)
        server.say("b.test.", "A", "10.0.0.2")
        async with watching(server) as watch:
            await anext(watch)
            server.fail("a.test.", "A", "AAAA")

            assert set(spelled(await anext(watch))) == {"10.0.0.1:80", "10.0.0.2:80"}
            assert server.asked("a.test.") == ["A", "AAAA"]


@virtual_time
async def test_a_target_that_is_gone_from_the_records_takes_its_addresses_along() -> None:
    """What it said last is not kept for its return."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "10.0.0.2")
        async with watching(server) as watch:
            await anext(watch)
            server.say(NAME, "SRV", "0 1 80 a.test.")
            without = spelled(await anext(watch))
            server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
            server.fail("b.test.", "A", "AAAA")
            failing = spelled(await anext(watch))

            assert set(without) == set(failing) == {"10.0.0.1:80"}


@virtual_time
async def test_one_family_that_fails_hides_nothing_of_the_other() -> None:
    """Load balancers are known that answer AAAA with SERVFAIL (RFC 4074 §4.2)."""
    async with ScriptedNameServer() as server:
        server.say(NAME, "SRV", "0 1 80 a.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.fail("a.test.", "AAAA")

        assert set(await ask(server)) == {"10.0.0.1:80"}


@pytest.mark.parametrize(
    ("rcode", "reason"),
    [("SERVFAIL", "dns_failed"), ("REFUSED", "dns_failed"), ("NXDOMAIN", "dns_no_such_name")],
)
@pytest.mark.parametrize("broken", ["records", "targets"])
def test_when_nothing_answers_the_keeper_keeps_the_last_endpoints(
    broken: str, rcode: str, reason: str
) -> None:
    async def run() -> None:
        async with ScriptedNameServer() as server:
            server.say(NAME, "SRV", "0 1 80 a.test.")
            server.say("a.test.", "A", "10.0.0.1")
            async with watching(server) as watch:
                await anext(watch)
                if broken == "records":
                    server.fail(NAME, "SRV", rcode=rcode)
                else:
                    server.fail("a.test.", "A", "AAAA", rcode=rcode)
                with pytest.raises(DiscoveryError) as caught:
                    await anext(watch)

                assert caught.value.reason == reason

    virtual_time(run)()


async def test_silence_is_an_error_with_the_name_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "_TIMEOUT_S", 0.05)
    monkeypatch.setattr(resolving, "_LIFETIME_S", 0.1)
    async with ScriptedNameServer() as server:
        server.fail(NAME, "SRV", rcode="silence")

        with pytest.raises(
            DiscoveryError, match=r"_mtls\._tcp\.pay\.test\. SRV: no answer"
        ) as caught:
            await ask(server)

        assert caught.value.reason == "dns_timeout"


# --- with its keeper


class Heard:
    """What a keeper reported."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []
        self.kept: list[str] = []

    def endpoints_changed(self, service: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.sets.append([str(endpoint) for endpoint in endpoints])

    def endpoints_kept(self, service: str, reason: str, detail: str) -> None:
        self.kept.append(reason)

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None:
        self.kept.append(f"ignored {addresses}")


@virtual_time
async def test_an_outage_and_an_unavailable_service_take_nothing_away() -> None:
    """`.` is believed only with `on_empty: drop`."""
    async with ScriptedNameServer() as server:
        heard = Heard()
        config = DiscoveryConfig("dns_srv", SrvDiscovery(NAME, (server.address,)))
        keeper = Keeper(
            "pay",
            config,
            kinds.make(config, Least()),
            events=heard,
            wall=now,
            chance=Least(),
        )
        server.say(NAME, "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "169.254.169.254")
        task = asyncio.create_task(keeper.run())
        await asyncio.sleep(30)
        server.fail(NAME, "SRV")
        await asyncio.sleep(120)
        server.say(NAME, "SRV", "0 0 0 .")
        await asyncio.sleep(120)
        server.say(NAME, "SRV", "0 1 81 a.test.")
        await asyncio.sleep(120)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert heard.sets == [["10.0.0.1:80"], ["10.0.0.1:81"]]
        assert heard.kept == ["ignored ['169.254.169.254:80']", "dns_failed", "empty"]
