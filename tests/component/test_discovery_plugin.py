"""A backend that somebody else wrote, and wrote badly; virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ambassador.config.model import DiscoveryConfig, PluginDiscovery
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery import kinds
from ambassador.discovery.base import Discovery
from tests.support.virtual_time import virtual_time

ONE = (Endpoint(Address("10.0.0.1", 80)),)
CHANCE = random.Random(1)  # repeatable


class Backend:
    """Gives what it was made with, and then raises or ends."""

    longest_pause_s = 7

    def __init__(self, *says: object) -> None:
        self._says = says

    async def watch(self) -> AsyncIterator[Any]:
        for one in self._says:
            if isinstance(one, Exception):
                raise one
            yield one


class Silent:
    """Leaves `longest_pause_s` out."""

    async def watch(self) -> AsyncIterator[Any]:
        yield ONE
        await asyncio.Event().wait()


def plugin(factory: Callable[..., object], settings: object = None) -> Discovery:
    config = DiscoveryConfig("theirs", PluginDiscovery(settings, factory), zone="b")
    return kinds.make(config, CHANCE)


def saying(*says: object) -> Discovery:
    return plugin(lambda settings, *, zone, chance: Backend(*says))


async def until_error(backend: Discovery) -> list[object]:
    sets: list[object] = []
    try:
        async for endpoints in backend.watch():
            sets.append(endpoints)  # noqa: PERF401  # it ends with an error
    except DiscoveryError:
        return sets
    raise AssertionError("no error")


@virtual_time
async def test_its_sets_pass_and_it_is_made_once_with_its_settings() -> None:
    made = []

    def factory(*given: object, **named: object) -> Backend:
        made.append((given, named))
        return Backend(ONE, ())

    backend = plugin(factory, settings="theirs")
    first, second = await until_error(backend), await until_error(backend)

    assert first == second == [ONE, ()]
    assert made == [(("theirs",), {"zone": "b", "chance": CHANCE})]
    assert backend.longest_pause_s == 7.0


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ([ValueError("no")], "theirs: ValueError: no"),
        ([], "theirs: it has ended its watch"),
        ([[*ONE]], "theirs: TypeError: it gave something else than a tuple of endpoints"),
        ([("10.0.0.1:80",)], "theirs: TypeError: it gave something else than a tuple of endpoints"),
        ([None], "theirs: TypeError: it gave something else than a tuple of endpoints"),
    ],
    ids=["raises", "ends", "list", "strings", "none"],
)
def test_whatever_it_does_is_a_failure_of_discovery(says: list[object], message: str) -> None:
    """A bug of theirs must not end the sidecar, nor take an endpoint away."""

    async def run() -> None:
        with pytest.raises(DiscoveryError) as caught:
            await anext(saying(*says).watch())

        assert (caught.value.reason, caught.value.message) == ("plugin_failed", message)

    virtual_time(run)()


@dataclass
class Secretive:
    """Settings one of which is not for logs."""

    token: str = field(repr=False)


@virtual_time
async def test_an_error_is_only_named_when_the_settings_hold_a_secret() -> None:
    """House §8: secrets never enter a log; a foreign error may quote one."""
    settings = Secretive("swordfish")
    backend = plugin(
        lambda settings, *, zone, chance: Backend(ValueError(f"bad {settings.token}")), settings
    )

    with pytest.raises(DiscoveryError) as caught:
        await anext(backend.watch())

    assert caught.value.message == "theirs: ValueError"


@virtual_time
async def test_its_own_reason_is_passed_on() -> None:
    with pytest.raises(DiscoveryError) as caught:
        await anext(saying(DiscoveryError("their_reason", "in words")).watch())

    assert (caught.value.reason, caught.value.message) == ("their_reason", "in words")


@virtual_time
async def test_a_factory_that_raises_is_tried_again() -> None:
    """What it needs may come later."""
    tries = []

    def factory(settings: object, *, zone: str, chance: random.Random) -> Backend:
        tries.append(zone)
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return Backend(ONE)

    backend = plugin(factory)
    with pytest.raises(DiscoveryError, match="RuntimeError: not yet"):
        await anext(backend.watch())

    assert await anext(backend.watch()) == ONE


@virtual_time
async def test_one_that_says_no_pause_gets_half_a_minute() -> None:
    backend = plugin(lambda settings, *, zone, chance: Silent())
    watch = backend.watch()

    assert await anext(watch) == ONE
    assert backend.longest_pause_s == 30.0

    await watch.aclose()  # type: ignore[attr-defined]  # a generator


@pytest.mark.parametrize(
    "changed",
    [{"weight": 0}, {"weight": -1}, {"weight": 1.5}, {"priority": -1}, {"zone": None},
     {"address": Address("10.0.0.1", 0)}],
)  # fmt: skip
@virtual_time
async def test_an_endpoint_out_of_range_makes_its_set_a_failure(changed: dict[str, Any]) -> None:
    """A weight of 0 would be a division by it in every pick."""
    assert await until_error(saying(ONE, (replace(ONE[0], **changed),))) == [ONE]


@pytest.mark.parametrize("pause", ["oops", -1, 0, float("inf"), float("nan"), None])
async def test_a_pause_that_is_none_is_half_a_minute(pause: object) -> None:
    backend = Backend(ONE)
    backend.longest_pause_s = pause  # type: ignore[assignment]
    found = plugin(lambda *_, **__: backend)
    await anext(found.watch())

    assert found.longest_pause_s == 30


@virtual_time
async def test_a_reason_that_is_no_word_does_not_reach_the_log() -> None:
    """Threats I5."""
    with pytest.raises(DiscoveryError) as caught:
        await anext(saying(DiscoveryError("a\n\x1b[2J", "in words")).watch())

    assert caught.value.reason == "plugin_failed"
