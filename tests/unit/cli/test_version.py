"""`ambassador version` and `ambassador schema`."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from ambassador import __version__
from tests.unit.cli.run import run


def test_the_version_tells_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """config.md §4: with loop, linked OpenSSL, groups."""
    lines = run(capsys, "version").out.splitlines()

    assert lines[0] == f"ambassador {__version__}"
    assert [line.split()[0] for line in lines[1:]] == ["python", "loop", "openssl", "groups"]
    assert lines[-1].endswith("X25519MLKEM768, X25519, P-256")


def test_the_version_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run(capsys, "version", "-o", "json").out)

    assert facts["version"] == __version__
    assert facts["groups"] == ["X25519MLKEM768", "X25519", "P-256"]
    assert facts["openssl"][0].isdigit()


def test_the_loop_is_the_one_that_run_would_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md §5, AMBASSADOR_LOOP."""

    def loop() -> str:
        return str(json.loads(run(capsys, "version", "-o", "json").out)["loop"])

    assert loop().startswith("uvloop ")

    monkeypatch.setenv("AMBASSADOR_LOOP", "asyncio")
    assert loop() == "asyncio"

    def absent(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.delenv("AMBASSADOR_LOOP")
    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert loop() == "asyncio"


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(run(capsys, "schema").out)

    assert schema["properties"]["version"]["const"] == 1
    assert json.loads(run(capsys, "schema", "-o", "json").out) == schema
