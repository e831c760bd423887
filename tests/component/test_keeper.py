"""What is kept of what discovery says; virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ambassador.config.model import DiscoveryConfig
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint
from ambassador.discovery.keeper import Keeper
from tests.support.virtual_time import virtual_time

NO_SETTINGS: Any = None


def endpoints(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(Address(host, 80)) for host in hosts)


A, B = endpoints("10.0.0.1"), endpoints("10.0.0.2")
BOTH = A + B
DOWN = DiscoveryError("down", "nobody answers")


class Script:
    """A backend that says one thing a second; an error ends the watch, which the keeper begins anew."""

    longest_pause_s = 30.0

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.watches: list[float] = []

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        self.watches.append(asyncio.get_running_loop().time())
        while self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            yield answer  # type: ignore[misc]  # a set, else
            await asyncio.sleep(1)
        await asyncio.Event().wait()


class Heard:
    """What a keeper reported."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []
        self.kept: list[str] = []
        self.ignored: list[tuple[list[str], int]] = []
        self.crashes: list[Exception] = []

    def endpoints_changed(self, service: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.sets.append([endpoint.address.host for endpoint in endpoints])

    def endpoints_kept(self, service: str, reason: str, detail: str) -> None:
        self.kept.append(reason)

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None:
        self.ignored.append((addresses, count))

    def watch_crashed(self, error: Exception) -> None:
        self.crashes.append(error)


async def keep(
    *answers: object, seconds: float = 1000, **settings: Any
) -> tuple[Heard, Keeper, Script]:
    heard, script = Heard(), Script(*answers)
    keeper = Keeper(
        "payments",
        DiscoveryConfig("fake", NO_SETTINGS, **settings),
        script,
        events=heard,
        wall=lambda: 1000.0 + asyncio.get_running_loop().time(),
        chance=random.Random(1),  # repeatable
    )
    task = asyncio.create_task(keeper.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heard, keeper, script


@virtual_time
async def test_sets_are_published_when_they_change_and_only_then() -> None:
    heard, keeper, _ = await keep(A, A, tuple(reversed(BOTH)), BOTH, B)

    assert heard.sets == [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]]
    assert not keeper.is_pending
    assert keeper.last_success == 1004.0


@virtual_time
async def test_a_source_that_is_down_takes_nothing_away_and_is_said_once() -> None:
    heard, keeper, _ = await keep(A, DOWN, DOWN, DOWN, A, DOWN)

    assert heard.sets == [["10.0.0.1"]]
    assert heard.kept == ["down", "down"]
    assert "down" in repr(keeper)


@virtual_time
async def test_the_pauses_grow_up_to_half_a_minute_and_begin_anew_after_success() -> None:
    _, _, script = await keep(*[DOWN] * 20, A, DOWN, DOWN)
    pauses = [
        after - before for before, after in zip(script.watches, script.watches[1:], strict=False)
    ]

    assert all(0.25 <= pause <= 30.25 for pause in pauses)
    assert pauses[0] <= 0.75
    assert max(pauses) > 10
    assert pauses[20] <= 1 + 0.75, "a second until the error, then the first pause again"


@virtual_time
async def test_before_the_first_answer_it_is_pending() -> None:
    heard, keeper, _ = await keep(DOWN)

    assert keeper.is_pending
    assert keeper.last_success == 0.0
    assert heard.sets == []


@pytest.mark.parametrize(
    ("on_empty", "sets", "kept"),
    [("keep", [["10.0.0.1"]], ["empty"]), ("drop", [["10.0.0.1"], []], [])],
)
def test_an_empty_set_is_believed_only_when_the_file_says_so(
    on_empty: str, sets: list[list[str]], kept: list[str]
) -> None:
    async def run() -> None:
        heard, _, _ = await keep(A, (), (), on_empty=on_empty)

        assert (heard.sets, heard.kept) == (sets, kept)

    virtual_time(run)()


@virtual_time
async def test_a_first_empty_answer_is_an_answer() -> None:
    heard, keeper, _ = await keep(())

    assert heard.sets == [[]]
    assert not keeper.is_pending


@virtual_time
async def test_a_set_that_is_too_large_is_not_believed() -> None:
    heard, _, _ = await keep(A, BOTH, max_endpoints=1)

    assert heard.sets == [["10.0.0.1"]]
    assert heard.kept == ["too_many_endpoints"]


@virtual_time
async def test_forbidden_addresses_are_left_out_and_said_once() -> None:
    bad = endpoints(*(f"127.0.0.{n}" for n in range(1, 8)))
    heard, _, _ = await keep(A + bad, B + bad, B, B + bad[:1])

    assert heard.sets == [["10.0.0.1"], ["10.0.0.2"]]
    assert [count for _, count in heard.ignored] == [7, 1]
    assert len(heard.ignored[0][0]) == 5


@virtual_time
async def test_an_address_that_is_named_twice_counts_once() -> None:
    heard, _, _ = await keep(A + A)

    assert heard.sets == [["10.0.0.1"]]


@virtual_time
async def test_a_bug_of_a_backend_takes_nothing_away_and_does_not_end_the_watching() -> None:
    """Threats E8."""
    heard, keeper, script = await keep(A, ZeroDivisionError("bug"), BOTH)

    assert heard.sets == [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]]
    assert heard.kept == ["internal_error"]
    assert [type(error) for error in heard.crashes] == [ZeroDivisionError]
    assert keeper.failure == ""
    assert len(script.watches) == 2


@virtual_time
async def test_a_socket_of_this_machine_is_never_taken_from_discovery() -> None:
    """Threats H2: an address that is allowed must not hide a path beside it."""
    hidden = Endpoint(Address("10.0.0.1", 443, "/run/docker.sock"))

    heard, _, _ = await keep((hidden,), BOTH)

    assert heard.sets[-1] == ["10.0.0.1", "10.0.0.2"]
    assert heard.ignored[0][1] == 1
