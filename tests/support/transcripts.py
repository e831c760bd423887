"""Transcripts: bytes as received and the events they mean, whole, byte by byte and split at random.

`MessageReader` is the smallest caller of `ambassador.wire` that reads a stream of messages; it is what an
HTTP/1.1 connection does, without connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ambassador.core import model
from ambassador.core.model import Field, RequestHead, ResponseHead
from ambassador.wire.chunked import ChunkedReader
from ambassador.wire.framing import CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.head import (
    HeadError,
    HeadLimits,
    LineCache,
    find_head_end,
    head_too_large,
    parse_request_head,
    parse_response_head,
    skip_empty_lines,
)

#: Roles as the proxy gives them, as far as the wire looks at them.
ROLES = {
    b"host": model.HOST,
    b"content-length": model.CONTENT_LENGTH,
    b"transfer-encoding": model.TRANSFER_ENCODING,
    b"connection": model.CONNECTION,
    b"keep-alive": model.HOP_BY_HOP,
    b"proxy-connection": model.HOP_BY_HOP,
    b"te": model.HOP_BY_HOP,
    b"trailer": model.HOP_BY_HOP,
    b"upgrade": model.UPGRADE,
    b"expect": model.EXPECT,
    b"x-forwarded-client-cert": model.IDENTITY | model.FORWARDED_CERT,
    b"x-forwarded-for": model.IDENTITY | model.FORWARDED_FOR,
    b"x_forwarded_for": model.IDENTITY,
    b"x-request-id": model.REQUEST_ID,
    b"traceparent": model.TRACEPARENT,
    b"user-agent": model.USER_AGENT,
    b"cache-control": model.PROTECTED,
    b"authorization": model.CREDENTIAL | model.PROTECTED,
    b"cookie": model.CREDENTIAL | model.PROTECTED,
    b"set-cookie": model.CREDENTIAL | model.PROTECTED,
    b"x-api-key": model.CREDENTIAL,
}

Event = tuple[object, ...]


def classify(name: bytes) -> int:
    """Role of a lower-case name."""
    return ROLES.get(name, 0)


def line_cache(*, max_lines: int = 4096) -> LineCache:
    """An empty cache with the roles above."""
    return LineCache(classify, max_lines=max_lines)


def pairs(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    """Names and values, for comparison."""
    return [(field.name, field.value) for field in fields]


def splits(data: bytes, *, seed: int = 1, times: int = 5) -> Iterator[list[bytes]]:
    """The same bytes whole, byte by byte, and cut at random places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    chance = random.Random(seed)
    for _ in range(times):
        cuts = sorted(
            chance.sample(range(1, len(data)), k=min(len(data) - 1, chance.randint(1, 9)))
        )
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class MessageReader:
    """Reads messages out of pieces and notes what they mean; stops at the first error."""

    def __init__(
        self,
        *,
        method_asked: bytes = b"",
        cache: LineCache | None = None,
        limits: HeadLimits | None = None,
    ) -> None:
        self.events: list[Event] = []
        self._method_asked = method_asked  # given: responses are read
        self._cache = cache or line_cache()
        self._limits = limits or HeadLimits()
        self._buffer = bytearray()
        self._scan = 0
        self._state = "head"
        self._remaining = 0
        self._chunks: ChunkedReader | None = None

    def run(self, pieces: list[bytes]) -> list[Event]:
        """Feed all pieces and the end of the stream; give the events, body pieces joined."""
        for piece in pieces:
            self._feed(piece)
        if self._state == "until_eof":
            self.events.append(("end",))
        return self.events

    def _feed(self, piece: bytes) -> None:
        if self._state == "dead":
            return
        self._buffer += piece
        try:
            while self._step():
                pass
        except HeadError as error:
            self.events.append(("error", error.status, error.detail))
            self._state = "dead"

    def _step(self) -> bool:
        if self._state == "head":
            return self._read_head()
        data = bytes(self._buffer)
        self._buffer.clear()
        if not data:
            return False
        if self._state == "chunked":
            assert self._chunks is not None
            self._body(self._chunks.feed(data))
            if self._chunks.done:
                self._buffer += self._chunks.rest
                self.events.append(("trailers", pairs(self._chunks.trailers)))
                self._end()
            return bool(self._buffer)
        if self._state == "length":
            self._body(data[: self._remaining])
            rest = data[self._remaining :]
            self._remaining -= len(data) - len(rest)
            self._buffer += rest
            if not self._remaining:
                self._end()
            return bool(self._buffer)
        self._body(data)
        return False

    def _read_head(self) -> bool:
        begin = 0 if self._method_asked else skip_empty_lines(self._buffer)
        end = find_head_end(self._buffer, max(begin, self._scan))
        if end < 0:
            self._scan = max(0, len(self._buffer) - 3)
            if len(self._buffer) - begin > self._limits.max_head:
                raise head_too_large(self._buffer, begin, self._limits)
            return False
        block = bytes(self._buffer[begin:end])
        del self._buffer[: end + 4]
        self._scan = 0
        head: RequestHead | ResponseHead
        if self._method_asked:
            head, framing, persists = parse_response_head(
                block, self._cache, self._limits, self._method_asked
            )
            self.events.append(("head", head.status, pairs(head.fields), persists))
        else:
            head, framing, persists = parse_request_head(block, self._cache, self._limits)
            start = (head.method, head.authority, head.path)
            self.events.append(("head", *start, pairs(head.fields), persists))
        self._begin_body(framing, head.content_length)
        return bool(self._buffer)

    def _begin_body(self, framing: int, length: int | None) -> None:
        if framing == CHUNKED:
            self._chunks = ChunkedReader(self._cache, self._limits)
            self._state = "chunked"
        elif framing == LENGTH and length:
            self._remaining = length
            self._state = "length"
        elif framing in {UNTIL_EOF, TUNNEL}:
            self._state = "until_eof"
        else:
            assert framing in {NO_BODY, LENGTH}
            self._end()

    def _body(self, data: bytes) -> None:
        if not data:
            return
        if self.events[-1][0] == "body":
            data = bytes(self.events.pop()[1]) + data  # type: ignore[call-overload]
        self.events.append(("body", data))

    def _end(self) -> None:
        self.events.append(("end",))
        self._state = "head"
