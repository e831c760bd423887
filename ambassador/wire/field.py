"""Header lines: from bytes to a checked `Field`, and the cache of lines seen before.

Knows the grammar of one field line (RFC 9112 §5, RFC 9110 §5) and of the two values that name a host or a
length; must not know which message a line belongs to. What a name means for the proxy (its role) is asked of
`classify`, handed in.

A line is checked once, when it is first seen; after that it costs one dict look-up. So everything that can be
said of a line alone is said here.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ambassador.core.model import (
    CONNECTION,
    CONTENT_LENGTH,
    CREDENTIAL,
    HOST,
    PERSISTS,
    STAMPED,
    Field,
)

if TYPE_CHECKING:
    from ambassador.wire.head import Section

#: Longest line that is kept; together with `max_lines` this bounds the cache's memory (threat E7).
MAX_CACHED_LINE: Final = 128
#: Likewise of whole sections of a head, and how many of requests and of responses.
MAX_CACHED_SECTION: Final = 1024
MAX_SECTIONS: Final = 256
_MAX_CACHED_NAME: Final = 64
_MAX_NAMES: Final = 1024

# Never kept: credentials (threat E7), and lines that do not come twice and would only push others out.
_UNCACHED: Final = CREDENTIAL | STAMPED

# RFC 9110 §5.6.2 token.
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_is_name = re.compile(TOKEN).fullmatch
# RFC 9110 §5.5: a field value is VCHAR, obs-text, SP and HTAB; CR, LF, NUL and the other controls are refused.
_bad_in_value = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
# RFC 9110 §8.6: 1*DIGIT; 18 digits fit 64 bits whoever reads them next ("anticipate … large numerals").
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
# RFC 3986 §3.2.2 without what DNS names never contain (sub-delims, percent-encoding, IPvFuture, zone): they make
# two readers see two hosts. Userinfo is refused (RFC 9110 §4.2.4).
_is_authority = re.compile(
    rb"(?:[0-9A-Za-z\-._~]+|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?"
).fullmatch

# Spelt so, a gateway interface (CGI, WSGI) reads them as framing (gunicorn CVE-2024-1135's family; threat G1).
_FRAMING_ALIASES: Final = frozenset({b"content-length", b"transfer-encoding"})


class HeadError(Exception):
    """A head, chunk or trailer that is refused.

    `status` is what a request would be answered with (a response becomes 502 whatever it says); `detail` is a
    snake_case word for logs, `message` a sentence for the local app. Neither holds received bytes.
    """

    def __init__(self, status: int, detail: str, message: str = "") -> None:
        super().__init__(status, detail, message)
        self.status = status
        self.detail = detail
        self.message = message or detail.replace("_", " ")


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Ceilings of one head or trailer section.

    Units: `max_head`, `max_uri` bytes; `max_fields` lines.
    Source: Envoy (60 KiB, 100 fields).
    """

    max_head: int = 61440
    max_fields: int = 100
    max_uri: int = 16384


def authority_port(value: bytes) -> int:
    """Give the port of `host` or `host:port`: 0 if there is none, -1 if `value` is no valid authority.

    Source: RFC 9110 §4.2.1 (an empty host is invalid), §4.2.4 (userinfo is an error); RFC 3986 §3.2.
    """
    found = _is_authority(value)
    if found is None:
        return -1
    port = int(found[1] or b"0")  # the expression let through at most five ASCII digits
    return port if port <= 65535 else -1


class _Lines(dict[bytes, Field]):
    """The cache itself: a missing line is parsed, so that a hit costs no call of a Python function."""

    __slots__ = ("parse",)

    parse: Callable[[bytes], Field]

    def __missing__(self, line: bytes) -> Field:
        return self.parse(line)


