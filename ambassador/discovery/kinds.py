"""Which backend belongs to a kind; one that nobody configured is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.discovery.file import FromFile

if TYPE_CHECKING:
    from ambassador.config.model import DiscoveryConfig
    from ambassador.discovery.base import Discovery


def make(config: DiscoveryConfig) -> Discovery:
    """Give the backend that a configuration asks for."""
    return FromFile(config.settings)
