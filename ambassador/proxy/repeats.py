"""What a route with `retry` or `hedge_after` adds to an exchange: a copy of the body, pauses, a second try beside the
first.

Knows one exchange and the route's settings; whether something may be repeated says `policy.retry`. Exchanges of other
routes have none of this. A retry keeps its place in the service's budget until a response is relayed: given back
earlier, a storm would count its pauses as calm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import ExchangeError, Repeatable, ResponseFlag, UpstreamTimeout
from ambassador.net.alarm import NEVER
from ambassador.policy.backoff import pause_s
from ambassador.policy.retry import (
    IDEMPOTENT,
    RetryFacts,
    RetrySettings,
    Skipped,
    retry_after_s,
    why_not,
)
from ambassador.proxy.hedge import Hedge
from ambassador.wire.lifecycle import RequestSide, ResponseSide
from ambassador.wire.replay import ReplayBuffer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.config.model import RouteSettings
    from ambassador.core.model import ResponseHead
    from ambassador.policy.retry import AttemptFacts
    from ambassador.proxy.attempt import Attempt
    from ambassador.proxy.exchange import Exchange
    from ambassador.proxy.snapshot import Target

_FIRST_FAILURE: Final = 400
#: A server's own pause is stretched by up to so much, so that those whom it sent away do not come back at once.
#: Source: Envoy's rate-limited back-off (x 1 to 1.5, at most 300 s).
_SPREAD: Final = 0.5
_LONGEST_RETRY_AFTER_S: Final = 300.0
_EARLY_S: Final = 0.001  # timers have the resolution of a millisecond


def repeats_of(exchange: Exchange, target: Target) -> Repeats | None:
    """Give what an exchange needs for being tried again, None on a route that says nothing of it."""
    return Repeats(exchange, target) if target.is_special else None


class Repeats:
    """See the module.

    `try_due` is when the present try has taken too long, in seconds of the loop's clock.
    """

    __slots__ = (
        "_attempts_left",
        "_body",
        "_charged",
        "_exchange",
        "_has_place",
        "_hedge",
        "_hedge_timer",
        "_retried",
        "_retry",
        "_settings",
        "_target",
        "_timer",
        "try_due",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, target: Target) -> None:
        self._exchange = exchange
        self._target = target
        self._settings: RouteSettings = target.settings
        self._retry: RetrySettings | None = target.settings.retry
        self._attempts_left = self._retry.attempts - 1 if self._retry is not None else 0
        self._body = ReplayBuffer(self._retry.max_body) if self._retry is not None else None
        self._hedge: Hedge | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hedge_timer: asyncio.TimerHandle | None = None
        self._charged = 0  # of the body, in the budget of the process
        self._has_place = False  # in the budget of the service
        self._retried = 0
        self.try_due = NEVER

    def __repr__(self) -> str:
        return f"Repeats({self._attempts_left} left, {self._retried} begun)"

    # ---- the body ------------------------------------------------------------------------------------------

    def keep(self, piece: bytes) -> None:
        """Remember a piece of the body, as long as it may have to be sent again."""
        if self._body is None or not piece:
            return
        if self._timer is not None:  # what still comes in a pause, in which no more is read
            self._body.hold(piece)
        else:
            self._body.add(piece)
        self._charge(len(self._body.content) - self._charged)

    def _charge(self, size: int) -> None:
        """Count what is kept among the bytes that wait: `limits.buffers` is for all of them (threats E6)."""
        self._charged += size
        self._exchange.door.surroundings.budget.used += size

    # ---- one try -------------------------------------------------------------------------------------------

    def try_begins(self) -> None:
        """A try begins, or its request has ended: its time runs from now."""
        self.try_due = NEVER
        exchange = self._exchange
        if exchange.attempt is None or exchange.request_side is not RequestSide.COMPLETE:
            return
        now = exchange.door.surroundings.loop_time()
        span = self._settings.per_try_timeout_s
        if span is None and self._may_come_again():
            left = exchange.due() - now
            span = left / (self._attempts_left + 1) if left != NEVER else None
        if span is not None:
            self.try_due = now + span
        self._arm_hedge()

    def timed_out(self, now: float) -> ExchangeError | None:
        """Give the failure of a try that has taken too long."""
        if now < self.try_due - _EARLY_S:
            return None
        self.try_due = NEVER
        return UpstreamTimeout("per_try_timeout", "No response within the time for one attempt.")

    def _may_come_again(self) -> bool:
        retry = self._retry
        return (
            retry is not None
            and self._attempts_left > 0
            and retry.may_send_twice(self._exchange.head.method)
            and self._body is not None
            and self._body.is_whole
        )

    # ---- again ---------------------------------------------------------------------------------------------

    def again(self, facts: AttemptFacts, flag: ResponseFlag) -> bool:
        """Go on after a failure: with the hedge that is under way, or with a retry after a pause. False: give up."""
        if self._promote_hedge():
            return True
        return self._retries(facts, flag=flag)

    def wants_again(self, head: ResponseHead, *, whole: bool) -> bool:
        """Say whether this response is not the last word; then the exchange goes on without it."""
        retry, exchange = self._retry, self._exchange
        if retry is None or head.status < _FIRST_FAILURE or not retry.lists(head.status):
            return False
        attempt = exchange.attempt
        if attempt is None:
            return False
        facts = attempt.facts_of_response(exchange.head.method, Repeatable.IDEMPOTENT)
        asked_s = _asked_pause(head) if retry.retry_after else None
        goes_on = self._promote_hedge(whole=whole) or self._retries(
            facts, status=head.status, asked_s=asked_s, whole=whole
        )
        if goes_on:  # what is not relayed is nothing that the log may call the answer
            exchange.status, exchange.upstream_s = 0, None
        return goes_on

    def _retries(
        self,
        facts: AttemptFacts,
        *,
        flag: ResponseFlag = ResponseFlag.NONE,
        status: int = 0,
        asked_s: float | None = None,
        whole: bool = False,
    ) -> bool:
        retry, exchange = self._retry, self._exchange
        if retry is None:
            return False
        chance = exchange.door.surroundings.chance
        pause = pause_s(
            retry.attempts - 1 - self._attempts_left,
            base_s=retry.backoff_base_s, max_s=retry.backoff_max_s, chance=chance(),
        )  # fmt: skip
        if (
            asked_s is not None
        ):  # but never without the back-off: 0 would bring all of them back at once
            pause = max(pause, asked_s * (1 + _SPREAD * chance()))
        breaker = self._target.service.admission.breaker
        more = RetryFacts(
            flag=flag,
            status=status,
            attempts_left=self._attempts_left,
            has_time=exchange.door.surroundings.loop_time() + pause < exchange.due(),
            has_budget=self._has_place or breaker.has_retry,
            is_kept=self._body is not None and self._body.is_whole,
        )
        reason = why_not(facts, more, retry)
        exchange.not_retried = reason.value
        if reason is not Skipped.NONE:
            self._target.retries.skip(reason)
            if reason is Skipped.ATTEMPTS_USED and self._retried:
                exchange.flag(ResponseFlag.RETRIES_EXHAUSTED)
            return False
        self._attempts_left -= 1
        self._take_place()
        self._retried += 1
        self.try_due = NEVER
        exchange.end_attempt(whole=whole)
        if exchange.request_side is RequestSide.UPLOADING:
            exchange.hold(b"")  # nothing more is read until there is somebody to send it to
        self.later(pause, self._begin_retry)
        return True

    def later(self, pause_s: float, step: Callable[[], None]) -> None:
        """Go on with the exchange after a pause, unless it is over by then. Units: seconds."""

        def go_on() -> None:
            self._timer = None
            self._guarded(step)

        self._timer = self._exchange.door.surroundings.loop.call_later(pause_s, go_on)

    def _begin_retry(self) -> None:
        """Send it once more; an endpoint that was tried comes again only when there is no other good one."""
        exchange = self._exchange
        content = bytes(self._body.content) if self._body is not None else b""
        if content or exchange.request_side is RequestSide.UPLOADING or exchange.trailers:
            exchange.held = None
            exchange.hold(b"")
            exchange.held = [content]
        service, last = self._target.service, exchange.tried[-1]
        if not service.has_good(exchange.tried):
            exchange.tried = (last,) if service.has_good((last,)) else ()
        exchange.try_endpoint()

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            if not self._exchange.over:
                step()
        except Exception as error:  # the guard of this callback (E8)
            self._exchange.crash(error)

    def _take_place(self) -> None:
        if not self._has_place:
            self._has_place = True
            self._target.service.admission.breaker.retries += 1

    # ---- the hedge -----------------------------------------------------------------------------------------

    def _arm_hedge(self) -> None:
        exchange, after_s = self._exchange, self._settings.hedge_after_s
        if after_s is None or self._hedge is not None or self._hedge_timer is not None:
            return
        # Only what does no harm when it is done twice, and has nothing to be sent twice.
        if (
            exchange.head.method in IDEMPOTENT
            and exchange.bytes_received == 0
            and not exchange.trailers
            and not exchange.head.upgrade  # two of them would be two tunnels
        ):
            loop = exchange.door.surroundings.loop
            self._hedge_timer = loop.call_later(after_s, lambda: self._guarded(self._begin_hedge))

    def _begin_hedge(self) -> None:
        self._hedge_timer = None
        exchange, service = self._exchange, self._target.service
        breaker = service.admission.breaker
        if exchange.attempt is None or exchange.response_side is not ResponseSide.AWAITED:
            return
        if not (self._has_place or breaker.has_retry) or breaker.is_full:
            self._target.retries.skip(Skipped.BUDGET)
            return
        key = service.key_of(exchange.head, exchange.door.record) if service.hashes else None
        state = service.pick(exchange.tried, key)
        if state is None:
            return  # no other endpoint: the same one twice would be no help
        self._take_place()
        self._retried += 1
        exchange.tried += (state,)
        self._hedge = hedge = Hedge(exchange, self, state)
        hedge.begin()

    def hedge_won(self, hedge: Hedge) -> None:
        """The second one has answered first: it is the attempt from now on."""
        self._hedge = None
        late = self._exchange.attempt
        if late is not None and late.connection is not None:
            surroundings = self._exchange.door.surroundings
            waited_s = surroundings.monotonic() - self._exchange.upstream_started
            late.state.service.late(late.state, waited_s)
        _take_over(self._exchange, hedge)

    def hedge_failed(self) -> None:
        """The second one brought nothing; the first goes on alone."""
        self._hedge = None
        if self._exchange.attempt is not None:
            _name_last(self._exchange, self._exchange.attempt)

    def _promote_hedge(self, *, whole: bool = False) -> bool:
        """The first one has failed while the second is under way: wait for that."""
        hedge = self._hedge
        if hedge is None:
            return False
        self._hedge = None
        self._exchange.end_attempt(whole=whole)
        _take_over(self._exchange, hedge)
        return True

    def lines(self, number: int) -> bytes:
        """Give the header lines of an attempt."""
        return lines_of(self._exchange, number)

    # ---- the end -------------------------------------------------------------------------------------------

    def response_won(self, attempt: Attempt | None) -> None:
        """A response is being relayed: nobody else is asked."""
        self.try_due = NEVER
        self._body = None
        self._charge(-self._charged)
        self._give_place_back()  # a stream or tunnel may go on for hours
        self._stop(attempt)

    def end(self, error: ExchangeError | None) -> None:
        """The exchange is over."""
        self._stop(None)
        self._charge(-self._charged)
        if self._retried:
            failed = (
                error is not None
                or ResponseFlag.RETRIES_EXHAUSTED in self._exchange.mark.split(",")
            )
            self._target.retries.count("failed" if failed else "ok", self._retried)
        self._give_place_back()

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._target.service.admission.breaker.retries -= 1

    def _stop(self, winner: Attempt | None) -> None:
        for timer in (self._timer, self._hedge_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._hedge_timer = None
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            hedge.abandon()
            if winner is not None:
                _name_last(self._exchange, winner)


def _asked_pause(head: ResponseHead) -> float | None:
    """Give what Retry-After asks for, in seconds."""
    for field in head.fields:
        if field.name == b"retry-after":
            asked = retry_after_s(field.value)
            return None if asked is None else min(asked, _LONGEST_RETRY_AFTER_S)
    return None


def _name_last(exchange: Exchange, attempt: Attempt) -> None:
    """Put its endpoint behind the others that were tried: the log names the last one, which is who goes on."""
    others = tuple(state for state in exchange.tried if state is not attempt.state)
    exchange.tried = (*others, attempt.state)


def _take_over(exchange: Exchange, hedge: Hedge) -> None:
    """The hedge's attempt is the exchange's from now on; the one before it is over."""
    exchange.end_attempt()
    exchange.attempt = attempt = hedge.attempt
    exchange.upstream_started = hedge.started
    if attempt.connection is not None:
        exchange.upstream_peer = attempt.connection.peer_text
    attempt.redirect(exchange)


def lines_of(exchange: Exchange, number: int) -> bytes:
    """Give our header lines for the attempt of this number, with the time that it has."""
    target, repeats = exchange.target, exchange.repeats
    if target is None:
        return exchange.extra
    left_s = target.span_s
    if exchange.request_side is RequestSide.COMPLETE:
        due = exchange.due() if repeats is None else min(exchange.due(), repeats.try_due)
        left_s = None if due == NEVER else due - exchange.door.surroundings.loop_time()
    return exchange.extra + target.lines(number, left_s)
