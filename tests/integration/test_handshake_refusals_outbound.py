"""The outbound side: whom we refuse, who refuses us, and what the local app is told; nothing is sent before."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Issued, server_context
from tests.support.invariants import assert_idle
from tests.support.peers import (
    App,
    PeerConnection,
    ScriptedPeer,
    connect,
    exchange,
    parse_response,
    request,
    send_raw,
)
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, Pod, running_ambassador
from tests.support.waiting import eventually

PEER = "spiffe://example.org/peer"
GET = request("/secret", "Connection: close", host="peer")


def _config(pod: Pod, port: int, **more: object) -> Config:
    service = {"endpoints": [f"127.0.0.1:{port}"], "peer": {"spiffe": PEER}, **more}
    return pod.config(services={"peer": service})


def _answer(sidecar: Ambassador) -> tuple[int, str, str, bytes]:
    """Give status, flag, detail and sentence of the local reply."""
    status, fields, body = parse_response(send_raw(sidecar.outbound, GET))
    flag = fields.get(b"x-ambassador-flags", b"").decode()
    return status, flag, fields.get(b"x-ambassador-detail", b"").decode(), body


def _server_certificate(case: str, authority: Authority, stranger: Authority) -> Issued:
    match case:
        case "wrong_peer":
            return authority.issue(spiffe="spiffe://example.org/other")
        case "expired":
            return authority.issue(spiffe=PEER, begin_days=-2, end_days=-1)
        case "not_yet_valid":
            return authority.issue(spiffe=PEER, begin_days=1, end_days=2)
        case "unknown_issuer":
            return Authority("unheard of").issue(spiffe=PEER)
        case "bad_purpose":
            return authority.issue(spiffe=PEER, extended_key_usage=["client"])
    raise AssertionError(case)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "case", ["wrong_peer", "expired", "not_yet_valid", "unknown_issuer", "bad_purpose"]
)
def test_a_bad_server_certificate_is_503_with_its_reason_and_gets_no_byte(
    authority: Authority, stranger: Authority, tmp_path: Path, case: str, version: ssl.TLSVersion
) -> None:
    """House §4: ConnectFailed, UF, 503; the sentence is for the local app."""
    received: list[bytes] = []

    def keep(connection: PeerConnection) -> None:
        while data := connection._io.recv(65536):
            received.append(data)

    pod = Pod("web", authority, tmp_path)
    context = server_context(
        authority, _server_certificate(case, authority, stranger), version=version
    )
    with (
        ScriptedPeer(keep, tls=context) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, flag, detail, sentence = _answer(sidecar)

        assert (status, flag, detail) == (503, "UF", case)
        assert sentence.strip()
        assert sidecar.metric("handshakes_total", direction="outbound", reason=case) == 1
        record = sidecar.wait_for_record(flags="UF")
        assert (record["detail"], record["phase"]) == (case, "connect")
        assert_idle(sidecar)
    assert received == []


def test_a_wrong_peer_is_said_in_words(authority: Authority, tmp_path: Path) -> None:
    pod = Pod("web", authority, tmp_path)
    other = authority.issue(spiffe="spiffe://example.org/other")
    with (
        App(tls=server_context(authority, other)) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        sentence = _answer(sidecar)[3].decode()

    assert f"expected {PEER}, spiffe://example.org/other answered" in sentence
    assert server.requests == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_refuses_us_is_reported_as_exactly_that(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """RFC 8446 §4.6.2: on TLS 1.3 it refuses our certificate only on the first read."""
    pod = Pod("web", authority, tmp_path)
    peer = authority.issue(spiffe=PEER)
    context = server_context(Authority("others"), peer, version=version)
    with (
        ScriptedPeer(lambda _: None, tls=context) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, flag, detail, sentence = _answer(sidecar)

        assert (status, flag, detail) == (503, "UF", "peer_refused_us")
        assert b"unknown_ca" in sentence or b"refuse" in sentence
        assert sidecar.wait_for_record(flags="UF")["attempts"] == 1, "it would refuse again"
        assert_idle(sidecar)


def test_another_sidecar_that_refuses_us_is_reported_too(
    authority: Authority, stranger: Authority, app: App, tmp_path: Path
) -> None:
    """Two of ours: the alert must survive although our request was already on its way."""
    shop = Pod("peer", authority, tmp_path)
    web = Pod("web", authority, tmp_path)
    (shop.folder / "ca.crt").write_bytes(Authority("others").pem)
    with (
        running_ambassador(shop.config(inbound=shop.inbound(app.port)), tmp_path) as server,
        running_ambassador(_config(web, shop.port), tmp_path) as sidecar,
    ):
        for _ in range(10):
            assert _answer(sidecar)[:3] == (503, "UF", "peer_refused_us")
        server.wait_for_event("handshake_refused", reason="unknown_issuer")


def test_a_peer_that_answers_in_clear_is_not_tls(authority: Authority, tmp_path: Path) -> None:
    """Threat D1: plaintext is never taken as a response."""

    def in_clear(connection: PeerConnection) -> None:
        connection.sock.recv(65536)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        connection.read_to_end()

    pod = Pod("web", authority, tmp_path)
    with (
        ScriptedPeer(in_clear) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, flag, detail, body = _answer(sidecar)

    assert (status, flag, detail) == (503, "UF", "not_tls")
    assert b"evil" not in body


def test_plaintext_in_front_of_the_handshake_is_not_data(
    authority: Authority, tmp_path: Path
) -> None:
    """Threat D1, nginx CVE-2026-1642: what an attacker injects before the handshake."""

    def inject(connection: PeerConnection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        connection.read_to_end()

    pod = Pod("web", authority, tmp_path)
    with (
        ScriptedPeer(inject) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, flag, _, body = _answer(sidecar)

    assert (status, flag) == (503, "UF")
    assert b"evil" not in body


def test_a_silent_peer_is_a_handshake_timeout(authority: Authority, tmp_path: Path) -> None:
    pod = Pod("web", authority, tmp_path)
    with ScriptedPeer(lambda connection: connection.read_to_end() and None) as server:
        config = _config(pod, server.port, connect_timeout="200ms")
        with running_ambassador(config, tmp_path) as sidecar:
            assert _answer(sidecar)[:3] == (503, "UF", "handshake_timeout")
            assert sidecar.metric("handshakes_total", reason="handshake_timeout") == 1
            assert_idle(sidecar)


def test_a_refused_connection(authority: Authority, tmp_path: Path) -> None:
    pod = Pod("web", authority, tmp_path)
    with running_ambassador(_config(pod, reserve_port()), tmp_path) as sidecar:
        answer = _answer(sidecar)
        assert answer[:3] == (503, "UF", "connect_refused")
        assert answer[3].endswith(b": connection refused\n"), (
            "the address once, in the system's words"
        )


def test_a_connect_timeout(authority: Authority, tmp_path: Path) -> None:
    """A listener whose queue is full answers no SYN."""
    pod = Pod("web", authority, tmp_path)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        config = _config(pod, full.getsockname()[1], connect_timeout="200ms")
        with running_ambassador(config, tmp_path) as sidecar:
            assert _answer(sidecar)[:3] == (503, "UF", "connect_timeout")
        for filler in fillers:
            filler.close()


def test_a_peer_that_closes_in_the_handshake(authority: Authority, tmp_path: Path) -> None:
    pod = Pod("web", authority, tmp_path)
    with (
        ScriptedPeer(lambda connection: None) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, flag, detail, _ = _answer(sidecar)

    assert (status, flag) == (503, "UF")
    assert detail in {"closed", "reset"}


def test_old_versions_and_protocols_of_a_peer_are_refused(
    authority: Authority, tmp_path: Path
) -> None:
    """Threat D2, from our side as a client."""
    pod = Pod("web", authority, tmp_path)
    context = server_context(authority, authority.issue(spiffe=PEER), alpn=["h2"])
    with (
        App(tls=context) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        status, _, detail, _ = _answer(sidecar)

    # A server without a common protocol may go on without one (RFC 7301 §3.2 asks it to refuse; Python's goes on).
    assert (status, detail) in {(200, ""), (503, "no_application_protocol")}


def test_the_next_endpoint_is_tried_after_a_refusal(authority: Authority, tmp_path: Path) -> None:
    """The issue: the next endpoint after a failed connect, a wrong peer included."""
    pod = Pod("web", authority, tmp_path)
    wrong = server_context(authority, authority.issue(spiffe="spiffe://example.org/other"))
    right = server_context(authority, authority.issue(spiffe=PEER))
    with App(tls=wrong) as bad, App(tls=right) as good:
        config = _config(
            pod,
            0,
            endpoints=[f"127.0.0.1:{bad.port}", f"127.0.0.1:{good.port}"],
            balance="round_robin",
        )
        with running_ambassador(config, tmp_path) as sidecar:
            for _ in range(4):
                assert exchange(sidecar.outbound, GET).startswith(b"HTTP/1.1 200 ")

    assert bad.requests == []
    assert len(good.requests) == 4


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_and_judged_again(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """The issue: sessions are resumed; threat C1: each is judged like a full one."""
    pod = Pod("web", authority, tmp_path)
    context = server_context(authority, authority.issue(spiffe=PEER), version=version)
    with (
        App(
            lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            tls=context,
        ) as server,
        running_ambassador(_config(pod, server.port), tmp_path) as sidecar,
    ):
        for _ in range(4):
            assert exchange(sidecar.outbound, GET).startswith(b"HTTP/1.1 200 ")
            eventually(lambda: sidecar.metric("upstream_connections") == 0, "closed")

        assert sidecar.metric("tls_sessions_total", resumed="true") >= 3
        assert sidecar.metric("handshakes_total", direction="outbound", result="ok") == 4


def test_a_client_that_leaves_while_we_dial_leaves_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    """Threat E9."""
    release = threading.Event()

    def late(connection: PeerConnection) -> None:
        assert release.wait(10)

    pod = Pod("web", authority, tmp_path)
    with ScriptedPeer(late) as server:
        config = _config(pod, server.port, connect_timeout="500ms")
        with running_ambassador(config, tmp_path) as sidecar:
            for number in range(1, 6):
                client = connect(sidecar.outbound)
                client.send(GET)
                server.wait_for_connection(number)
                client.reset()

            sidecar.wait_for_records(5)
            assert {record["flags"] for record in sidecar.records} == {"DC"}
            eventually(lambda: sidecar.metric("handshakes_total", result="refused") == 5, "ended")
            assert_idle(sidecar)
            release.set()
