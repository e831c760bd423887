"""What keeps `ambassador run` from starting is one sentence on stderr, no traceback, and the right exit code."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.peers import App
from tests.support.ports import reserve_port
from tests.support.process import Config, Pod, failed_start, run_command


def _refused(config: Config, folder: Path) -> tuple[int, str]:
    code, output = failed_start(config, folder)
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) <= 2, output
    return code, output


@pytest.mark.parametrize("where", ["inbound", "outbound", "admin"])
def test_a_port_in_use_is_said_with_its_address(
    authority: Authority, app: App, tmp_path: Path, where: str
) -> None:
    """Threat K4: no SO_REUSEPORT, so the second bind fails."""
    pod = Pod("web", authority, tmp_path)
    config = pod.config(
        inbound=pod.inbound(app.port),
        outbound={"listen": f"127.0.0.1:{reserve_port()}"},
        admin={"listen": f"127.0.0.1:{reserve_port()}"},
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config[where]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"

        code, output = _refused(config, tmp_path)

        assert code == 1
        assert config[where]["listen"] in output
        assert "in use" in output


def test_an_address_that_is_not_ours_is_said(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    pod = Pod("web", authority, tmp_path)
    config = pod.config(inbound={**pod.inbound(app.port), "listen": f"192.0.2.1:{reserve_port()}"})

    code, output = _refused(config, tmp_path)

    assert code == 1
    assert "192.0.2.1" in output


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing key", "tls.key"),
        ("missing certificate", "tls.crt"),
        ("missing bundle", "ca.crt"),
        ("no folder", "tls.crt"),
        ("garbage key", "no private key"),
        ("mismatch", "does not match"),
        ("expired", "expired"),
        ("not yet", "valid from"),
        ("writable key", "write"),
        ("key is a folder", "tls.key"),
        ("certificate is a pipe", "tls.crt"),
        ("empty bundle", "ca.crt"),
    ],
)
def test_bad_credentials_are_said_with_their_file(
    authority: Authority, app: App, tmp_path: Path, case: str, words: str
) -> None:
    pod = Pod("web", authority, tmp_path)
    _spoil(case, pod, authority)

    code, output = _refused(pod.config(inbound=pod.inbound(app.port)), tmp_path)

    assert code == 3
    assert words in output
    assert "PRIVATE KEY" not in output


def _spoil(case: str, pod: Pod, authority: Authority) -> None:  # noqa: PLR0912  # a table of ways to spoil files
    folder = pod.folder
    match case:
        case "missing key":
            (folder / "tls.key").unlink()
        case "missing certificate":
            (folder / "tls.crt").unlink()
        case "missing bundle":
            (folder / "ca.crt").unlink()
        case "no folder":
            folder.rename(folder.with_name("elsewhere"))
        case "garbage key":
            (folder / "tls.key").write_bytes(b"garbage")
        case "mismatch":
            (folder / "tls.key").write_bytes(authority.issue(cn="other").key_pem)
        case "expired":
            authority.issue(cn="web", begin_days=-3, end_days=-1).write(folder, authority.pem)
        case "not yet":
            authority.issue(cn="web", begin_days=1, end_days=3).write(folder, authority.pem)
        case "writable key":
            os.chmod(folder / "tls.key", 0o666)
        case "key is a folder":
            (folder / "tls.key").unlink()
            (folder / "tls.key").mkdir()
        case "certificate is a pipe":
            (folder / "tls.crt").unlink()
            os.mkfifo(folder / "tls.crt")
        case "empty bundle":
            (folder / "ca.crt").write_bytes(b"")
        case _:
            raise AssertionError(case)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_key_is_said(authority: Authority, app: App, tmp_path: Path) -> None:
    pod = Pod("web", authority, tmp_path)
    os.chmod(pod.folder / "tls.key", 0)

    code, output = _refused(pod.config(inbound=pod.inbound(app.port)), tmp_path)

    assert code == 3
    assert "tls.key" in output


def test_an_access_log_that_cannot_be_written_is_said(app: App, tmp_path: Path) -> None:
    config = {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"app": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        "access_log": {"path": str(tmp_path / "no" / "log")},
    }

    code, output = _refused(config, tmp_path)

    assert code == 3
    assert f"{tmp_path}/no/log" in output
    assert "access_log" in output


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize("name", ["AMBASSADOR_LOG_LEVEL", "AMBASSADOR_LOOP"])
def test_a_variable_with_a_wrong_value_is_said(
    app: App, tmp_path: Path, name: str, command: str
) -> None:
    """config.md §4: `validate` tells every error for which `run` would end with 3."""
    (tmp_path / "a.yaml").write_text(
        f"version: 1\noutbound: {{listen: '127.0.0.1:{reserve_port()}'}}\n"
        f"services: {{app: {{endpoints: ['127.0.0.1:{app.port}'], plaintext: loopback}}}}\n"
    )

    code, output = run_command(command, "-c", "a.yaml", cwd=tmp_path, environment={name: "loud"})

    assert code == 3
    assert f"{name}: expected one of " in output
    assert 'got "loud"\n1 error\n' in output
    assert "Traceback" not in output


@pytest.mark.parametrize("content", ["", "version: 2\n", "a: [", "\x00"])
def test_a_file_that_is_none_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)

    code, output = run_command("run", "-c", "a.yaml", cwd=tmp_path)

    assert code == 3
    assert "a.yaml" in output
    assert "Traceback" not in output


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    code, output = run_command("run", "-c", "no.yaml", cwd=tmp_path)

    assert code == 3
    assert "no.yaml" in output
    assert "Traceback" not in output


def test_a_failed_start_leaves_no_socket_behind(app: App, tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = {
            "outbound": [
                {"name": "one", "listen": f"unix:{path}"},
                {"name": "two", "listen": f"127.0.0.1:{taken.getsockname()[1]}"},
            ],
            "services": {"app": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        }

        code, _ = _refused(config, tmp_path)

    assert code == 1
    assert not path.exists()
