"""The services of the process, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ambassador.upstream.service import Service


class Directory:
    """Services by name."""

    __slots__ = ("_services",)

    def __init__(self, services: dict[str, Service]) -> None:
        self._services = services

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    def __repr__(self) -> str:
        return f"Directory({sorted(self._services)})"

    def retire(self) -> None:
        """After a change of credentials: no connection with the old identity serves again."""
        for service in self:
            service.retire()

    def close(self) -> None:
        """Close what is idle."""
        for service in self:
            service.close()

    def abort(self) -> None:
        """Cut what is left, at the end of the process."""
        for service in self:
            service.abort()
