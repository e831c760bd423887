"""openssl s_client against the inbound listener, s_server behind the outbound one."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.peers import App, exchange, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.programs import require_program
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def place(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ambassador, Path]]:
    """A sidecar, and the folder with the client's files."""
    folder = tmp_path_factory.mktemp("openssl")
    shop, web = Pod("shop", authority, folder), Pod("web", authority, folder)
    with (
        App() as app,
        running_ambassador(shop.config(inbound=shop.inbound(app.port, [web])), folder) as running,
    ):
        yield running, web.folder


def _s_client(
    place: tuple[Ambassador, Path], *arguments: str, data: bytes = REQUEST, certificate: bool = True
) -> tuple[int, str]:
    sidecar, folder = place
    openssl = require_program("openssl")
    address = f"{sidecar.inbound[0]}:{sidecar.inbound[1]}"
    own = ["-cert", "tls.crt", "-key", "tls.key"] if certificate else []
    ended = subprocess.run(
        [
            openssl,
            "s_client",
            "-connect",
            address,
            "-CAfile",
            "ca.crt",
            *own,
            "-ign_eof",
            *arguments,
        ],
        cwd=folder,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
        check=False,
    )
    return ended.returncode, ended.stdout.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(("flag", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_both_versions_are_served(place: tuple[Ambassador, Path], flag: str, version: str) -> None:
    _, output = _s_client(place, flag)

    assert "HTTP/1.1 200 OK" in output
    assert version in output
    assert "Verify return code: 0 (ok)" in output
    assert "Compression: NONE" in output or "Compression" not in output


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_older_versions_get_the_alert(place: tuple[Ambassador, Path], flag: str) -> None:
    """Threat D2; RFC 8446 §6.2, alert 70."""
    code, output = _s_client(place, flag, "-cipher", "ALL:@SECLEVEL=0")

    assert code != 0
    assert "HTTP/1.1" not in output
    assert "protocol version" in output or "no protocols available" in output


@pytest.mark.parametrize(
    "cipher",
    [
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
    ],
)
def test_weak_suites_get_handshake_failure(place: tuple[Ambassador, Path], cipher: str) -> None:
    code, output = _s_client(place, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")

    assert code != 0
    assert "handshake failure" in output


def test_no_certificate_is_refused_with_its_alert(place: tuple[Ambassador, Path]) -> None:
    for flag, alert in (("-tls1_3", "certificate required"), ("-tls1_2", "handshake failure")):
        _, output = _s_client(place, flag, certificate=False)

        assert "HTTP/1.1" not in output
        assert alert in output, output[-400:]


def test_a_client_that_renegotiates_gets_no_second_handshake(
    place: tuple[Ambassador, Path],
) -> None:
    """Threat D2; `R` asks s_client to renegotiate."""
    sidecar, folder = place
    openssl = require_program("openssl")
    before = sidecar.metric("handshakes_total", result="ok")
    ended = subprocess.run(
        [
            *(openssl, "s_client", "-connect", f"{sidecar.inbound[0]}:{sidecar.inbound[1]}"),
            *("-cert", "tls.crt", "-key", "tls.key", "-tls1_2", "-legacy_renegotiation"),
        ],
        cwd=folder,
        input=b"R\n" + REQUEST,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
        check=False,
    )

    output = ended.stdout.decode("utf-8", "backslashreplace")
    assert "RENEGOTIATING" in output
    assert "no renegotiation" in output or "HTTP/1.1 200" not in output
    assert sidecar.metric("handshakes_total", result="ok") == before + 1


def test_sessions_of_tls_1_2_are_resumed(place: tuple[Ambassador, Path]) -> None:
    """`-reconnect` shakes hands once and then five times with the session."""
    sidecar, folder = place
    openssl = require_program("openssl")
    ended = subprocess.run(
        [
            *(openssl, "s_client", "-connect", f"{sidecar.inbound[0]}:{sidecar.inbound[1]}"),
            *("-cert", "tls.crt", "-key", "tls.key", "-CAfile", "ca.crt", "-tls1_2", "-reconnect"),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
        check=False,
    )

    output = ended.stdout.decode("utf-8", "backslashreplace")
    assert len(re.findall(r"^New, ", output, re.MULTILINE)) == 1
    assert len(re.findall(r"^Reused, ", output, re.MULTILINE)) == 5


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_a_saved_session_is_resumed(
    place: tuple[Ambassador, Path], tmp_path: Path, flag: str
) -> None:
    saved = str(tmp_path / "session.pem")
    _, first = _s_client(place, flag, "-sess_out", saved)
    _, second = _s_client(place, flag, "-sess_in", saved)

    assert "New, TLS" in first
    assert "Reused, TLS" in second
    assert "HTTP/1.1 200 OK" in second


def test_application_protocols(place: tuple[Ambassador, Path]) -> None:
    """RFC 7301."""
    _, common = _s_client(place, "-alpn", "h2,http/1.1")
    code, none = _s_client(place, "-alpn", "h2")

    assert "ALPN protocol: http/1.1" in common
    assert code != 0
    assert "no application protocol" in none


def test_early_data_is_not_accepted(place: tuple[Ambassador, Path], tmp_path: Path) -> None:
    """Threat D2: a replayed request would be a request."""
    saved, early = str(tmp_path / "session.pem"), tmp_path / "early"
    early.write_bytes(REQUEST)
    _, first = _s_client(place, "-tls1_3", "-sess_out", saved)
    _, output = _s_client(place, "-tls1_3", "-sess_in", saved, "-early_data", str(early))

    assert "Max Early Data: 0" in first or "Early data was not sent" in first
    assert "Early data was accepted" not in output


@contextlib.contextmanager
def _s_server(folder: Path, *arguments: str) -> Iterator[int]:
    port = reserve_port()
    process = subprocess.Popen(
        [
            *(
                require_program("openssl"),
                "s_server",
                "-accept",
                f"127.0.0.1:{port}",
                "-www",
                "-quiet",
            ),
            *("-cert", "tls.crt", "-key", "tls.key", "-CAfile", "ca.crt", "-Verify", "3"),
            *("-verify_return_error", *arguments),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens, "s_server")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_s_server_is_a_peer(authority: Authority, tmp_path: Path, flag: str) -> None:
    web, shop = Pod("web", authority, tmp_path), Pod("shop", authority, tmp_path)
    with _s_server(shop.folder, flag) as port:
        service = {**shop.endpoint(), "endpoints": [f"127.0.0.1:{port}"]}
        with running_ambassador(web.config(services={"shop": service}), tmp_path) as sidecar:
            answer = exchange(sidecar.outbound, request("/", host="shop"))

            assert answer.startswith(b"HTTP/1.0 200 ") or b" 200 " in answer[:20]
            record = sidecar.wait_for_record(status=200)
            assert record["endpoint"] == f"127.0.0.1:{port}"
