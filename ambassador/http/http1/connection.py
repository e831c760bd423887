"""What both sides of HTTP/1.1 share: reading a framed body, writing one, corking.

Knows framing (RFC 9112 §6, §7); must not know which side it is on. A subclass says
who hears what is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.wire.chunked import LAST_CHUNK, ChunkedReader, last_chunk
from ambassador.wire.field import HeadError, HeadLimits, LineCache
from ambassador.wire.framing import CHUNKED, LENGTH, TUNNEL

if TYPE_CHECKING:
    import asyncio

    from ambassador.core.model import Field
    from ambassador.net.transport import Transport


class Http1Connection:
    """Base of `ServerConnection` and `ClientConnection`."""

    __slots__ = (
        "_buffer",
        "_cache",
        "_chunked",
        "_cork",
        "_framing_in",
        "_framing_out",
        "_left",
        "_limits",
        "_loop",
        "_scan",
        "_transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        *,
        cache: LineCache,
        limits: HeadLimits,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._cache = cache
        self._limits = limits
        self._buffer = bytearray()  # an incomplete head, or bytes behind the message
        self._scan = 0  # how far `_buffer` was searched for the end of the head (E4)
        self._cork: list[bytes] = []
        self._framing_in = 0
        self._framing_out = 0
        self._left = 0  # body bytes still to come with Content-Length
        self._chunked: ChunkedReader | None = None

    # ---- reading a body ------------------------------------------------------------------------------------

    def _expect_body(self, framing: int, content_length: int | None) -> None:
        self._framing_in = framing
        if framing == LENGTH:
            self._left = content_length or 0
        elif framing == CHUNKED:
            self._chunked = ChunkedReader(self._cache, self._limits)

    def _read_body(self, data: bytes) -> None:
        """Hand on what belongs to the body; `_message_ended` gets what is behind it, before the last event."""
        framing = self._framing_in
        if framing == LENGTH:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                self._transport.greedy = True
                self._body_received(data, False)
                return
            self._left = 0
            self._message_ended(data[left:] if left else b"")
            self._body_received(data[:left] if left else data, True)
        elif framing == CHUNKED:
            self._read_chunks(data)
        elif self._buffer:
            self._buffer += data  # of a tunnel: what stood behind the head is still to be handed on
        else:  # UNTIL_EOF or TUNNEL: opaque
            self._transport.greedy = True
            self._body_received(data, False)

    def _read_chunks(self, data: bytes) -> None:
        reader = self._chunked
        assert reader is not None  # noqa: S101  # set with the framing, never by input
        try:
            body = reader.feed(data)
        except HeadError as error:
            self._body_malformed(error)
            return
        if not reader.done:
            self._transport.greedy = True
            if body:
                self._body_received(body, False)
            return
        self._chunked = None
        trailers = reader.trailers
        self._message_ended(reader.rest)
        if trailers:
            if body:
                self._body_received(body, False)
            self._trailers_received(trailers)
        else:
            self._body_received(body, True)

    def _body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        raise NotImplementedError  # pragma: no cover  # both sides define it

    def _trailers_received(self, fields: list[Field]) -> None:
        raise NotImplementedError  # pragma: no cover  # both sides define it

    def _message_ended(self, rest: bytes) -> None:
        raise NotImplementedError  # pragma: no cover  # both sides define it

    def _body_malformed(self, error: HeadError) -> None:
        raise NotImplementedError  # pragma: no cover  # both sides define it

    # ---- writing a body ------------------------------------------------------------------------------------

    def write_body(self, chunk: bytes, end: bool) -> bool:  # noqa: FBT001
        """Cork a piece; the end goes out at once. False: wait for `writable`."""
        cork = self._cork
        if self._framing_out == CHUNKED:
            if chunk:
                cork.append(b"%x\r\n" % len(chunk))
                cork.append(chunk)
                cork.append(b"\r\n")
            if end:
                cork.append(LAST_CHUNK)
        elif chunk:
            cork.append(chunk)
        if not end:
            return not self._transport.starved
        keeps_up = self.flush()
        if self._framing_out == TUNNEL:
            self._transport.shutdown_write()
        self._written()
        return keeps_up

    def write_trailers(self, fields: list[Field]) -> None:
        """End the body; trailers go out where the framing can carry them (RFC 9110 §6.5.1)."""
        if self._framing_out == CHUNKED:
            self._cork.append(last_chunk(fields))
        self.flush()
        self._written()

    def flush(self) -> bool:
        """Send what is corked in one piece; False: wait for `writable`."""
        cork = self._cork
        if not cork:
            return True
        data = cork[0] if len(cork) == 1 else b"".join(cork)
        cork.clear()
        transport = self._transport
        keeps_up = transport.write(data)
        if transport.stalled:
            self._stalled()
        return keeps_up

    def _stalled(self) -> None:
        """The peer has not taken everything."""

    def _written(self) -> None:
        raise NotImplementedError  # pragma: no cover  # both sides define it

    # ---- back-pressure -------------------------------------------------------------------------------------

    def pause_body(self) -> None:
        """Read no more for now; what is read already still comes."""
        self._transport.pause_reading()

    def resume_body(self) -> None:
        """Read on."""
        self._transport.resume_reading()
