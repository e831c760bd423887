"""Reading the credentials anew while everything goes on.

A set that is bad, incomplete or does not fit together keeps the old one, with an event and a counter. New handshakes
use the new set; connections that are open keep theirs, idle upstream ones are retired.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ambassador.core.errors import CredentialError

if TYPE_CHECKING:
    from ambassador.identity.store import IdentityStore
    from ambassador.net.tasks import TaskGroup
    from ambassador.telemetry.logging import Logger
    from ambassador.telemetry.metrics import Metrics
    from ambassador.upstream.directory import Directory


class CredentialReload:
    """Reads, checks and publishes on request, one at a time: two readers at once could publish the older set last."""

    __slots__ = ("_again", "_directory", "_log", "_metrics", "_running", "_store", "_tasks")

    def __init__(
        self,
        store: IdentityStore,
        directory: Directory,
        *,
        tasks: TaskGroup,
        metrics: Metrics,
        log: Logger,
    ) -> None:
        self._store = store
        self._directory = directory
        self._tasks = tasks
        self._metrics = metrics
        self._log = log
        self._running = self._again = False

    def __repr__(self) -> str:
        return f"CredentialReload(running={self._running})"

    def request(self) -> None:
        """Begin to read; during a reading, once more after it, for the files may have changed since it began."""
        if self._running:
            self._again = True
            return
        self._running = True
        self._tasks.start(self._run(), name="reload")

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                await self._read_once()
                if not self._again:
                    return
        finally:
            self._running = False

    async def _read_once(self) -> None:
        store = self._store
        try:
            prepared = await asyncio.to_thread(store.prepare)
        except CredentialError as error:
            self._metrics.reload_ended("credentials", "kept")
            self._log.warning("credentials_kept", reason=error.reason, problem=str(error))
            return
        except (
            Exception
        ):  # the guard of this task (E8): the old set stays, and the event names the bug
            self._metrics.reload_ended("credentials", "kept")
            raise
        store.publish(prepared)
        self._directory.retire()
        self._metrics.reload_ended("credentials", "ok")
        for warning in store.credentials.warnings:
            self._log.warning("credentials_warning", problem=warning)
        self._log.info(
            "credentials_reloaded",
            generation=store.generation,
            not_after=store.credentials.not_after,
        )