class LineCache:
    """Lines seen before, and the way to parse others.

    `lines[line]` gives the `Field` of a line, parsed if need be. Bounded by count and by the length of a line;
    cleared when full, since counting uses would cost more than parsing again.
    Errors: HeadError for a malformed line; it is never kept.
    """

    __slots__ = ("_classify", "_max_lines", "_names", "field", "lines", "requests", "responses")

    def __init__(self, classify: Callable[[bytes], int], *, max_lines: int = 4096) -> None:
        self._classify = classify
        self._max_lines = max_lines
        self._names: dict[bytes, tuple[bytes, int]] = {}
        self.lines = _Lines()
        self.lines.parse = self._parse
        #: Sections of heads seen before, by their bytes (`wire.head`).
        self.requests: dict[bytes, Section] = {}
        self.responses: dict[bytes, Section] = {}
        #: `lines[line]` for `map`.
        self.field: Callable[[bytes], Field] = self.lines.__getitem__

    def __repr__(self) -> str:
        return f"LineCache({len(self.lines)} of {self._max_lines} lines)"

    def keep(self, sections: dict[bytes, Section], text: bytes, section: Section) -> None:
        """Keep a section, unless it is long, or has a line that is never kept."""
        if len(text) <= MAX_CACHED_SECTION and not section.shape.roles & _UNCACHED:
            if len(sections) >= MAX_SECTIONS:
                sections.clear()
            sections[text] = section

    def line(self, line: bytes) -> Field:
        """Give the field that a line (without its CRLF) holds."""
        return self.lines[line]

    def _parse(self, line: bytes) -> Field:
        name, colon, value = line.partition(b":")
        known = self._names.get(name)
        if known is None:
            known = self._name(name, colon)
        if not colon or _bad_in_value(value):
            raise _malformed(line, name, colon)
        lower, role = known
        if role & STAMPED:
            return Field(lower, value.strip(b" \t"), role, line)  # comes once, goes out as it came
        value = value.strip(b" \t")  # RFC 9112 §5.1: OWS around the value is no part of it
        if role & CONNECTION and value.lower() == b"keep-alive":
            role ^= CONNECTION | PERSISTS
        if role & (CONTENT_LENGTH | HOST):
            _check_value(role, value)
        spelt = name + b": " + value
        if len(line) > MAX_CACHED_LINE or role & _UNCACHED:
            return Field(lower, value, role, spelt)
        field = Field(lower, value, role, line if spelt == line else spelt)
        if len(self.lines) >= self._max_lines:
            self.lines.clear()
        self.lines[line] = field
        return field

    def _name(self, name: bytes, colon: bytes) -> tuple[bytes, int]:
        """Check a name not seen before and keep it."""
        if not colon or not _is_name(name):
            raise _malformed(name, name, colon)
        lower = name.lower()
        if lower.replace(b"_", b"-").replace(b".", b"-") in _FRAMING_ALIASES - {lower}:
            raise HeadError(400, "framing_alias", "A field name imitates a framing field.")
        known = (lower, self._classify(lower))
        if len(name) <= _MAX_CACHED_NAME:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._names[name] = known
        return known


def _check_value(role: int, value: bytes) -> None:
    if role & CONTENT_LENGTH and not _is_length(value):
        # Also "5, 5", which RFC 9112 §6.3 item 5 lets a recipient merge: two readers may not.
        raise HeadError(400, "bad_content_length", "Content-Length is not one decimal number.")
    # An empty Host is what a client sends whose target has no authority (RFC 9112 §3.2).
    if role & HOST and value and authority_port(value) < 0:
        raise HeadError(400, "bad_host", "Host is not a valid host and port.")


def _malformed(line: bytes, name: bytes, colon: bytes) -> HeadError:
    """Find the word for what is wrong with a line."""
    if line[:1] in {b" ", b"\t"}:
        # RFC 9112 §2.2 (before the first field) and §5.2: refused, never unfolded.
        return HeadError(400, "obs_fold", "A field line is folded.")
    if not colon:
        return HeadError(400, "no_colon", "A field line has no colon.")
    if name[-1:] in {b" ", b"\t"}:
        # RFC 9112 §5.1: MUST be rejected with 400 in a request. From a response a proxy MUST remove it or, as
        # we do, not forward the message at all.
        return HeadError(400, "space_before_colon", "A field name is followed by a blank.")
    if not _is_name(name):
        return HeadError(400, "bad_field_name", "A field name is not a token.")
    return HeadError(400, "bad_field_value", "A field value holds a control character.")
