from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import CREDENTIAL, HOST
from ambassador.wire.field import MAX_CACHED_LINE, HeadError, LineCache, authority_port
from tests.support.transcripts import classify, line_cache


@pytest.mark.parametrize(
    ("line", "name", "value", "spelt"),
    [
        (b"Accept: */*", b"accept", b"*/*", b"Accept: */*"),
        (b"ACCEPT:*/*", b"accept", b"*/*", b"ACCEPT: */*"),
        (b"X: \t a \t b\t ", b"x", b"a \t b", b"X: a \t b"),
        (b"X:", b"x", b"", b"X: "),
        (b"X: a:b", b"x", b"a:b", b"X: a:b"),
        (b"X: \xe4\xff", b"x", b"\xe4\xff", b"X: \xe4\xff"),
        (b"!#$%&'*+-.^_`|~09: x", b"!#$%&'*+-.^_`|~09", b"x", b"!#$%&'*+-.^_`|~09: x"),
    ],
)
def test_a_line_is_spelled_anew_with_one_blank(
    line: bytes, name: bytes, value: bytes, spelt: bytes
) -> None:
    """RFC 9112 §5: field-line = name ":" OWS value OWS."""
    field = line_cache().line(line)

    assert (field.name, field.value, field.line) == (name, value, spelt)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"", "no_colon"),
        (b"no colon here", "no_colon"),
        (b": value", "bad_field_name"),
        (b"X : value", "space_before_colon"),
        (b"X\t: value", "space_before_colon"),
        (b" X: value", "obs_fold"),
        (b"\tvalue", "obs_fold"),
        (b"X Y: value", "bad_field_name"),
        (b"X\x00: value", "bad_field_name"),
        (b"X\xe4: value", "bad_field_name"),
        (b"X(: value", "bad_field_name"),
        (b"X\xc2\xb2: value", "bad_field_name"),
        (b'"X": value', "bad_field_name"),
        (b"X: a\x00b", "bad_field_value"),
        (b"X: a\rb", "bad_field_value"),
        (b"X: a\nb", "bad_field_value"),
        (b"X: a\x0bb", "bad_field_value"),
        (b"X: a\x1bb", "bad_field_value"),
        (b"X: \x7f", "bad_field_value"),
        (b"Content_Length: 5", "framing_alias"),
        (b"content.length: 5", "framing_alias"),
        (b"Transfer_Encoding: chunked", "framing_alias"),
    ],
)
def test_a_malformed_line_is_refused(line: bytes, detail: str) -> None:
    """RFC 9112 §5.1, §5.2; RFC 9110 §5.1, §5.5; threat G1."""
    cache = line_cache()

    with pytest.raises(HeadError) as caught:
        cache.line(line)

    assert (caught.value.status, caught.value.detail) == (400, detail)
    assert not cache.lines


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-5",
        b"5,5",
        b"5, 5",
        b"5 5",
        b"0x5",
        b"5.0",
        b"1_0",
        b"\xb2",
        b"\xd9\xa3",
        b"five",
        b"1" * 19,
    ],
)
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    """RFC 9110 §8.6: 1*DIGIT. What `int` and `isdigit` would let through is in the table."""
    cache = line_cache()

    with pytest.raises(HeadError) as caught:
        cache.line(b"Content-Length: " + value)

    assert caught.value.detail == "bad_content_length"


@pytest.mark.parametrize(
    ("value", "port"),
    [
        (b"payments", 0),
        (b"payments:", 0),
        (b"payments:80", 80),
        (b"pay_ments.ex.org.:65535", 65535),
        (b"127.0.0.1:1", 1),
        (b"[::1]", 0),
        (b"[::ffff:127.0.0.1]:443", 443),
        (b"", -1),
        (b":80", -1),
        (b"a:65536", -1),
        (b"a:123456", -1),
        (b"a:+8", -1),
        (b"a:b", -1),
        (b"a:80:80", -1),
        (b"user@a", -1),
        (b"a b", -1),
        (b"a,b", -1),
        (b"a%2eb", -1),
        (b"a/b", -1),
        (b"a?b", -1),
        (b"a#b", -1),
        (b"::1", -1),
        (b"[::1", -1),
        (b"[::1]a", -1),
        (b"[fe80::1%25eth0]", -1),
        (b"[v1.a]", -1),
        (b"\xe4", -1),
    ],
)
def test_an_authority_is_host_with_optional_port(value: bytes, port: int) -> None:
    """RFC 3986 §3.2 as RFC 9110 §4.2 narrows it, narrowed further to what one reader reads."""
    assert authority_port(value) == port


def test_host_may_be_empty_but_not_wrong() -> None:
    """RFC 9112 §3.2: an empty Host stands for a target without authority."""
    cache = line_cache()

    assert cache.line(b"Host:").value == b""
    assert cache.line(b"Host: a:8080").role == HOST
    with pytest.raises(HeadError, match="bad_host"):
        cache.line(b"Host: a@b")


def test_a_known_line_is_the_same_object_again() -> None:
    """House §8: one look-up for a line seen before."""
    cache = line_cache()

    first = cache.line(b"Accept: */*")

    assert cache.line(b"Accept: */*") is first
    assert repr(cache) == "LineCache(1 of 4096 lines)"


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer abc",
        b"Cookie: a=b",
        b"X-Api-Key: 1",
        b"x-request-id: 00000000-0000-4000-8000-000000000000",
        b"X: " + b"a" * MAX_CACHED_LINE,
    ],
)
def test_credentials_and_long_and_unique_lines_are_not_kept(line: bytes) -> None:
    """Threat E7: no cached key holds a credential."""
    cache = line_cache()

    cache.line(line)

    assert not cache.lines


def test_the_cache_is_cleared_when_it_is_full() -> None:
    """Threat E7: its memory is bounded."""
    cache = line_cache(max_lines=10)

    for number in range(10_000):
        cache.line(b"X-%d: %d" % (number, number))

    assert 0 < len(cache.lines) <= 10
    assert len(cache._names) <= 1024


def test_a_long_name_is_classified_each_time_and_not_kept() -> None:
    """Threat E7: names are kept beside the lines and bounded like them."""
    asked: list[bytes] = []

    def ask(name: bytes) -> int:
        asked.append(name)
        return 0

    cache = LineCache(ask)

    cache.line(b"x" * 65 + b": 1")
    cache.line(b"x" * 65 + b": 2")
    cache.line(b"y: 1")
    cache.line(b"y: 2")

    assert asked == [b"x" * 65, b"x" * 65, b"y"]


def test_a_credential_does_not_show_in_a_repr() -> None:
    """House §8: secrets never enter a repr."""
    field = line_cache().line(b"Authorization: Bearer abc")

    assert "abc" not in repr(field)
    assert field.role & CREDENTIAL


def test_an_error_says_a_sentence_without_received_bytes() -> None:
    """Its message goes to the local app."""
    assert HeadError(400, "bare_lf").message == "bare lf"
    assert str(HeadError(400, "nul", "A NUL byte.")) == "(400, 'nul', 'A NUL byte.')"


@given(st.binary(max_size=80).filter(lambda line: b"\r\n" not in line))
def test_what_is_accepted_is_spelled_so_that_it_is_read_the_same(line: bytes) -> None:
    """Written anew and read again: the same field (RFC 9112 §5)."""
    cache = LineCache(classify)
    try:
        field = cache.line(line)
    except HeadError:
        return

    again = cache.line(field.line)

    assert (again.name, again.value, again.line) == (field.name, field.value, field.line)
    assert not any(byte < 0x20 and byte != 9 for byte in field.line)
