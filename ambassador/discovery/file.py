"""Endpoints from a file: edited in place, renamed over, or swapped by Kubernetes' `..data` link.

Knows when to look; what is in it is told by `config.endpoint_list`. The content is compared, not a time stamp: a
second edit within a tick of the file system's clock, of the same length, would be missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ambassador.config.endpoint_list import MAX_BYTES, parse
from ambassador.core.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ambassador.config.model import FileDiscovery
    from ambassador.core.model import Endpoint


class FromFile:
    """Looks at a file again and again."""

    __slots__ = ("_content", "_endpoints", "_interval_s", "_path", "longest_pause_s")

    def __init__(self, settings: FileDiscovery) -> None:
        self._path = settings.path
        self._interval_s = self.longest_pause_s = settings.interval_s
        self._content: bytes | None = None
        self._endpoints: tuple[Endpoint, ...] = ()

    def __repr__(self) -> str:
        return f"FromFile({self._path})"

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        while True:
            # In a thread: the file may lie on a network, and a large one takes its time.
            yield await asyncio.to_thread(self._look)
            await asyncio.sleep(self._interval_s)

    def _look(self) -> tuple[Endpoint, ...]:
        content = _read(self._path)
        if content != self._content:
            self._endpoints = parse(content, file=str(self._path))
            self._content = content
        return self._endpoints


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a FIFO would wait for its writer for ever
            raise DiscoveryError("file_missing", f"{path}: no such file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DiscoveryError("file_unreadable", f"{path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise DiscoveryError("file_too_large", f"{path}: larger than {MAX_BYTES >> 20}MiB")
    return content
