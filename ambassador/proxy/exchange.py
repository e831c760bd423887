"""One exchange as a state machine of events: one request with its response, over as many attempts as it takes.

Knows both streams, the route and its own facts; must not know sockets, connections' words or the configuration's
spelling. Two state variables, `request_side` and `response_side`; their product with every event is the table in
`wire/lifecycle.py`, which says what each method here does.

Law: before the response head is forwarded, a failure becomes another attempt or a local reply; after it, the
downstream stream is reset, so that truncation is seen.
Every event may arrive after the end: each entry point checks once, at the top. A call out may call back in: state
changes first, calls go out last.
A tunnel (Upgrade, CONNECT, tcp) is an exchange whose bodies are opaque and end by half-close.
What is remembered of it are plain attributes, which `ledger` reads once, after the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import (
    DownstreamProtocolError,
    DownstreamTimeout,
    ExchangeError,
    InternalError,
    Phase,
    UpstreamProtocolError,
)
from ambassador.core.model import DATE, IDENTITY, RequestHead, ResponseHead
from ambassador.net.alarm import NEVER
from ambassador.policy.headers import sanitize_response, sanitize_trailers
from ambassador.policy.retry import IDEMPOTENT, Verdict, decide
from ambassador.policy.trace_context import stamp
from ambassador.proxy.attempt import Attempt
from ambassador.proxy.deadlines import due_at, expired
from ambassador.proxy.guard import guard_steps
from ambassador.proxy.local_reply import (
    check_length,
    local_reply,
    overloaded,
    phase_before_head,
    too_large,
)
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from ambassador.config.model import RouteSettings
    from ambassador.core.model import Field
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.http.stream import RequestStream
    from ambassador.policy.authorization import Decision
    from ambassador.proxy.doors import Door
    from ambassador.proxy.snapshot import Route, Target
    from ambassador.upstream.service import EndpointState

UPLOADING: Final = RequestSide.UPLOADING
COMPLETE: Final = RequestSide.COMPLETE
STOPPED: Final = RequestSide.STOPPED
AWAITED: Final = ResponseSide.AWAITED
STREAMING: Final = ResponseSide.STREAMING
ENDED: Final = ResponseSide.ENDED

_SWITCHING: Final = 101
_HTTP_1_0: Final = 10
_CONNECT: Final = b"CONNECT"
#: Stands for the head of a request that could not be understood.
_NO_HEAD: Final = RequestHead(b"", b"", b"", b"", [], 0)


class Exchange:
    """See the module.

    Units: `started_at` is Unix time in seconds, `duration_s` and `upstream_s` (request sent to response head) are
    seconds, bytes are those of bodies.
    """

    __slots__ = (
        "_attempt", "_downstream", "_held", "_idle_from", "_paused_by_upstream", "_repeated_fresh", "_started",
        "_surroundings", "_trailers", "_tunnel", "_upstream_started", "attempts", "bytes_received",
        "bytes_sent", "decision", "door", "duration_s", "error", "extra", "head", "over", "phase", "request_id",
        "request_side", "response_side", "route", "started_at", "status", "target", "trace_id", "tried",
        "upstream_peer", "upstream_s",
    )  # fmt: skip

    def __init__(self, door: Door, downstream: RequestStream) -> None:
        self.door = door
        self._downstream = downstream
        self._surroundings = surroundings = door.surroundings
        self._started = surroundings.monotonic()
        self.started_at = surroundings.wall()
        self.request_side = UPLOADING
        self.response_side = AWAITED
        self.head = _NO_HEAD
        self.route: Route | None = None
        self.target: Target | None = None
        self.tried: tuple[EndpointState, ...] = ()
        self._attempt: Attempt | None = None
        self._held: list[bytes] | None = None
        self._trailers: list[Field] | None = None
        self._tunnel = self._paused_by_upstream = self._repeated_fresh = self.over = False
        self._upstream_started = 0.0
        self.extra = self.request_id = self.trace_id = b""
        self.attempts = self.status = self.bytes_received = self.bytes_sent = 0
        self.upstream_s: float | None = None
        self.upstream_peer: tuple[str, str, str] | None = None
        self.decision: Decision | None = None
        self.error: ExchangeError | None = None
        self.phase = Phase.RELAY

    def __repr__(self) -> str:
        return (
            f"Exchange({self.head.method!r}, {self.request_side.name}, {self.response_side.name})"
        )

    # ---- from downstream -----------------------------------------------------------------------------------

    def head_received(self, head: RequestHead, end: bool) -> None:  # noqa: FBT001
        """The request's head; `end` when there is no body. Everything is decided here, in the door's order."""
        self.head = head
        if end:
            self.request_side = COMPLETE
        try:
            self.route = route = self.door.enter(self, head)
            self.target = target = route.only_target or route.target(self._surroundings.chance)
            if (
                target.limit is not None
            ):  # behind the rules: who may not come takes nothing from others
                target.limit.admit(self.door.record.peer, self._started)
            budget = self._surroundings.budget
            if budget.used > budget.ceiling:  # responses fill it as well as bodies of requests (E6)
                raise overloaded()
            if not end:
                check_length(target.settings.max_body, head.content_length)
            self._begin_deadline(target.settings)
            self._next_attempt(target)
        except ExchangeError as error:
            self._reply(error)
        except Exception as error:  # a bug of ours is this exchange's end, not the process's
            self._surroundings.crashed(error)
            self._fail(InternalError("internal_error", "Ambassador failed; see its log."))

    def head_refused(self, error: ExchangeError) -> None:
        """The request cannot be understood, at its head or in its body."""
        if self.response_side is not ENDED:
            self._fail(error)

    def body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.request_side is not UPLOADING:
            return
        self.bytes_received += len(chunk)
        target = self.target
        ceiling = target.settings.max_body if target is not None else None
        if ceiling is not None and self.bytes_received > ceiling and not self._tunnel:
            self._fail(too_large(ceiling))
            return
        if end:
            self.request_side = COMPLETE
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
        tunnel_ended = (
            self._tunnel and self.response_side is ENDED and self.request_side is COMPLETE
        )
        if self.over or tunnel_ended:  # the end of both directions closes it before `_end_tunnel`
            return
        self.phase = self._phase(error)
        self.request_side = STOPPED
        self.response_side = ENDED
        self._end_attempt()
        self._finish(error)

    def read_finished(self) -> None:
        """A burst of the request is over: send on what was corked."""
        attempt = self._attempt
        connection = attempt.connection if attempt is not None else None
        if self.request_side is UPLOADING and connection is not None:
            self._idle_from = self._surroundings.loop_time()
            if not connection.flush():
                self._pause_downstream()

    def writable(self) -> None:
        """Downstream takes more: go on with the response."""
        attempt = self._attempt
        connection = attempt.connection if attempt is not None else None
        if self.response_side is STREAMING and connection is not None:
            connection.resume_body()

    def deadline_passed(self) -> None:
        """See whether the deadline of the present state has passed; it may have moved since the timer was set."""
        target = self.target
        if target is None or (self.response_side is ENDED and self.request_side is not UPLOADING):
            return
        due = self._due(target.settings)
        if due > self._surroundings.loop_time() + 0.001:
            self._downstream.set_deadline(due)
            return
        elapsed_s = None if self._tunnel else self._surroundings.monotonic() - self._started
        self._fail(expired(
            target.settings, self.request_side, self.response_side,
            elapsed_s=elapsed_s, upstream_slow=self._paused_by_upstream,
        ))  # fmt: skip

    # ---- from upstream -------------------------------------------------------------------------------------

    def upstream_ready(self, connection: ClientConnection) -> None:
        """A connection is there: the head goes out, and what was held of the body."""
        self.upstream_peer = connection.peer_text
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
        self.upstream_peer = connection.peer_text
        self.status = 200
        self.response_side = STREAMING
        held, self._held = self._held, None
        self._begin_deadline(self.target.settings)  # type: ignore[union-attr]  # routed
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
        self.status = status = head.status
        self.upstream_s = self._surroundings.monotonic() - self._upstream_started
        if status == _SWITCHING:
            self._switch(head)
            return
        roles = head.roles
        if roles & IDENTITY:
            sanitize_response(head)
        extra = self.door.response_extra
        if head.version == _HTTP_1_0 and extra:
            extra = extra.replace(b" 1.1 ", b" 1.0 ", 1)  # as received (RFC 9110 §7.6.3)
        if not roles & DATE:
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

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """A response that came in one piece: `response_head` and `response_body`, for the sake of their frames."""
        if self.response_side is not AWAITED:
            return
        if head.version == _HTTP_1_0:
            self.response_head(head, False)
            self.response_body(body, True)
            return
        try:  # `guarded`, without its frame
            self.status = head.status
            surroundings = self._surroundings
            self.upstream_s = surroundings.monotonic() - self._upstream_started
            roles = head.roles
            if roles & IDENTITY:
                sanitize_response(head)
            extra = self.door.response_extra
            if not roles & DATE:
                extra += surroundings.date.at(surroundings.wall())  # RFC 9110 §6.6.1, as above
            self.bytes_sent = len(body)
            self._response_ended()
            self._downstream.write_whole(head, extra, body)
            self._close_books()
        except Exception as error:  # the guard of this callback (E8)
            self.crash(error)

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.response_side is not STREAMING:
            return
        self.bytes_sent += len(chunk)
        if not end:
            if not self._downstream.write_body(chunk, False):
                self._pause_upstream()
            return
        if self._tunnel:
            self.response_side = ENDED
            self._downstream.write_body(chunk, True)
            self._end_tunnel()
            return
        self._response_ended()
        self._downstream.write_body(chunk, True)
        self._close_books()

    def response_trailers(self, fields: list[Field]) -> None:
        if self.response_side is STREAMING:
            self._response_ended()
            self._downstream.write_trailers(sanitize_trailers(fields))
            self._close_books()

    def response_burst_over(self) -> None:
        if self.response_side is STREAMING:
            self._begin_deadline(self.target.settings)  # type: ignore[union-attr]  # routed
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
        attempt, target = self._attempt, self.target
        if attempt is None or target is None or (self.response_side is ENDED and not self._tunnel):
            return
        if self.response_side is not AWAITED:
            self._fail(error)
            return
        untried = target.service.untried(self.tried)
        facts = attempt.facts(
            error, self.head.method, untried=untried, repeated_fresh=self._repeated_fresh
        )
        verdict = decide(facts)
        if verdict is Verdict.GIVE_UP:
            self._reply(error)
            return
        self._end_attempt()
        if verdict is Verdict.FRESH_CONNECTION:
            self._repeated_fresh = True
            self._try(attempt.state, fresh=True)
            return
        try:
            self._next_attempt(target)
        except ExchangeError:
            self._reply(error)

    # ---- steps ---------------------------------------------------------------------------------------------

    def _next_attempt(self, target: Target) -> None:
        """Try the next endpoint; raises NoHealthyUpstream or ResolveFailed when there is none left."""
        state = target.service.pick(self.tried)
        if state is None:
            raise target.service.exhausted()
        self.tried += (state,)
        self._try(state, fresh=False)

    def _try(self, state: EndpointState, *, fresh: bool) -> None:
        self.attempts += 1
        method = self.head.method
        uploading = self.request_side is UPLOADING
        has_body = uploading or self._held is not None
        is_tunnel = method == _CONNECT
        self._attempt = attempt = Attempt(self, state)
        connection = None
        if not fresh and not is_tunnel:
            # A request that can be sent twice needs no look at the socket (2 µs): `policy.retry` mends the race.
            connection = state.pool.take(checked=has_body or method not in IDEMPOTENT)
        if connection is not None:
            attempt.connection = connection
            attempt.reused = True
            self._upstream_started = self._surroundings.monotonic()
            self.upstream_ready(connection)
            return
        self._upstream_started = 0.0
        if uploading and self._held is None:
            self._hold(b"")
        attempt.dial(tunnel=is_tunnel)

    def connected(self) -> None:
        """A dial has succeeded: from here on upstream's time counts."""
        self._upstream_started = self._surroundings.monotonic()

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
        elif self.response_side is AWAITED and self.target is not None:
            self._begin_deadline(self.target.settings)

    def _switch(self, head: ResponseHead) -> None:
        """101: both directions are opaque from here on (RFC 9110 §7.8)."""
        if self.request_side is not COMPLETE:
            error = UpstreamProtocolError("early_upgrade", "The peer switched too early.")
            self.attempt_failed(error)
            return
        self._tunnel = True
        self.request_side = UPLOADING
        self.response_side = STREAMING
        self._begin_deadline(self.target.settings)  # type: ignore[union-attr]  # routed
        sanitize_response(head)
        self._downstream.write_head(head, self.door.response_extra, False)
        self._downstream.flush()

    def _end_tunnel(self) -> None:
        """One direction has ended; the exchange has when both have."""
        is_over = self.response_side is ENDED and self.request_side is COMPLETE
        if is_over and self._attempt is not None:
            self._close_books()

    def _response_ended(self) -> None:
        self.response_side = ENDED
        if self.request_side is UPLOADING:
            self.request_side = STOPPED

    def _close_books(self) -> None:
        """The response is out: give the connection back and note the end."""
        attempt = self._attempt
        if attempt is not None:
            attempt.release()
        self._attempt = None
        self._finish(None)

    def _end_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abandon()

    def _fail(self, error: ExchangeError) -> None:
        if self.response_side is STREAMING and self._downstream.take_back():
            self.response_side = AWAITED  # its head came, and went no further
            self.bytes_sent = 0
        if self.response_side is AWAITED:
            self._reply(error)
        else:
            self._cut(error)

    def _reply(self, error: ExchangeError) -> None:
        """Answer ourselves."""
        self.phase = self._phase(error)
        self._response_ended()
        self._end_attempt()
        self.status = error.status
        if not self.request_id:  # by which lines of two proxies are joined
            self.request_id, self.trace_id, _ = stamp(self.head, self._surroundings.random_bits)
        downstream = self._downstream
        if error.status == 0:
            downstream.reset()
            self._finish(error)
            return
        head, extra, body = local_reply(error, remote=self.door.is_remote)
        extra += self._surroundings.date.at(self._surroundings.wall())
        if isinstance(error, DownstreamProtocolError | DownstreamTimeout):
            downstream.close_after_response()
        if body and self.head.method != b"HEAD" and downstream.shows_heads:
            self.bytes_sent += len(body)
            downstream.write_head(head, extra, False)
            downstream.write_body(body, True)
        else:
            downstream.write_head(head, extra, True)
        self._finish(error)

    def _cut(self, error: ExchangeError) -> None:
        """The head is out: only truncation can tell the peer."""
        self.phase = self._phase(error)
        self._response_ended()
        self._end_attempt()
        self._downstream.reset()
        self._finish(error)

    def crash(self, error: Exception) -> None:
        """A bug of ours: whatever it has left half done ends, on both sides (E8)."""
        self._surroundings.crashed(error)
        attempt = self._attempt
        if not self.over:
            self._cut(InternalError("internal_error", "Ambassador failed; see its log."))
        if attempt is not None and attempt.connection is not None:
            attempt.connection.abort()  # nobody knows in which state it was left

    def _finish(self, error: ExchangeError | None) -> None:
        """Note the end, once: every path here has set the response side to ENDED before."""
        self.over = True
        self.error = error
        if error is not None:
            # Its traceback keeps the bytes behind this request, till the rare collection: 27 KB a refusal (E3).
            error.__traceback__ = error.__context__ = None
        self.duration_s = self._surroundings.monotonic() - self._started
        self.door.exchange_ended(self)

    def _phase(self, error: ExchangeError) -> Phase:
        if self.response_side is not AWAITED:
            return Phase.RELAY
        return phase_before_head(
            error,
            understood=self.head is not _NO_HEAD,
            routed=self.target is not None,
            connected=self._upstream_started > 0,
            uploading=self.request_side is UPLOADING,
        )

    # ---- back-pressure -------------------------------------------------------------------------------------

    def _pause_downstream(self) -> None:
        if not self._paused_by_upstream:
            self._paused_by_upstream = True
            self._downstream.pause_body()

    def _pause_upstream(self) -> None:
        if self._attempt is not None and self._attempt.connection is not None:
            self._attempt.connection.pause_body()

    # ---- deadlines -----------------------------------------------------------------------------------------

    def _begin_deadline(self, settings: RouteSettings) -> None:
        """Begin the deadline of the present state anew."""
        self._idle_from = now = self._surroundings.loop_time()
        if (
            self.request_side is COMPLETE
            and self.response_side is AWAITED
            and settings.total_timeout_s is None
        ):
            # --- `due_at`, as nearly every request asks for it
            if settings.timeout_s is not None:
                self._downstream.set_deadline(now + settings.timeout_s)
            return
            # ---
        due = self._due(settings)
        if due != NEVER:
            self._downstream.set_deadline(due)

    def _due(self, settings: RouteSettings) -> float:
        total_from = None
        if settings.total_timeout_s is not None and not self._tunnel:
            total_from = self._surroundings.loop_time() - (
                self._surroundings.monotonic() - self._started
            )
        return due_at(
            settings, self.request_side, self.response_side, idle_from=self._idle_from, total_from=total_from
        )  # fmt: skip


guard_steps(
    Exchange, "attempt_failed", "body_received", "deadline_passed", "read_finished", "response_body",
    "response_burst_over", "response_head", "response_interim", "response_trailers", "stream_reset",
    "trailers_received", "tunnel_ready", "upstream_ready", "upstream_writable", "writable",
)  # fmt: skip
