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
    ExchangeError,
    InternalError,
    Phase,
    ResponseFlag,
)
from ambassador.core.model import DATE, EXPECTED_TIMEOUT, IDENTITY, RequestHead, ResponseHead
from ambassador.net.alarm import NEVER
from ambassador.policy.forwarding import expected_timeout_ms
from ambassador.policy.headers import sanitize_response, sanitize_trailers
from ambassador.policy.retry import IDEMPOTENT, Verdict, decide
from ambassador.proxy import ending, tunnel
from ambassador.proxy.attempt import Attempt
from ambassador.proxy.deadlines import due_at, expired
from ambassador.proxy.guard import guard_steps
from ambassador.proxy.local_reply import (
    check_length,
    overloaded,
    too_large,
)
from ambassador.proxy.repeats import Repeats, lines_of, repeats_of
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from ambassador.core.model import Field
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.http.stream import RequestStream
    from ambassador.policy.authorization import Decision
    from ambassador.proxy.doors import Door
    from ambassador.proxy.snapshot import Route, Target
    from ambassador.upstream.endpoint import EndpointState

UPLOADING: Final = RequestSide.UPLOADING
COMPLETE: Final = RequestSide.COMPLETE
STOPPED: Final = RequestSide.STOPPED
AWAITED: Final = ResponseSide.AWAITED
STREAMING: Final = ResponseSide.STREAMING
ENDED: Final = ResponseSide.ENDED

