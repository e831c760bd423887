"""Resumption at a running sidecar: offered, judged like a full handshake, worth nothing elsewhere."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador

GOOD = request("/", "Connection: close")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Client:
    """A stdlib client that keeps its session; `SSLSocket` takes one only when it is made."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.session: ssl.SSLSession | None = None
        self.reused: bool | None = None

    def get(self, address: object, name: str | None = None) -> bytes:
        with (
            socket.create_connection(address, timeout=10) as raw,
            self.context.wrap_socket(raw, server_hostname=name, session=self.session) as connection,
        ):
            connection.sendall(GOOD)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            self.reused = connection.session_reused
            self.session = connection.session
        return answer


@pytest.fixture(scope="module")
def sidecar(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ambassador]:
    folder = tmp_path_factory.mktemp("resumption")
    shop = Pod("shop", authority, folder)
    web, brief = "spiffe://example.org/web", "spiffe://example.org/brief"
    with App() as app:
        one = shop.inbound(app.port, [{"spiffe": web}, {"spiffe": brief}])
        two = {**shop.inbound(app.port, [{"spiffe": web}]), "listen": f"127.0.0.1:{reserve_port()}"}
        listeners = [{"name": "one", **one}, {"name": "two", **two}]
        with running_ambassador(shop.config(inbound=listeners), folder) as running:
            yield running


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed_and_has_its_identity(
    sidecar: Ambassador, authority: Authority, version: ssl.TLSVersion
) -> None:
    web = authority.issue(spiffe="spiffe://example.org/web")
    client = Client(client_context(authority, web, version=version))
    before = sidecar.metric("tls_sessions_total", direction="inbound", resumed="true")

    answers = [
        (client.get(sidecar.listener("inbound", "one"))[:12], client.reused) for _ in range(4)
    ]

    assert answers == [(b"HTTP/1.1 200", False)] + [(b"HTTP/1.1 200", True)] * 3
    assert sidecar.metric("tls_sessions_total", direction="inbound", resumed="true") == before + 3
    assert sidecar.wait_for_record(peer="spiffe://example.org/web", status=200)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_denied_peer_is_denied_again_when_it_resumes(
    sidecar: Ambassador, authority: Authority, version: ssl.TLSVersion
) -> None:
    """The issue: resumed sessions are judged like full ones."""
    client = Client(
        client_context(authority, authority.issue(spiffe="spiffe://example.org/x"), version=version)
    )

    answers = [
        (client.get(sidecar.listener("inbound", "one"))[:12], client.reused) for _ in range(2)
    ]

    assert answers == [(b"HTTP/1.1 403", False), (b"HTTP/1.1 403", True)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_of_one_listener_is_a_full_handshake_at_another(
    sidecar: Ambassador, authority: Authority, version: ssl.TLSVersion
) -> None:
    """Threat C2."""
    web = authority.issue(spiffe="spiffe://example.org/web")
    client = Client(client_context(authority, web, version=version))
    client.get(sidecar.listener("inbound", "one"))

    answer = client.get(sidecar.listener("inbound", "two"))

    assert answer.startswith(b"HTTP/1.1 200")
    assert client.reused is False


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_ends_with_its_certificate(
    sidecar: Ambassador, authority: Authority, version: ssl.TLSVersion
) -> None:
    """Threat C1: t0 full, t1 expired, t2 resumed: refused."""
    lives_s = 2.5
    brief = authority.issue(spiffe="spiffe://example.org/brief", end_days=lives_s / 86400)
    client = Client(client_context(authority, brief, version=version))
    assert client.get(sidecar.listener("inbound", "one")).startswith(b"HTTP/1.1 200")
    time.sleep(max(0.0, brief.certificate.not_valid_after_utc.timestamp() - time.time()) + 1.05)

    try:
        answer = client.get(sidecar.listener("inbound", "one"))
    except OSError:
        answer = b""

    assert answer == b""
    assert sidecar.wait_for_event("handshake_refused", reason="expired")


def test_a_reload_ends_all_sessions(authority: Authority, app: App, tmp_path: Path) -> None:
    """House §7, Rotation: a new context refuses the old one's tickets."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(inbound=shop.inbound(app.port, [web]))
    with running_ambassador(config, tmp_path) as sidecar:
        client = Client(client_context(authority, web.identity))
        client.get(sidecar.inbound)
        client.get(sidecar.inbound)
        assert client.reused
        sidecar.reload()
        sidecar.wait_for_event("credentials_reloaded")

        assert client.get(sidecar.inbound).startswith(b"HTTP/1.1 200")
        assert client.reused is False


def test_no_session_lifetime_means_no_sessions(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(inbound=shop.inbound(app.port, [web]), tls={"session_lifetime": "none"})
    with running_ambassador(config, tmp_path) as sidecar:
        for version in VERSIONS:
            client = Client(client_context(authority, web.identity, version=version))
            for _ in range(2):
                assert client.get(sidecar.inbound).startswith(b"HTTP/1.1 200")
                assert client.reused is False
