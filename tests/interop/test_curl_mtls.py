"""curl as a peer of the inbound listener, and as an app in front of the outbound one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.peers import App, ReceivedRequest, response
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.programs import require_program

pytestmark = pytest.mark.interop


def _respond(request: ReceivedRequest) -> bytes:
    return response(request.body or b"hello from the app")


@pytest.fixture(scope="module")
def place(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ambassador, Ambassador, Path]]:
    """Inbound and outbound sidecars in a row, and the client's folder."""
    folder = tmp_path_factory.mktemp("curl")
    shop = Pod("shop", authority, folder)
    web = Pod("web", authority, folder)
    with (
        App(_respond) as app,
        running_ambassador(shop.config(inbound=shop.inbound(app.port, [web])), folder) as inbound,
        running_ambassador(web.config(services={"shop": shop.endpoint()}), folder) as outbound,
    ):
        yield inbound, outbound, web.folder


def _curl(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    ended = subprocess.run(
        [require_program("curl"), "--silent", "--show-error", "--max-time", "15", *arguments],
        cwd=cwd,
        capture_output=True,
        timeout=20,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def _direct(place: tuple[Ambassador, Ambassador, Path], *arguments: str) -> tuple[int, str, str]:
    inbound, _, folder = place
    port = inbound.inbound[1]
    resolve = f"shop.example.org:{port}:127.0.0.1"
    url = f"https://shop.example.org:{port}/"
    return _curl("--cacert", "ca.crt", "--resolve", resolve, *arguments, url, cwd=folder)


OWN = ("--cert", "tls.crt", "--key", "tls.key")


@pytest.mark.parametrize("version", [("--tlsv1.2", "--tls-max", "1.2"), ("--tlsv1.3",)])
def test_curl_with_a_certificate_is_served(
    place: tuple[Ambassador, Ambassador, Path], version: tuple[str, ...]
) -> None:
    code, out, errors = _direct(place, *OWN, *version)

    assert (code, out, errors) == (0, "hello from the app", "")


def test_curl_offers_http_2_and_gets_http_1_1(place: tuple[Ambassador, Ambassador, Path]) -> None:
    code, out, _ = _direct(place, *OWN, "--http2", "-w", " %{http_version}")

    assert (code, out) == (0, "hello from the app 1.1")


def test_curl_without_a_certificate_is_told_so_by_the_alert(
    place: tuple[Ambassador, Ambassador, Path],
) -> None:
    code, out, errors = _direct(place)

    assert code in {35, 56}
    assert out == ""
    assert "certificate required" in errors or "alert" in errors


def test_curl_in_clear_is_told_what_is_wrong(place: tuple[Ambassador, Ambassador, Path]) -> None:
    inbound, _, folder = place

    code, out, _ = _curl(
        "-w", "%{http_code}", f"http://127.0.0.1:{inbound.inbound[1]}/", cwd=folder
    )

    assert code == 0
    assert out.endswith("400")
    assert "https" in out


def test_curl_uploads_and_reuses_its_connection(place: tuple[Ambassador, Ambassador, Path]) -> None:
    _, outbound, folder = place
    (folder / "upload").write_bytes(bytes(range(256)) * 4096)
    url = f"http://127.0.0.1:{outbound.outbound[1]}/"

    code, out, errors = _curl(
        *("-H", "Host: shop", "--data-binary", "@upload", "-o", "one", "-o", "two"),
        *("-w", "%{num_connects} %{size_download}\n", url, url),
        cwd=folder,
    )

    assert (code, errors) == (0, "")
    assert out.splitlines() == ["1 1048576", "0 1048576"]
    assert (folder / "two").read_bytes() == (folder / "upload").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-H", "Host: shop", "http://127.0.0.1:{port}/"),
        ("http://shop.localhost:{port}/",),
        ("--proxy", "http://127.0.0.1:{port}", "http://shop/"),
        ("--resolve", "shop:{port}:127.0.0.1", "http://shop:{port}/"),
    ],
)
def test_the_ways_to_name_a_service(
    place: tuple[Ambassador, Ambassador, Path], arguments: tuple[str, ...]
) -> None:
    """The issue: by Host, by name under localhost, by absolute form."""
    _, outbound, folder = place
    port = outbound.outbound[1]

    code, out, errors = _curl(*(one.format(port=port) for one in arguments), cwd=folder)

    assert (code, out, errors) == (0, "hello from the app", "")


def test_curl_through_connect_speaks_tls_of_its_own(
    place: tuple[Ambassador, Ambassador, Path],
) -> None:
    """CONNECT only to configured services (H1)."""
    _, outbound, folder = place
    proxy = f"http://127.0.0.1:{outbound.outbound[1]}"

    code, _, errors = _curl(
        "--proxy", proxy, "--proxytunnel", "http://169.254.169.254/", cwd=folder
    )

    assert code != 0
    assert "404" in errors or "403" in errors
