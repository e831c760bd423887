"""HTTP/2 passes two sidecars as opaque bytes (`protocol: tcp`, ALPN h2), and is refused where HTTP/1.1 is spoken.

curl's own HTTP/2 stack is the client, nginx' the server: what gRPC does, without gRPC.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.foreign import LARGE, credentials, nginx
from tests.support.pair import Pair, pair
from tests.support.peers import connect
from tests.support.ports import reserve_port
from tests.support.programs import require_program

pytestmark = pytest.mark.interop

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Pair]:
    """Both sidecars before an nginx that speaks HTTP/2 in the clear behind `raw`."""
    folder = tmp_path_factory.mktemp("http2")
    (folder / "large").write_bytes(LARGE)
    (folder / "upload").mkdir()
    http1, http2 = reserve_port(), reserve_port()
    server = f"""
    server {{
      listen 127.0.0.1:{http2} http2; listen 127.0.0.1:{http1}; root {folder}; client_max_body_size 0;
      location = /protocol {{ return 200 $server_protocol; }}
      location /upload {{ dav_methods PUT; }}
    }}"""
    with (
        nginx(folder / "nginx", server, ports=[http1, http2]),
        pair(authority, folder, app=http1, raw_app=http2) as running,
    ):
        yield running


def curl(*arguments: str) -> tuple[int, bytes]:
    """Run curl without the environment's proxies; give exit code and output."""
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    ended = subprocess.run(
        [require_program("curl"), "-q", "-sS", "--max-time", "10", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_http_2_passes_a_tcp_listener(two: Pair) -> None:
    """Issue: `protocol: tcp` with configured ALPN lets gRPC and HTTP/2 through."""
    url = f"http://127.0.0.1:{two.raw[1]}"

    assert curl("--http2-prior-knowledge", f"{url}/protocol") == (0, b"HTTP/2.0")
    assert curl("--http2-prior-knowledge", f"{url}/large") == (0, LARGE)


def test_an_upload_over_http_2_arrives_whole(two: Pair, tmp_path: Path) -> None:
    """Flow control of HTTP/2 and ours do not lock each other."""
    (tmp_path / "body").write_bytes(LARGE)
    url = f"http://127.0.0.1:{two.raw[1]}/upload/one"

    assert curl("--http2-prior-knowledge", "-T", str(tmp_path / "body"), url)[0] == 0
    assert curl("--http2-prior-knowledge", url) == (0, LARGE)


def test_http_2_passes_connect(two: Pair) -> None:
    """RFC 9110 §9.3.6: a tunnel to the tcp service, whatever is spoken in it."""
    proxy = f"http://127.0.0.1:{two.outbound[1]}"
    url = f"http://raw:{two.inbound_raw[1]}/protocol"

    assert curl("-p", "-x", proxy, "--http2-prior-knowledge", url) == (0, b"HTTP/2.0")


def test_h2_is_what_the_tcp_listener_selects_and_all_it_takes(
    two: Pair, authority: Authority, tmp_path: Path
) -> None:
    """RFC 7301 §3.2, with ALPN [h2]: curl speaks HTTP/2 over TLS straight to it, HTTP/1.1 is refused."""
    files = credentials(tmp_path / "web", authority, "web")
    port = two.inbound_raw[1]
    arguments = [
        "--cert", str(files.certificate), "--key", str(files.key), "--cacert", str(files.trusted),
        "--resolve", f"payments.example.org:{port}:127.0.0.1",
        f"https://payments.example.org:{port}/protocol",
    ]  # fmt: skip

    assert curl("--http2", *arguments) == (0, b"HTTP/2.0")
    assert curl("--http1.1", *arguments)[0] in {35, 56}


@pytest.mark.parametrize("way", ["outbound", "inbound"])
def test_the_preface_of_http_2_is_refused_by_an_http_listener(
    two: Pair, authority: Authority, way: str
) -> None:
    """RFC 9113 §3.4: an HTTP/1.1 server answers PRI with an error and closes."""
    tls = client_context(authority, authority.issue(spiffe="spiffe://example.org/web"))
    sidecar, address, context = {
        "outbound": (two.web, two.outbound, None),
        "inbound": (two.payments, two.inbound, tls),
    }[way]
    with connect(address, context) as client:
        client.send(PREFACE + SETTINGS)
        answer = client.read_to_end()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert sidecar.wait_for_record(status=400, detail="http2_preface")["flags"] == "DPE"


def test_curl_is_not_left_waiting_for_http_2(two: Pair) -> None:
    """The refusal ends curl at once, with an error of its own."""
    url = f"http://127.0.0.1:{two.outbound[1]}/protocol"

    assert curl("--http2-prior-knowledge", "-H", "Host: payments", url)[0] not in {0, 28}


def test_an_offer_to_upgrade_to_h2c_is_not_taken_up(two: Pair) -> None:
    """RFC 9113 §3.1: h2c Upgrade is gone; the request is answered in HTTP/1.1."""
    url = f"http://127.0.0.1:{two.outbound[1]}/protocol"

    assert curl("--http2", "-H", "Host: payments", url) == (0, b"HTTP/1.1")
