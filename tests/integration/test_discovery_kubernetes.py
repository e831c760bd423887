"""`discovery: {kind: kubernetes}` against a fake API server: changes and outages, while traffic goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.discovering import discovering
from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.peers import exchange, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, running_ambassador
from tests.support.traffic import app, traffic
from tests.support.waiting import eventually


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path / "server", authority, allows_loopback=True) as running:
        running.grant("reader", "get", "list", "watch")
        running.use_token("reader")
        yield running


@contextmanager
def running(folder: Path, server: FakeKubernetes, **more: Any) -> Iterator[Ambassador]:
    settings = discovering(
        kind="kubernetes",
        service="payments",
        namespace="shop",
        port="mtls",
        api_server=server.url,
        token_file=str(server.token_file),
        ca_file=str(server.ca_file),
        allowed_networks=["127.0.0.0/8"],
        **more,
    )
    with running_ambassador(settings, folder) as sidecar:
        yield sidecar


def wait_until_ready(sidecar: Ambassador) -> None:
    eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")


def test_endpoints_come_and_go_and_no_request_is_lost(
    tmp_path: Path, server: FakeKubernetes
) -> None:
    port = reserve_port()
    server.put("payments-a", "payments", ["127.0.0.1"], ports={"mtls": port})
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with running(tmp_path, server) as sidecar:
            wait_until_ready(sidecar)
            with traffic(sidecar) as answers:
                eventually(lambda: b"1" in answers, "the first")
                server.put("payments-b", "payments", ["127.0.0.2"], ports={"mtls": port})
                eventually(lambda: b"2" in answers, "the second")
                server.remove("payments-a")
                eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_an_api_server_that_is_down_takes_nothing_away(
    tmp_path: Path, server: FakeKubernetes
) -> None:
    """Killed and started again while traffic runs: no failed request."""
    port = reserve_port()
    server.put("payments-a", "payments", ["127.0.0.1"], ports={"mtls": port})
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with running(tmp_path, server) as sidecar:
            wait_until_ready(sidecar)
            with traffic(sidecar) as answers:
                server.kill()
                sidecar.wait_for_event(
                    "endpoints_kept", service="a", reason="kubernetes_unreachable"
                )
                before = len(answers)
                eventually(lambda: len(answers) > before + 50, "traffic goes on")
                server.put("payments-a", "payments", ["127.0.0.2"], ports={"mtls": port})
                server.compact()  # and its history is lost
                server.restart()
                eventually(lambda: answers.endswith(b"2" * 50), "the second", patience_s=45)
        assert set(answers) == set(b"12")


def test_a_service_without_endpoints_takes_nothing_away(
    tmp_path: Path, server: FakeKubernetes
) -> None:
    """Somebody deleted the Service: the last endpoints are kept unless the file says `on_empty: drop`."""
    port = reserve_port()
    server.put("payments-a", "payments", ["127.0.0.1"], ports={"mtls": port})
    with app(b"1", "127.0.0.1", port), running(tmp_path, server) as sidecar:
        wait_until_ready(sidecar)
        server.remove("payments-a")
        sidecar.wait_for_event("endpoints_kept", service="a", reason="empty")

        assert exchange(sidecar.outbound, request(host="a"))[-1:] == b"1"


def test_missing_permission_is_pending_and_said_once(
    tmp_path: Path, server: FakeKubernetes
) -> None:
    server.grant("reader", "get")
    with running(tmp_path, server) as sidecar:
        event = sidecar.wait_for_event("endpoints_kept", reason="kubernetes_forbidden")
        eventually(lambda: len(server.asked("limit=500")) > 2, "more tries")

        assert "endpointslices" in event["detail"]
        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
        assert len([each for each in sidecar.events if each["event"] == "endpoints_kept"]) == 1
