"""A tolerant look at the parsed file, for rules between keys.

The schema may have refused half of the file; the rules still judge the other half, so that all errors come at
once. Whatever is absent, of the wrong kind or refused by its own check simply is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ambassador.config.annotations import Check
from ambassador.config.document import Document, KeyPath
from ambassador.core.errors import ConfigError


class _Absent:
    __slots__ = ()


_ABSENT: Final = _Absent()


class View:
    """One value of the file with its key path."""

    __slots__ = ("document", "path", "value")

    def __init__(self, document: Document, path: KeyPath = (), value: Any = _ABSENT) -> None:
        self.document = document
        self.path = path
        self.value = value

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> View:
        value = self.value[key] if key in self else _ABSENT
        return View(self.document, (*self.path, key), value)

    @property
    def present(self) -> bool:
        """Say whether something stands there."""
        return self.value is not _ABSENT

    @property
    def is_list(self) -> bool:
        """Say whether a list stands there."""
        return isinstance(self.value, list)

    @property
    def is_mapping(self) -> bool:
        """Say whether a mapping stands there."""
        return isinstance(self.value, dict)

    def values(self) -> Iterator[View]:
        """Give the values of a mapping."""
        yield from dict(self.items()).values()

    def items(self) -> Iterator[tuple[str, View]]:
        """Give names and values of a mapping."""
        if isinstance(self.value, dict):
            for key in self.value:
                yield key, self[key]

    def each(self) -> Iterator[View]:
        """Give the items of a list, or a single mapping or scalar as one."""
        if isinstance(self.value, list):
            for index, value in enumerate(self.value):
                yield View(self.document, (*self.path, index), value)
        elif self.present:
            yield self

    def read(self, check: Check, default: Any = None) -> Any:
        """Give the value as its check understands it; the default when absent or refused."""
        try:
            return check(self.value) if self.present else default
        except ValueError:
            return default

    def error(self, problem: str, *, of_key: bool = False) -> ConfigError:
        """Give an error about this value."""
        return self.document.error(self.path, problem, of_key=of_key)
