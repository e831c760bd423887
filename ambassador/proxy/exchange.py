"""One exchange as a state machine of events: one request with its response, over as many attempts as it takes.

Knows both streams, the route and the record; must not know sockets, connections' words or the configuration's
spelling. Two state variables, `request_side` and `response_side`; their product with every event is the table in
`wire/lifecycle.py`, which says what each method here does.

Law: before the response head is forwarded, a failure becomes another attempt or a local reply; after it, the
downstream stream is reset, so that truncation is seen.
Every event may arrive after the end: each entry point checks once, at the top. A call out may call back in: state
changes first, calls go out last.
A tunnel (Upgrade, CONNECT, tcp) is an exchange whose bodies are opaque and end by half-close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ambassador.core.errors import (
    DownstreamProtocolError,
    DownstreamTimeout,
    ExchangeError,
    InternalError,
    NoHealthyUpstream,
    Overloaded,
    Phase,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from ambassador.core.model import DATE, IDENTITY, RequestHead, ResponseHead
from ambassador.net.alarm import NEVER
from ambassador.policy.headers import sanitize_response, sanitize_trailers
from ambassador.policy.retry import Verdict, decide
from ambassador.proxy.attempt import Attempt
from ambassador.proxy.local_reply import local_reply
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.core.model import Field
    from ambassador.core.record import ExchangeRecord
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.http.stream import RequestStream
    from ambassador.proxy.snapshot import Route, Target
    from ambassador.proxy.surroundings import Surroundings
    from ambassador.upstream.service import EndpointState

UPLOADING: Final = RequestSide.UPLOADING
COMPLETE: Final = RequestSide.COMPLETE
STOPPED: Final = RequestSide.STOPPED
AWAITED: Final = ResponseSide.AWAITED
STREAMING: Final = ResponseSide.STREAMING
ENDED: Final = ResponseSide.ENDED

_SWITCHING: Final = 101
_CONNECT: Final = b"CONNECT"

#: Stands for the head of a request that could not be understood.
_NO_HEAD: Final = RequestHead(b"", b"", b"", b"", [], 0)
_NO_TRAILERS: Final[list[Field]] = []  # never written to


class Door(Protocol):
    """What differs between the two directions; one per downstream connection."""

    record: ExchangeRecord
    is_remote: bool
    response_extra: bytes
    surroundings: Surroundings

    def enter(self, exchange: Exchange, head: RequestHead) -> Route:
        """Sanitise, authorise, route, set our header lines; raises ExchangeError."""

    exchange_ended: Callable[[Exchange], None]


class Exchange:
    """See the module."""

    __slots__ = (
        "_attempt",
        "_body_idle_s",
        "_door",
        "_downstream",
        "_held",
        "_idle_from",
        "_paused_by_upstream",
        "_repeated_fresh",
        "_started",
        "_surroundings",
        "_trailers",
        "_tried",
        "_tunnel",
        "_upstream_started",
        "extra",
        "head",
        "record",
        "request_side",
        "response_side",
        "route",
        "target",
    )

    def __init__(self, door: Door, downstream: RequestStream) -> None:
        self._door = door
        self._downstream = downstream
        self._surroundings = surroundings = door.surroundings
        self._started = surroundings.monotonic()
        self.record = record = door.record.__copy__()
        record.time = surroundings.wall()
        self.request_side = UPLOADING
        self.response_side = AWAITED
        self._attempt: Attempt | None = None
        self._held: list[bytes] | None = None
        self._trailers: list[Field] = _NO_TRAILERS
        self._tunnel = False
        self._paused_by_upstream = False
        self._repeated_fresh = False
        self._tried: list[EndpointState] = []
        self._upstream_started = 0.0
        self.extra = b""
        self.route: Route | None = None
        self.target: Target | None = None
        self.head: RequestHead = _NO_HEAD

    def __repr__(self) -> str:
        return f"Exchange({self.record.method} {self.record.path}, {self.request_side.name}, {self.response_side.name})"

    def now(self) -> float:
        """Give the loop's time in seconds."""
        return self._surroundings.loop_time()

    # ---- from downstream -----------------------------------------------------------------------------------

    def head_received(self, head: RequestHead, end: bool) -> None:  # noqa: FBT001
        """The request's head; `end` when there is no body. Everything is decided here, in the door's order."""
        self.head = head
        if end:
            self.request_side = COMPLETE
        record = self.record
        record.method = head.method
        record.path = head.path
        record.authority = head.authority
        if head.version == 10:  # noqa: PLR2004
            record.protocol = "HTTP/1.0"
        record.phase = Phase.ROUTE
        try:
            self.route = route = self._door.enter(self, head)
            if head.content_length != 0:
                self._check_limits(route, head)
            self.target = target = route.only_target or route.target(self._surroundings.chance)
            record.route = route.name
            record.service = target.service.name
            self._rearm()
            self._next_attempt()
        except ExchangeError as error:
            self._reply(error)
        except Exception as error:  # noqa: BLE001  # a bug of ours is this exchange's end, not the process's
            self._surroundings.crashed(error)
            if self.response_side is AWAITED:
                self._reply(InternalError("internal_error", "Ambassador failed; see its log."))
            else:
                self._cut(InternalError("internal_error"))

    def head_refused(self, error: ExchangeError) -> None:
        """The request cannot be understood, at its head or in its body."""
        if self.response_side is ENDED:
            return
        if not self.record.phase:
            self.record.phase = Phase.HEAD
        self._stop_upload()
        if self.response_side is AWAITED:
            self._reply(error)
        else:
            self._cut(error)

    def body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.request_side is not UPLOADING:
            return
        self.record.bytes_received += len(chunk)
        if end:
            self.request_side = COMPLETE
        route = self.route
        if route is not None and route.settings.max_body is not None:
            if self.record.bytes_received > route.settings.max_body and not self._tunnel:
                self._too_large()
                return
        attempt = self._attempt
        connection = attempt.connection if attempt is not None else None
        if attempt is None or connection is None:
            self._hold(chunk)
        else:
            attempt.body_sent = True
            if not connection.write_body(chunk, end) and not end:
                self._pause_downstream()
        if end:
            self._request_ended()

    def trailers_received(self, fields: list[Field]) -> None:
        if self.request_side is not UPLOADING:
            return
        fields = sanitize_trailers(fields)
        attempt = self._attempt
        if attempt is None or attempt.connection is None:
            self._trailers = fields  # held like the body before them
            self.body_received(b"", True)
            return
        self.request_side = COMPLETE
        attempt.body_sent = True
        attempt.connection.write_trailers(fields)
        self._request_ended()

    def stream_reset(self, error: ExchangeError) -> None:
        """Downstream is gone: nobody to answer."""
        if self.response_side is ENDED and self.request_side is not UPLOADING:
            return
        self.request_side = STOPPED
        self.response_side = ENDED
        self._end_attempt()
        self._finish(error, status=self.record.status)

    def read_finished(self) -> None:
        """A burst of the request is over: send on what was corked."""
        if self.request_side is UPLOADING and self._attempt is not None and self._attempt.connection is not None:
            self._idle_from = self._surroundings.loop_time()
            if not self._attempt.connection.flush():
                self._pause_downstream()

    def writable(self) -> None:
        """Downstream takes more: go on with the response."""
        if self.response_side is STREAMING and self._attempt is not None and self._attempt.connection is not None:
            self._attempt.connection.resume_body()

    def deadline_passed(self) -> None:
        """See which deadline this is: the one of the response head, of silence in a body, or of the whole."""
        route = self.route
        if route is None or (self.response_side is ENDED and self.request_side is not UPLOADING):
            return
        now = self.now()
        due = self._due(route, now)
        if due > now + 0.001:
            self._downstream.set_deadline(due)
            return
        self._expire(route, now)

    # ---- from the attempt ----------------------------------------------------------------------------------

    def upstream_ready(self, connection: ClientConnection) -> None:
        """A connection is there: the head goes out, and what was held of the body."""
        record = self.record
        record.phase = Phase.WAIT if self.request_side is COMPLETE else Phase.SEND
        self._upstream_started = self._surroundings.monotonic()
        held = self._held
        if held is None:
            connection.send_head(self, self.head, self.extra, self.request_side is COMPLETE)
            return
        self._held = None
        connection.send_head(self, self.head, self.extra, False)
        self._attempt.body_sent = bool(held)  # type: ignore[union-attr]  # it is the one that is ready
        body = b"".join(held)
        if self.request_side is COMPLETE:
            if self._trailers:
                connection.write_body(body, False)
                connection.write_trailers(self._trailers)
            else:
                connection.write_body(body, True)
            self._downstream.resume_body()  # what comes now is the next request, or news of the peer's end
            return
        keeps_up = connection.write_body(body, False)
        if connection.flush() and keeps_up:
            self._downstream.resume_body()
        else:
            self._paused_by_upstream = True

    def tunnel_ready(self, connection: RawConnection) -> None:
        """The far side of a CONNECT or a tcp connection is there: say so, then everything is opaque."""
        self._tunnel = True
        self._upstream_started = self._surroundings.monotonic()
        self.record.phase = Phase.RELAY
        self.record.status = 200
        self.response_side = STREAMING
        held, self._held = self._held, None
        self._rearm()
        self._downstream.write_head(ResponseHead(200, b"OK", [], None), b"", False)
        self._downstream.flush()
        if held is not None:
            self._downstream.resume_body()
            body = b"".join(held)
            if body or self.request_side is COMPLETE:
                connection.write_body(body, self.request_side is COMPLETE)

    def response_interim(self, head: ResponseHead) -> None:
        if self.response_side is AWAITED:
            sanitize_response(head)
            self._downstream.write_interim(head)

    def response_head(self, head: ResponseHead, end: bool) -> None:  # noqa: FBT001
        """The final head: from here on a failure can only be shown by a cut."""
        if self.response_side is not AWAITED:
            return
        status = head.status
        record = self.record
        record.status = status
        record.phase = Phase.RELAY
        record.upstream_duration_ms = (self._surroundings.monotonic() - self._upstream_started) * 1000
        if status == _SWITCHING:
            self._switch(head)
            return
        if head.roles & IDENTITY:
            sanitize_response(head)
        extra = self._door.response_extra
        if not head.roles & DATE:
            # RFC 9110 §6.6.1: who forwards a response without Date adds the time of its receipt.
            extra += self._surroundings.date.at(self._surroundings.wall())
        if end:
            self._response_ended()
            self._downstream.write_head(head, extra, True)
            self._close_books()
            return
        self.response_side = STREAMING
        self._downstream.write_head(head, extra, False)
        # The deadline of a body begins with the end of this burst; most responses have ended by then.

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.response_side is not STREAMING:
            return
        self.record.bytes_sent += len(chunk)
        if end:
            if self._tunnel:
                self.response_side = ENDED
                self._downstream.write_body(chunk, True)
                self._end_tunnel()
                return
            self._response_ended()
            self._downstream.write_body(chunk, True)
            self._close_books()
        elif not self._downstream.write_body(chunk, False):
            self._pause_upstream()

    def response_trailers(self, fields: list[Field]) -> None:
        if self.response_side is STREAMING:
            self._response_ended()
            self._downstream.write_trailers(sanitize_trailers(fields))
            self._close_books()

    def response_burst_over(self) -> None:
        if self.response_side is STREAMING:
            self._rearm()
            if not self._downstream.flush():
                self._pause_upstream()

    def upstream_writable(self) -> None:
        """Upstream takes more: go on with the request."""
        if self._paused_by_upstream:
            self._paused_by_upstream = False
            self._downstream.resume_body()

    def connect_failed(self, state: EndpointState) -> None:
        """An endpoint took no connection: its service prefers the others for a while."""
        if self.target is not None:
            self.target.service.connect_failed(state)

    def attempt_failed(self, error: ExchangeError) -> None:
        """An attempt has ended without a whole response: another one, a local reply, or a cut."""
        if self.response_side is ENDED and not self._tunnel:
            return
        attempt = self._attempt
        if attempt is None:
            return
        if self.response_side is not AWAITED:
            self._cut(error)
            return
        untried = len(self.target.service.endpoints) - len(self._tried)  # type: ignore[union-attr]  # routed
        verdict = decide(
            attempt.facts(error, self.head.method, untried=untried, repeated_fresh=self._repeated_fresh)
        )
        self._end_attempt()
        if verdict is Verdict.GIVE_UP:
            self._reply(error)
        elif verdict is Verdict.FRESH_CONNECTION:
            self._repeated_fresh = True
            self._try(attempt.state, fresh=True)
        else:
            try:
                self._next_attempt()
            except ExchangeError:
                self._reply(error)

    # ---- steps ---------------------------------------------------------------------------------------------

    def _check_limits(self, route: Route, head: RequestHead) -> None:
        budget = self._surroundings.budget
        if budget.used > budget.ceiling:
            raise Overloaded("buffers", "Too many bytes wait for slow peers; see limits.buffers.")
        ceiling = route.settings.max_body
        if ceiling is not None and head.content_length is not None and head.content_length > ceiling:
            raise DownstreamProtocolError("body_too_large", f"The body may have {ceiling} bytes.", status=413)

    def _next_attempt(self) -> None:
        """Try the next endpoint; raises NoHealthyUpstream when there is none left."""
        service = self.target.service  # type: ignore[union-attr]  # routed
        state = service.pick(self._tried)
        if state is None:
            raise NoHealthyUpstream("no_endpoint", f"The service {service.name} has no endpoint that can be tried.")
        self._try(state, fresh=False)

    def _try(self, state: EndpointState, *, fresh: bool) -> None:
        record = self.record
        record.phase = Phase.CONNECT
        record.endpoint = state.address_text
        record.attempts += 1
        if not fresh:
            self._tried.append(state)
        head = self.head
        uploading = self.request_side is UPLOADING
        if head.method == _CONNECT:
            self._attempt = attempt = Attempt(self, state, _CONNECT, has_body=False, fresh=True)
            if self._held is None:
                self._hold(b"")
            attempt.dial_tunnel()
            return
        has_body = uploading or self._held is not None
        self._attempt = attempt = Attempt(self, state, head.method, has_body=has_body, fresh=fresh)
        connection = attempt.connection
        if connection is not None:
            self.upstream_ready(connection)
            return
        if uploading and self._held is None:
            self._hold(b"")
        attempt.dial()

    def _hold(self, chunk: bytes) -> None:
        """Keep what came before the connection was there; nothing more is read until then."""
        if self._held is None:
            self._held = []
            if self.request_side is UPLOADING:
                self._downstream.pause_body()
        if chunk:
            self._held.append(chunk)

    def _request_ended(self) -> None:
        if self._tunnel:
            self._end_tunnel()
            return
        if self.response_side is AWAITED:
            self.record.phase = Phase.WAIT if self._held is None else Phase.CONNECT
            self._rearm()

    def _switch(self, head: ResponseHead) -> None:
        """101: both directions are opaque from here on (RFC 9110 §7.8)."""
        if self.request_side is not COMPLETE:
            self.attempt_failed(UpstreamProtocolError("early_upgrade", "The peer switched before the request had ended."))
            return
        self._tunnel = True
        self.request_side = UPLOADING
        self.response_side = STREAMING
        self._rearm()
        sanitize_response(head)
        self._downstream.write_head(head, self._door.response_extra, False)
        self._downstream.flush()

    def _end_tunnel(self) -> None:
        """One direction has ended; the exchange has when both have."""
        if self.response_side is ENDED and self.request_side is COMPLETE and self._attempt is not None:
            self._close_books()

    def _response_ended(self) -> None:
        self.response_side = ENDED
        if self.request_side is UPLOADING:
            self.request_side = STOPPED

    def _close_books(self) -> None:
        """The response is out: give the connection back and write the record."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.release()
        self._finish(None, status=self.record.status)

    def _stop_upload(self) -> None:
        if self.request_side is UPLOADING:
            self.request_side = STOPPED

    def _end_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abandon()

    def _too_large(self) -> None:
        ceiling = self.route.settings.max_body if self.route is not None else 0
        error = DownstreamProtocolError("body_too_large", f"The body may have {ceiling} bytes.", status=413)
        self.request_side = STOPPED
        if self.response_side is AWAITED:
            self._reply(error)
        else:
            self._cut(error)

    def _reply(self, error: ExchangeError) -> None:
        """Answer ourselves."""
        self._stop_upload()
        self.response_side = ENDED
        self._end_attempt()
        status = error.status
        record = self.record
        if status == 0:
            self._downstream.reset()
            self._finish(error, status=0)
            return
        record.status = status
        head, extra, body = local_reply(error, remote=self._door.is_remote)
        extra += self._surroundings.date.at(self._surroundings.wall())
        downstream = self._downstream
        if isinstance(error, DownstreamProtocolError | DownstreamTimeout):
            downstream.close_after_response()
        if body and self.head.method != b"HEAD":
            record.bytes_sent += len(body)
            downstream.write_head(head, extra, False)
            downstream.write_body(body, True)
        else:
            downstream.write_head(head, extra, True)
        self._finish(error, status=status)

    def _cut(self, error: ExchangeError) -> None:
        """The head is out: only truncation can tell the peer."""
        self._stop_upload()
        self.response_side = ENDED
        self._end_attempt()
        self._downstream.reset()
        self._finish(error, status=self.record.status)

    def _finish(self, error: ExchangeError | None, *, status: int) -> None:
        """Write the record, once: every path here has set the response side to ENDED before."""
        record = self.record
        record.status = status
        if error is not None:
            record.flags = error.flag.value
            record.detail = error.detail
        record.duration_ms = (self._surroundings.monotonic() - self._started) * 1000
        self._door.exchange_ended(self)

    # ---- back-pressure -------------------------------------------------------------------------------------

    def _pause_downstream(self) -> None:
        if not self._paused_by_upstream:
            self._paused_by_upstream = True
            self._downstream.pause_body()

    def _pause_upstream(self) -> None:
        if self._attempt is not None and self._attempt.connection is not None:
            self._attempt.connection.pause_body()

    # ---- deadlines -----------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        """Begin the deadline of the present state anew."""
        route = self.route
        if route is not None:
            self._idle_from = now = self._surroundings.loop_time()
            due = self._due(route, now)
            if due != NEVER:
                self._downstream.set_deadline(due)

    def _due(self, route: Route, now: float) -> float:
        """Give the moment at which something is due in the present state. Units: seconds of the loop's clock."""
        settings = route.settings
        if self.response_side is AWAITED and self.request_side is COMPLETE:
            span = settings.timeout_s
        else:
            span = settings.body_idle_timeout_s
        due = NEVER if span is None else self._idle_from + span
        if settings.total_timeout_s is not None and not self._tunnel:
            elapsed = self._surroundings.monotonic() - self._started
            due = min(due, now + settings.total_timeout_s - elapsed)
        return due

    def _expire(self, route: Route, now: float) -> None:
        total = route.settings.total_timeout_s
        elapsed = self._surroundings.monotonic() - self._started
        error: ExchangeError
        if total is not None and elapsed >= total - 0.002 and not self._tunnel:
            error = UpstreamTimeout("total_timeout", f"The exchange was not over within {total:g} s.")
        elif self.response_side is AWAITED and self.request_side is COMPLETE:
            error = UpstreamTimeout("response_timeout", f"No response within {route.settings.timeout_s:g} s.")
        elif self.request_side is UPLOADING and self.response_side is AWAITED and not self._paused_by_upstream:
            error = DownstreamTimeout("body_idle", "The request's body stopped coming.")
        else:
            error = UpstreamTimeout("body_idle", "No byte in either direction for too long.")
        if self.response_side is AWAITED:
            self._reply(error)
        else:
            self._cut(error)
