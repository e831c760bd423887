"""Connections without a protocol: the two sides of `protocol: tcp`, and the far side of a CONNECT.

Knows bytes and half-close only. They speak the stream interface, so that a tunnel is an exchange like any other: its
bytes are body, its end is the end of the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import (
    DownstreamClosed,
    DownstreamTimeout,
    ExchangeError,
    PeerRefusedUs,
    UpstreamClosed,
    UpstreamReset,
)
from ambassador.http.write_watch import WriteWatch
from ambassador.net.alarm import NEVER, Alarm
from ambassador.net.failures import TlsFailure, Truncated, WriteRefused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.core.model import Field, ResponseHead
    from ambassador.http.stream import RequestEvents, ResponseEvents
    from ambassador.net.transport import TlsConnection, Transport

_FIRST_FAILURE: Final = 300


class _Raw:
    """What both sides share: writing, pausing, and closing once both directions have ended."""

    __slots__ = ("_read_ended", "_transport", "_write_ended")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._read_ended = self._write_ended = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport!r})"

    def write_body(self, chunk: bytes, end: bool) -> bool:  # noqa: FBT001
        """Send bytes; the end is a half-close."""
        keeps_up = self._transport.write(chunk) if chunk else True
        if end:
            self._write_ended = True
            self._transport.shutdown_write()
            self._close_when_done()
        return keeps_up

    def write_trailers(
        self, fields: list[Field]
    ) -> None:  # a tunnel has none: only its end is told
        self.write_body(b"", True)

    def flush(self) -> bool:
        return not self._transport.starved

    def pause_body(self) -> None:
        self._transport.pause_reading()

    def resume_body(self) -> None:
        self._transport.resume_reading()

    def _close_when_done(self) -> None:
        if self._read_ended and self._write_ended:
            self._transport.close()


class RawConnection(_Raw):
    """The upstream side of a tunnel."""

    __slots__ = ("_closed", "_events", "_heard", "peer_text")

    def __init__(
        self,
        transport: Transport,
        peer_text: tuple[str, str, str] | None,
        *,
        closed: Callable[[RawConnection], None],
    ) -> None:
        super().__init__(transport)
        self._events: ResponseEvents | None = None
        self._closed = closed
        self._heard = False
        self.peer_text = peer_text

    @property
    def tls(self) -> TlsConnection | None:
        return self._transport.tls

    @property
    def has_spoken(self) -> bool:
        return self._heard

    def start(self, events: ResponseEvents) -> None:
        """Begin to read into `events`."""
        self._events = events
        self._transport.start(self)

    def redirect(self, events: ResponseEvents) -> None:
        """What comes from now on is another listener's."""
        self._events = events

    def abandon(self) -> None:
        """Cut: the other side is gone."""
        self._events = None
        self._transport.abort()

    def release(self) -> None:
        """Both directions have ended."""
        self._events = None
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._read_ended and self._write_ended:
            self._events = None  # both directions have ended: closing is no news
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._events is not None:
            self._heard = True
            self._transport.greedy = True
            self._events.response_body(data, False)

    def read_finished(self) -> None:
        if self._events is not None:
            self._events.response_burst_over()

    def eof_received(self) -> None:
        self._read_ended = True
        if self._events is not None:
            self._events.response_body(b"", True)
        self._close_when_done()

    def writable(self) -> None:
        if self._events is not None:
            self._events.upstream_writable()

    def transport_closed(self, error: BaseException | None) -> None:
        failure = self._end_error(error)
        events, self._events = self._events, None
        self._closed(self)
        if events is not None:
            events.attempt_failed(failure)

    def abort(self) -> None:
        """Cut, at the very end of the process."""
        self._transport.abort()

    def _end_error(self, error: BaseException | None) -> ExchangeError:
        if error is None or isinstance(error, Truncated):
            return UpstreamClosed("tunnel_truncated", "The connection was closed without an end.")
        if isinstance(error, TlsFailure):
            if error.reason == "peer_refused_us":
                # TLS 1.3: the refusal of our certificate comes with the first read (RFC 8446 §4.6.2).
                return PeerRefusedUs(error.reason, error.message)
            return UpstreamReset(f"tls_{error.reason}", error.message)
        if isinstance(error, WriteRefused) and not self._heard and error.looks_like_alert:
            return PeerRefusedUs("peer_refused_us", error.refusal)
        return UpstreamReset("tunnel_reset", "The connection was reset.")


