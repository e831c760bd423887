"""`ambassador demo`: what it says when it cannot begin; what it shows is in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.run import run


def test_a_folder_that_cannot_be_made_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It was a connection that ended too early, to whoever tried first."""
    (tmp_path / "file").touch()

    in_proc = run(capsys, "demo", "--write", "/proc/x")
    in_file = run(capsys, "demo", "--write", str(tmp_path / "file" / "x"))

    assert (in_proc.code, in_file.code) == (1, 1)
    assert in_proc.err == "ambassador demo: cannot write /proc/x: no such file or directory\n"
    assert in_file.err == f"ambassador demo: cannot write {tmp_path}/file/x: not a directory\n"


def test_a_file_that_cannot_be_written_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, in the middle of it."""

    def fail(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", fail)

    ran = run(capsys, "demo", "--write", str(tmp_path))

    assert ran.code == 1
    assert ran.err == (
        f"ambassador demo: cannot write {tmp_path}/web/ambassador.yaml: no space left on device\n"
    )
