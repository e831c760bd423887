"""The downstream side of HTTP/1.1: requests in, responses out, one exchange at a time.

Knows connection words: keep-alive, pipelining, half-close, lingering close, deadlines of the connection; must not
know routes, peers or services. An exchange is made by a callable that is handed in.

Theory
* `_phase` says what the next bytes are: IDLE and HEAD a head, BODY a body, WAIT the next request (kept, in order),
  LINGER nothing that counts.
* The next pipelined exchange starts from the loop, never from the stack (E3), and reading stops while answers wait.
* EOF behind a whole request is a half-close in the clear and a departure on TLS (house §7).
* After any doubt about framing the connection ends: `Connection: close`, our direction ended, what still comes
  thrown away for at most 2 s and 64 KiB, so that the answer is not lost in a reset (RFC 9112 §9.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import DownstreamClosed, DownstreamProtocolError, DownstreamTimeout
from ambassador.core.model import Field, ResponseHead
from ambassador.http.http1.body_rate import BodyRate
from ambassador.http.http1.connection import Http1Connection
from ambassador.http.http1.limits import (
    AGED_IDLE_S,
    BODY,
    CLOSED,
    CONTINUE,
    CR,
    HEAD,
    HTTP_1_1,
    IDLE,
    LINGER,
    LINGER_BYTES,
    LINGER_S,
    PIPELINE_BYTES,
    WAIT,
    ServerLimits,
)
from ambassador.http.write_watch import WriteWatch
from ambassador.net.alarm import NEVER, Alarm
from ambassador.wire.field import HeadError, LineCache
from ambassador.wire.framing import BODILESS, CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.head import find_head_end, head_too_large, parse_request_head, skip_empty_lines
from ambassador.wire.render import PERSIST, connection_line, render_response_head, response_framing

if TYPE_CHECKING:
    import asyncio

    from ambassador.core.errors import ExchangeError
    from ambassador.http.stream import Owner, RequestEvents
    from ambassador.net.transport import Transport


class ServerConnection(Http1Connection):
    """One downstream connection; it is also the stream of its running exchange."""

    shows_heads = True
    __slots__ = (
        "_age_at", "_alarm", "_awaits_continue", "_corked_head", "_draining", "_eof", "_events", "_exchange_at",
        "_is_connect", "_is_head", "_keep_alive", "_lingered", "_lingers", "_owner", "_phase", "_phase_at", "_rate",
        "_responded", "_server_limits", "_version", "_write_watch", "is_tls",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        owner: Owner,
        *,
        cache: LineCache,
        limits: ServerLimits,
    ) -> None:
        super().__init__(loop, transport, cache=cache, limits=limits.head)
        self._events: RequestEvents | None = None
        self._owner = owner
        self._server_limits = limits
        self._phase = IDLE
        self._keep_alive = True
        self._draining = self._eof = self._responded = False
        self._version = 11
        self._is_head = self._is_connect = False
        self._lingered = 0
        self._lingers = False  # what we end, the peer may still be sending to
        self._awaits_continue = False
        self._rate: BodyRate | None = None  # of the first body that takes more than one read
        self._corked_head = b""
        self._write_watch: WriteWatch | None = None
        self._exchange_at = NEVER
        now = loop.time()
        self._age_at = NEVER if limits.max_age_s is None else now + limits.max_age_s
        self._phase_at = min(now + limits.idle_timeout_s, self._age_at)
        self._alarm = Alarm(loop, self._alarm_fired, transport.crash)
        self.is_tls = transport.tls is not None

    def __repr__(self) -> str:
        return f"ServerConnection(phase {self._phase}, {self._transport!r})"

    def start(self) -> None:
        """Begin to read."""
        self._alarm.set(self._phase_at)
        self._transport.start(self)

    def drain(self) -> None:
        """Close now when idle, else after the running exchange, which then says `Connection: close`."""
        self._draining = True
        self._keep_alive = False
        # A request that has arrived unread is still answered; it would be lost in a reset else (RFC 9112 §9.3.1).
        # The look at a TLS socket may find a request, or half of one: hence the second look at the phase.
        is_idle = self._phase == IDLE and not self._buffer
        if is_idle and self._transport.is_quiet() and self._phase == IDLE and not self._buffer:
            self._transport.close()

    def look(self, before: object) -> object:
        """Give whose response the peer waits for; if that is `before`, see whether the peer is still there."""
        awaited = self._events if self._phase == WAIT else None
        if awaited is not None and awaited is before:
            self._transport.look()
        return awaited

    def abort(self) -> None:
        """Cut at once, when the drain is forced."""
        self._leave(DownstreamClosed("drain_forced"))
        self._transport.abort()

    # ---- from the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == IDLE:
            end = data.find(b"\r\n\r\n")
            if end > 0 and data[0] != CR:
                self._begin(data[:end], data[end + 4 :])
            else:
                self._buffer += data
                self._search_head()
        elif phase == BODY:
            if self._rate is not None:
                self._rate.bytes += len(data)
            self._read_body(data)
        elif phase == HEAD:
            self._buffer += data
            self._search_head()
        elif phase == WAIT:
            self._keep_rest(data)
        elif phase == LINGER:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._transport.close()

    def read_finished(self) -> None:
        if self._events is not None:
            self._events.read_finished()

    def eof_received(self) -> None:
        phase = self._phase
        if phase == BODY:
            if self._framing_in != TUNNEL:
                self._depart(DownstreamClosed("request_truncated"))
            elif self._buffer:
                self._eof = True  # `_feed_tunnel` comes first, with what stood behind the head
            else:
                self._tunnel_half_closed()
        elif phase == WAIT:
            if self.is_tls:
                self._depart(DownstreamClosed("downstream_closed"))
            else:
                # A half-close (RFC 9112 §9.6): what was pipelined before it is still answered.
                self._eof = True
                if not self._buffer:
                    self._keep_alive = False
        elif phase == HEAD:
            self._head_truncated()
        else:
            self._transport.close()

    def transport_closed(self, error: BaseException | None) -> None:
        self._phase = CLOSED
        self._alarm.end()
        if self._write_watch is not None:
            self._write_watch.end()
        if self._rate is not None:
            self._rate.end()
        self._cork.clear()
        detail = "downstream_reset" if error is not None else "downstream_closed"
        self._leave(DownstreamClosed(detail))
        self._owner.connection_closed(self)

    # ---- reading a request ---------------------------------------------------------------------------------

    def _head_truncated(self) -> None:
        """The peer ended its direction inside a head; empty lines are none (RFC 9112 §2.2)."""
        self._eof = True
        if self.is_tls or not self._buffer.strip(b"\r\n"):
            self._transport.close()
        else:
            self._refuse(
                DownstreamProtocolError("head_truncated", "The request ended inside its head.")
            )

    def _keep_rest(self, rest: bytes) -> None:
        """Keep what stands behind a message; much of it stops the reading, however fast answers are taken (E3)."""
        self._buffer += rest
        if len(self._buffer) > PIPELINE_BYTES:
            self._transport.pause_reading()

    def _search_head(self) -> None:
        buffer = self._buffer
        try:
            # RFC 9112 §2.2: an empty line before the request line is ignored.
            begin = skip_empty_lines(buffer) if buffer[0] == CR else 0
            end = find_head_end(buffer, max(begin, self._scan))
        except HeadError as error:
            self._refuse_head(error)
            return
        if end >= 0:
            block, rest = bytes(buffer[begin:end]), bytes(buffer[end + 4 :])
            buffer.clear()
            self._scan = 0
            self._begin(block, rest)
        elif len(buffer) > self._limits.max_head:
            self._refuse_head(head_too_large(buffer, begin, self._limits))
        elif begin == len(buffer) and self._phase == IDLE:
            buffer.clear()  # empty lines alone are the begin of nothing
        else:
            self._scan = max(0, len(buffer) - 3)
            self._transport.greedy = True
            if self._phase == IDLE and buffer:
                self._phase = HEAD
                self._set_phase_deadline(self._server_limits.head_timeout_s)

    def _begin(self, block: bytes, rest: bytes) -> None:
        try:
            head, framing, keep_alive = parse_request_head(block, self._cache, self._limits)
        except HeadError as error:
            self._refuse_head(error)
            return
        self._version = head.version
        self._is_head = head.method == b"HEAD"
        self._is_connect = not head.path  # CONNECT alone has none (RFC 9112 §3.2.3)
        self._keep_alive = keep_alive and not self._draining
        self._events = exchange = self._owner.new_exchange(self)
        self._phase_at = NEVER
        if self._is_connect:
            # What follows the head is the tunnel's, and waits for our 2xx (RFC 9110 §9.3.6, G2).
            self._phase = WAIT
            self._keep_alive = False
            self._lingers = True  # it may be speaking already
            if rest:
                self._keep_rest(rest)
            exchange.head_received(head, False)
            return
        if framing == NO_BODY or (framing == LENGTH and head.content_length == 0):
            self._phase = WAIT
            if rest:
                self._keep_rest(rest)
            exchange.head_received(head, True)
            return
        self._phase = BODY
        self._transport.greedy = True
        self._awaits_continue = head.expect_continue
        self._expect_body(framing, head.content_length)
        exchange.head_received(head, False)
        if rest and self._phase == BODY:
            self._read_body(rest)
        if self._phase == BODY and self._framing_in == framing:  # neither whole nor a tunnel
            self._watch_rate(len(rest))

    def _body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self._events is not None:
            self._events.body_received(chunk, end)

    def _trailers_received(self, fields: list[Field]) -> None:
        if self._events is not None:
            self._events.trailers_received(fields)

    def writable(self) -> None:
        """The peer has taken enough: go on with the response, or with the next request."""
        if self._events is not None:
            self._events.writable()
        elif self._phase == WAIT:
            self._loop.call_soon(self._next_pipelined)

    def _message_ended(self, rest: bytes) -> None:
        self._phase = WAIT
        if self._rate is not None:
            self._rate.stop()
        if rest:
            self._keep_rest(rest)

    def _body_malformed(self, error: HeadError) -> None:
        self._keep_alive = False
        # Nothing that follows is understood; the lingering begins with the end of the answer.
        self._phase = LINGER
        if self._events is not None:
            refusal = DownstreamProtocolError(error.detail, error.message, status=error.status)
            self._events.head_refused(refusal)

    def _refuse_head(self, error: HeadError) -> None:
        self._refuse(DownstreamProtocolError(error.detail, error.message, status=error.status))

    def _refuse(self, error: ExchangeError) -> None:
        """Answer what could not be understood, and nothing that follows it (G4)."""
        self._keep_alive = False
        self._phase = LINGER
        self._buffer.clear()
        self._version = 11
        self._is_head = self._is_connect = self._responded = False
        self._events = exchange = self._owner.new_exchange(self)
        exchange.head_refused(error)

    # ---- writing a response --------------------------------------------------------------------------------

    def write_interim(self, head: ResponseHead) -> None:
        """Relay a 1xx; an HTTP/1.0 peer must not get one (RFC 9110 §15.2)."""
        if head.status == CONTINUE and self._awaits_continue and self._phase == BODY:
            self._awaits_continue = False
            self._watch_rate(0)  # only now its body is on the way (RFC 9110 §10.1.1)
        if self._version == HTTP_1_1:
            self._cork.append(render_response_head(head, framing=NO_BODY))
            self.flush()

    def write_head(self, head: ResponseHead, extra: bytes, end: bool) -> None:  # noqa: FBT001
        """Cork the head with the framing that this peer understands; goes out at once when there is no body."""
        if end and not self._is_head and head.status not in BODILESS:
            head.content_length = 0
        framing = response_framing(
            head.status, head.content_length,
            is_head=self._is_head, is_connect=self._is_connect, knows_chunked=self._version == HTTP_1_1,
        )  # fmt: skip
        if framing == TUNNEL:
            self._open_tunnel()
        elif framing == UNTIL_EOF or self._phase == BODY:
            # An early answer: what is left of the request may not be read to its end (RFC 9112 §9.6).
            self._keep_alive = False
            self._lingers = True
        self._framing_out = framing
        usual = self._keep_alive and self._version == HTTP_1_1
        connection = PERSIST if usual else connection_line(framing, keep_alive=self._keep_alive)
        self._corked_head = render_response_head(
            head, framing=framing, extra=extra, connection=connection
        )
        self._cork.append(self._corked_head)
        if end:
            self.flush()
            self._written()

    def write_whole(self, head: ResponseHead, extra: bytes, body: bytes) -> None:
        """Send a whole response: `write_head` and `write_body` of the usual case, for the sake of their frames."""
        if self._phase == BODY or self._cork or self._is_head or head.status in BODILESS:
            self.write_head(head, extra, False)
            self.write_body(body, True)
            return
        usual = self._keep_alive and self._version == HTTP_1_1
        connection = PERSIST if usual else connection_line(LENGTH, keep_alive=self._keep_alive)
        self._framing_out = LENGTH
        transport = self._transport
        transport.write(
            render_response_head(head, framing=LENGTH, extra=extra, connection=connection) + body
        )
        if transport.stalled:
            self._stalled()
        self._written()

    def take_back(self) -> bool:
        """Take back a response of which nothing has left yet, if that is so."""
        cork = self._cork
        if not cork or cork[0] is not self._corked_head or self._framing_out == TUNNEL:
            return False
        cork.clear()
        return True

    def reset(self) -> None:
        """End in the middle, so that truncation is seen; responses before it arrive whole (RFC 9112 §9.6)."""
        self._events = None
        if self._framing_out in {LENGTH, CHUNKED}:
            self.flush()
            self._transport.truncates = True
            self._linger()
        else:  # the end of the connection would be that of the message
            self._transport.abort()

    def close_after_response(self) -> None:
        """Nothing more after this exchange, of which the peer does not know yet."""
        self._keep_alive = False
        self._lingers = True

    def pause_body(self) -> None:
        if self._rate is not None:
            self._rate.pause()
        self._transport.pause_reading()

    def resume_body(self) -> None:
        if self._rate is not None:
            self._rate.resume()
        self._transport.resume_reading()

    def set_deadline(self, at: float) -> None:
        """Ask for `deadline_passed` of the running exchange."""
        self._exchange_at = at
        if at < self._alarm.at:
            self._alarm.set(at)

    def _stalled(self) -> None:
        if self._write_watch is None:
            timeout_s = self._server_limits.write_timeout_s
            self._write_watch = WriteWatch(
                self._loop, self._transport, timeout_s, self._write_timed_out
            )
        self._write_watch.begin()

    def _written(self) -> None:
        """The response is out: next request, or the end of the connection."""
        self._responded = True
        if self._framing_out == TUNNEL:
            if self._eof and self._phase == WAIT:  # WAIT: the exchange has been told of it
                self._close_tunnel()
            return
        self._events = None
        self._exchange_at = NEVER
        if self._phase == WAIT and self._keep_alive:
            self._await_next()
        elif (
            self._phase == WAIT
            and not (self._draining or self._buffer or self._lingers)
            and self._transport.is_acknowledged()
        ):  # the peer asked for the end and has its answer: no reset can hit it any more (RFC 9112 §9.6)
            self._transport.close()
        else:
            self._linger()

    def _await_next(self) -> None:
        transport = self._transport
        if self._buffer or transport.starved:
            # Still WAIT, so that what arrives meanwhile stays behind what is there. A peer that does not take its
            # answers gets no more of them until `writable` (E3).
            self._loop.call_soon(self._next_pipelined)
        else:
            self._begin_idle()

    def _begin_idle(self) -> None:
        self._phase = IDLE
        now = self._loop.time()
        self._phase_at = min(now + self._server_limits.idle_timeout_s, self._age_at)
        if self._draining or self._age_at <= now:
            # The next response says so; a request that is on its way already is still answered.
            self._draining = True
            self._phase_at = now + AGED_IDLE_S
        if self._phase_at < self._alarm.at:
            self._alarm.set(self._phase_at)
        if not self._transport.reading:
            self._transport.resume_reading()  # stopped for a dial, or by a full buffer

    def _next_pipelined(self) -> None:
        """Start the next exchange from the loop (E3)."""
        if self._phase != WAIT or self._events is not None or self._transport.starved:
            return
        try:
            if self._buffer:
                self._begin_idle()  # empty lines may be all there is: then its deadline holds
                self._search_head()
                self.read_finished()
            else:
                self._await_next()
            if self._eof:
                self._end_of_pipeline()
        except Exception as error:  # the guard of this callback (E8)
            self._transport.crash(error)

    def _end_of_pipeline(self) -> None:
        """The peer has half-closed: what is left decides whether there is anything to wait for."""
        if self._phase == IDLE:
            self._transport.close()
        elif self._phase == HEAD:
            self._head_truncated()
        elif self._phase == BODY and self._framing_in != TUNNEL:
            self._depart(DownstreamClosed("request_truncated"))
        elif self._phase == WAIT and not self._buffer:
            self._keep_alive = False
            if self._events is None:
                self._transport.close()

    def _linger(self) -> None:
        """End our direction and throw away what still comes (RFC 9112 §9.6)."""
        self._phase = LINGER
        self._events = None
        self._buffer.clear()
        self._exchange_at = NEVER
        self._transport.shutdown_write()
        if self._eof:
            self._transport.close()
            return
        self._set_phase_deadline(LINGER_S)
        self._transport.resume_reading()

    # ---- tunnels -------------------------------------------------------------------------------------------

    def _open_tunnel(self) -> None:
        """From here on both directions are opaque; what came behind the head is the tunnel's first bytes."""
        self._keep_alive = self._responded = False
        self._phase = BODY
        self._phase_at = NEVER
        self._framing_in = TUNNEL
        if self._buffer or self._eof:
            self._loop.call_soon(self._feed_tunnel)
        self._transport.resume_reading()

    def _feed_tunnel(self) -> None:
        if self._events is not None and self._buffer:
            early = bytes(self._buffer)
            self._buffer.clear()
            try:
                self._read_body(early)
                self.read_finished()
            except Exception as error:  # the guard of this callback (E8)
                self._transport.crash(error)
        if self._eof and self._events is not None:
            self._tunnel_half_closed()

    def _tunnel_half_closed(self) -> None:
        self._eof = True
        self._phase = WAIT
        if self._events is not None:
            self._events.body_received(b"", True)
        if self._responded and self._phase != CLOSED:
            self._close_tunnel()

    def _close_tunnel(self) -> None:
        self._events = None
        self._transport.close()

    # ---- endings -------------------------------------------------------------------------------------------

    def _depart(self, error: ExchangeError) -> None:
        """The peer has gone in the middle of an exchange: nobody to answer."""
        self._leave(error)
        self._transport.close()

    def _leave(self, error: ExchangeError) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.stream_reset(error)

    # ---- deadlines -----------------------------------------------------------------------------------------

    def _set_phase_deadline(self, seconds: float) -> None:
        self._phase_at = self._loop.time() + seconds
        if self._phase_at < self._alarm.at:
            self._alarm.set(self._phase_at)

    def _watch_rate(self, received: int) -> None:
        rate = self._server_limits.body_min_rate
        if rate is None:
            return
        if self._rate is None:
            self._rate = BodyRate(self._loop, self._transport, rate, self._body_too_slow)
        self._rate.begin()
        self._rate.bytes = received
        if not self._transport.reading:
            self._rate.pause()

    def _alarm_fired(self) -> None:
        now = self._loop.time() + 0.001
        if self._exchange_at <= now:
            self._exchange_at = NEVER
            if self._events is not None:
                self._events.deadline_passed()
        if self._phase_at <= now:
            self._phase_at = NEVER
            self._phase_expired()
        if self._phase != CLOSED:
            soonest = min(self._exchange_at, self._phase_at)
            if soonest < self._alarm.at:
                self._alarm.set(soonest)

    def _phase_expired(self) -> None:
        if self._phase == LINGER and self._transport.waiting:
            # `write_timeout` looks after a peer that takes nothing.
            self._set_phase_deadline(LINGER_S)
        elif self._phase == HEAD and not self._buffer.strip(b"\r\n"):
            self._transport.close()
        elif self._phase == HEAD:
            sentence = "The request's head was not complete in time."
            self._refuse(DownstreamTimeout("head_timeout", sentence))
        elif self._phase in {IDLE, LINGER}:
            self._transport.close()

    def _body_too_slow(self) -> None:
        """A body must come at a minimum rate (E1)."""
        if self._phase != BODY or self._events is None or self._rate is None:
            return
        if self._awaits_continue and not self._rate.bytes:
            self._rate.begin()  # RFC 9110 §10.1.1: who waits for 100 is not slow
            return
        self._phase = LINGER
        sentence = "The request's body came too slowly."
        self._events.head_refused(DownstreamTimeout("body_too_slow", sentence))

    def _write_timed_out(self) -> None:
        self._leave(DownstreamTimeout("write_timeout"))
        self._transport.abort()
