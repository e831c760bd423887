"""Request ids and traceparent (W3C Trace Context level 2; RFC 9562; config.md §5)."""

from __future__ import annotations

import uuid
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.trace_context import (
    is_request_id,
    new_request_id,
    parse_traceparent,
    stamp,
)
from tests.unit.policy.make import names, request

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
PARENT = b"00-%b-%b-01" % (TRACE, SPAN)


@pytest.mark.parametrize(
    "value", [b"a", b"A" * 128, b"550e8400-e29b-41d4-a716-446655440000", b"a.b_c~d+e/f=g:h-i"]
)
def test_a_harmless_request_id_goes_on(value: bytes) -> None:
    """config.md §5: it names no identity."""
    assert is_request_id(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"A" * 129,
        b"a b",
        b"a,b",
        b"a;b",
        b'a"b',
        b"a\\b",
        b"a\x00",
        b"a\n",
        b"\xe9",
        b"a\x1b[31m",
        b"<a>",
        b"{a}",
    ],
)
def test_any_other_request_id_is_replaced(value: bytes) -> None:
    """Threats I5: it is written to logs."""
    assert not is_request_id(value)


@given(st.integers(0, 2**128 - 1))
def test_a_new_request_id_is_the_text_of_a_version_4_uuid(bits: int) -> None:
    """RFC 9562 §5.4, against the standard library."""
    assert new_request_id(bits).decode() == str(uuid.UUID(int=bits, version=4))


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (PARENT, b"01"),
        (b"00-%b-%b-00" % (TRACE, SPAN), b"00"),
        (b"00-%b-%b-03" % (TRACE, SPAN), b"03"),
        (b"00-%b-%b-ff" % (TRACE, SPAN), b"03"),
        (b"01-%b-%b-01" % (TRACE, SPAN), b"01"),
        (b"fe-%b-%b-09-what-ever" % (TRACE, SPAN), b"01"),
        (b"cc-%b-%b-01-" % (TRACE, SPAN), b"01"),
    ],
)
def test_a_valid_traceparent_gives_trace_id_and_known_flags(value: bytes, flags: bytes) -> None:
    """W3C Trace Context §3.2.4: of a later version the first four fields count."""
    assert parse_traceparent(value) == (TRACE, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        PARENT[:-1],
        PARENT + b"-",
        PARENT + b"-extra",
        PARENT + b"0",
        PARENT + b" ",
        b" " + PARENT,
        PARENT.upper(),
        PARENT.replace(b"-", b"_"),
        b"ff" + PARENT[2:],
        b"0" + PARENT,
        b"0x" + PARENT[2:],
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-0g" % (TRACE, SPAN),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-01" % (TRACE[1:], SPAN),
        b"01-%b-%b-01.x" % (TRACE, SPAN),
        PARENT + b", " + PARENT,
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace(value: bytes) -> None:
    """W3C Trace Context §3.2.2: strict, lower-case hex, neither id zero, version ff invalid."""
    head = request((b"traceparent", value), (b"tracestate", b"a=1"))
    _, trace_id, _ = stamp(head, Random(1).getrandbits)

    assert parse_traceparent(value) is None
    assert trace_id != TRACE
    assert names(head) == []


def test_a_request_without_any_gets_all_of_its_own() -> None:
    """config.md §5: X-Request-Id and traceparent."""
    head = request((b"Accept", b"1"))
    before = head.fields
    request_id, trace_id, lines = stamp(head, Random(1).getrandbits)

    assert head.fields is before
    assert uuid.UUID(request_id.decode()).version == 4
    first, second, last = lines.split(b"\r\n")
    assert (first, last) == (b"X-Request-Id: " + request_id, b"")
    assert parse_traceparent(second.removeprefix(b"traceparent: ")) == (trace_id, b"00")


def test_a_trace_begun_here_can_be_sampled() -> None:
    """tracing.sample is of traces begun here."""
    _, _, lines = stamp(request(), Random(1).getrandbits, sampled=True)
    _, _, continued = stamp(
        request((b"traceparent", PARENT[:-1] + b"0")), Random(1).getrandbits, sampled=True
    )

    assert lines.endswith(b"-01\r\n")
    assert continued.endswith(b"-00\r\n")


@pytest.mark.parametrize("bits", [0, 2**320 - 1])
def test_no_chance_makes_an_id_invalid(bits: int) -> None:
    """W3C Trace Context §3.2.2.3: all zero is invalid."""
    request_id, _, lines = stamp(request(), lambda _: bits)

    assert uuid.UUID(request_id.decode()).version == 4
    assert uuid.UUID(request_id.decode()).variant == uuid.RFC_4122
    assert parse_traceparent(lines.split(b"traceparent: ")[1].strip())


def test_a_valid_trace_is_continued_under_our_own_span() -> None:
    """W3C Trace Context §4: trace id and flags stay, the parent is ours, tracestate is passed."""
    head = request(
        (b"Traceparent", PARENT),
        (b"Tracestate", b"a=1"),
        (b"X-Request-Id", b"r-1"),
        (b"Accept", b"1"),
    )
    request_id, trace_id, lines = stamp(head, Random(1).getrandbits)

    assert (request_id, trace_id) == (b"r-1", TRACE)
    assert lines.startswith(b"X-Request-Id: r-1\r\ntraceparent: 00-%b-" % TRACE)
    assert lines.endswith(b"-01\r\n")
    assert SPAN not in lines
    assert names(head) == [b"accept", b"tracestate"]


def test_id_and_trace_are_continued_each_for_itself() -> None:
    """config.md §5: what is missing is made, what is there goes on."""
    only_id = stamp(request((b"X-Request-Id", b"r-1")), Random(1).getrandbits)
    only_trace = stamp(request((b"traceparent", PARENT)), Random(1).getrandbits)

    assert only_id[0] == b"r-1"
    assert only_id[1] != TRACE
    assert only_trace[1] == TRACE
    assert uuid.UUID(only_trace[0].decode()).version == 4


def test_several_traceparents_are_none() -> None:
    """W3C Trace Context §4.1: more than one is invalid."""
    head = request((b"traceparent", PARENT), (b"traceparent", PARENT), (b"tracestate", b"a=1"))
    _, trace_id, _ = stamp(head, Random(1).getrandbits)

    assert trace_id != TRACE
    assert names(head) == []


@pytest.mark.parametrize("values", [(b"a b",), (b"good", b"good"), (b"",)])
def test_a_doubled_or_malformed_request_id_is_replaced(values: tuple[bytes, ...]) -> None:
    """config.md §5: a well-formed one goes on, else we make one."""
    head = request(*((b"X-Request-Id", value) for value in values))
    request_id, _, lines = stamp(head, Random(1).getrandbits)

    assert uuid.UUID(request_id.decode()).version == 4
    assert lines.count(b"X-Request-Id") == 1
    assert names(head) == []


@pytest.mark.parametrize(("members", "kept"), [(32, True), (33, False)])
def test_a_tracestate_of_too_many_members_is_dropped(members: int, kept: bool) -> None:  # noqa: FBT001
    """W3C Trace Context §3.3.1.1: at most 32, over all fields."""
    rest = b",".join(b"k%d=v" % number for number in range(members - 1))
    head = request((b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"tracestate", rest))
    stamp(head, Random(1).getrandbits)

    assert (names(head) == [b"tracestate", b"tracestate"]) is kept
    assert (names(head) == []) is not kept


def test_a_tracestate_without_traceparent_is_dropped() -> None:
    """W3C Trace Context §4.2: without a valid traceparent it means nothing."""
    head = request((b"tracestate", b"a=1"))
    stamp(head, Random(1).getrandbits)

    assert names(head) == []


@pytest.mark.parametrize(("request_id", "kept"), [(b"abc", True), (b"a,b", False)])
def test_what_a_sidecar_before_us_wrote_goes_on(request_id: bytes, *, kept: bool) -> None:
    """The usual case has a way of its own: both fields, in the order in which `stamp` writes them."""
    head = request((b"X-Request-Id", request_id), (b"traceparent", PARENT))

    found, trace_id, lines = stamp(head, Random(1).getrandbits)

    assert (found == request_id) == kept
    assert trace_id == TRACE
    assert SPAN not in lines
