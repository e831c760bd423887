"""`${…}` in one scalar."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.config.substitute import Substituted, substitute

HERE = Path()


def sub(text: str, environ: Mapping[str, str] | None = None, folder: Path = HERE) -> str:
    return substitute(text, environ=environ or {}, folder=folder)


@pytest.mark.parametrize(
    ("text", "environ", "result"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a${A}b${A}", {"A": "x"}, "axbx"),
        ("${A:-y}", {}, "y"),
        ("${A:-y}", {"A": ""}, "y"),  # as in a shell
        ("${A:-y}", {"A": "x"}, "x"),
        ("${A:-}", {}, ""),
        ("${A}", {"A": ""}, ""),
        ("${A:-a:-b}", {}, "a:-b"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$$${A}", {"A": "x"}, "$${A}"),
        ("$A $ {A} }", {"A": "x"}, "$A $ {A} }"),
        ("${A}", {"A": "${B}", "B": "x"}, "${B}"),  # once
    ],
)
def test_variables_are_replaced_once(text: str, environ: dict[str, str], result: str) -> None:
    """config.md §1."""
    assert sub(text, environ) == result


def test_what_was_replaced_is_known_afterwards() -> None:
    """Threats I3: so that nobody prints it."""
    value = sub("a${A}", {"A": "secret"})

    assert isinstance(value, Substituted)
    assert repr(value) == "***"


def test_a_literal_is_not_masked() -> None:
    assert not isinstance(sub("$${A}"), Substituted)


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1}", "${A-b}", "${A:b}", "${ä}", "${A B}"])
def test_malformed_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\$\{"):
        sub(text, {"A": "x"})


def test_unset_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\$\{A\} is not set; set it, or write \$\{A:-default\}"):
        sub("${A}")


def test_bytes_that_are_no_text_are_an_error() -> None:
    """The system hands them over as lone surrogates, which no log can write."""
    with pytest.raises(ValueError, match="is not UTF-8"):
        sub("${A}", {"A": os.fsdecode(b"\xff")})


def test_other_alphabets_are_text() -> None:
    assert sub("${A}", {"A": "grün"}) == "grün"


def test_a_file_loses_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\nb\r\n")

    assert sub("${file:x}", folder=tmp_path) == "a\nb"
    assert sub(f"<${{file:{tmp_path}/x}}>") == "<a\nb>"


@pytest.mark.parametrize(
    ("content", "problem"), [(b"\xff", "is not UTF-8"), (b"x" * 65537, "is larger than 64KiB")]
)
def test_a_file_is_small_text(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(ValueError, match=problem):
        sub("${file:x}", folder=tmp_path)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """Threats R7: what waits for a writer is no secret."""
    os.mkfifo(tmp_path / "x")

    with pytest.raises(ValueError, match="is not a regular file"):
        sub("${file:x}", folder=tmp_path)


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*/x: No such file or directory"):
        sub("${file:x}", folder=tmp_path)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_value_comes_through_unchanged(value: str) -> None:
    """Nothing in a value is syntax."""
    assert sub("a${A}b", {"A": value}) == f"a{value}b"


@given(st.text(alphabet="${}A:-file/ "))
def test_any_text_is_either_replaced_or_refused(text: str) -> None:
    """No other exception, and without `${` nothing changes."""
    try:
        result = sub(text, {"A": "x"}, Path("/nonexistent"))
    except ValueError:
        assert "${" in text
    else:
        assert result == text or "${" in text
