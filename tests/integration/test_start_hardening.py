"""What a start closes: core dumps, modes, the environment's ways into OpenSSL; and what a stuck reader may cost."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, connect, exchange, request, send_raw
from tests.support.ports import reserve_port
from tests.support.process import Config, Pod, running_ambassador
from tests.support.waiting import eventually

GOOD = request("/", "Connection: close")


def _plain(app: App, **more: object) -> Config:
    return {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"plain": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        **more,
    }


def _status(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(name)


def test_the_process_is_not_dumpable() -> None:
    """Threat K4: no core with the key in it, no debugger of our uid (prctl(2), PR_GET_DUMPABLE)."""
    asked = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from ambassador.cli.run import _harden; _harden(); import ctypes;"
            "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))",
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )

    assert asked.stdout == b"0\n"


def test_new_files_are_not_for_others(app: App, tmp_path: Path) -> None:
    """Threat K4."""
    with running_ambassador(_plain(app), tmp_path) as sidecar:
        assert _status(sidecar.pid, "Umask") in {"0027", "0077"}


def test_an_access_log_file_is_nobody_elses(app: App, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with running_ambassador(_plain(app, access_log={"path": str(path)}), tmp_path) as sidecar:
        exchange(sidecar.outbound, request("/", host="plain"))
        eventually(lambda: path.exists() and path.read_text(), "a line")
        assert path.stat().st_mode & 0o007 == 0


def test_the_environment_opens_nothing(
    authority: Authority, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threat D5: no key log, no provider, no policy by a variable."""
    keys, conf = tmp_path / "keys.log", tmp_path / "openssl.cnf"
    conf.write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
        "MinProtocol = TLSv1.3\nGroups = P-384\n"
    )
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    monkeypatch.setenv("OPENSSL_CONF", str(conf))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    server = shop.config(inbound=shop.inbound(app.port, [web]))
    with (
        running_ambassador(server, tmp_path) as inbound,
        running_ambassador(web.config(services={"shop": shop.endpoint()}), tmp_path) as outbound,
    ):
        monkeypatch.delenv("SSLKEYLOGFILE")  # the test's own client would write it
        monkeypatch.delenv("OPENSSL_CONF")
        context = client_context(authority, web.identity, version=ssl.TLSVersion.TLSv1_2)
        assert exchange(inbound.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")
        assert exchange(outbound.outbound, request("/", host="shop")).startswith(b"HTTP/1.1 200 ")
        assert inbound.wait_for_record(tls_version="TLSv1.3")["tls_group"] == "X25519MLKEM768"

    assert not keys.exists()


def _start(config: Config, folder: Path, **streams: object) -> subprocess.Popen[bytes]:
    path = folder / "a.yaml"
    whole = {"version": 1, "drain": {"delay": "0s", "timeout": "5s"}, **config}
    path.write_text(yaml.safe_dump(whole))
    return subprocess.Popen(
        [sys.executable, "-m", "ambassador", "run", "-c", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        **streams,  # type: ignore[call-overload]
    )


def _until_it_serves(address: tuple[str, int]) -> None:
    def serves() -> bool:
        try:
            return exchange(address, request("/", host="plain")).startswith(b"HTTP/1.1 200 ")
        except ConnectionRefusedError:
            return False

    eventually(serves, "served", patience_s=20)


def _ports(app: App) -> tuple[Config, tuple[str, int], tuple[str, int]]:
    out, admin = reserve_port(), reserve_port()
    config = _plain(app, admin={"listen": f"127.0.0.1:{admin}"})
    config["outbound"] = {"listen": f"127.0.0.1:{out}"}
    return config, ("127.0.0.1", out), ("127.0.0.1", admin)


def test_a_closed_standard_output_does_not_kill(app: App, tmp_path: Path) -> None:
    config, out, admin = _ports(app)
    process = _start(config, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    _until_it_serves(out)
    assert process.stdout is not None
    process.stdout.close()

    for _ in range(20):
        assert exchange(out, request("/", host="plain")).startswith(b"HTTP/1.1 200 ")

    eventually(lambda: _metric(admin, "access_log_dropped_total") > 0, "counted")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def _metric(admin: tuple[str, int], name: str) -> float:
    text = send_raw(admin, request("/metrics", "Connection: close", host="localhost")).decode()
    found = re.search(rf"^ambassador_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_an_error_stream_that_nobody_reads_does_not_stop_the_loop(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Events wait for their reader in a thread, and beyond a ceiling they are dropped."""
    config, out, _ = _ports(app)
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config |= shop.config(inbound=shop.inbound(app.port, [web], authorization="audit"))
    config["log"] = {"level": "debug"}
    process = _start(config, tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _until_it_serves(out)
    nobody = authority.issue(spiffe="spiffe://example.org/" + "n" * 900)
    with connect(("127.0.0.1", shop.port), client_context(authority, nobody)) as peer:
        for _ in range(300):  # each a warning of a kilobyte; a pipe holds 64 KiB
            peer.send(request("/"))
            assert peer.read_message().startswith(b"HTTP/1.1 200 ")

    assert exchange(out, request("/", host="plain")).startswith(b"HTTP/1.1 200 ")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stderr is not None
    events = [json.loads(line)["event"] for line in process.stderr.read().splitlines()[:2]]
    assert events == ["configuration_warning", "proxy_ready"]
    process.stderr.close()


def test_a_standard_output_that_nobody_reads_does_not_stop_the_loop(
    app: App, tmp_path: Path
) -> None:
    config, out, _ = _ports(app)
    process = _start(config, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    _until_it_serves(out)

    with connect(out) as client:
        for _ in range(600):
            client.send(request("/" + "x" * 400, host="plain"))
            assert client.read_message().startswith(b"HTTP/1.1 200 ")

    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_a_terminal_gets_words(authority: Authority, app: App, tmp_path: Path) -> None:
    """config.md §4, `ambassador run`."""
    web, shop = Pod("web", authority, tmp_path), Pod("shop", authority, tmp_path)
    out, admin = reserve_port(), reserve_port()
    config = web.config(
        inbound=web.inbound(f"127.0.0.1:{app.port}", [shop]),
        outbound={"listen": f"127.0.0.1:{out}"},
        services={"payments": shop.endpoint()},
        admin={"listen": f"127.0.0.1:{admin}"},
    )
    ours, theirs = pty.openpty()
    process = _start(config, tmp_path, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)

    text = b""
    while b"ready after" not in text:
        text += os.read(ours, 65536)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    os.close(ours)

    lines = text.decode().replace("\r\n", "\n").splitlines()
    assert re.fullmatch(rf"ambassador \S+, pid {process.pid}, uvloop, OpenSSL \d\S+", lines[0])
    assert lines[1] == f"identity  {web.spiffe}, 29 days left, TLSv1.2+, X25519MLKEM768"
    assert (
        lines[2] == f"inbound   127.0.0.1:{web.port} mTLS -> app 127.0.0.1:{app.port}, 1 allow rule"
    )
    assert lines[3] == f"outbound  127.0.0.1:{out} -> payments (1 endpoint)"
    assert re.fullmatch(rf"admin     127\.0\.0\.1:{admin}, ready after \d+\.\d\d s", lines[4])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_development_mode_has_nothing_to_say(
    authority: Authority, stranger: Authority, app: App, tmp_path: Path, loop: str
) -> None:
    """No socket, task or coroutine is left at the end: ResourceWarnings are errors here."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    out = reserve_port()
    config = {
        "version": 1,
        "drain": {"delay": "0s", "timeout": "300ms"},
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        **shop.config(
            inbound=shop.inbound(app.port, [web]),
            outbound={"listen": f"127.0.0.1:{out}"},
            services={
                "plain": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"},
                "dead": {"endpoints": [f"127.0.0.1:{reserve_port()}"], "plaintext": "loopback"},
            },
        ),
    }
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error::ResourceWarning",
            "-m",
            "ambassador",
            "run",
            "-c",
            str(path),
        ],
        cwd=tmp_path,
        env={**os.environ, "AMBASSADOR_LOOP": loop, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _until_it_serves(("127.0.0.1", out))
    inbound = ("127.0.0.1", shop.port)
    exchange(inbound, GOOD, client_context(authority, web.identity))
    exchange(("127.0.0.1", out), request("/", host="dead"))
    held = [
        connect(inbound, client_context(authority, web.identity)),
        connect(inbound),
        connect(("127.0.0.1", out)),
    ]
    held[2].send(b"POST / HTTP/1.1\r\nHost: plain\r\nContent-Length: 100\r\n\r\nhalf")
    refused = connect(inbound)  # in its grace when the process ends
    refused.send(b"GET / HTTP/1.1\r\n\r\n")
    refused.read_exactly(12)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    for each in (*held, refused):
        each.close()

    text = errors.decode()
    assert "Warning" not in text, text
    assert "Traceback" not in text, text
    assert "Task was destroyed" not in text, text
    assert process.returncode in {0, 1}
