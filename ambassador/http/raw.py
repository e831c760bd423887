"""A connection without a protocol: the two sides of `protocol: tcp`, and the far side of a CONNECT.

Knows bytes and half-close only. It speaks the stream interface, so that a tunnel is an exchange like any other: its
bytes are body, its end is the end of the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import DownstreamClosed, ExchangeError, UpstreamClosed, UpstreamReset
from ambassador.net.alarm import NEVER, Alarm
from ambassador.net.transport import Truncated

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.core.model import Field, PeerIdentity, RequestHead, ResponseHead, TlsSession
    from ambassador.http.stream import RequestEvents, ResponseEvents
    from ambassador.net.transport import Transport

_FIRST_FAILURE = 300


class RawConnection:
    """The upstream side of a tunnel."""

    __slots__ = ("_events", "_read_ended", "_transport", "_write_ended", "peer", "session")

    def __init__(self, transport: Transport, peer: PeerIdentity | None, session: TlsSession | None) -> None:
        self._transport = transport
        self._events: ResponseEvents | RequestEvents | None = None
        self._read_ended = self._write_ended = False
        self.peer = peer
        self.session = session

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport!r})"

    def start(self, events: ResponseEvents) -> None:
        """Begin to read into `events`."""
        self._events = events
        self._transport.start(self)

    # ---- what the exchange calls ---------------------------------------------------------------------------

    def write_head(self, head: RequestHead, extra: bytes, end: bool) -> None:  # noqa: FBT001
        """A tunnel has no head."""

    def write_body(self, chunk: bytes, end: bool) -> bool:  # noqa: FBT001
        """Send bytes; the end is a half-close."""
        keeps_up = self._transport.write(chunk) if chunk else True
        if end:
            self._write_ended = True
            self._transport.shutdown_write()
            self._close_when_done()
        return keeps_up

    def write_trailers(self, fields: list[Field]) -> None:
        """A tunnel has no trailers: only its end is told."""
        self.write_body(b"", True)

    def flush(self) -> bool:
        return not self._transport.starved

    def pause_body(self) -> None:
        self._transport.pause_reading()

    def resume_body(self) -> None:
        self._transport.resume_reading()

    def abandon(self) -> None:
        """Cut: the other side is gone."""
        self._events = None
        self._transport.abort()

    def release(self) -> None:
        """Both directions have ended."""
        self._events = None
        self._close_when_done()

    # ---- from the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._events is not None:
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
        events, self._events = self._events, None
        if events is not None:
            events.stream_reset(self._end_error(error))

    def _end_error(self, error: BaseException | None) -> ExchangeError:
        if error is None or isinstance(error, Truncated):
            return UpstreamClosed("tunnel_truncated", "The connection was closed without an end.")
        return UpstreamReset("tunnel_reset", "The connection was reset.")

    def _close_when_done(self) -> None:
        if self._read_ended and self._write_ended:
            self._transport.close()


class RawDownstream(RawConnection):
    """The downstream side of `protocol: tcp`: accepts the answers of an exchange, of which only the end is visible."""

    __slots__ = ("_alarm", "_closed")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        peer: PeerIdentity | None,
        session: TlsSession | None,
        *,
        closed: Callable[[RawDownstream], None],
    ) -> None:
        super().__init__(transport, peer, session)
        self._closed = closed
        self._alarm = Alarm(loop, self._deadline_passed)

    @property
    def is_idle(self) -> bool:
        return False

    def begin(self, events: RequestEvents) -> None:
        """Begin to read into `events`; the caller has told it the head already."""
        self._events = events
        self._transport.start(self)

    def write_interim(self, head: ResponseHead) -> None:
        """A tunnel has no interim responses."""

    def write_head(self, head: ResponseHead, extra: bytes, end: bool) -> None:  # type: ignore[override]  # noqa: FBT001
        """A refusal is the end of the connection; success shows by bytes alone."""
        if head.status >= _FIRST_FAILURE:
            self._events = None
            self._transport.abort()

    def reset(self) -> None:
        self.abandon()

    def set_deadline(self, at: float) -> None:
        self._alarm.set(at) if at != NEVER else self._alarm.cancel()

    def close_after_response(self) -> None:
        """A tunnel is the only exchange of its connection."""

    def drain(self) -> None:
        """A tunnel ends by itself or with the drain's timeout."""

    def abort(self) -> None:
        self._transport.abort()

    def transport_closed(self, error: BaseException | None) -> None:
        self._alarm.cancel()
        super().transport_closed(error)
        self._closed(self)

    def _end_error(self, error: BaseException | None) -> ExchangeError:
        return DownstreamClosed("downstream_closed" if error is None else "downstream_reset")

    def _deadline_passed(self) -> None:
        if self._events is not None:
            self._events.deadline_passed()  # type: ignore[union-attr]  # `begin` took RequestEvents
