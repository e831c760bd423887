"""The decision table of repeated attempts, over its full product (RFC 9110 §9.2.2; house §7)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ambassador.core.errors import Repeatable, ResponseFlag
from ambassador.policy.retry import (
    IDEMPOTENT,
    AttemptFacts,
    RetryFacts,
    RetrySettings,
    Skipped,
    Verdict,
    decide,
    retry_after_s,
    why_not,
)

METHODS = (
    b"GET",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"PUT",
    b"DELETE",
    b"POST",
    b"PATCH",
    b"CONNECT",
    b"get",
    b"BREW",
)
FLAGS = tuple(itertools.product((False, True), repeat=5))


def test_the_idempotent_methods_are_those_of_the_standard() -> None:
    """RFC 9110 §9.2.2."""
    assert {x for x in METHODS if x in IDEMPOTENT} == {
        b"GET",
        b"HEAD",
        b"OPTIONS",
        b"TRACE",
        b"PUT",
        b"DELETE",
    }


@pytest.mark.parametrize("untried", [0, 1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_when_nothing_was_sent_every_other_endpoint_is_asked_once(
    method: bytes, untried: int
) -> None:
    """config.md §3: a failed connect goes to the next endpoint, whatever the method."""
    expected = Verdict.NEXT_ENDPOINT if untried else Verdict.GIVE_UP

    for flags in FLAGS:
        assert decide(AttemptFacts(method, Repeatable.ALWAYS, untried, *flags)) is expected


@pytest.mark.parametrize("method", METHODS)
def test_only_a_stale_connection_of_a_harmless_request_is_made_up_for(method: bytes) -> None:
    """House §7: once, reused, idempotent, no body byte, no response byte, no TLS alert."""
    for flags in FLAGS:
        reused, body_sent, response_started, tls_refused, repeated = flags
        safe = reused and not (body_sent or response_started or tls_refused or repeated)
        expected = Verdict.FRESH_CONNECTION if safe and method in IDEMPOTENT else Verdict.GIVE_UP

        assert decide(AttemptFacts(method, Repeatable.IDEMPOTENT, 3, *flags)) is expected


@pytest.mark.parametrize("flags", FLAGS)
def test_what_may_never_be_repeated_is_not(flags: tuple[bool, ...]) -> None:
    """House §4: protocol errors of either side."""
    assert decide(AttemptFacts(b"GET", Repeatable.NEVER, 3, *flags)) is Verdict.GIVE_UP


# --- with `retry`


FACTS = AttemptFacts(b"GET", Repeatable.IDEMPOTENT, 2)
MORE = RetryFacts(
    flag=ResponseFlag.UPSTREAM_RESET,
    status=0,
    attempts_left=1,
    has_time=True,
    has_budget=True,
    is_kept=True,
)
STATUS_503 = replace(MORE, flag=ResponseFlag.NONE, status=503)


@pytest.mark.parametrize(
    ("facts", "more", "settings", "reason"),
    [
        (FACTS, MORE, RetrySettings(), Skipped.NONE),
        (FACTS, STATUS_503, RetrySettings(), Skipped.NONE),
        (replace(FACTS, response_started=True), STATUS_503, RetrySettings(), Skipped.NONE),
        (FACTS, MORE, RetrySettings(conditions=frozenset(("connect_failure",))), Skipped.NOT_LISTED),
        (FACTS, replace(STATUS_503, status=500), RetrySettings(), Skipped.NOT_LISTED),
        (FACTS, replace(MORE, flag=ResponseFlag.UPSTREAM_PROTOCOL_ERROR), RetrySettings(), Skipped.NOT_LISTED),
        (replace(FACTS, repeatable=Repeatable.NEVER), MORE, RetrySettings(), Skipped.NOT_REPEATABLE),
        (replace(FACTS, tls_refused=True), MORE, RetrySettings(), Skipped.NOT_REPEATABLE),
        (replace(FACTS, response_started=True), MORE, RetrySettings(), Skipped.RESPONSE_STARTED),
        (replace(FACTS, method=b"POST"), MORE, RetrySettings(), Skipped.NOT_IDEMPOTENT),
        (replace(FACTS, method=b"POST"), STATUS_503, RetrySettings(), Skipped.NOT_IDEMPOTENT),
        (
            replace(FACTS, method=b"POST"),
            MORE,
            RetrySettings(unsafe_methods=frozenset((b"POST",))),
            Skipped.NONE,
        ),
        (
            replace(FACTS, method=b"POST", repeatable=Repeatable.ALWAYS),
            replace(MORE, flag=ResponseFlag.CONNECT_FAILED),
            RetrySettings(),
            Skipped.NONE,
        ),
        (FACTS, replace(MORE, is_kept=False), RetrySettings(), Skipped.BODY_TOO_LARGE),
        (FACTS, replace(MORE, attempts_left=0, has_time=False), RetrySettings(), Skipped.ATTEMPTS_USED),
        (FACTS, replace(MORE, has_time=False, has_budget=False), RetrySettings(), Skipped.NO_TIME_LEFT),
        (FACTS, replace(MORE, has_budget=False), RetrySettings(), Skipped.BUDGET),
    ],
)  # fmt: skip
def test_what_forbids_a_retry_has_its_word(
    facts: AttemptFacts, more: RetryFacts, settings: RetrySettings, reason: Skipped
) -> None:
    """RFC 9110 §9.2.2; the issue: what was not retried says why."""
    assert why_not(facts, more, settings) is reason


@pytest.mark.parametrize(
    ("flag", "fulfils"),
    [
        (ResponseFlag.CONNECT_FAILED, {"connect_failure", "gateway_error", "5xx"}),
        (ResponseFlag.UPSTREAM_CLOSED, {"reset", "gateway_error", "5xx"}),
        (ResponseFlag.UPSTREAM_RESET, {"reset", "gateway_error", "5xx"}),
        (ResponseFlag.UPSTREAM_TIMEOUT, {"reset", "gateway_error", "5xx"}),
        (ResponseFlag.OVERFLOW, set()),
    ],
)
@pytest.mark.parametrize(
    "condition", ["connect_failure", "reset", "gateway_error", "refused_stream", "5xx"]
)
def test_a_failure_without_answer_fulfils_these_conditions(
    flag: ResponseFlag, fulfils: set[str], condition: str
) -> None:
    """Envoy's retry_on: what gives no answer counts as a 5xx and a gateway error too."""
    settings = RetrySettings(conditions=frozenset((condition,)))

    reason = why_not(FACTS, replace(MORE, flag=flag), settings)

    assert (reason is Skipped.NONE) is (condition in fulfils)


@pytest.mark.parametrize(
    ("status", "conditions", "statuses", "listed"),
    [
        (500, {"5xx"}, set(), True),
        (599, {"5xx"}, set(), True),
        (499, {"5xx"}, set(), False),
        (500, {"gateway_error"}, set(), False),
        (502, {"gateway_error"}, set(), True),
        (503, {"gateway_error"}, set(), True),
        (504, {"gateway_error"}, set(), True),
        (505, {"gateway_error"}, set(), False),
        (503, {"reset"}, set(), False),
        (429, {"reset"}, {429}, True),
    ],
)
def test_a_status_is_listed_by_itself_or_by_a_condition(
    status: int, conditions: set[str], statuses: set[int], *, listed: bool
) -> None:
    settings = RetrySettings(conditions=frozenset(conditions), statuses=frozenset(statuses))

    assert settings.lists(status) is listed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"3", 3.0), (b" 0 ", 0.0), (b"-1", None), (b"1.5", None), (b"", None), (b"9" * 10, None),
     (b"Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_retry_after_in_seconds_is_read_and_a_date_is_not(
    value: bytes, seconds: float | None
) -> None:
    """RFC 9110 §10.2.3."""
    assert retry_after_s(value) == seconds
