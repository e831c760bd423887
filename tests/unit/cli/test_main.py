"""The entry point: commands, exit codes, help, and what is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from ambassador import __version__
from ambassador.cli import main
from ambassador.core.errors import ConfigError, ConfigErrors, CredentialError
from tests.unit.cli.run import run
from tests.unit.config.make import BASES

FOLDER = Path(main.__file__).parent
BUILT = [name for name in main.COMMANDS if (FOLDER / f"{name}.py").exists()]


def test_help_lists_every_command_and_opens_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """config.md §4."""
    ran = run(capsys, "--help")

    assert ran.code == 0
    assert ran.out.startswith("Example: ambassador demo\n")
    assert all(f"  {name} " in ran.out for name in main.COMMANDS)


def test_every_command_has_its_file() -> None:
    assert set(BUILT) == set(main.COMMANDS)


@pytest.mark.parametrize("name", BUILT)
def test_the_help_of_a_command_opens_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """config.md §4: each `--help` opens with one example that works."""
    ran = run(capsys, name, "--help")

    assert ran.code == 0
    assert ran.out.startswith(f"Example: ambassador {name}")
    assert ran.out.count("Example:") == 1


@pytest.mark.parametrize("name", ["dev", "init", "issue", "inspect"])
def test_the_help_of_an_inner_command_opens_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, "certs", name, "--help")

    assert ran.out.startswith(f"Example: ambassador certs {name}")


@pytest.mark.parametrize("name", main.LATER)
def test_a_later_command_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """config.md, first paragraph: refused, never ignored."""
    ran = run(capsys, name, "--whatever")

    assert ran.code == 2
    assert ran.out == ""
    assert f"{name} is not built yet." in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vaildate"], "No such command 'vaildate'. Did you mean validate?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["--nope"], "No such option"),
        (["validate", "--nope"], "No such option"),
        (["validate", "surplus"], "unexpected extra argument"),
        (["validate", "-o", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_usage_is_exit_2_on_stderr(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """config.md §4, Exit."""
    ran = run(capsys, *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert sentence in ran.err


def test_no_argument_shows_the_help_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys)

    assert ran.code == 2
    assert "Commands:" in ran.err + ran.out


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version").out == f"ambassador {__version__}\n"


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (ConfigErrors((ConfigError("a", "x", line=1, column=2, file="f"), ConfigError("", "y"))), 3, "f:1:2 a: x\ny\n"),
        (CredentialError("expired", "too late"), 3, "too late\n"),
        (click.Abort(), 1, "ended\n"),
        (SystemExit(7), 7, ""),
    ],
)  # fmt: skip
def test_what_a_command_raises_becomes_an_exit_code(
    raised: BaseException,
    code: int,
    err: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """config.md §4: configuration and credentials are 3, never a traceback."""

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(main.group, "main", fail)

    ran = run(capsys)

    assert (ran.code, ran.err) == (code, err)


def test_the_result_of_a_command_is_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main.group, "main", lambda *_, **__: 1)

    assert run(capsys).code == 1


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`ambassador schema | head -1`."""
    command = f"{sys.executable} -m ambassador schema | head -c 1"

    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)

    assert (ended.stdout, ended.stderr) == (b"{", b"")


@pytest.mark.parametrize(
    "arguments", ["schema", "version", "--help", "certs --help", "validate --no-files", "demo"]
)
def test_output_that_cannot_be_written_is_one_sentence(arguments: str, tmp_path: Path) -> None:
    """ux.md §1: a full disk is exit 1 and no traceback, whatever the command."""
    (tmp_path / "ambassador.yaml").write_text(BASES["top"], encoding="utf-8")
    command = f"{sys.executable} -m ambassador {arguments} >/dev/full"

    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        "ambassador: cannot write the result to standard output: no space left on device\n"
    )


def test_an_error_of_something_else_is_not_said_of_the_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that does not say what failed has a bug, and its traceback is worth more than a wrong sentence."""
    for raised in (ConnectionRefusedError(111, "refused"), FileNotFoundError(2, "no", "tls.crt")):

        def fail(*_: object, error: OSError = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr(main.group, "main", fail)

        with pytest.raises(type(raised)):
            main.run([])


def test_an_interrupted_command_ends_quietly_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """config.md §4; click makes an Abort of ^C."""

    def interrupt(*_: object, **__: object) -> None:
        raise click.Abort from KeyboardInterrupt()

    monkeypatch.setattr(main.group, "main", interrupt)

    ran = run(capsys)

    assert (ran.code, ran.out, ran.err) == (130, "", "")


@pytest.mark.parametrize(
    "module", ["pydantic", "yaml", "rich", "OpenSSL", "cryptography", "asyncio", "difflib"]
)
def test_help_imports_no_library(module: str) -> None:
    """house §1: one file per command, imported when called."""
    program = f"import sys; from ambassador.cli import main; main.run(['--help']); sys.exit({module!r} in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "module", ["rich", "cryptography", "OpenSSL", "asyncio", "jsonschema", "importlib.metadata"]
)
def test_loading_a_file_imports_only_what_it_needs(module: str, tmp_path: Path) -> None:
    """Start-up of `run` counts (issue: below 350 ms)."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "version: 1\noutbound: {listen: 127.0.0.1:1}\n"
        "services: {a: {listen: 'localhost:2', endpoints: ['[::1]:1'], plaintext: loopback}}\n",
        encoding="utf-8",
    )
    program = (
        "import sys, pathlib; from ambassador.config.load import load;"
        f"load(pathlib.Path({str(path)!r}), {{}}); sys.exit({module!r} in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert ended.returncode == 0, ended.stderr
