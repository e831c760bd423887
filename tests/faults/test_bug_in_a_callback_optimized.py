"""`test_bug_in_a_callback` under `python -O`, where an `assert` on input would be gone (threat E8)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ambassador
from tests.faults.test_bug_in_a_callback import (
    CASES,
    Drill,
    drilled,
    head_that_stops,
    named,
    run_case,
)
from tests.support.sabotage import Fuse
from tests.support.stage import Stage

__all__ = ["drilled"]

OPTIMIZE = True


@pytest.mark.parametrize(
    ("direction", "place", "drill", "exchanges"),
    [
        pytest.param(
            only or "outbound", place, drill, exchanges, id=named(only or "outbound", place, drill)
        )
        for place, drill, exchanges, only in CASES
        if drill is not head_that_stops  # a second each; the other deadline is enough
    ],
)
def test_a_bug_in_a_callback_is_no_worse_without_assertions(
    drilled: tuple[Stage, Fuse], direction: str, place: str, drill: Drill, exchanges: int
) -> None:
    """The same of each, in one direction."""
    run_case(drilled, direction, place, drill, exchanges)


def test_every_assertion_says_why_no_input_reaches_it() -> None:
    """It would be an exception for whoever sends the right bytes, and under -O no check at all."""
    root = Path(ambassador.__file__).parent
    found = []
    for package in ("wire", "policy", "http", "net", "proxy", "upstream", "identity"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines()
            found += [
                f"{path.relative_to(root)}:{node.lineno}"
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Assert) and "# noqa: S101  # " not in lines[node.lineno - 1]
            ]

    assert not found
