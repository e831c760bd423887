"""What must hold when a scenario is over: nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.support.process import Ambassador
from tests.support.waiting import eventually, eventually_async


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fail when sockets or warnings of this process remain; for scenarios without a loop."""
    before = open_sockets()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
        eventually(lambda: open_sockets() <= before, f"sockets: {before} before")
    assert not caught, [str(warning.message) for warning in caught]


@contextlib.asynccontextmanager
async def nothing_left_on_loop(*, patience_s: float = 10.0) -> AsyncIterator[None]:
    """Fail when tasks, sockets or warnings remain that were not there before."""
    tasks = asyncio.all_tasks()
    before = open_sockets()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        await eventually_async(
            lambda: asyncio.all_tasks() <= tasks, "tasks are left", patience_s=patience_s
        )
        gc.collect()
        await eventually_async(lambda: open_sockets() <= before, f"sockets: {before} before")
    assert not caught, [str(warning.message) for warning in caught]


def open_sockets() -> int:
    """Give the number of sockets that this process holds."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own descriptor
            links.append(os.readlink(link))
    return sum(link.startswith("socket:") for link in links)


def assert_idle(sidecar: Ambassador) -> None:
    """Fail unless a sidecar, whose peers are gone, holds no connection but idle pooled ones, and is still ready."""
    eventually(lambda: sidecar.metric("connections") == 0, "downstream connections")
    eventually(
        lambda: (
            sidecar.metric("upstream_connections")
            == sidecar.metric("upstream_connections", state="idle")
        ),
        "upstream connections in use",
    )
    assert sidecar.get("/ready")[0] == 200
