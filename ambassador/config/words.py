"""How errors speak of values: short, printable, never what was replaced (threats I3, I5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ambassador.config.substitute import MASK, Substituted

NOT_BUILT: Final = "not built yet"

_LONGEST_SHOWN = 80


def show(value: Any) -> str:
    """Give a value as errors may show it: short, printable, masked when something in it was replaced."""
    match value:
        case Substituted():
            return MASK
        case str():
            return quote(value)
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def quote(text: str) -> str:
    """Give foreign text between quotes, cut when it is long."""
    shown = printable(text[:_LONGEST_SHOWN])
    return f'"{shown}…"' if len(text) > _LONGEST_SHOWN else f'"{shown}"'


def wrong(expected: str, value: Any, cure: str = "") -> ValueError:
    """Give the error of a value: what was expected, what came, what to do (which is masked with the value)."""
    cure = "" if isinstance(value, Substituted) else printable(cure)
    return ValueError(f"expected {expected}, got {show(value)}" + (f"; {cure}" if cure else ""))


def nearest(word: str, words: Iterable[str]) -> str:
    """Give the most similar of `words`, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415  # only when something is wrong

    return next(iter(get_close_matches(word, list(words), 1, 0.6)), "")


def printable(text: str) -> str:
    """Give foreign text without a byte that could move a terminal's cursor."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
