"""The chunked transfer coding: a strict reader and a writer (RFC 9112 §7.1).

Knows chunk sizes, extensions and trailer sections; must not know who sends the body. Chunk extensions are
checked and dropped (RFC 9112 §7.1.1: a recipient MUST ignore unrecognized ones, and they end with the hop).

Theory of operation: `feed` takes what one read brought. Chunk data is handed out as one piece per call, so that
a body in tiny chunks costs its receiver nothing more than one in large ones (threat E5). A line that is not yet
whole waits in `_pending`; it is only appended to, and only new bytes are searched for its end (threat E4).

Measured by benchmarks/micro/chunked.py.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ambassador.core.model import CREDENTIAL, Field
from ambassador.wire.field import TOKEN, HeadError, HeadLimits, LineCache

#: Extensions of all chunks of one message together. Source: house; h11 CVE-2025-43859, CVE-2023-39326 (Go).
MAX_EXTENSIONS: Final = 16384
_MAX_DIGITS: Final = 15
# RFC 9112 §7.1.1, RFC 9110 §5.6.4. Possessive throughout: linear whatever is sent.
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,15}+)"
    rb"((?:[ \t]*+;[ \t]*+"
    + TOKEN
    + rb"(?:[ \t]*+=[ \t]*+(?:"
    + TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*+)"
).fullmatch
# What the first bytes of an unfinished size line must look like.
_size_begin = re.compile(rb"[0-9A-Fa-f]{1,15}+(?:[ \t;\r]|\Z)").match
_too_many_digits = re.compile(rb"[0-9A-Fa-f]{16}").match
# Size lines without extension up to 4 KiB, in the spellings that writers use: one look-up instead of a match.
# fmt: off
_SIZES: Final = {spelt % n: n for n in range(4097) for spelt in (b"%x", b"%X")}
# fmt: on

# RFC 9110 §6.5.1: not allowed in trailers, although they carry no role that drops them anyway.
_NOT_IN_TRAILERS: Final = frozenset(
    {
        b"accept-ranges",
        b"age",
        b"authentication-info",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-range",
        b"content-type",
        b"cookie",
        b"cookie2",
        b"date",
        b"expires",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"last-modified",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"range",
        b"referer",
        b"retry-after",
        b"set-cookie",
        b"set-cookie2",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
    }
)

_CRLF: Final = b"\r\n"
_SIZE, _DATA, _TRAILER, _DONE = range(4)


class ChunkedReader:
    """Decodes one chunked body.

    `feed` gives the body bytes that `data` brought, as one piece, possibly empty. When `done` is true the
    message has ended, `rest` is what followed it and `trailers` are the fields that may be passed on; `feed`
    is not called again.
    Errors: HeadError 400 or 431; the reader is dead then.
    Source: RFC 9112 §7.1.
    """

    __slots__ = (
        "_cache",
        "_extensions",
        "_fields",
        "_limits",
        "_pending",
        "_remaining",
        "_state",
        "_trailer_bytes",
        "done",
        "rest",
        "trailers",
    )

    def __init__(self, cache: LineCache, limits: HeadLimits) -> None:
        self._cache = cache
        self._limits = limits
        self._state = _SIZE
        self._remaining = 0  # bytes of the running chunk with its CRLF
        self._extensions = 0
        self._trailer_bytes = 0
        self._fields = 0
        self._pending = bytearray()
        self.trailers: list[Field] = []
        self.done = False
        self.rest = b""

    def __repr__(self) -> str:
        state = ("size", "data", "trailer", "done")[self._state]
        return f"ChunkedReader({state}, remaining={self._remaining})"

    def feed(self, data: bytes) -> bytes:
        """Take what was received and give the body bytes in it."""
        if self._remaining - 2 >= len(data):  # in the midst of a large chunk: nothing to look for
            self._remaining -= len(data)
            return data
        pieces: list[bytes] = []
        position = 0
        if self._pending:
            position = self._complete_pending(data)
        if self._state == _DATA:
            position = self._continue_chunk(data, position, pieces)
        if self._state == _SIZE:
            position = self._read_chunks(data, position, pieces)
        if self._state == _TRAILER:
            position = self._read_trailers(data, position)
        if self._state == _DONE:
            self.done = True
            self.rest = data[position:]
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _read_chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Read whole chunks, then the begin of the next; the loop that tiny chunks go through."""
        find, known, length = data.find, _SIZES.get, len(data)
        while True:
            end = find(b"\r\n", position)
            if end < 0:
                self._keep(data, position)
                return length
            line = data[position:end]
            size = known(line)
            if size is None:
                size = self._size(line)
            position = end + 2
            if not size:
                self._state = _TRAILER
                return position
            end = position + size
            if end + 2 > length:
                self._state = _DATA
                self._remaining = size + 2
                return self._continue_chunk(data, position, pieces)
            pieces.append(data[position:end])
            position = end + 2
            if data[end:position] != b"\r\n":
                raise _no_crlf()

    def _continue_chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take more of the running chunk, and of its CRLF; give the index behind what was taken."""
        if self._remaining > 2:
            piece = data[position : position + self._remaining - 2]
            if piece:
                pieces.append(piece)
            position += len(piece)
            self._remaining -= len(piece)
            if self._remaining > 2:
                return position
        ending = data[position : position + self._remaining]
        if not _CRLF[2 - self._remaining :].startswith(ending):
            # Not even one byte may stand between data and CRLF: readers disagree on what would follow.
            raise _no_crlf()
        self._remaining -= len(ending)
        if not self._remaining:
            self._state = _SIZE
        return position + len(ending)

    def _size(self, line: bytes) -> int:
        """Give the size of a chunk from its line, and count its extensions."""
        found = _size_line(line)
        if found is None:
            detail = "chunk_too_large" if _too_many_digits(line) else "bad_chunk_size"
            raise HeadError(400, detail, "A chunk does not begin with a valid size line.")
        self._extensions += len(found[2])
        if self._extensions > MAX_EXTENSIONS:
            raise HeadError(400, "chunk_extensions_too_large", "Too many chunk extensions.")
        return int(found[1], 16)  # at most 15 ASCII digits, said the expression

    def _read_trailers(self, data: bytes, position: int) -> int:
        while (end := data.find(b"\r\n", position)) >= 0:
            line = data[position:end]
            position = end + 2
            if not line:
                self._state = _DONE
                return position
            self._trailer(line)
        self._keep(data, position)
        return len(data)

    def _trailer(self, line: bytes) -> None:
        """Check one trailer line; keep it if it may be passed on."""
        self._fields += 1
        self._trailer_bytes += len(line) + 2
        if self._fields > self._limits.max_fields or self._trailer_bytes > self._limits.max_head:
            raise HeadError(431, "trailers_too_large", "The trailer section is too large.")
        field = self._cache.line(line)
        # Whatever has a role in a head is framing, identity, routing or tracing, and has none here (threat A6).
        # CREDENTIAL alone goes by substrings of the name, so the exact names of the list decide there.
        if not field.role & ~CREDENTIAL and field.name not in _NOT_IN_TRAILERS:
            self.trailers.append(field)

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the begin of a line whose end has not arrived, within the limits that its end will meet."""
        pending = self._pending
        before = len(pending)
        pending += data[position:]
        if self._state == _TRAILER:
            if self._trailer_bytes + len(pending) > self._limits.max_head:
                raise HeadError(431, "trailers_too_large", "The trailer section is too large.")
        elif self._extensions + len(pending) > MAX_EXTENSIONS + _MAX_DIGITS + 1:
            raise HeadError(400, "chunk_extensions_too_large", "Too many chunk extensions.")
        # RFC 9112 §2.2, §7.1: lines end in CRLF; what can only become wrong is refused at once.
        if (end := pending.find(b"\n", before)) >= 0 or pending.find(
            b"\r", max(before - 1, 0), -1
        ) >= 0:
            raise HeadError(400, "bare_lf" if end >= 0 else "bare_cr", "A chunk line is malformed.")
        if self._state == _SIZE and pending and not _size_begin(pending[:17]):
            self._size(bytes(pending[:17]))  # which names what is wrong

    def _complete_pending(self, data: bytes) -> int:
        """Finish the line in `_pending` with the begin of `data`, if its end is there."""
        end = data.find(b"\n")
        if end < 0:
            self._keep(data, 0)
            return len(data)
        self._keep(data[:end], 0)
        pending = self._pending
        if pending[-1:] != b"\r":
            raise HeadError(400, "bare_lf", "A chunk line ends in LF without CR.")
        line = bytes(pending[:-1])
        pending.clear()
        if self._state == _TRAILER:
            if line:
                self._trailer(line)
            else:
                self._state = _DONE
        elif size := self._size(line):
            self._state = _DATA
            self._remaining = size + 2
        else:
            self._state = _TRAILER
        return end + 1


def _no_crlf() -> HeadError:
    return HeadError(400, "bad_chunk_end", "Chunk data is not followed by CRLF.")


#: The end of a body without trailers.
LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Give the size line that goes before `data`; a CRLF goes behind it.

    `data` is not empty: an empty chunk would end the body.
    """
    return b"%x\r\n" % len(data)


def last_chunk(trailers: Sequence[Field]) -> bytes:
    """Give the end of a body with its trailer section."""
    return b"\r\n".join([b"0", *[field.line for field in trailers], b"", b""])
