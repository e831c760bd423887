"""Whether a failed attempt may be repeated, and where.

Knows facts of one attempt; must not know streams or pools. Without any `retry` in the configuration two things
are repeated: a connect that failed (nothing was sent, so any method), and a request on a kept connection that
turned out to be dead (idempotent, nothing of a body sent, once).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ambassador.core.errors import Repeatable

#: RFC 9110 §9.2.2: the safe methods, PUT and DELETE; §9.2.1 for the safe ones. Methods are case-sensitive.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Verdict(StrEnum):
    """What follows a failed attempt; the value is a word for logs."""

    NEXT_ENDPOINT = "next_endpoint"
    FRESH_CONNECTION = "fresh_connection"
    GIVE_UP = "give_up"


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


def decide(facts: AttemptFacts) -> Verdict:
    """Say what follows a failed attempt.

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
