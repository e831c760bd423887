"""Sections of heads seen before: the second look gives what the first gave, and nothing stays that must not."""

from __future__ import annotations

import pytest

from ambassador.core.model import RequestHead
from ambassador.policy.headers import classify
from ambassador.wire.field import MAX_CACHED_SECTION, MAX_SECTIONS
from ambassador.wire.head import (
    HeadError,
    HeadLimits,
    LineCache,
    parse_request_head,
    parse_response_head,
)

LIMITS = HeadLimits()
SECTION = b"Host: a\r\nUser-Agent: curl\r\nConnection: close, x-gone\r\nX-Gone: 1\r\nX-Kept: 2"


def read(cache: LineCache, section: bytes, first: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return parse_request_head(first + b"\r\n" + section, cache, LIMITS)[0]


def test_a_section_seen_before_gives_the_same_head_and_lists_of_its_own() -> None:
    cache = LineCache(classify)
    first, again = read(cache, SECTION), read(cache, SECTION)

    assert again == first
    assert [field.name for field in again.fields] == [b"user-agent", b"x-kept"]
    again.fields.clear()
    assert [field.name for field in read(cache, SECTION).fields] == [b"user-agent", b"x-kept"]


def test_the_first_line_is_read_each_time() -> None:
    cache = LineCache(classify)
    read(cache, SECTION)

    assert read(cache, SECTION, b"PUT /x HTTP/1.1").method == b"PUT"
    with pytest.raises(HeadError) as caught:
        read(cache, SECTION, b"GET /\x00 HTTP/1.1")
    assert caught.value.status == 400


def test_the_same_lines_in_a_request_and_in_a_response_are_two_sections() -> None:
    """A response's own X-Request-Id goes on, a request's is replaced."""
    cache = LineCache(classify)
    section = b"Content-Length: 3\r\nX-Request-Id: 7"
    asked, _, _ = parse_request_head(b"POST / HTTP/1.0\r\n" + section, cache, LIMITS)
    answered, _, _ = parse_response_head(b"HTTP/1.1 200 OK\r\n" + section, cache, LIMITS, b"GET")

    assert asked.fields == []
    assert [field.name for field in answered.fields] == [b"x-request-id"]


def test_a_smaller_limit_holds_for_a_section_seen_under_a_larger_one() -> None:
    """The cache is shared by all listeners."""
    cache = LineCache(classify)
    read(cache, SECTION)

    with pytest.raises(HeadError) as caught:
        parse_request_head(b"GET / HTTP/1.1\r\n" + SECTION, cache, HeadLimits(max_fields=4))
    assert (caught.value.status, caught.value.detail) == (431, "too_many_fields")
    answer = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2"
    parse_response_head(answer, cache, LIMITS, b"GET")
    with pytest.raises(HeadError):
        parse_response_head(answer, cache, HeadLimits(max_fields=1), b"GET")


@pytest.mark.parametrize(
    "line", [b"Authorization: Bearer s3cr3t", b"Cookie: id=s3cr3t", b"traceparent: 00-1-2-01"]
)
def test_credentials_and_what_comes_once_are_not_kept(line: bytes) -> None:
    """Threat E7."""
    cache = LineCache(classify)
    read(cache, b"Host: a\r\n" + line)

    assert not cache.requests


def test_a_set_cookie_is_not_kept() -> None:
    cache = LineCache(classify)
    parse_response_head(b"HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t", cache, LIMITS, b"GET")

    assert not cache.responses


def test_memory_is_bounded_in_number_and_in_length() -> None:
    cache = LineCache(classify)
    for number in range(MAX_SECTIONS + 1):
        read(cache, b"Host: a\r\nX-N: %d" % number)
    assert len(cache.requests) == 1

    read(cache, b"Host: a\r\nX-Long: " + b"x" * MAX_CACHED_SECTION)
    assert len(cache.requests) == 1


def test_malformed_lines_are_never_kept() -> None:
    cache = LineCache(classify)
    for _ in range(2):
        with pytest.raises(HeadError):
            read(cache, b"Host: a\r\nX Y: 1")
    assert not cache.requests


ID, TRACE = b"X-Request-Id: a-1", b"traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Host: a", ID, TRACE, b"Via: 1.1 x"],
        [ID, TRACE, b"Host: a"],
        [b"Host: a", b"X-Kept: 2", ID, TRACE],
        [b"Host: a", TRACE, ID, b"X-Kept: 2"],
        [b"Host: a", ID, TRACE, b"tracestate: a=1", b"X-Kept: 2"],
        [b"Host: a", b"tracestate: a=1", ID, TRACE, b"tracestate: b=1"],
        [b"Host: a", ID, TRACE, ID, TRACE, b"X-Kept: 2"],
        [b"Host: a", ID, b"X-Kept: 2", TRACE],
        [b"Host: a", b"X-Kept: X-Request-Id: a", TRACE, b"X-Kept: 2"],
        [b"Host: a", b"X-Kept: " + ID, ID, TRACE, b"X-Kept: 2"],
        [b"Host: a", b"Content-Length: 2", ID, TRACE, b"Connection: x-request-id, traceparent"],
        [b"Host: a", ID + b" ", TRACE, b"X-Kept: 2"],
        [b"Host: a", ID, b"Traceparent: 00", b"X-Kept: 2"],
    ],
)
def test_stamps_are_read_alike_whether_they_are_taken_out_or_not(lines: list[bytes]) -> None:
    """What another Ambassador stamps is taken out before the look-up; spelt otherwise it is not."""
    cache = LineCache(classify)
    otherwise = [
        line.replace(b"X-Request-Id: a-1", b"X-Request-ID: a-1") if line.startswith(ID) else line
        for line in lines
    ]
    plain = read(cache, b"\r\n".join(otherwise))
    for _ in range(2):  # the second time from the cache
        head = read(cache, b"\r\n".join(lines))

        for taken, expected in ((head.fields, plain.fields), (head.stamped, plain.stamped)):
            assert sorted((f.name, f.value, f.role) for f in taken) == sorted(
                (f.name, f.value, f.role) for f in expected
            )
        assert (head.roles, head.authority) == (plain.roles, plain.authority)


@pytest.mark.parametrize("bad", [b"X-Kept: \x01", b"X Kept: 1", b" folded: 1", b"X-Kept: a\nb"])
@pytest.mark.parametrize("first", [True, False])
def test_beside_stamps_a_bad_line_is_as_bad(bad: bytes, *, first: bool) -> None:
    lines = [b"Host: a", bad, ID, TRACE, b"Via: 1.1 x"] if first else [b"Host: a", ID, TRACE, bad]

    with pytest.raises(HeadError) as caught:
        read(LineCache(classify), b"\r\n".join(lines))
    assert caught.value.status == 400


def test_stamps_count_among_the_lines() -> None:
    cache = LineCache(classify)
    section = b"GET / HTTP/1.1\r\n" + b"\r\n".join([b"Host: a", ID, TRACE, b"X-Kept: 2"])
    parse_request_head(section, cache, HeadLimits(max_fields=4))

    with pytest.raises(HeadError) as caught:
        parse_request_head(section, cache, HeadLimits(max_fields=3))
    assert caught.value.detail == "too_many_fields"
