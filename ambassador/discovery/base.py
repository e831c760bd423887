"""What a backend of discovery is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ambassador.core.model import Endpoint


class Discovery(Protocol):
    """One backend for one service.

    Units: `longest_pause_s` is seconds: how long it may be left alone after failures, little where asking is cheap.
    """

    @property
    def longest_pause_s(self) -> float: ...

    def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Give the whole set whenever the source has been asked with success, changed or not; never end by itself.

        The same object again means: nothing has changed.
        Errors: DiscoveryError; the keeper then waits and calls anew.
        """
        ...