_SWITCHING: Final = 101
_SERVER_ERROR: Final = 500
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
        "_idle_from", "_paused_by_upstream", "_repeated_fresh", "_started", "_surroundings", "attempt", "attempts",
        "bytes_received", "bytes_sent", "decision", "door", "downstream", "duration_s", "error", "extra", "head",
        "held", "is_tunnel", "mark", "not_retried", "over", "phase", "repeats", "request_id", "request_side",
        "response_side", "route", "started_at", "status", "target", "trace_id", "trailers", "tried",
        "upstream_peer", "upstream_s", "upstream_started",
    )  # fmt: skip

    def __init__(self, door: Door, downstream: RequestStream) -> None:
        self.door = door
        self.downstream = downstream
        self._surroundings = surroundings = door.surroundings
        self._started = surroundings.monotonic()
        self.started_at = surroundings.wall()
        self.request_side = UPLOADING
        self.response_side = AWAITED
        self.head = _NO_HEAD
        self.route: Route | None = None
        self.target: Target | None = None
        self.tried: tuple[EndpointState, ...] = ()
        self.attempt: Attempt | None = None
        self.held: list[bytes] | None = None
        self.trailers: list[Field] | None = None
        self.repeats: Repeats | None = None
        self.is_tunnel = self._paused_by_upstream = self._repeated_fresh = self.over = False
        self.upstream_started = 0.0
        self.extra = self.request_id = self.trace_id = b""
        self.attempts = self.status = self.bytes_received = self.bytes_sent = 0
        self.upstream_s: float | None = None
        self.upstream_peer: tuple[str, str, str] | None = None
        self.decision: Decision | None = None
        self.error: ExchangeError | None = None
        self.phase = Phase.RELAY
        self.mark = self.not_retried = ""  # a flag beside the error's, or without one; a reason

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
            if target.limit is not None:  # behind the rules: a stranger takes nothing from others
                target.limit.admit(self.door.record.peer, self._started)
            budget = self._surroundings.budget
            if budget.used > budget.ceiling:  # responses fill it as well as bodies of requests (E6)
                raise overloaded()
            if not end:
                check_length(target.settings.max_body, head.content_length)
            if head.roles & EXPECTED_TIMEOUT:
                asked_ms = expected_timeout_ms(head.marked)
                if asked_ms is not None:
                    self.target = target = target.within(asked_ms)
            self.begin_deadline()
            if target.is_special:
                self.repeats = repeats_of(self, target)
                if target.fault is not None and target.fault.begins(self, self.door.peer):
                    return
            self._next_attempt()
        except ExchangeError as error:
            ending.reply(self, error)
        except Exception as error:  # a bug of ours is this exchange's end, not the process's
            self._surroundings.crashed(error)
            ending.fail(self, InternalError("internal_error", "Ambassador failed; see its log."))

    def head_refused(self, error: ExchangeError) -> None:
        """The request cannot be understood, at its head or in its body."""
        if self.response_side is not ENDED:
            ending.fail(self, error)

    def body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.request_side is not UPLOADING:
            return
        self.bytes_received += len(chunk)
        target = self.target
        ceiling = target.settings.max_body if target is not None else None
        if ceiling is not None and self.bytes_received > ceiling and not self.is_tunnel:
            ending.fail(self, too_large(ceiling))
            return
        if end:
            self.request_side = COMPLETE
        if self.repeats is not None:
            self.repeats.keep(chunk)
        attempt = self.attempt
        connection = attempt.connection if attempt is not None else None
        if attempt is None or connection is None:
            self.hold(chunk)
        else:
            attempt.body_sent = True
            if not connection.write_body(chunk, end) and not end:
                self._pause_downstream()
        if end:
            self._request_ended()

    def trailers_received(self, fields: list[Field]) -> None:
        if self.request_side is not UPLOADING:
            return
        self.trailers = fields = sanitize_trailers(fields)
        attempt = self.attempt
        if attempt is None or attempt.connection is None:  # held like the body before them
            self.body_received(b"", True)
            return
        self.request_side = COMPLETE
        attempt.body_sent = True
        attempt.connection.write_trailers(fields)
        self._request_ended()

    def stream_reset(self, error: ExchangeError) -> None:
        """Downstream is gone: nobody to answer."""
        tunnel_ended = (
            self.is_tunnel and self.response_side is ENDED and self.request_side is COMPLETE
        )
        if self.over or tunnel_ended:  # the end of both directions closes it before `_end_tunnel`
            return
        self.phase = ending.phase_of(self, error)
        self.request_side, self.response_side = STOPPED, ENDED
        self.end_attempt()
        self.finish(error)

    def read_finished(self) -> None:
        """A burst of the request is over: send on what was corked."""
        attempt = self.attempt
        connection = attempt.connection if attempt is not None else None
        if self.request_side is UPLOADING and connection is not None:
            self._idle_from = self._surroundings.loop_time()
            if not connection.flush():
                self._pause_downstream()

    def writable(self) -> None:
        """Downstream takes more: go on with the response."""
        attempt = self.attempt
        if self.response_side is STREAMING and attempt is not None and attempt.connection:
            attempt.connection.resume_body()

    def deadline_passed(self) -> None:
        """See whether the deadline of the present state has passed; it may have moved since the timer was set."""
        target = self.target
        if target is None or (self.response_side is ENDED and self.request_side is not UPLOADING):
            return
        now = self._surroundings.loop_time()
        due = self.due()
        repeats = self.repeats
        if repeats is not None and self.response_side is AWAITED and due > now + 0.001:
            too_long = repeats.timed_out(now)
            if too_long is not None:
                self.attempt_failed(too_long)
                if self.over:
                    return
            due = min(due, repeats.try_due)
        if due > now + 0.001:
            self.downstream.set_deadline(due)
            return
        elapsed_s = None if self.is_tunnel else self._surroundings.monotonic() - self._started
        error = expired(
            target.settings, self.request_side, self.response_side,
            elapsed_s=elapsed_s, upstream_slow=self._paused_by_upstream, waiting=self._waits(),
        )  # fmt: skip
        if self.response_side is AWAITED:
            ending.blame(self, error)
        ending.fail(self, error)

    # ---- from upstream -------------------------------------------------------------------------------------

    def upstream_ready(self, connection: ClientConnection) -> None:
        """A connection is there: the head goes out, and what was held of the body."""
        self.upstream_peer = connection.peer_text
        held = self.held
        if held is None:
            if (
                self.attempts == 1 and self.repeats is None
            ):  # `lines_of`, as nearly all ask for them
                extra = self.extra + self.target.first_lines  # type: ignore[union-attr]  # routed
            else:
                extra = lines_of(self, self.attempts)
            connection.send_head(self, self.head, extra, self.request_side is COMPLETE)
            return
        self.held = None
        connection.send_head(self, self.head, lines_of(self, self.attempts), False)
        self.attempt.body_sent = bool(held)  # type: ignore[union-attr]  # it is the one that is ready
        body = b"".join(held)
        if self.request_side is COMPLETE:
            if self.trailers:
                connection.write_body(body, False)
                connection.write_trailers(self.trailers)
            else:
                connection.write_body(body, True)
            self.downstream.resume_body()  # what comes now is the next request, or news of the peer's end
            return
        keeps_up = connection.write_body(body, False)
        if connection.flush() and keeps_up:
            self.downstream.resume_body()
        else:
            self._paused_by_upstream = True

    def tunnel_ready(self, connection: RawConnection) -> None:
        """The far side of a CONNECT or a tcp connection is there: say so, then everything is opaque."""
        tunnel.begin(self, connection)

    def response_interim(self, head: ResponseHead) -> None:
        if self.response_side is AWAITED:
            sanitize_response(head)
            self.downstream.write_interim(head)

    def response_head(self, head: ResponseHead, end: bool) -> None:  # noqa: FBT001
        """The final head: from here on a failure can only be shown by a cut."""
        if self.response_side is not AWAITED:
            return
        self.status = status = head.status
        self.upstream_s = seconds = self._surroundings.monotonic() - self.upstream_started
        attempt = self.attempt
        if attempt is not None and (attempt.state.watched or status >= _SERVER_ERROR):
            attempt.state.service.answered(attempt.state, head, seconds)
        if self.repeats is not None:
            if self.repeats.wants_again(head, whole=end):
                return
            self.repeats.response_won(attempt)
        if status == _SWITCHING:
            tunnel.switch(self, head)
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
            self.response_ended()
            self.downstream.write_head(head, extra, True)
            self._close_books()
            return
        self.response_side = STREAMING
        self.downstream.write_head(head, extra, False)
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
            self.status = status = head.status
            surroundings = self._surroundings
            self.upstream_s = seconds = surroundings.monotonic() - self.upstream_started
            attempt = self.attempt
            if attempt is not None and (attempt.state.watched or status >= _SERVER_ERROR):
                attempt.state.service.answered(attempt.state, head, seconds)
            if self.repeats is not None:
                if self.repeats.wants_again(head, whole=True):
                    return
                self.repeats.response_won(attempt)
            roles = head.roles
            if roles & IDENTITY:
                sanitize_response(head)
            extra = self.door.response_extra
            if not roles & DATE:
                extra += surroundings.date.at(surroundings.wall())  # RFC 9110 §6.6.1, as above
            self.bytes_sent = len(body)
            self.response_ended()
            self.downstream.write_whole(head, extra, body)
            self._close_books()
        except Exception as error:  # the guard of this callback (E8)
            self.crash(error)

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self.response_side is not STREAMING:
            return
        self.bytes_sent += len(chunk)
        if not end:
            if not self.downstream.write_body(chunk, False):
                self._pause_upstream()
            return
        if self.is_tunnel:
            self.response_side = ENDED
            self.downstream.write_body(chunk, True)
            self._end_tunnel()
            return
        self.response_ended()
        self.downstream.write_body(chunk, True)
        self._close_books()

    def response_trailers(self, fields: list[Field]) -> None:
        if self.response_side is STREAMING:
            self.response_ended()
            self.downstream.write_trailers(sanitize_trailers(fields))
            self._close_books()

    def response_burst_over(self) -> None:
        if self.response_side is STREAMING:
            self.begin_deadline()
            if not self.downstream.flush():
                self._pause_upstream()

    def upstream_writable(self) -> None:
        """Upstream takes more: go on with the request."""
        if self._paused_by_upstream:
            self._paused_by_upstream = False
            self.downstream.resume_body()

    def attempt_failed(self, error: ExchangeError) -> None:
        """An attempt has ended without a whole response: another one, a local reply, or a cut."""
        attempt, target = self.attempt, self.target
        if attempt is None or target is None:
            return
        if self.response_side is ENDED and not self.is_tunnel:
            return
        if self.response_side is not AWAITED:
            if not self.is_tunnel:
                ending.blame(self, error)
            ending.fail(self, error)
            return
        untried = target.service.untried(self.tried)
        facts = attempt.facts(
            error, self.head.method, untried=untried, repeated_fresh=self._repeated_fresh
        )
        verdict = decide(facts)
        if verdict is not Verdict.FRESH_CONNECTION:
            ending.blame(self, error)  # a stale connection is no fault of its endpoint
        if verdict is Verdict.GIVE_UP:
            self.error = error
            if self.repeats is None or not self.repeats.again(facts, error.flag):
                ending.reply(self, error)
            return
        self.end_attempt()
        try:
            if verdict is Verdict.FRESH_CONNECTION:
                self._repeated_fresh = True
                self._try(attempt.state, fresh=True)
            else:
                self._next_attempt()
        except ExchangeError:
            ending.reply(self, error)

    # ---- steps ---------------------------------------------------------------------------------------------

    def _next_attempt(self) -> None:
        """Try the next endpoint; raises NoHealthyUpstream or ResolveFailed when there is none left, or Overflow."""
        service = self.target.service  # type: ignore[union-attr]  # routed
        if service.breaker.requests >= service.breaker.max_requests:
            service.admission.admit()
        key = service.key_of(self.head, self.door.record) if service.hashes else None
        state = service.pick(self.tried, key)
        if state is None:
            raise service.exhausted()
        if service.is_panicking:
            self.flag(ResponseFlag.PANIC)
        self.tried += (state,)
        self._try(state, fresh=False)

    def try_endpoint(self) -> None:
        """Make an attempt, the first one or after a pause."""
        try:
            self._next_attempt()
        except ExchangeError as refused:
            ending.reply(self, self.error or refused)

    def _try(self, state: EndpointState, *, fresh: bool) -> None:
        self.attempts += 1
        method = self.head.method
        uploading = self.request_side is UPLOADING
        has_body = uploading or self.held is not None
        is_tunnel = method == _CONNECT
        self.attempt = attempt = Attempt(self, state)
        if self.repeats is not None:
            self._begin_try(self.repeats)
        connection = None
        if not (fresh or is_tunnel or state.service.admission.waiting):  # else it has its turn
            # A request that can be sent twice needs no look at the socket (2 µs): `policy.retry` mends the race.
            connection = state.pool.take(checked=has_body or method not in IDEMPOTENT)
        if connection is not None:
            attempt.connection = connection
            attempt.reused = True
            self.upstream_started = self._surroundings.monotonic()
            self.upstream_ready(connection)
            return
        self.upstream_started = 0.0
        if uploading and self.held is None:
            self.hold(b"")
        attempt.connect(tunnel=is_tunnel)
        if uploading and not is_tunnel:
            self.begin_deadline()  # an upload that waits for a connection has another one

    def connected(self) -> None:
        """A dial has succeeded: from here on upstream's time counts."""
        self.upstream_started = self._surroundings.monotonic()

    def hold(self, chunk: bytes) -> None:
        """Keep what came before the connection was there; nothing more is read until then."""
        if self.held is None:
            self.held = []
            if self.request_side is UPLOADING:
                self.downstream.pause_body()
        if chunk:
            self.held.append(chunk)

    def _request_ended(self) -> None:
        if self.is_tunnel:
            self._end_tunnel()
        elif self.response_side is AWAITED and self.target is not None:
            self.begin_deadline()
            if self.repeats is not None:
                self._begin_try(self.repeats)

    def _end_tunnel(self) -> None:
        """One direction has ended; the exchange has when both have."""
        if self.response_side is ENDED and self.request_side is COMPLETE and self.attempt:
            self._close_books()

    def response_ended(self) -> None:
        self.response_side = ENDED
        if self.request_side is UPLOADING:
            self.request_side = STOPPED

    def _close_books(self) -> None:
        """The response is out: give the connection back and note the end."""
        attempt = self.attempt
        if attempt is not None:
            attempt.release()
        self.attempt = None
        self.finish(None)

    def end_attempt(self, *, whole: bool = False) -> None:
        """Let go of the attempt; when its response is `whole`, its connection serves others."""
        attempt, self.attempt = self.attempt, None
        self._paused_by_upstream = False
        if attempt is not None and whole:
            attempt.release()
        elif attempt is not None:
            attempt.abandon()

    def flag(self, flag: ResponseFlag) -> None:
        """Note one more flag, beside the error's or without one."""
        if flag not in self.mark.split(","):
            self.mark = f"{self.mark},{flag}" if self.mark else flag.value

    def crash(self, error: Exception) -> None:
        """A bug of ours: whatever it has left half done ends, on both sides (E8)."""
        self._surroundings.crashed(error)
        attempt = self.attempt
        if not self.over:
            ending.cut(self, InternalError("internal_error", "Ambassador failed; see its log."))
        if attempt is not None and attempt.connection is not None:
            attempt.connection.abort()  # nobody knows in which state it was left

    def finish(self, error: ExchangeError | None) -> None:
        """Note the end, once: every path here has set the response side to ENDED before."""
        self.over = True
        self.error = error
        if self.repeats is not None:
            self.repeats.end(error)
            self.repeats = None  # the cycle through it would wait for the rare collector
        if error is not None:
            # Its traceback keeps the bytes behind this request, till the rare collection: 27 KB a refusal (E3).
            error.__traceback__ = error.__context__ = None
        self.duration_s = self._surroundings.monotonic() - self._started
        self.door.exchange_ended(self)

    # ---- back-pressure -------------------------------------------------------------------------------------

    def _pause_downstream(self) -> None:
        if not self._paused_by_upstream:
            self._paused_by_upstream = True
            self.downstream.pause_body()

    def _pause_upstream(self) -> None:
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.pause_body()

    # ---- deadlines -----------------------------------------------------------------------------------------

    def begin_deadline(self) -> None:
        """Begin the deadline of the present state anew."""
        settings = self.target.settings  # type: ignore[union-attr]  # routed
        self._idle_from = now = self._surroundings.loop_time()
        if (
            self.request_side is COMPLETE
            and self.response_side is AWAITED
            and settings.total_timeout_s is None
        ):
            # --- `due_at`, as nearly every request asks for it
            if settings.timeout_s is not None:
                self.downstream.set_deadline(now + settings.timeout_s)
            return
            # ---
        due = self.due()
        if due != NEVER:
            self.downstream.set_deadline(due)

    def _begin_try(self, repeats: Repeats) -> None:
        repeats.try_begins()
        due = min(repeats.try_due, self.due())
        if due != NEVER:
            self.downstream.set_deadline(due)

    def _waits(self) -> bool:
        return self.attempt is not None and self.attempt.connection is None

    def due(self) -> float:
        """Give when the present state has lasted too long. Units: seconds of the loop's clock."""
        settings = self.target.settings  # type: ignore[union-attr]  # routed
        total_from, clock = None, self._surroundings
        if settings.total_timeout_s is not None and not self.is_tunnel:
            total_from = clock.loop_time() - (clock.monotonic() - self._started)
        return due_at(
            settings, self.request_side, self.response_side, idle_from=self._idle_from, total_from=total_from,
            waiting=self._waits(),
        )  # fmt: skip


guard_steps(
    Exchange, "attempt_failed", "body_received", "deadline_passed", "read_finished", "response_body",
    "response_burst_over", "response_head", "response_interim", "response_trailers", "stream_reset",
    "trailers_received", "tunnel_ready", "upstream_ready", "upstream_writable", "writable",
)  # fmt: skip
