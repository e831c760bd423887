"""Text for logs: the one escaping function for what strangers wrote, and time stamps.

Knows what a terminal or a log reader could mistake for structure; must not know which field a text is for.
"""

from __future__ import annotations

import re
import time
from typing import Final

#: The most that one foreign field may take of a line (threats I5).
MAX_FIELD_BYTES: Final = 1024
_CUT: Final = "..."
_HALF_ESCAPE: Final = re.compile(r"\\(?:x[0-9a-f]?|u[0-9a-f]{0,3}|U[0-9a-f]{0,7})?$")
_LAST_ASCII: Final = 0x7F
_LAST_BMP: Final = 0xFFFF
_SURROGATE_ESCAPES: Final = range(0xDC80, 0xDD00)


def clean(text: bytes | str) -> str:
    """Give foreign text as one harmless piece of a log line.

    Whatever Python calls not printable becomes a visible `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`: C0 with ESC, CR and
    LF, DEL, C1, bidi controls, zero-width characters, line and paragraph separators; bytes that are no UTF-8
    become `\\xNN`. Backslashes stay, so a cleaned text is not changed again.

    Units: the result has at most 1,024 bytes in UTF-8 and ends in `...` when it was cut.
    Errors: none, for any input.
    """
    if len(text) > MAX_FIELD_BYTES:
        text = text[: MAX_FIELD_BYTES + 1]  # one too many, so that the end sees that it must cut
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = _escaped(text)
    # isascii first: it is a flag of the object, so that the usual text is never encoded for its length.
    if len(text) <= MAX_FIELD_BYTES and (text.isascii() or len(text.encode()) <= MAX_FIELD_BYTES):
        return text
    kept = text.encode()[: MAX_FIELD_BYTES - len(_CUT)].decode("utf-8", "ignore")
    return _HALF_ESCAPE.sub("", kept) + _CUT


def _escaped(text: str) -> str:
    pieces = []
    room = MAX_FIELD_BYTES
    for char in text:
        piece = char if char.isprintable() else _escape(char)
        pieces.append(piece)
        room -= len(piece)
        if (
            room < 0
        ):  # the rest will be cut: an escape costs 0.3 us, a stranger must not buy a thousand
            break
    return "".join(pieces)


def _escape(char: str) -> str:
    code = ord(char)
    if code in _SURROGATE_ESCAPES:  # a byte that was no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code <= _LAST_ASCII:
        return f"\\x{code:02x}"
    if code <= _LAST_BMP:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


class _Second:
    """The second of the last time stamp, spelled out: thousands of exchanges share it."""

    __slots__ = ("number", "text")

    def __init__(self) -> None:
        self.number = -1
        self.text = ""


_last = _Second()
# 55 KB that halve the time stamp of every exchange: 0.23 us, where formatting the number takes 0.54
# (benchmarks/micro/telemetry_access_log.py).
_MILLIS: Final = tuple(f".{millis:03d}Z" for millis in range(1000))


def rfc3339(wall: float) -> str:
    """Give the UTC time stamp `2026-01-31T12:00:00.310Z`.

    Units: `wall` is Unix time in seconds, not negative.
    Source: RFC 3339 §5.6.
    """
    # Multiplied first: 0.310 as a fraction of today's Unix time would come out as 309.
    millis = int(wall * 1000.0)
    second = millis // 1000
    if second != _last.number:
        _last.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last.number = second
    return _last.text + _MILLIS[millis - second * 1000]
