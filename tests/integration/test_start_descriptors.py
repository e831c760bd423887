"""`ambassador run` and what its three standard descriptors, and the files it is told to use, may be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.peers import App, send_raw
from tests.support.ports import reserve_port
from tests.support.process import LOOPS, Config, failed_start, run_command, running_ambassador
from tests.support.waiting import eventually

PATIENCE_S = 30.0
RUN = [sys.executable, "-m", "ambassador", "run", "-c", "a.yaml"]
REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


def _config(app: App, **more: object) -> Config:
    return {
        "version": 1,
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"app": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        **more,
    }


def _port(config: Config) -> int:
    return int(config["outbound"]["listen"].rpartition(":")[2])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except OSError:
        return False
    return True


# --- descriptors 0, 1 and 2 ---


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_standard_descriptor_is_dev_null_and_the_end_is_in_order(
    closed: tuple[int, ...], loop: str, app: App, tmp_path: Path
) -> None:
    """libuv aborts the process when it closes a loop whose epoll has number 0, 1 or 2; lines went into it before."""
    config = _config(app)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    closing = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    sidecar = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *RUN],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "AMBASSADOR_LOOP": loop},
    )
    try:
        eventually(lambda: _accepts(_port(config)), "an open port")
        links = {number: os.readlink(f"/proc/{sidecar.pid}/fd/{number}") for number in closed}
        answer = send_raw(("127.0.0.1", _port(config)), REQUEST)
        sidecar.terminate()
        out, err = sidecar.communicate(timeout=PATIENCE_S)
    finally:
        sidecar.kill()

    assert set(links.values()) == {"/dev/null"}
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert sidecar.returncode == 0, err
    assert (b'"status":200' in out) is (1 not in closed)
    assert (b'"proxy_ready"' in err) is (2 not in closed)
    assert b"Traceback" not in err


# --- access_log.path ---


def test_a_pipe_that_nobody_reads_is_refused_and_no_hang(app: App, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")

    code, output = failed_start(_config(app, access_log={"path": str(tmp_path / "log")}), tmp_path)

    assert code == 3
    assert output.strip() == (
        f"ambassador: access_log.path: cannot write {tmp_path}/log: nobody reads it"
    )


@pytest.mark.parametrize(
    ("kind", "words"), [("folder", "is a directory"), ("socket", "is a socket")]
)
def test_what_takes_no_lines_is_refused_by_both_commands(
    kind: str, words: str, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a Unix socket must be short
    if kind == "folder":
        Path("log").mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("log")
    config = _config(app, access_log={"path": "log"})

    code, output = failed_start(config, tmp_path)
    judged, said = _validate(config, tmp_path)

    assert (code, judged) == (3, 3)
    assert words in output
    assert "Traceback" not in output
    assert f"access_log.path: cannot write {tmp_path}/log: is a " in said


def test_a_pipe_with_a_reader_gets_every_line(app: App, tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    config = _config(app, access_log={"path": str(path)})

    with running_ambassador(config, tmp_path):
        send_raw(("127.0.0.1", _port(config)), REQUEST)
    lines = os.read(reader, 65536).splitlines()
    os.close(reader)

    assert [json.loads(line)["status"] for line in lines] == [200]


def test_a_device_is_a_fine_access_log(app: App, tmp_path: Path) -> None:
    """/dev/stdout by its name, which is a pipe here, and a character device."""
    for path in ("/dev/stdout", "/dev/null"):
        config = _config(app, access_log={"path": path})

        with running_ambassador(config, tmp_path) as sidecar:
            send_raw(("127.0.0.1", _port(config)), REQUEST)
            if path == "/dev/stdout":
                sidecar.wait_for_records(1)


# --- --config ---


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "nobody writes to this pipe"),
        ("device", "got a device"),
        ("folder", "got a folder"),
    ],
)
def test_a_configuration_that_nobody_writes_is_refused_and_no_hang(
    command: str, kind: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/null")

    code, output = run_command(command, "-c", str(path), cwd=tmp_path)

    assert code == 3
    assert f"cannot read {path}: " in output
    assert words in output
    assert "Traceback" not in output


@pytest.mark.parametrize("option", ["/dev/stdin", "<(cat a.yaml)"])
def test_a_configuration_may_come_through_a_pipe(option: str, app: App, tmp_path: Path) -> None:
    """Its paths count from the working directory; `--show` needs the content twice."""
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(_config(app, access_log={"path": "log"})))
    command = f"cat a.yaml | {sys.executable} -m ambassador validate --show -c {option}"

    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "is valid: 0 inbound, 1 outbound, 1 service, 0 warnings" in ended.stdout
    assert "access_log.path: log" in ended.stdout


# --- signals before anything is set up ---


@pytest.mark.parametrize("module", ["click", "ambassador.cli.run", "ambassador.config.load"])
@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGINT, {0, 130}), (signal.SIGHUP, {0}), (signal.SIGTERM, {0, -signal.SIGTERM})],
)
def test_a_signal_early_in_the_start_leaves_no_traceback(
    number: signal.Signals, codes: set[int], module: str, app: App, tmp_path: Path
) -> None:
    """INT ends with 130 until the handlers are there, and with 0 afterwards; a reload that early is ignored."""
    config = _config(app)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    # The signal comes while this module is looked for: a moment that does not depend on the machine's speed.
    (tmp_path / "sitecustomize.py").write_text(
        _SIGNALLING.format(module=module, number=int(number))
    )
    sidecar = subprocess.Popen(
        RUN,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))),
        },
    )
    try:
        if number == signal.SIGHUP:
            eventually(lambda: _accepts(_port(config)), "an open port")
            sidecar.terminate()
        _, err = sidecar.communicate(timeout=PATIENCE_S)
    finally:
        sidecar.kill()

    assert b"Traceback" not in err
    assert sidecar.returncode in codes


_SIGNALLING = """
import os, sys

class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Signalling())
"""


def _validate(config: Config, folder: Path) -> tuple[int, str]:
    (folder / "v.yaml").write_text(yaml.safe_dump(config))
    return run_command("validate", "-c", "v.yaml", cwd=folder)
