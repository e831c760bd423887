"""Names among the endpoints of the file, against a name server that says what a test wants; virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambassador.config.model import DiscoveryConfig, NamesDiscovery
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import kinds, resolving
from tests.support.name_server import HOST, ScriptedNameServer
from tests.support.virtual_time import virtual_time

FIXED = Endpoint(Address("10.0.0.9", 99), weight=9)
Watch = AsyncIterator[tuple[Endpoint, ...]]
Asked = Callable[[ScriptedNameServer], None]


class Least(random.Random):
    """No jitter."""

    def random(self) -> float:
        return 0.0


def named(name: str, port: int = 80, **more: object) -> tuple[str, int, Endpoint]:
    return name, port, Endpoint(Address(), **more)  # type: ignore[arg-type]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Give what makes a name server the system's."""

    def use(server: ScriptedNameServer) -> None:
        (tmp_path / "resolv.conf").write_text(f"nameserver {HOST}\nsearch test\n", encoding="ascii")
        monkeypatch.setattr(resolving, "_SYSTEM", str(tmp_path / "resolv.conf"))
        monkeypatch.setattr(resolving, "_PORT", server.address.port)

    return use


@asynccontextmanager
async def watching(*names: tuple[str, int, Endpoint], fixed: bool = False) -> AsyncIterator[Watch]:
    settings = NamesDiscovery((FIXED,) if fixed else (), names)
    watch = kinds.make(DiscoveryConfig("static", settings), Least()).watch()
    try:
        yield watch
    finally:
        await watch.aclose()  # type: ignore[attr-defined]  # a generator


def hosts(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.address.host for endpoint in endpoints]


@virtual_time
async def test_every_address_of_a_name_is_an_endpoint_with_what_the_file_says(
    system: Asked,
) -> None:
    """Both families; weight, zone and priority are those of the entry."""
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1", "10.0.0.2")
        server.say("a.test.", "AAAA", "fd00::1")
        server.say("b.test.", "A", "10.0.0.3")
        entries = named("a.test", 80, weight=5, zone="z", priority=2), named("b.test", 81)
        async with watching(*entries, fixed=True) as watch:
            found = await anext(watch)

        assert set(found) == {
            FIXED,
            Endpoint(Address("10.0.0.1", 80), 5, "z", 2),
            Endpoint(Address("10.0.0.2", 80), 5, "z", 2),
            Endpoint(Address("fd00::1", 80), 5, "z", 2),
            Endpoint(Address("10.0.0.3", 81)),
        }


@virtual_time
async def test_a_name_on_two_ports_is_asked_for_once(system: Asked) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        async with watching(named("a.test", 80), named("a.test", 81)) as watch:
            found = await anext(watch)

        assert {str(one) for one in found} == {"10.0.0.1:80", "10.0.0.1:81"}
        assert sorted(kind for _, _, kind in server.questions) == ["A", "AAAA"]


@virtual_time
async def test_a_short_name_is_searched_as_the_system_says(system: Asked) -> None:
    """`payments:8443` in Kubernetes or Compose."""
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        async with watching(named("a")) as watch:
            assert hosts(await anext(watch)) == ["10.0.0.1"]


@virtual_time
async def test_they_are_asked_for_again_when_the_shortest_lifetime_is_over(system: Asked) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1", ttl=7)
        server.say("b.test.", "A", "10.0.0.2", ttl=40)
        async with watching(named("a.test"), named("b.test")) as watch:
            await anext(watch)
            server.say("b.test.", "A", "10.0.0.3", ttl=40)
            before = asyncio.get_running_loop().time()

            assert hosts(await anext(watch)) == ["10.0.0.1", "10.0.0.3"]
            assert asyncio.get_running_loop().time() - before == pytest.approx(7)


@virtual_time
async def test_a_name_that_fails_keeps_its_last_addresses_and_is_asked_again_soon(
    system: Asked,
) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "10.0.0.2")
        async with watching(named("a.test"), named("b.test")) as watch:
            await anext(watch)
            server.fail("b.test.", "A", "AAAA")
            failing = await anext(watch)
            before = asyncio.get_running_loop().time()
            await anext(watch)

            assert hosts(failing) == ["10.0.0.1", "10.0.0.2"]
            assert asyncio.get_running_loop().time() - before == pytest.approx(5)


@virtual_time
async def test_a_name_that_never_was_hides_nothing_of_another_one(system: Asked) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        async with watching(named("gone.test"), named("a.test")) as watch:
            assert hosts(await anext(watch)) == ["10.0.0.1"]


@virtual_time
async def test_endpoints_without_a_name_are_there_though_no_name_is_known(system: Asked) -> None:
    """Said once; from then on a failure is one, so that the keeper tells of it and waits longer."""
    async with ScriptedNameServer() as server:
        system(server)
        server.fail("a.test.", "A", "AAAA")
        async with watching(named("a.test"), fixed=True) as watch:
            assert await anext(watch) == (FIXED,)
            with pytest.raises(DiscoveryError, match=r"a\.test"):
                await anext(watch)


@virtual_time
async def test_nothing_known_at_all_is_an_error(system: Asked) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        async with watching(named("gone.test"), named("lost.test")) as watch:
            with pytest.raises(DiscoveryError) as caught:
                await anext(watch)

        assert caught.value.reason == "dns_no_such_name"


