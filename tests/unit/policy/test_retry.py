"""The decision table of repeated attempts, over its full product (RFC 9110 §9.2.2; house §7)."""

from __future__ import annotations

import itertools

import pytest

from ambassador.core.errors import Repeatable
from ambassador.policy.retry import IDEMPOTENT, AttemptFacts, Verdict, decide

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
