"""Every mistake has its line, its column and its sentence: the table is `errors.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.make import BASES, problems


def _cases(name: str) -> list[tuple[str, str, list[str]]]:
    found = []
    table = Path(__file__).with_name(name).read_text(encoding="utf-8")
    _, *blocks = table.split("\n===")
    for block in blocks:
        base, _, rest = block.removeprefix(" ").partition("\n")
        # A file may contain a separator of its own, so the last one counts.
        text, _, lines = f"\n{rest}".rpartition("\n---\n")
        text = text.removeprefix("\n")
        found.append((base.strip(), f"{text}\n" if text else "", lines.splitlines()))
    return found


CASES = _cases("errors.txt")


def test_the_table_is_read() -> None:
    """An empty table would make the next test pass."""
    assert len(CASES) > 200
    assert all(lines for _, _, lines in CASES)


@pytest.mark.parametrize(("base", "text", "lines"), CASES)
def test_a_mistake_is_told_with_place_and_cure(base: str, text: str, lines: list[str]) -> None:
    """config.md §1: `file:line:col key.path: what is wrong, what was given; suggestion`, all at once by line."""
    assert problems(BASES[base] + text) == lines


def test_deep_nesting_ends_early() -> None:
    """Threats I4: a nest of brackets must not become a nest of calls."""
    text = BASES["top"] + "x: " + "[" * 40 + "]" * 40 + "\n"

    assert problems(text) == ["7:36 nested deeper than 32 levels"]


def test_what_libyaml_cannot_nest_is_an_error_too() -> None:
    """Threats I4."""
    text = BASES["top"] + "x: " + "[" * 100_000

    assert len(problems(text)) == 1


def test_a_tab_as_indentation_is_an_error() -> None:
    """YAML 1.1 §5.5."""
    assert problems(BASES["top"] + "log:\n\tlevel: info\n") == [
        "8:1 not YAML: found character that cannot start any token"
    ]


def test_a_large_file_is_refused_unread() -> None:
    """config.md §1: at most 1 MiB."""
    (line,) = problems(b"#" * (1 << 20) + b"\n")

    assert line.endswith("a.yaml the file is larger than 1MiB")


def test_bytes_that_are_no_utf8_have_their_line() -> None:
    """config.md §1."""
    assert problems(BASES["top"].encode() + b"name: \xff\n") == ["7:1 the file is not UTF-8"]


@pytest.mark.parametrize("text", ['name: "a\x07"\n', 'name: "é\x07"\n'])
def test_a_control_character_has_its_column(text: str) -> None:
    """YAML 1.1 §5.1: libyaml counts bytes, users count characters."""
    assert problems(BASES["top"] + text) == ["7:9 the character U+0007 is not allowed in YAML"]


def test_a_byte_order_mark_is_no_mistake() -> None:
    """Editors on other systems write one."""
    assert problems("\ufeff" + BASES["top"]) == []


def test_nothing_foreign_moves_the_cursor() -> None:
    """Threats I5: escape sequences of a file are shown, not sent."""
    text = BASES["bare"] + '  app: 8080\n  allow: [{dns: "a\\e[2J\\u202e"}]\n  "\\e[2J": "${\\e}"\n'

    lines = problems(text)

    assert len(lines) == 2
    assert "\\x1b[2J\\u202e" in lines[0]
    assert all(line.isprintable() for line in lines)
