"""The upstream side of HTTP/1.1: requests out, responses in, one exchange at a time.

Knows when a connection can carry another exchange: both messages ended by their framing, nothing unasked behind
them, no `Connection: close`, not too old. Must not know endpoints or retries: its pool is handed in.

Bytes on an idle connection close it: they would be taken for the answer to the next request (G3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ambassador.core.errors import (
    ExchangeError,
    PeerRefusedUs,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamReset,
)
from ambassador.http.http1.connection import Http1Connection
from ambassador.net.failures import TlsFailure, Truncated, WriteRefused
from ambassador.wire.field import HeadError, HeadLimits, LineCache
from ambassador.wire.framing import CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.head import find_head_end, parse_response_head
from ambassador.wire.render import render_request_head

if TYPE_CHECKING:
    import asyncio

    from ambassador.core.model import Field, RequestHead
    from ambassador.http.stream import ResponseEvents
    from ambassador.net.transport import TlsConnection, Transport

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
DONE: Final = 3  # the response has ended
CLOSED: Final = 4

#: More interim responses than any server has reason for; a flood of them is an attack (G3).
MAX_INTERIM: Final = 10
_SWITCHING: Final = 101
_FINAL: Final = 200


class Pool(Protocol):
    """Where connections wait; the owner of the rules about their number and age."""

    def connection_free(self, connection: ClientConnection) -> None: ...

    def connection_closed(self, connection: ClientConnection) -> None: ...


class ClientConnection(Http1Connection):
    """One upstream connection; it is also the stream of its running exchange."""

    __slots__ = (
        "_events",
        "_interims",
        "_keep_alive",
        "_method",
        "_phase",
        "_pool",
        "_request_done",
        "_upgrade",
        "born_at",
        "idle_since",
        "peer_text",
        "requests",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        pool: Pool,
        *,
        cache: LineCache,
        limits: HeadLimits,
        peer_text: tuple[str, str, str] | None,
    ) -> None:
        super().__init__(loop, transport, cache=cache, limits=limits)
        self._events: ResponseEvents | None = None
        self._pool = pool
        self._phase = IDLE
        self._method = b""
        self._upgrade = b""
        self._keep_alive = True
        self._request_done = True
        self._interims = 0
        self.peer_text = peer_text  # principal, TLS version, group: for the log
        self.requests = 0  # exchanges begun: 0 is a fresh connection
        self.born_at = self.idle_since = loop.time()

    def __repr__(self) -> str:
        return (
            f"ClientConnection(phase {self._phase}, {self.requests} requests, {self._transport!r})"
        )

    def start(self) -> None:
        """Begin to watch."""
        self._transport.start(self)

    @property
    def tls(self) -> TlsConnection | None:
        return self._transport.tls

    def is_alive(self) -> bool:
        """Look whether an idle connection has died or was spoken to since the loop last came round."""
        return self._transport.is_quiet()

    @property
    def has_spoken(self) -> bool:
        """Whether anything has come of the response that is awaited: then the connection was no stale one."""
        return bool(self._buffer) or self._interims > 0

    def is_open(self) -> bool:
        return self._phase != CLOSED and not self._transport.closed

    def close(self) -> None:
        """Close in order."""
        self._transport.close()

    def abort(self) -> None:
        """Cut, at the end of the process."""
        self._transport.abort()

    # ---- writing a request ---------------------------------------------------------------------------------

    def send_head(self, events: ResponseEvents, head: RequestHead, extra: bytes, end: bool) -> None:  # noqa: FBT001
        """Take the connection for one exchange; its head goes out at once when there is no body."""
        self._events = events
        self._phase = HEAD
        self._interims = 0
        self.requests += 1
        self._method = head.method
        self._upgrade = head.upgrade
        if end:
            self._framing_out = NO_BODY
            self._request_done = True
            transport = self._transport
            transport.write(render_request_head(head, framing=NO_BODY, extra=extra))
            return
        self._request_done = False
        self._framing_out = framing = CHUNKED if head.content_length is None else LENGTH
        self._cork.append(render_request_head(head, framing=framing, extra=extra))

    def redirect(self, events: ResponseEvents) -> None:
        """What comes from now on is another listener's."""
        self._events = events

    def _written(self) -> None:
        self._request_done = True
        if self._phase == DONE and self._framing_in == TUNNEL:
            self._events = None  # both directions have ended: closing is no news
            self._transport.close()

    def abandon(self) -> None:
        """The exchange has ended on its side; a connection with unfinished business is not used again (G2)."""
        self._events = None
        if self._phase not in {CLOSED, IDLE}:
            self._give_up()

    def _give_up(self) -> None:
        """Close; what an upstream has not taken yet is of no use to it any more."""
        if self._framing_in == TUNNEL or self._transport.stalled:
            self._transport.abort()
        else:
            self._transport.close()

    # ---- from the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == HEAD:
            self._read_head(data)
        elif phase == BODY:
            self._read_body(data)
        elif phase != CLOSED:
            # Unasked bytes: between exchanges, or behind a response that has ended.
            self._keep_alive = False
            self._transport.close()

    def read_finished(self) -> None:
        if self._events is not None:
            self._events.response_burst_over()

    def writable(self) -> None:
        if self._events is not None:
            self._events.upstream_writable()

    def _body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self._events is not None:
            self._events.response_body(chunk, end)

    def _trailers_received(self, fields: list[Field]) -> None:
        # The last piece of the body may have paused us; it and the trailers came in one read, and this is the end.
        self._transport.resume_reading()
        if self._events is not None:
            self._events.response_trailers(fields)

    def eof_received(self) -> None:
        if self._phase == BODY and self._framing_in == TUNNEL:
            self._phase = DONE
            if self._events is not None:
                self._events.response_body(b"", True)
            if self._request_done:
                self._transport.close()
            return
        if self._phase == BODY and self._framing_in == UNTIL_EOF:
            # RFC 9112 §6.3: the end of the connection is the end of the body; on TLS it took a close_notify.
            self._keep_alive = False
            self._phase = DONE
            events, self._events = self._events, None
            if events is not None:
                events.response_body(b"", True)
            self._transport.close()
            return
        self._fail(self._end_error(None))
        self._transport.close()

    def transport_closed(self, error: BaseException | None) -> None:
        failure = self._end_error(error)
        self._phase = CLOSED
        self._cork.clear()
        try:
            self._pool.connection_closed(self)
        finally:
            self._fail(failure)

    def _fail(self, error: ExchangeError) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.attempt_failed(error)

    def _end_error(self, error: BaseException | None) -> ExchangeError:
        """Word the end of a connection by where it hit the exchange."""
        in_body = self._phase == BODY
        if error is None or isinstance(error, Truncated):
            if self._phase == HEAD and self._buffer:
                return UpstreamProtocolError(
                    "response_head_truncated", "The response ended inside its head."
                )
            detail = "response_truncated" if in_body else "closed_before_response"
            return UpstreamClosed(
                detail, "The connection was closed before the whole response had come."
            )
        if isinstance(error, TlsFailure):
            if error.reason == "peer_refused_us":
                # TLS 1.3: the client is done before the server has looked at its certificate (RFC 8446 §4.6.2),
                # so the refusal arrives with the first read.
                return PeerRefusedUs(error.reason, error.message)
            return UpstreamReset(f"tls_{error.reason}", error.message)
        fresh = self.requests == 1 and self._phase == HEAD and not self._buffer
        if isinstance(error, WriteRefused) and fresh and error.looks_like_alert:
            # Nothing was heard from this peer since the handshake, so an alert says what it thinks of us; after an
            # exchange a record of this size could as well be a close_notify.
            return PeerRefusedUs("peer_refused_us", error.refusal)
        detail = "reset_in_response" if in_body else "reset_before_response"
        return UpstreamReset(detail, "The connection was reset.")

    # ---- reading a response --------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:  # split, each part would cost a frame per response
        end = -1 if self._buffer else data.find(b"\r\n\r\n")
        try:
            if end >= 0:
                block, rest = data[:end], data[end + 4 :]
            else:
                self._buffer += data
                buffer = self._buffer
                end = find_head_end(buffer, self._scan)
                if end < 0:
                    self._keep_partial()
                    return
                block, rest = bytes(buffer[:end]), bytes(buffer[end + 4 :])
                buffer.clear()
                self._scan = 0
            head, framing, keep_alive = parse_response_head(
                block, self._cache, self._limits, self._method
            )
            if head.status < _FINAL:
                self._check_interim(head.status, head.upgrade, framing)
        except HeadError as error:
            self._malformed(error)
            return
        events = self._events
        if events is None:
            return
        if framing == LENGTH and len(rest) == head.content_length and rest:
            # Head and body in one piece, as nearly all small responses come.
            self._keep_alive = keep_alive
            self._phase = DONE
            events.response_whole(head, rest)
            return
        if head.status < _FINAL and framing != TUNNEL:
            self._transport.greedy = True
            events.response_interim(head)
            if rest and self._phase == HEAD:
                self._read_head(rest)
            return
        self._keep_alive = keep_alive
        if framing == NO_BODY or (framing == LENGTH and not head.content_length):
            self._message_ended(rest)
            events.response_head(head, True)
            return
        self._phase = BODY
        self._transport.greedy = True
        self._expect_body(framing, head.content_length)
        if framing == TUNNEL:
            self._framing_out = TUNNEL
            self._request_done = False
        events.response_head(head, False)
        if rest and self._phase == BODY:
            self._read_body(rest)

    def _keep_partial(self) -> None:
        if len(self._buffer) > self._limits.max_head:
            raise HeadError(502, "response_head_too_large", "The response's head is too large.")
        self._scan = max(0, len(self._buffer) - 3)
        self._transport.greedy = True

    def _check_interim(self, status: int, upgrade: bytes, framing: int) -> None:
        if framing == TUNNEL and status == _SWITCHING:
            asked = [token.strip().lower() for token in self._upgrade.split(b",")]
            if not self._upgrade or upgrade.lower() not in asked:
                # RFC 9110 §7.8: a server must not switch to what was not asked for.
                raise HeadError(
                    502,
                    "unasked_upgrade",
                    "The peer switched to a protocol that was not asked for.",
                )
            if not self._request_done:
                raise HeadError(
                    502,
                    "early_upgrade",
                    "The peer switched protocols before the request had ended.",
                )
        else:
            self._interims += 1
            if self._interims > MAX_INTERIM:
                raise HeadError(
                    502, "too_many_interim_responses", "The peer sent too many interim responses."
                )

    def _malformed(self, error: HeadError) -> None:
        self._keep_alive = False
        self._fail(UpstreamProtocolError(error.detail, error.message))
        self._transport.abort()

    def _body_malformed(self, error: HeadError) -> None:
        self._malformed(error)

    def _message_ended(self, rest: bytes) -> None:
        """The response is whole. Bytes behind it were not asked for, so the connection carries nothing more."""
        self._phase = DONE
        if rest:
            self._keep_alive = False
        # The last event follows at once; the attempt then calls `release`.

    def release(self) -> None:
        """The attempt has seen the last event: give the connection back, or close it."""
        self._events = None
        if self._phase != DONE:
            return
        if self._request_done and self._keep_alive and not self._transport.stalled:
            self._phase = IDLE
            self._pool.connection_free(self)
        elif self._framing_in != TUNNEL:
            # Also an upload that is not finished, or not taken: its rest will not be sent (early response).
            self._give_up()


__all__ = ["CHUNKED", "ClientConnection"]
