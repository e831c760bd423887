"""Thousands of requests in one segment, answered by ourselves, to a peer that reads nothing (threat E3)."""

from __future__ import annotations

import contextlib

from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage
from tests.support.waiting import eventually

__all__ = ["side", "stage"]

COUNT = 5000
SLEEPERS = 4  # the kernel may take all the answers of one
MIB = 1024 * 1024
CONFIG = {"inbound": {"routes": [{"match": {"path": "/there"}}]}}
#: 404 on either side: no such host there, no such path here.
REFUSED = b"GET /nowhere HTTP/1.1\r\nHost: nobody\r\n\r\n"


def test_refused_requests_to_a_sleeping_reader_cost_no_memory(side: Side) -> None:
    """Envoy CVE-2026-48042: no recursion, and no answer made that nobody takes."""
    warm = side.connect()
    warm.send(REFUSED * 100)
    for _ in range(100):
        assert warm.read_message().startswith(b"HTTP/1.1 404 ")
    answered = side.sidecar.metric("requests_total")
    before = side.sidecar.resident_bytes()  # behind the first scrape, which imports its library
    sleepers = [side.connect() for _ in range(SLEEPERS)]

    for sleeper in sleepers:
        sleeper.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            sleeper.send(REFUSED * COUNT)

    def stands() -> bool:
        seen = side.sidecar.metric("requests_total")
        return seen > answered and seen == side.sidecar.metric("requests_total")

    eventually(stands, "no more answers are made", patience_s=30)

    def is_small() -> bool:
        return side.sidecar.resident_bytes() - before < SLEEPERS * 2 * MIB

    eventually(is_small, "memory as before, once the lines of the access log are written")
    warm.send(REFUSED)
    assert warm.read_message().startswith(b"HTTP/1.1 404 ")


def test_every_one_of_them_is_answered_when_the_reader_wakes(side: Side) -> None:
    """What was held back comes, in number and in order, and nothing deep is left on any stack."""
    client = side.connect()
    whole = REFUSED * COUNT
    sent = answers = 0
    while sent < len(whole):
        piece = whole[sent : sent + 4 * len(REFUSED) * 25]
        client.send(piece)
        sent += len(piece)
        for _ in range(len(piece) // len(REFUSED)):
            answers += client.read_message().startswith(b"HTTP/1.1 404 ")

    assert answers == COUNT
