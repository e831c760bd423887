"""Endpoints from a backend that another distribution brought.

Knows that it is somebody else's: whatever it raises, gives or leaves out is a failure of discovery, which takes no
endpoint away, and never the end of the sidecar.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Final, cast

from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from ambassador.config.model import PluginDiscovery
    from ambassador.discovery.base import Discovery

_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_SANE_S: Final = 3600.0
#: As in the file.
_HEAVIEST, _LAST_TIER, _HIGHEST_PORT = 1_000_000, 100, 65535
_WORD: Final = re.compile("[a-z][a-z0-9_]{0,39}")


class FromPlugin:
    """Makes the backend with the first watch, and passes on what it says."""

    __slots__ = ("_backend", "_chance", "_kind", "_settings", "_zone")

    def __init__(self, kind: str, settings: PluginDiscovery, *, zone: str, chance: Random) -> None:
        self._kind = kind
        self._settings = settings
        self._zone = zone
        self._chance = chance
        self._backend: Discovery | None = None

    def __repr__(self) -> str:
        return f"FromPlugin({self._kind})"

    @property
    def longest_pause_s(self) -> float:
        """What the backend says, or half a minute."""
        given = getattr(self._backend, "longest_pause_s", None)
        is_sane = isinstance(given, int | float) and 0 < given <= _LONGEST_SANE_S
        return float(given) if is_sane else _LONGEST_PAUSE_S  # type: ignore[arg-type]  # it is a number

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """See `Discovery.watch`."""
        try:
            backend = self._backend = self._backend or self._make()
            async for endpoints in backend.watch():
                yield _checked(endpoints)
        except DiscoveryError as error:
            reason = error.reason if _WORD.fullmatch(error.reason) else "plugin_failed"
            raise DiscoveryError(reason, self._told(error, error.message)) from None
        except Exception as error:
            raise DiscoveryError("plugin_failed", f"{self._kind}: {self._told(error)}") from None
        raise DiscoveryError("plugin_failed", f"{self._kind}: it has ended its watch")

    def _make(self) -> Discovery:
        settings = self._settings
        backend = settings.factory(settings.settings, zone=self._zone, chance=self._chance)
        return cast("Discovery", backend)

    def _told(self, error: Exception, message: str = "") -> str:
        """Give an error in words; only its name when the settings hold a secret, which it may quote."""
        name, settings = type(error).__name__, self._settings.settings
        hides = is_dataclass(settings) and not all(one.repr for one in fields(settings))
        return name if hides else message or f"{name}: {error}"


def _checked(endpoints: object) -> tuple[Endpoint, ...]:
    """Give the set. Errors: TypeError."""
    if not isinstance(endpoints, tuple) or not all(isinstance(one, Endpoint) for one in endpoints):
        raise TypeError("it gave something else than a tuple of endpoints")
    for one in endpoints:
        sane = isinstance(one.weight, int) and 1 <= one.weight <= _HEAVIEST
        sane = sane and isinstance(one.priority, int) and 0 <= one.priority <= _LAST_TIER
        if not (sane and isinstance(one.zone, str) and 1 <= one.address.port <= _HIGHEST_PORT):
            raise ValueError("weight, priority, zone or port of an endpoint is out of its range")
    return endpoints