class RawDownstream(_Raw):
    """The downstream side of `protocol: tcp`: accepts the answers of an exchange, of which only the end is visible."""

    shows_heads = False
    __slots__ = (
        "_alarm",
        "_closed",
        "_events",
        "_write_watch",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        *,
        write_timeout_s: float,
        closed: Callable[[RawDownstream], None],
    ) -> None:
        super().__init__(transport)
        self._write_watch = WriteWatch(loop, transport, write_timeout_s, self._write_timed_out)
        self._events: RequestEvents | None = None
        self._closed = closed
        self._alarm = Alarm(loop, self._deadline_passed, self._transport.crash)

    def begin(self, events: RequestEvents) -> None:
        """Begin to read into `events`, which gets its head from the caller next."""
        self._events = events
        self._transport.start(self)

    def look(self, _before: object) -> object:
        """See whether the peer is still there."""
        self._transport.look()
        return self._events

    # ---- what the exchange calls ---------------------------------------------------------------------------

    def write_body(self, chunk: bytes, end: bool) -> bool:  # noqa: FBT001
        keeps_up = super().write_body(chunk, end)
        if self._transport.stalled:
            self._write_watch.begin()
        return keeps_up

    def write_interim(self, head: ResponseHead) -> None:
        """A tunnel has no interim responses."""

    def write_head(self, head: ResponseHead, extra: bytes, end: bool) -> None:  # noqa: FBT001
        """A refusal is the end of the connection, in order; success shows by bytes alone."""
        if head.status >= _FIRST_FAILURE:
            self._events = None
            self._transport.close()

    def take_back(self) -> bool:
        """Nothing is ever held back."""
        return False

    def write_whole(self, head: ResponseHead, extra: bytes, body: bytes) -> None:  # no head to see
        """A tunnel has no whole response: its bytes come as they come."""
        self.write_body(body, True)

    def reset(self) -> None:
        """Cut."""
        self._events = None
        self._transport.abort()

    def set_deadline(self, at: float) -> None:
        if at == NEVER:
            self._alarm.at = NEVER
        else:
            self._alarm.set(at)

    def close_after_response(self) -> None:
        """A tunnel is the only exchange of its connection."""

    # ---- what the drain calls ------------------------------------------------------------------------------

    def drain(self) -> None:
        """A tunnel ends by itself or with the drain's timeout."""

    def abort(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.stream_reset(DownstreamClosed("drain_forced"))
        self._transport.abort()

    # ---- from the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._events is not None:
            self._transport.greedy = True
            self._events.body_received(data, False)

    def read_finished(self) -> None:
        if self._events is not None:
            self._events.read_finished()

    def eof_received(self) -> None:
        self._read_ended = True
        if self._events is not None:
            self._events.body_received(b"", True)
        self._close_when_done()

    def writable(self) -> None:
        if self._events is not None:
            self._events.writable()

    def transport_closed(self, error: BaseException | None) -> None:
        self._alarm.end()
        self._write_watch.end()
        events, self._events = self._events, None
        if events is not None:
            events.stream_reset(
                DownstreamClosed("downstream_closed" if error is None else "downstream_reset")
            )
        self._closed(self)

    def _write_timed_out(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.stream_reset(DownstreamTimeout("write_timeout"))
        self._transport.abort()

    def _deadline_passed(self) -> None:
        if self._events is not None:
            self._events.deadline_passed()
