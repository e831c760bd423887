"""What strangers wrote, and time stamps."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.telemetry.text import MAX_FIELD_BYTES, clean, rfc3339

ANY_TEXT = st.one_of(
    st.binary(max_size=1500),
    st.text(alphabet=st.characters(), max_size=1500),
    st.text(
        alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"]), max_size=400
    ),
)


def test_printable_ascii_stays_the_same_object() -> None:
    text = 'curl/8.5.0 "quoted" \\ <b>[red]'

    assert clean(text) is text


@pytest.mark.parametrize(
    ("foreign", "visible"),
    [
        (b"plain", "plain"),
        (b"", ""),
        ("a\r\nb", "a\\x0d\\x0ab"),
        (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x00\t\x7f", "\\x00\\x09\\x7f"),
        ("\x80\x9b\x85", "\\u0080\\u009b\\u0085"),
        ("\u202eabc\u2066\u200f", "\\u202eabc\\u2066\\u200f"),
        ("\u2028\u2029\u00a0\ufeff", "\\u2028\\u2029\\u00a0\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\xc2\x9b31m", "\\u009b31m"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ("\ud800", "\\ud800"),
        ("Zürich 東京", "Zürich 東京"),
        ("Zürich".encode(), "Zürich"),
    ],
)
def test_what_a_terminal_would_obey_becomes_visible(foreign: bytes | str, visible: str) -> None:
    """Threats I5."""
    assert clean(foreign) == visible


@given(ANY_TEXT)
def test_no_text_leaves_more_than_harmless_characters(foreign: bytes | str) -> None:
    """Threats I5: no control, no format character (bidi), no separator but the blank, no lone surrogate."""
    cleaned = clean(foreign)

    assert {unicodedata.category(char) for char in cleaned if char != " "}.isdisjoint(
        {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    )


@given(ANY_TEXT)
def test_no_text_takes_more_than_its_kibibyte(foreign: bytes | str) -> None:
    """Threats I5."""
    assert len(clean(foreign).encode()) <= MAX_FIELD_BYTES


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(foreign: bytes | str) -> None:
    cleaned = clean(foreign)

    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "foreign", ["a" * 1025, b"a" * 100_000, "ü" * 513, "\x01" * 257, b"\xff" * 257]
)
def test_a_long_text_ends_in_dots(foreign: bytes | str) -> None:
    cleaned = clean(foreign)

    assert cleaned.endswith("...")
    assert len(cleaned.encode()) >= MAX_FIELD_BYTES - 6


@pytest.mark.parametrize("foreign", ["a" * 1024, b"a" * 1024, "ü" * 512, "\x01" * 256])
def test_a_text_that_just_fits_is_whole(foreign: bytes | str) -> None:
    cleaned = clean(foreign)

    assert len(cleaned.encode()) == MAX_FIELD_BYTES
    assert not cleaned.endswith(".")


@pytest.mark.parametrize("offset", range(10))
@pytest.mark.parametrize("char", ["\x01", "\u202e", "\U000e0041"])
def test_the_cut_leaves_no_half_escape(char: str, offset: int) -> None:
    kept = clean("a" * (1010 + offset) + char * 10).removesuffix("...")

    assert (
        kept.lstrip("a").replace("\\x01", "").replace("\\u202e", "").replace("\\U000e0041", "")
        == ""
    )


@pytest.mark.parametrize(
    ("wall", "stamp"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.310, "2023-11-14T22:13:20.310Z"),
        (1_700_000_000.999, "2023-11-14T22:13:20.999Z"),
        (1_700_000_001.001, "2023-11-14T22:13:21.001Z"),
        (1_709_210_096.0, "2024-02-29T12:34:56.000Z"),
    ],
)
def test_a_time_stamp_is_utc_with_milliseconds(wall: float, stamp: str) -> None:
    """RFC 3339 §5.6."""
    assert rfc3339(wall) == stamp


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_time_stamps_agree_with_datetime_in_any_order(millis: int) -> None:
    """The cached second must never show in another one's stamp."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)

    # Half a millisecond on, so that the float is not a hair below.
    assert rfc3339((millis + 0.5) / 1000) == f"{moment:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03d}Z"
