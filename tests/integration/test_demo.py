"""`ambassador demo` is the first thing that anybody sees: it must show what it says, and leave nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.peers import exchange, parse_response, request
from tests.support.process import run_command

CALL = r"{0} -> {1} +GET {2} +200  seen as spiffe://demo/{0} +direct \d+\.\d ms  added -?\d+\.\d ms"


def test_the_demo_shows_both_directions_and_the_intruder_and_ends(tmp_path: Path) -> None:
    code, output = run_command("demo", cwd=tmp_path)

    lines = output.splitlines()
    assert code == 0, output
    assert re.fullmatch(
        r"CA and 2 certificates in a temporary directory, two sidecars up in \d+\.\d s", lines[0]
    )
    assert re.fullmatch(CALL.format("web", "payments", "/pay"), lines[1])
    assert re.fullmatch(CALL.format("payments", "web", "/stock"), lines[2])
    assert re.fullmatch(r"intruder +GET /pay +refused in the handshake: no_certificate", lines[3])
    assert lines[4] == "done, everything ended; go on: --keep; start your own: --write DIR"
    assert len(lines) == 5
    assert not list(tmp_path.iterdir())


def test_written_files_are_a_valid_start(tmp_path: Path) -> None:
    code, output = run_command("demo", "--write", "start", cwd=tmp_path)

    assert code == 0, output
    for name in ("web", "payments"):
        folder = tmp_path / "start" / name
        code, output = run_command("validate", "-c", str(folder / "ambassador.yaml"), cwd=tmp_path)
        assert code == 0, output
        assert (folder / "certs" / "tls.key").stat().st_mode & 0o777 == 0o600


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "mine").write_text("precious")

    code, output = run_command("demo", "--write", "start", cwd=tmp_path)

    assert code == 1
    assert "is not empty" in output
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["mine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_keep_goes_on_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    with _kept_demo(tmp_path) as (process, lines):
        port = _first(r"as web: curl http://127\.0\.0\.1:(\d+)/pay ", lines)
        status, _, body = parse_response(
            exchange(("127.0.0.1", int(port)), request("/pay", host=f"127.0.0.1:{port}"))
        )
        process.send_signal(number)
        rest = process.communicate(timeout=30)[0].decode()

    assert (status, body) == (200, b"spiffe://demo/web")
    assert process.returncode == 0, rest
    assert "done, everything ended" in rest
    assert not _processes_naming(str(tmp_path))


@contextmanager
def _kept_demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ambassador", "demo", "--keep", "--write", str(tmp_path / "demo")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.decode())
            if "^C ends it" in lines[-1]:
                break
        assert process.poll() is None, lines
        yield process, lines
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)
        process.stdout.close()


def _first(pattern: str, lines: list[str]) -> str:
    found = re.search(pattern, "".join(lines))
    assert found, lines
    return found[1]


def _processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if text in command and "ambassador" in command and "pytest" not in command:
            found.append(command)
    return found
