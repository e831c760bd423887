"""TLS sessions of our outbound side, as nginx logs them: resumed where they can be, full where they must be."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.foreign import Program, credentials, nginx
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, Pod, running_ambassador
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

VERSIONS = ("TLSv1.2", "TLSv1.3")


@dataclass
class Peer:
    """An nginx per version, with the log in which it says for each request how its connection began."""

    program: Program
    log: Path
    ports: dict[str, int]
    seen: int = field(default=0)

    def lines(self, count: int) -> list[str]:
        """Give the next `count` lines of the log."""
        eventually(
            lambda: len(self.log.read_text().splitlines()) >= self.seen + count,
            f"{count} lines in {self.log.read_text()!r}",
        )
        lines = self.log.read_text().splitlines()[self.seen :]
        self.seen += count
        assert len(lines) == count, lines
        return lines


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("sessions")
    files = credentials(folder / "files", authority, "peer")
    ports = {version: reserve_port() for version in VERSIONS}
    log = folder / "sessions.log"
    servers = "".join(
        f"""server {{
          listen 127.0.0.1:{port} ssl; ssl_protocols {version}; access_log {log} sessions;
          ssl_certificate {files.certificate}; ssl_certificate_key {files.key};
          ssl_client_certificate {files.trusted}; ssl_verify_client on;
          location / {{ keepalive_timeout 0; return 200 $ssl_client_s_dn; }}
          location /kept {{ keepalive_requests 3; return 200 kept; }}
        }}"""
        for version, port in ports.items()
    )
    form = "log_format sessions '$ssl_protocol $ssl_session_reused $ssl_server_name $ssl_client_verify';"
    cache = "ssl_session_cache shared:tls:1m; ssl_session_timeout 5m;"
    with nginx(folder / "nginx", form + cache + servers, ports=list(ports.values())) as program:
        yield Peer(program, log, ports)


@pytest.fixture
def sidecar(tmp_path: Path, authority: Authority, peer: Peer) -> Iterator[Ambassador]:
    """A fresh one each time: it has no session yet."""
    with running_ambassador(config(tmp_path, authority, peer), tmp_path) as running:
        peer.seen = len(peer.log.read_text().splitlines())
        yield running


def config(folder: Path, authority: Authority, peer: Peer, **sections: object) -> Config:
    services = {
        name_of(version): {
            "endpoints": [f"127.0.0.1:{port}"],
            "peer": {"spiffe": "spiffe://example.org/peer"},
            "server_name": "peer.example.org",
        }
        for version, port in peer.ports.items()
    }
    return Pod("web", authority, folder).config(services=services, **sections)


def name_of(version: str) -> str:
    return version.lower().replace(".", "-")


def ask(sidecar: Ambassador, version: str, target: str = "/", times: int = 1) -> list[bytes]:
    """Send requests one after the other; give the bodies."""
    host, port = sidecar.outbound
    bodies = []
    with contextlib.closing(http.client.HTTPConnection(str(host), int(port), timeout=20)) as client:
        for _ in range(times):
            client.request("GET", target, headers={"Host": name_of(version)})
            response = client.getresponse()
            assert response.status == 200
            bodies.append(response.read())
    return bodies


@pytest.mark.parametrize("version", VERSIONS)
def test_the_second_connection_resumes_the_session_of_the_first(
    sidecar: Ambassador, peer: Peer, version: str
) -> None:
    """RFC 8446 §2.2, RFC 5077; issue: sessions are resumed, and nginx still knows who we are."""
    ask(sidecar, version, times=4)
    lines = peer.lines(4)

    assert lines[0] == f"{version} . peer.example.org SUCCESS"
    assert lines[1:] == [f"{version} r peer.example.org SUCCESS"] * 3
    assert sidecar.metric("tls_sessions_total", direction="outbound", resumed="true") == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_restarted_nginx_that_knows_no_session_gets_a_full_handshake(
    sidecar: Ambassador, peer: Peer, version: str
) -> None:
    """RFC 8446 §4.2.11: a server that cannot use the ticket goes on with a full handshake."""
    ask(sidecar, version, times=2)
    peer.program.restart()
    ask(sidecar, version, times=2)
    reused = [line.split()[1] for line in peer.lines(4)]

    assert reused == [".", "r", ".", "r"]


def test_sessions_are_not_kept_when_the_configuration_says_none(
    tmp_path: Path, authority: Authority, peer: Peer
) -> None:
    """Config tls.session_lifetime."""
    whole = config(tmp_path, authority, peer, tls={"session_lifetime": "none"})
    with running_ambassador(whole, tmp_path) as sidecar:
        peer.seen = len(peer.log.read_text().splitlines())
        for version in VERSIONS:
            ask(sidecar, version, times=3)
        reused = [line.split()[1] for line in peer.lines(6)]

    assert reused == ["."] * 6


def test_a_reload_of_our_certificate_resumes_nothing_of_the_old_one(
    tmp_path: Path, authority: Authority, peer: Peer
) -> None:
    """Threats C4: a resumed session would show the old identity."""
    whole = config(tmp_path, authority, peer)
    with running_ambassador(whole, tmp_path) as sidecar:
        peer.seen = len(peer.log.read_text().splitlines())
        ask(sidecar, "TLSv1.3", times=2)
        issued = authority.issue(spiffe="spiffe://example.org/web", cn="renewed")
        issued.write(tmp_path / "web", authority.pem)
        sidecar.reload()
        sidecar.wait_for_event("credentials_reloaded")
        names = ask(sidecar, "TLSv1.3", times=2)
        reused = [line.split()[1] for line in peer.lines(4)]

    assert reused == [".", "r", ".", "r"]
    assert names == [b"CN=renewed"] * 2


def test_a_limit_of_requests_per_connection_is_never_seen_by_the_app(
    sidecar: Ambassador, peer: Peer
) -> None:
    """RFC 9112 §9.6: nginx says `Connection: close` with every third response."""
    assert ask(sidecar, "TLSv1.3", "/kept", times=10) == [b"kept"] * 10
    reused = [line.split()[1] for line in peer.lines(10)]

    assert reused == ["."] * 3 + ["r"] * 7
