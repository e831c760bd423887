"""Whether a failed attempt may be repeated, and where.

Knows facts of one attempt; must not know streams or pools. Without any `retry` in the configuration two things
are repeated: a connect that failed (nothing was sent, so any method), and a request on a kept connection that
turned out to be dead (idempotent, nothing of a body sent, once). With it, what `when` names is repeated as well, as
long as attempts, time and the budget last, and it does no harm to send the request twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ambassador.core.errors import Repeatable, ResponseFlag

#: RFC 9110 §9.2.2: the safe methods, PUT and DELETE; §9.2.1 for the safe ones. Methods are case-sensitive.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

_SERVER_ERROR: Final = 500
_MAX_DIGITS: Final = 9
_GATEWAY_ERRORS: Final = frozenset((502, 503, 504))
_NO_ANSWER: Final = frozenset(("reset", "gateway_error", "5xx"))
#: The conditions that each flag fulfils. Source: Envoy's retry_on, where what gives no answer at all is also a
#: `5xx` and a `gateway-error`.
_CONDITIONS: Final = {
    ResponseFlag.CONNECT_FAILED: frozenset(("connect_failure", "gateway_error", "5xx")),
    ResponseFlag.UPSTREAM_CLOSED: _NO_ANSWER,
    ResponseFlag.UPSTREAM_RESET: _NO_ANSWER,
    ResponseFlag.UPSTREAM_TIMEOUT: _NO_ANSWER,
}


class Verdict(StrEnum):
    """What follows a failed attempt; the value is a word for logs."""

    NEXT_ENDPOINT = "next_endpoint"
    FRESH_CONNECTION = "fresh_connection"
    RETRY = "retry"  # after a pause
    GIVE_UP = "give_up"


class Skipped(StrEnum):
    """Why an attempt that failed is not repeated although the route has `retry`: words for log and metric."""

    NONE = ""
    NOT_LISTED = "not_listed"  # `when` does not name it
    ATTEMPTS_USED = "attempts_used"
    NOT_REPEATABLE = "not_repeatable"  # the failure would come again, or the answer was no answer
    NOT_IDEMPOTENT = "not_idempotent"
    RESPONSE_STARTED = "response_started"
    BODY_TOO_LARGE = "body_too_large"
    NO_TIME_LEFT = "no_time_left"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """When and how often a route repeats what failed.

    `attempts` counts the first one. `conditions`: connect_failure, reset, gateway_error, refused_stream, 5xx;
    `statuses` those that were named one by one. `unsafe_methods` may be sent twice although they are not idempotent.
    Units: bytes for `max_body`, seconds for the pauses.
    Source: Envoy's retry_policy; Linkerd for `max_body`.
    """

    attempts: int = 2
    conditions: frozenset[str] = frozenset(("connect_failure", "reset", "gateway_error"))
    statuses: frozenset[int] = frozenset()
    max_body: int = 64 * 1024
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    retry_after: bool = True
    unsafe_methods: frozenset[bytes] = frozenset()

    def lists(self, status: int) -> bool:
        """Say whether a response with this status is a failure that may be repeated."""
        return (
            status in self.statuses
            or (status >= _SERVER_ERROR and "5xx" in self.conditions)
            or (status in _GATEWAY_ERRORS and "gateway_error" in self.conditions)
        )

    def may_send_twice(self, method: bytes) -> bool:
        """Say whether it does no harm, or the user accepts it."""
        return method in IDEMPOTENT or method in self.unsafe_methods


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One failed attempt.

    `reused`: its connection had carried an exchange before. `repeatable`: as the error's class says.
    `body_sent`: at least one body byte was handed to the transport. `response_started`: a byte of the response
    was received. `tls_refused`: the peer sent an alert. `untried`: endpoints that no attempt has been made at.
    `repeated_fresh`: a stale connection has been made up for in this exchange already.
    """

    method: bytes
    repeatable: Repeatable
    untried: int
    reused: bool = False
    body_sent: bool = False
    response_started: bool = False
    tls_refused: bool = False
    repeated_fresh: bool = False


@dataclass(frozen=True, slots=True)
class RetryFacts:
    """What else counts when the route has `retry`.

    `flag` of the failure, or `status` of a response that was received (then `flag` is NONE). `attempts_left`,
    `has_time`: for the pause as well. `has_budget`: the service may have one more retry in flight. `is_kept`: the
    body can be sent again.
    """

    flag: ResponseFlag
    status: int
    attempts_left: int
    has_time: bool
    has_budget: bool
    is_kept: bool


def decide(facts: AttemptFacts) -> Verdict:
    """Say what follows a failed attempt, whatever the route says.

    Source: RFC 9110 §9.2.2; RFC 9112 §9.3.1 (a closed kept connection); house §7 "Retries with bodies".
    """
    if facts.repeatable is Repeatable.ALWAYS:
        # Nothing was sent. Each endpoint is asked once: a second round would only double a long outage.
        return Verdict.NEXT_ENDPOINT if facts.untried > 0 else Verdict.GIVE_UP
    if facts.repeatable is Repeatable.NEVER or facts.response_started or not facts.reused:
        return Verdict.GIVE_UP
    if facts.tls_refused:
        # In TLS 1.3 a peer refuses our certificate only on the first read: that is an answer, not a race.
        return Verdict.GIVE_UP
    if facts.repeated_fresh or facts.body_sent or facts.method not in IDEMPOTENT:
        return Verdict.GIVE_UP
    return Verdict.FRESH_CONNECTION


def why_not(facts: AttemptFacts, more: RetryFacts, settings: RetrySettings) -> Skipped:
    """Say what forbids a retry; NONE when nothing does. The order is from what is for ever to what passes.

    Source: RFC 9110 §9.2.2 (what is not idempotent, only where nothing was sent, or by the user's own word).
    """
    listed = settings.lists(more.status) if more.status else _is_listed(more.flag, settings)
    if not listed:
        return Skipped.NOT_LISTED
    if facts.repeatable is Repeatable.NEVER or facts.tls_refused:
        return Skipped.NOT_REPEATABLE
    if facts.response_started and not more.status:
        return Skipped.RESPONSE_STARTED
    if facts.repeatable is not Repeatable.ALWAYS and not settings.may_send_twice(facts.method):
        return Skipped.NOT_IDEMPOTENT
    if not more.is_kept:
        return Skipped.BODY_TOO_LARGE
    return _what_is_used_up(more)


def _is_listed(flag: ResponseFlag, settings: RetrySettings) -> bool:
    return not settings.conditions.isdisjoint(_CONDITIONS.get(flag, frozenset()))


def _what_is_used_up(more: RetryFacts) -> Skipped:
    if more.attempts_left <= 0:
        return Skipped.ATTEMPTS_USED
    if not more.has_time:
        return Skipped.NO_TIME_LEFT
    return Skipped.NONE if more.has_budget else Skipped.BUDGET


def retry_after_s(value: bytes) -> float | None:
    """Give the pause that a Retry-After asks for; a date is not read, for clocks differ.

    Units: seconds.
    Source: RFC 9110 §10.2.3.
    """
    digits = value.strip()
    return float(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else None
