"""Which backend belongs to a kind; one that nobody configured is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.config.model import FileDiscovery

if TYPE_CHECKING:
    from random import Random

    from ambassador.config.model import DiscoveryConfig
    from ambassador.discovery.base import Discovery


def make(config: DiscoveryConfig, chance: Random) -> Discovery:
    """Give the backend that a configuration asks for."""
    settings = config.settings
    if isinstance(settings, FileDiscovery):
        from ambassador.discovery.file import FromFile  # noqa: PLC0415  # see the module

        return FromFile(settings)
    from ambassador.discovery.dns import FromDns  # noqa: PLC0415  # dnspython is slow to import

    return FromDns(settings, chance)
