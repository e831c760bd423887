"""The admin port of a running process: four pages, for those who may ask, and metrics that promtool accepts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, connect, exchange, parse_response, request, send_raw
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.programs import require_program


@pytest.fixture(scope="module")
def sidecar(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ambassador]:
    folder = tmp_path_factory.mktemp("admin")
    web, shop = Pod("web", authority, folder), Pod("shop", authority, folder)
    with App() as app:
        config = web.config(
            inbound=web.inbound(app.port, [shop]),
            services={
                "shop": shop.endpoint(),
                "plain": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"},
            },
        )
        with running_ambassador(config, folder, "asyncio") as running:
            # One of everything, so that every family has samples.
            context = client_context(authority, shop.identity)
            stranger = client_context(authority, authority.issue(spiffe="spiffe://example.org/x"))
            send_raw(running.inbound, request("/", "Connection: close"), context)
            send_raw(running.inbound, request("/", "Connection: close"), stranger)
            send_raw(running.inbound, b"GET / HTTP/1.1\r\n\r\n")
            for host in ("plain", "shop", 'evil"\\\n', "no-such-service", "a" * 200):
                exchange(running.outbound, request("/", host=host.strip()))
            running.reload()
            running.wait_for_event("credentials_reloaded")
            yield running


def _ask(
    sidecar: Ambassador, method: str, path: str, *lines: str
) -> tuple[int, dict[bytes, bytes], bytes]:
    host = f"{sidecar.admin[0]}:{sidecar.admin[1]}"
    whole = request(path, "Connection: close", *lines, method=method, host=host)
    return parse_response(send_raw(sidecar.admin, whole))


@pytest.mark.parametrize(
    ("path", "body"), [("/live", b"live\n"), ("/ready", b"ready\n"), ("/ready?x", b"ready\n")]
)
def test_probes_are_answered(sidecar: Ambassador, path: str, body: bytes) -> None:
    status, fields, answered = _ask(sidecar, "GET", path)

    assert (status, answered) == (200, body)
    assert fields[b"content-type"].startswith(b"text/plain")
    assert fields[b"x-content-type-options"] == b"nosniff"


def test_the_metrics_pass_promtool(sidecar: Ambassador) -> None:
    """The issue: passes `promtool check metrics`."""
    promtool = require_program("promtool")
    status, text = sidecar.get("/metrics")

    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert status == 200
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_labels_come_from_the_configuration(sidecar: Ambassador) -> None:
    """Threat I7: hosts, paths and identities of strangers are no labels."""
    _, before = sidecar.get("/metrics")
    for number in range(50):
        exchange(sidecar.outbound, request(f"/path-{number}", host=f"host-{number}"))

    _, after = sidecar.get("/metrics")

    assert "host-1" not in after
    assert "path-1" not in after
    assert "evil" not in after
    assert "spiffe://" not in after
    series = [line.partition(" ")[0] for line in before.splitlines() if not line.startswith("#")]
    assert series == [
        line.partition(" ")[0] for line in after.splitlines() if not line.startswith("#")
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics"])
def test_other_methods_change_nothing(sidecar: Ambassador, method: str, path: str) -> None:
    """Threat I1."""
    status, fields, _ = _ask(sidecar, method, path)

    assert status == 405
    assert b"GET" in fields[b"allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/drain",
        "/quitquitquit",
        "/config_dump",
        "/logging",
        "/healthcheck/fail",
        "//live",
        "/live/",
    ],
)
def test_there_is_nothing_else(sidecar: Ambassador, path: str) -> None:
    for method in ("GET", "POST"):
        assert _ask(sidecar, method, path)[0] in {404, 405}
    assert sidecar.get("/ready")[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
    ],
)
def test_web_pages_learn_nothing(sidecar: Ambassador, lines: tuple[str, ...]) -> None:
    """Threat H7."""
    status, fields, body = _ask(sidecar, "GET", "/metrics", *lines)

    assert status == 403
    assert b"ambassador_" not in body
    assert b"access-control-allow-origin" not in fields


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9901", "localhost.evil.example", "a b"]
)
def test_a_rebound_name_learns_nothing(sidecar: Ambassador, host: str) -> None:
    """Threat H7: DNS rebinding."""
    answer = send_raw(sidecar.admin, request("/metrics", "Connection: close", host=host))

    assert parse_response(answer)[0] in {400, 404}
    assert b"ambassador_" not in answer


def test_head_gets_no_body(sidecar: Ambassador) -> None:
    """RFC 9110 §9.3.2."""
    status, fields, body = _ask(sidecar, "HEAD", "/metrics")

    assert (status, body) == (200, b"")
    assert int(fields.get(b"content-length", b"1")) > 0


def test_a_connection_carries_several_probes(sidecar: Ambassador) -> None:
    with connect(sidecar.admin) as connection:
        for _ in range(3):
            connection.send(request("/ready", host="localhost"))
            assert connection.read_message().startswith(b"HTTP/1.1 200 ")
        connection.send(request("/live", host="localhost") * 2)
        assert connection.read_message().startswith(b"HTTP/1.1 200 ")
        assert connection.read_message().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /live HTTP/1.0\r\n\r\n",
        b"GET http://127.0.0.1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_simple_probes_are_understood(sidecar: Ambassador, raw: bytes) -> None:
    assert b" 200 " in send_raw(sidecar.admin, raw)[:15]


def test_a_body_to_a_page_does_no_harm(sidecar: Ambassador) -> None:
    answer = send_raw(
        sidecar.admin, request("/live", host="localhost", method="POST", body=b"x" * 1000)
    )

    assert answer.startswith(b"HTTP/1.1 405 ")


def test_scrapes_in_parallel_are_whole(sidecar: Ambassador) -> None:
    connections = [connect(sidecar.admin) for _ in range(8)]
    for connection in connections:
        connection.send(request("/metrics", host="localhost"))
    for connection in connections:
        with connection:
            assert b"\nambassador_ready 1.0\n" in parse_response(connection.read_message())[2]


def test_none_switches_it_off(app: App, tmp_path: Path) -> None:
    config = {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"app": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        "admin": {"listen": "none"},
    }
    with running_ambassador(config, tmp_path) as sidecar:
        assert exchange(sidecar.outbound, request("/", host="app")).startswith(b"HTTP/1.1 200")
