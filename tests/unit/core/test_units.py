from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
    rough_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("0s", 0.0),
        ("5s", 5.0),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250ms"),
        (0.0, "0ms"),
        (5.0, "5s"),
        (90.0, "90s"),
        (600.0, "10m"),
        (5400.0, "90m"),
        (3600.0, "1h"),
        (86400.0, "1d"),
        (1.5, "1.5s"),
    ],
)
def test_a_duration_is_written_in_the_largest_unit_that_is_exact(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**9))
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("512B", 512),
        ("64KiB", 65536),
        ("1.5KiB", 1536),
        ("1MiB", 1 << 20),
        ("2GiB", 2 << 30),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_part_of_a_byte_is_no_size() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.3B")


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "fraction"), [("0%", 0.0), ("20%", 0.2), ("12.5%", 0.125), ("100%", 1.0)]
)
def test_a_percentage_is_read_as_a_fraction(text: str, fraction: float) -> None:
    assert parse_percent(text) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("text", "per_second"), [("100/s", 100.0), ("600/m", 10.0), ("3600/h", 1.0)]
)
def test_a_rate_is_read_per_second(text: str, per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_percent, parse_rate])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "-5s",
        "5 s",
        "s",
        "5S",
        "5kb",
        "1e3s",
        "5s ",
        "\u0665s",
        ".5s",
        "5.s",
        "%",
        "1/",
        "/s",
        "5s\n",
    ],
)
def test_what_has_no_unit_or_a_wrong_one_is_refused_with_a_sentence(
    parse: Callable[[str], float], text: str
) -> None:
    """Also digits that are not ASCII and a line end at the end."""
    with pytest.raises(ValueError, match="expected a"):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"),
        (172_799.0, "48 h"), (172_800.0, "2 days"), (2_592_000.0, "30 days"),
    ],
)  # fmt: skip
def test_a_length_of_time_is_said_roughly(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