@virtual_time
async def test_a_watch_that_begins_anew_still_knows_the_addresses(system: Asked) -> None:
    """The keeper calls `watch` again after an error: what was known then is not forgotten."""
    async with ScriptedNameServer() as server:
        system(server)
        backend = kinds.make(
            DiscoveryConfig("static", NamesDiscovery((), (named("a.test"), named("b.test")))),
            Least(),
        )
        server.say("a.test.", "A", "10.0.0.1")
        server.say("b.test.", "A", "10.0.0.2")
        watch = backend.watch()
        await anext(watch)
        server.fail("a.test.", "A", "AAAA")
        server.fail("b.test.", "A", "AAAA")
        with pytest.raises(DiscoveryError):
            await anext(watch)
        server.say("b.test.", "A", "10.0.0.3")
        again = backend.watch()

        assert hosts(await anext(again)) == ["10.0.0.1", "10.0.0.3"]

        await again.aclose()  # type: ignore[attr-defined]  # a generator


@virtual_time
async def test_after_a_failure_the_system_is_asked_anew_whom_to_ask(
    system: Asked, tmp_path: Path
) -> None:
    """resolv.conf may be written late (DHCP, a VPN); without one only the endpoints without a name are there."""
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        conf = tmp_path / "resolv.conf"
        text = conf.read_text(encoding="ascii")
        conf.unlink()
        backend = kinds.make(
            DiscoveryConfig("static", NamesDiscovery((FIXED,), (named("a.test"),))), Least()
        )
        watch = backend.watch()
        first = await anext(watch)
        conf.write_text(text, encoding="ascii")

        assert first == (FIXED,)
        assert hosts(await anext(watch)) == ["10.0.0.9", "10.0.0.1"]

        await watch.aclose()  # type: ignore[attr-defined]  # a generator


@virtual_time
async def test_a_changed_resolv_conf_counts_after_a_failure(system: Asked, tmp_path: Path) -> None:
    """The keeper calls `watch` anew, and the backend must not live on with what it read first."""
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.1")
        conf = tmp_path / "resolv.conf"
        conf.write_text(f"nameserver {HOST}\nsearch wrong\n", encoding="ascii")
        settings = NamesDiscovery((), (named("a"),))
        backend = kinds.make(DiscoveryConfig("static", settings), Least())
        with pytest.raises(DiscoveryError):
            await anext(backend.watch())
        conf.write_text(f"nameserver {HOST}\nsearch test\n", encoding="ascii")
        watch = backend.watch()

        assert hosts(await anext(watch)) == ["10.0.0.1"]

        await watch.aclose()  # type: ignore[attr-defined]  # a generator


@virtual_time
async def test_a_missing_resolv_conf_is_said_by_its_path(system: Asked, tmp_path: Path) -> None:
    async with ScriptedNameServer() as server:
        system(server)
        (tmp_path / "resolv.conf").unlink()
        async with watching(named("a.test")) as watch:
            with pytest.raises(DiscoveryError, match=r"resolv\.conf") as caught:
                await anext(watch)

        assert caught.value.reason == "dns_failed"


@virtual_time
async def test_many_names_are_asked_for_a_few_at_once(system: Asked) -> None:
    """Each question is a socket: a thousand at once would be more than a process may open."""
    async with ScriptedNameServer() as server:
        system(server)
        for n in range(100):
            server.say(f"n{n}.test.", "A", f"10.0.1.{n}")
        resolver = resolving.Resolver()
        names = [resolving.Name(f"n{n}.test.") for n in range(100)]
        most, running = 0, 0
        ask = resolver._ask

        async def counted(name: str, kind: str) -> object:
            nonlocal most, running
            running += 1
            most = max(most, running)
            try:
                return await ask(name, kind)
            finally:
                running -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resolving.Resolver, "_ask", lambda _, name, kind: counted(name, kind))
            await resolving.ask_all(names, resolver)

        assert [name.hosts for name in names] == [(f"10.0.1.{n}",) for n in range(100)]
        assert most == 16


# ---- the hosts file --------------------------------------------------------------------------------------------


def test_the_hosts_file_is_read_as_its_manual_says(tmp_path: Path) -> None:
    """hosts(5): comments, aliases, several lines for a name; names have no case (RFC 4343)."""
    file = tmp_path / "hosts"
    file.write_text(
        "# web 10.9.9.9\n\n10.0.0.1\tweb.test web # alias\nfd00::1 WEB\n10.0.0.1 web\n"
        "fe80::1%eth0 web\nnonsense web\n10.0.0.2 webs\n",
        encoding="ascii",
    )

    assert resolving.in_hosts_file("web", file) == ("10.0.0.1", "fd00::1")
    assert resolving.in_hosts_file("Web.Test.", file) == ("10.0.0.1",)
    assert resolving.in_hosts_file("other", file) == ()
    assert resolving.in_hosts_file("web", tmp_path / "none") == ()


@virtual_time
async def test_the_system_s_hosts_file_comes_before_its_name_server(
    system: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose and Kubernetes write names there, which no name server knows; a change is seen."""
    (tmp_path / "hosts").write_text("10.0.0.1 a.test\nfd00::1 a.test\n", encoding="ascii")
    monkeypatch.setattr(resolving, "_HOSTS", tmp_path / "hosts")
    async with ScriptedNameServer() as server:
        system(server)
        server.say("a.test.", "A", "10.0.0.7")
        async with watching(named("a.test")) as watch:
            first = await anext(watch)
            (tmp_path / "hosts").write_text("10.0.0.2 a.test\n", encoding="ascii")
            second = await anext(watch)

    assert hosts(first) == ["10.0.0.1", "fd00::1"]
    assert hosts(second) == ["10.0.0.2"]
    assert resolving.Resolver((Address("10.0.0.53", 53),)).written_down("a.test") == ()
