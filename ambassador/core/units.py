"""Human units to numbers and back: "250ms" <-> seconds, "64KiB" <-> bytes, "20%" <-> 0.2.

Knows the spellings of `config.md`; must not know which key a value belongs to.
"""

from __future__ import annotations

import re

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_RATE_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(_NUMBER + r"(ms|s|m|h|d)", re.ASCII)
_SIZE = re.compile(_NUMBER + r"(B|KiB|MiB|GiB)", re.ASCII)
_PERCENT = re.compile(_NUMBER + r"%", re.ASCII)
_RATE = re.compile(_NUMBER + r"/(s|m|h)", re.ASCII)


def parse_duration(text: str) -> float:
    """Give the seconds of "250ms", "5s", "10m", "1h" or "1d".

    Units: seconds.
    Errors: ValueError with a sentence when the unit is missing or unknown.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a duration such as 250ms, 5s, 10m or 1h, got "{text}"')
    return float(match[1]) * _DURATION_UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """Give the shortest exact spelling that `parse_duration` reads back.

    Units: seconds.
    """
    for unit in ("d", "h", "m", "s"):
        amount = seconds / _DURATION_UNITS[unit]
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    amount, unit = (seconds * 1000, "ms") if seconds < 1 else (seconds, "s")
    return f"{amount:.6f}".rstrip("0").rstrip(".") + unit


def rough_duration(seconds: float) -> str:
    """Give a length of time as people say it: `30 days`, `5 h`, `12 min`, `40 s`.

    Units: `seconds` is not negative.
    """
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {name}"
    return f"{round(seconds)} s"


def parse_size(text: str) -> int:
    """Give the bytes of "512B", "64KiB", "1MiB" or "1GiB".

    Units: bytes.
    Errors: ValueError with a sentence when the unit is missing or unknown, or a part of a byte is meant.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a size such as 512B, 64KiB or 1MiB, got "{text}"')
    size = float(match[1]) * _SIZE_UNITS[match[2]]
    if size != int(size):
        raise ValueError(f'expected a whole number of bytes, got "{text}"')
    return int(size)


def format_size(size: int) -> str:
    """Give the shortest exact spelling that `parse_size` reads back.

    Units: bytes.
    """
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_percent(text: str) -> float:
    """Give the fraction of "20%".

    Units: a fraction, 1.0 is 100 %.
    Errors: ValueError with a sentence.
    """
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a percentage such as 20%, got "{text}"')
    return float(match[1]) / 100


def parse_rate(text: str) -> float:
    """Give the events per second of "100/s" or "600/m".

    Units: 1/s.
    Errors: ValueError with a sentence.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a rate such as 100/s or 600/m, got "{text}"')
    return float(match[1]) / _RATE_PERIODS[match[2]]
