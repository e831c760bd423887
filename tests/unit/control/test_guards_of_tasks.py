"""A bug in a task of `control` is named once, and nobody waits for ever (threat E8)."""

from __future__ import annotations

import asyncio
from typing import Any

from ambassador.control.admin import Reply
from ambassador.control.admin_server import AdminExchange
from ambassador.control.reload import CredentialReload
from ambassador.core.model import RequestHead
from ambassador.net.tasks import TaskGroup


def _bug() -> bytes:
    raise RuntimeError("a bug")


async def others_end() -> None:
    """Wait for all tasks but this one, and for what is done at their end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(others)
    await asyncio.sleep(0)


class Crashes(list[str]):
    """Names of tasks that crashed."""

    def note(self, name: str, _error: BaseException) -> None:
        self.append(name)


class Stream:
    """Keeps what is answered."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.body = b""

    def write_head(self, head: Any, _extra: bytes, _end: bool) -> None:  # noqa: FBT001
        self.statuses.append(head.status)

    def write_body(self, chunk: bytes, _end: bool) -> None:  # noqa: FBT001
        self.body += chunk


class Admin:
    """Has one page, which cannot be made."""

    def respond(self, *_: object, **__: object) -> Reply:
        return Reply(200, b"text/plain", b"", render=_bug)


def test_a_page_that_cannot_be_made_is_answered() -> None:
    async def run() -> tuple[Stream, Crashes]:
        stream, crashes = Stream(), Crashes()
        tasks = TaskGroup(crashes.note)
        whom: Any = stream
        admin: Any = Admin()
        exchange = AdminExchange(admin, whom, tasks)
        exchange.head_received(RequestHead(b"GET", b"/metrics", b"", b"a", [], None), True)  # noqa: FBT003
        await others_end()
        return stream, crashes

    stream, crashes = asyncio.run(run())

    assert stream.statuses == [500]
    assert b"task_crashed" in stream.body
    assert crashes == ["metrics page"]


class Store:
    """Fails as no store should."""

    generation = 1

    def prepare(self) -> None:
        _bug()


class Metrics:
    """Keeps how reloads ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def reload_ended(self, what: str, how: str) -> None:
        self.ended.append((what, how))


def test_a_reload_with_a_bug_keeps_the_old_set_and_counts() -> None:
    async def run() -> tuple[Metrics, Crashes]:
        metrics, crashes = Metrics(), Crashes()
        tasks = TaskGroup(crashes.note)
        nothing: Any = None
        store: Any = Store()
        counted: Any = metrics
        reload = CredentialReload(store, nothing, tasks=tasks, metrics=counted, log=nothing)
        for _ in range(2):  # the second is not blocked by the first
            reload.request()
            await others_end()
        return metrics, crashes

    metrics, crashes = asyncio.run(run())

    assert metrics.ended == [("credentials", "kept")] * 2
    assert crashes == ["reload"] * 2
