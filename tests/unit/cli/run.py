"""Run a command in this process, as the console script would."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ambassador.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run `ambassador ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main.main(list(arguments))
    captured = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Ran(code, captured.out, captured.err)
