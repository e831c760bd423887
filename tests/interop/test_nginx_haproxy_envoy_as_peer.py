"""nginx, HAProxy and Envoy as mTLS servers behind our outbound listener, an application behind each of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.foreign import (
    LARGE,
    Application,
    Credentials,
    Program,
    credentials,
    digest,
    envoy,
    envoy_cluster,
    envoy_listener,
    envoy_tls,
    haproxy,
    nginx,
)
from tests.support.peers import PeerConnection, connect
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, Pod, running_ambassador

pytestmark = pytest.mark.interop

KINDS = ("nginx", "haproxy", "envoy")
BIG = os.urandom(3_000_017)


@dataclass
class Peer:
    """A foreign server, by the name of its service; every response of it names its downstream connection."""

    kind: str
    program: Program
    app: Application


@dataclass
class Ports:
    """The port of each peer, and of the application behind all of them."""

    nginx: int
    haproxy: int
    envoy: int

    def services(self) -> Config:
        """Give the services section."""
        return {
            kind: {
                "endpoints": [f"127.0.0.1:{getattr(self, kind)}"],
                "peer": {"spiffe": "spiffe://example.org/peer"},
                "server_name": "peer.example.org",
                "connect_timeout": "10s",
            }
            for kind in KINDS
        }


def start(kind: str, folder: Path, port: int, app: int, files: Credentials) -> Program:
    """Start the peer of this kind."""
    if kind == "nginx":
        return nginx(
            folder,
            f"""
            upstream app {{ server 127.0.0.1:{app}; keepalive 4; }}
            server {{
              listen 127.0.0.1:{port} ssl;
              ssl_certificate {files.certificate}; ssl_certificate_key {files.key};
              ssl_client_certificate {files.trusted}; ssl_verify_client on;
              client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
              proxy_set_header Connection ""; add_header X-Connection $remote_port always;
              location / {{ proxy_pass http://app; }}
              location = /once {{ keepalive_timeout 0; return 200 once; }}
            }}""",
            ports=[port],
        )
    if kind == "haproxy":
        return haproxy(
            folder,
            f"""
frontend peer
  bind 127.0.0.1:{port} ssl crt {files.both} ca-file {files.trusted} verify required alpn http/1.1
  http-request early-hint Link "</style.css>; rel=preload" if {{ path /hinted }}
  http-request return status 200 hdr Connection close content-type text/plain string once if {{ path /once }}
  http-after-response set-header X-Connection %[src_port]
  default_backend app
backend app
  server app 127.0.0.1:{app}
""",
            ports=[port],
        )
    peer = envoy_listener(
        port,
        "app",
        tls=envoy_tls("DownstreamTlsContext", files, require_client_certificate=True),
        host={
            "response_headers_to_add": [
                {"header": {"key": "X-Connection", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}}
            ]
        },
        http_protocol_options={"enable_trailers": True},
        proxy_100_continue=True,
    )
    trailers = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    }
    behind = envoy_cluster("app", app, typed_extension_protocol_options=trailers)
    return envoy(folder, [peer], [behind], ports=[port])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports(reserve_port(), reserve_port(), reserve_port())


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def peer(
    request: pytest.FixtureRequest,
    folder: Path,
    ports: Ports,
    app: Application,
    authority: Authority,
) -> Iterator[Peer]:
    """Each of the three, one after the other."""
    kind = request.param
    files = credentials(folder / f"{kind}-files", authority, "peer")
    program = start(kind, folder / kind, getattr(ports, kind), app.port, files)
    with program:
        yield Peer(kind, program, app)


@pytest.fixture(scope="module")
def sidecar(folder: Path, ports: Ports, authority: Authority) -> Iterator[Ambassador]:
    """Our outbound listener with a service for each peer."""
    config = Pod("web", authority, folder).config(services=ports.services())
    with running_ambassador(config, folder) as running:
        yield running


@pytest.fixture(scope="module")
def unknown(
    folder: Path, ports: Ports, authority: Authority, stranger: Authority
) -> Iterator[Ambassador]:
    """A sidecar whose certificate comes from a CA that no peer knows."""
    credentials(folder / "unknown", stranger, "web", trusts=authority)
    config: Config = {
        "version": 1,
        "identity": {"directory": str(folder / "unknown")},
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": ports.services(),
    }
    with running_ambassador(config, folder) as running:
        yield running


@pytest.fixture
def client(peer: Peer, sidecar: Ambassador) -> Iterator[http.client.HTTPConnection]:
    """A client of the sidecar whose requests go to the peer."""
    peer.app.requests.clear()
    connection = client_of(sidecar)
    yield connection
    connection.close()


@pytest.fixture
def raw(peer: Peer, sidecar: Ambassador) -> Iterator[PeerConnection]:
    """A client that sends bytes as they are."""
    peer.app.requests.clear()
    with connect(sidecar.outbound) as connection:
        yield connection


def client_of(sidecar: Ambassador) -> http.client.HTTPConnection:
    host, port = sidecar.outbound
    return http.client.HTTPConnection(str(host), int(port), timeout=20)


def ask(
    client: http.client.HTTPConnection,
    peer: Peer,
    target: str,
    *,
    method: str = "GET",
    body: object = None,
    **fields: str,
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request to the peer; give response and body.

    An early answer ends the sending (RFC 9112 §9.5), which http.client does not look for: the answer is there.
    """
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.request(method, target, body, headers={"Host": peer.kind, **fields})  # type: ignore[arg-type]
    response = client.getresponse()
    return response, response.read()


def test_a_get_reaches_the_application_behind_the_peer(
    client: http.client.HTTPConnection, peer: Peer, sidecar: Ambassador
) -> None:
    """RFC 9110 §9.3.1; the record is that of one good exchange."""
    response, body = ask(client, peer, "/first?a=%20b")

    assert (response.status, body) == (200, b"hello")
    assert peer.app.request("/first?a=%20b").method == b"GET"
    record = sidecar.wait_for_record(service=peer.kind, path="/first")
    assert (record["flags"], record["attempts"], record["status"]) == ("-", 1, 200)


def test_a_big_body_of_known_length_arrives_whole(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """RFC 9112 §6.3."""
    response, body = ask(client, peer, "/digest", method="POST", body=BIG)

    assert (response.status, body) == (200, digest(BIG))


def test_a_big_chunked_body_arrives_whole(client: http.client.HTTPConnection, peer: Peer) -> None:
    """RFC 9112 §7.1."""
    pieces = (BIG[at : at + 33_333] for at in range(0, len(BIG), 33_333))
    response, body = ask(client, peer, "/digest", method="POST", body=pieces)

    assert (response.status, body) == (200, digest(BIG))


def test_empty_bodies_arrive_as_empty(client: http.client.HTTPConnection, peer: Peer) -> None:
    """RFC 9110 §8.6: a POST without content has Content-Length 0."""
    for body in (b"", iter(())):
        response, answer = ask(client, peer, "/digest", method="POST", body=body)

        assert (response.status, answer) == (200, digest(b""))


def test_chunked_and_large_responses_arrive_whole(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """RFC 9112 §7.1."""
    expected = {"/chunked": b"one,two,three", "/large": LARGE, "/large-chunked": LARGE}

    for target, content in expected.items():
        response, body = ask(client, peer, target)
        assert response.status == 200
        assert body == content


def test_a_response_that_its_end_frames_arrives_whole(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """RFC 9112 §6.3, 8."""
    response, body = ask(client, peer, "/until-eof")

    assert (response.status, body) == (200, b"to the end")


def test_responses_without_content_leave_the_connection_in_step(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """RFC 9112 §6.3: HEAD, 204 and 304 end with their head, whatever their fields say."""
    head, nothing = ask(client, peer, "/hello", method="HEAD")
    assert (head.status, head.headers["Content-Length"], nothing) == (200, "5", b"")
    for target, status in (("/204", 204), ("/304", 304)):
        response, body = ask(client, peer, target)
        assert (response.status, body) == (status, b"")

    assert ask(client, peer, "/hello")[1] == b"hello"


def test_one_connection_to_the_peer_carries_many_requests(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """RFC 9112 §9.3: keep-alive, also across the app's own connections."""
    seen = {ask(client, peer, "/hello")[0].headers["X-Connection"] for _ in range(20)}
    client.close()
    seen |= {ask(client, peer, "/echo", method="POST", body=b"x")[0].headers["X-Connection"]}

    assert len(seen) == 1


@pytest.mark.parametrize("peer", ["nginx", "haproxy"], indirect=True, scope="module")
def test_a_peer_that_closes_after_its_response_gets_a_new_connection(
    client: http.client.HTTPConnection, peer: Peer, sidecar: Ambassador
) -> None:
    """RFC 9112 §9.6: `Connection: close` ends the connection behind us, not the one before us."""
    local = None
    for _ in range(5):
        response, body = ask(client, peer, "/once")
        assert (response.status, body) == (200, b"once")
        local = local or client.sock.getsockname()
        assert client.sock is not None
        assert client.sock.getsockname() == local

    assert ask(client, peer, "/hello")[1] == b"hello"


def test_a_client_that_waits_for_100_gets_it_from_the_peer(raw: PeerConnection, peer: Peer) -> None:
    """RFC 9110 §10.1.1: nothing of the body is sent before."""
    raw.send(
        b"POST /digest HTTP/1.1\r\nHost: %b\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
        % peer.kind.encode()
    )
    interim = raw.read_until(b"\r\n\r\n")
    raw.send(b"waited")

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert raw.read_message().endswith(b"\r\n\r\n" + digest(b"waited"))


def test_a_body_that_does_not_wait_for_100_is_taken_all_the_same(
    raw: PeerConnection, peer: Peer
) -> None:
    """RFC 9110 §10.1.1: a client need not wait for ever."""
    raw.send(
        b"POST /digest HTTP/1.1\r\nHost: %b\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\neager"
        % peer.kind.encode()
    )
    answer = raw.read_message()
    if answer.startswith(b"HTTP/1.1 100 "):
        answer = raw.read_message()

    assert answer.endswith(b"\r\n\r\n" + digest(b"eager"))


@pytest.mark.parametrize("peer", ["haproxy"], indirect=True, scope="module")
def test_early_hints_of_a_peer_go_on(raw: PeerConnection, peer: Peer) -> None:
    """RFC 9110 §15.2: a proxy forwards 1xx; RFC 8297."""
    raw.send(b"GET /hinted HTTP/1.1\r\nHost: haproxy\r\n\r\n")
    interim, final = raw.read_until(b"\r\n\r\n"), raw.read_message()

    assert interim.startswith(b"HTTP/1.1 103 ")
    assert b"</style.css>; rel=preload" in interim
    assert final.startswith(b"HTTP/1.1 200 ")
    assert final.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("peer", ["haproxy", "envoy"], indirect=True, scope="module")
def test_trailers_of_a_peer_go_on(raw: PeerConnection, peer: Peer) -> None:
    """RFC 9112 §7.1.2."""
    raw.send(b"GET /trailers HTTP/1.1\r\nHost: %b\r\nTE: trailers\r\n\r\n" % peer.kind.encode())

    assert raw.read_message().lower().endswith(b"\r\n0\r\nx-sum: 7\r\n\r\n")


def test_pipelined_requests_are_answered_in_order(raw: PeerConnection, peer: Peer) -> None:
    """RFC 9112 §9.3.2."""
    bodies = [b"first", b"second", b"third"]
    raw.send(
        b"".join(
            b"POST /echo HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (peer.kind.encode(), len(body), body)
            for body in bodies
        )
    )

    assert [raw.read_message().partition(b"\r\n\r\n")[2] for _ in bodies] == bodies


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_of_the_peer_between_two_requests_fails_none(
    client: http.client.HTTPConnection, peer: Peer, end: str
) -> None:
    """RFC 9112 §9.3.1: the pooled connection is stale, seen or repeated."""
    for _ in range(3):
        assert ask(client, peer, "/hello")[0].status == 200
        getattr(peer.program, end)()
        peer.program.restart()
        response, body = ask(client, peer, "/hello")

        assert (response.status, body) == (200, b"hello")


def test_a_peer_that_is_down_is_named_and_back_at_once_when_it_is_up(
    client: http.client.HTTPConnection, peer: Peer
) -> None:
    """House §4: ConnectFailed, UF."""
    peer.program.stop()
    down, _ = ask(client, peer, "/hello")
    peer.program.restart()
    up, _ = ask(client, peer, "/hello")

    assert (
        down.status,
        down.headers["X-Ambassador-Flags"],
        down.headers["X-Ambassador-Detail"],
    ) == (
        503,
        "UF",
        "connect_refused",
    )
    assert up.status == 200


@pytest.mark.parametrize("peer", ["haproxy", "envoy"], indirect=True, scope="module")
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"small"), ("POST", BIG)])
def test_a_peer_that_refuses_our_certificate_is_reported_as_exactly_that(
    peer: Peer, unknown: Ambassador, method: str, body: bytes | None
) -> None:
    """RFC 8446 §4.6.2: with TLS 1.3 the refusal is the first thing that a client reads, however much it writes."""
    peer.app.requests.clear()
    for _ in range(3):
        with contextlib.closing(client_of(unknown)) as client:
            response, sentence = ask(client, peer, "/hello", method=method, body=body)
        words = response.headers["X-Ambassador-Flags"], response.headers["X-Ambassador-Detail"]

        assert (response.status, *words) == (503, "UF", "peer_refused_us"), sentence
    assert peer.app.requests == []


@pytest.mark.parametrize("peer", ["nginx"], indirect=True, scope="module")
def test_nginx_answers_a_certificate_that_it_does_not_know_with_its_own_400(
    peer: Peer, unknown: Ambassador
) -> None:
    """nginx completes the handshake and refuses afterwards; its answer reaches the app."""
    for method in ("GET", "POST"):
        with contextlib.closing(client_of(unknown)) as client:
            response, body = ask(client, peer, "/hello", method=method)

        assert response.status == 400
        assert b"The SSL certificate error" in body
        assert "X-Ambassador-Flags" not in response.headers


def test_a_peer_of_another_identity_gets_no_byte_of_the_request(
    peer: Peer, folder: Path, ports: Ports, authority: Authority
) -> None:
    """Issue: the expected identity is checked before the first byte leaves."""
    services = ports.services()
    services[peer.kind]["peer"] = {"spiffe": "spiffe://example.org/other"}
    peer.app.requests.clear()

    with running_ambassador(
        Pod("web", authority, folder / "w").config(services=services), folder
    ) as running:
        client = client_of(running)
        response, _ = ask(client, peer, "/hello")
        client.close()

    assert (response.status, response.headers["X-Ambassador-Detail"]) == (503, "wrong_peer")
    assert peer.app.requests == []


def test_an_upload_that_the_app_cuts_is_cut_behind_the_peer_too(
    peer: Peer, sidecar: Ambassador
) -> None:
    """House §7: truncation stays truncation; the next request is not mixed with it."""
    with connect(sidecar.outbound) as half:
        half.send(
            b"POST /digest HTTP/1.1\r\nHost: %b\r\nContent-Length: 1000\r\n\r\nabc"
            % peer.kind.encode()
        )
        half.sock.shutdown(socket.SHUT_RDWR)
    sidecar.wait_for_record(service=peer.kind, path="/digest", flags="DC")
    client = client_of(sidecar)
    response, body = ask(client, peer, "/hello")
    client.close()

    assert (response.status, body) == (200, b"hello")
