"""Every handshake that the inbound listener refuses: what the peer sees, the reason in event and metric."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from OpenSSL import SSL

from tests.support.certificates import Authority, Issued, client_context
from tests.support.handshakes import foreign_client
from tests.support.peers import (
    App,
    PeerConnection,
    TlsSocket,
    connect,
    exchange,
    parse_response,
    request,
    send_raw,
)
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(60)

GOOD = request("/", "Connection: close")
WEB = "spiffe://example.org/web"


@pytest.fixture(scope="module")
def app_() -> Iterator[App]:
    with App() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(
    authority: Authority, app_: App, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ambassador]:
    """One sidecar for the whole file: each refusal must leave it as it was."""
    folder = tmp_path_factory.mktemp("refusals")
    pod = Pod("shop", authority, folder)
    inbound = pod.inbound(app_.port, [{"spiffe": WEB}], handshake_timeout="700ms")
    with running_ambassador(pod.config(inbound=inbound), folder, "asyncio") as running:
        yield running


@pytest.fixture(scope="module")
def web(authority: Authority) -> Issued:
    return authority.issue(spiffe=WEB)


def _refused(sidecar: Ambassador, reason: str) -> float:
    return sidecar.metric("handshakes_total", direction="inbound", result="refused", reason=reason)


_ODDITIES: dict[str, dict[str, Any]] = {
    "expired": {"begin_days": -2, "end_days": -1},
    "not_yet_valid": {"begin_days": 1, "end_days": 2},
    "bad_purpose": {"extended_key_usage": ["server"]},
    "several_uri_sans": {"uris": ["spiffe://example.org/admin"]},
    "svid_may_sign": {"is_ca": True, "key_usage": ["digital_signature", "key_cert_sign"]},
}


def _certificate(case: str, authority: Authority, stranger: Authority) -> Issued | None:
    if case == "no_certificate":
        return None
    if case == "unknown_issuer":
        return stranger.issue(spiffe=WEB)
    return authority.issue(spiffe=WEB, **_ODDITIES[case])


def _alert_or_end(sidecar: Ambassador, context: ssl.SSLContext) -> str:
    """Give the alert that a client gets, in the handshake or (TLS 1.3) with its first read."""
    try:
        return send_raw(sidecar.inbound, GOOD, context).decode()
    except ssl.SSLError as error:
        return str(error.reason)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("case", "alert"),
    [
        ("no_certificate", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
        ("expired", "CERTIFICATE_EXPIRED"),
        ("not_yet_valid", "BAD_CERTIFICATE"),
        ("unknown_issuer", "UNKNOWN_CA|DECRYPT_ERROR"),
        ("bad_purpose", "UNSUPPORTED_CERTIFICATE"),
    ],
)
def test_a_bad_client_certificate_gets_its_alert_and_its_reason(
    sidecar: Ambassador,
    authority: Authority,
    stranger: Authority,
    case: str,
    alert: str,
    version: ssl.TLSVersion,
) -> None:
    """RFC 8446 §6.2: the alert names the kind and no more; event and metric have the word."""
    before = _refused(sidecar, case)
    context = client_context(authority, _certificate(case, authority, stranger), version=version)

    seen = _alert_or_end(sidecar, context)

    assert any(f"ALERT_{name}" in seen for name in alert.split("|")), seen
    eventually(lambda: _refused(sidecar, case) == before + 1, f"one {case}")
    event = sidecar.wait_for_event("handshake_refused", reason=case)
    assert event["listener"] == "inbound"
    assert event["peer_address"].startswith("127.0.0.1:")


def test_the_event_shows_what_was_presented(sidecar: Ambassador, authority: Authority) -> None:
    """The issue: address, SNI, subject, SANs, issuer and expiry as far as presented."""
    odd = authority.issue(
        uris=["https://example.org/seen"], dns=["seen.example.org"], cn="seen", end_days=-0.5
    )
    context = client_context(authority, odd)

    with pytest.raises(ssl.SSLError):
        send_raw(sidecar.inbound, GOOD, context, "sni.example.org")

    event = sidecar.wait_for_event("handshake_refused", reason="expired", sni="sni.example.org")
    assert event["subject"] == "CN=seen"
    assert event["sans"] == ["https://example.org/seen", "seen.example.org"] or any(
        "seen.example.org" in san for san in event["sans"]
    )
    assert event["issuer"] == "CN=test CA"
    assert event["not_after"] == pytest.approx(odd.certificate.not_valid_after_utc.timestamp())


@pytest.mark.parametrize("case", ["several_uri_sans", "svid_may_sign"])
def test_a_certificate_that_is_no_svid_never_reaches_the_app(
    sidecar: Ambassador, app_: App, authority: Authority, stranger: Authority, case: str
) -> None:
    """Threat B1, X509-SVID §2 and §4: refused in or after the handshake, under any rule."""
    seen_before = len(app_.requests)
    context = client_context(authority, _certificate(case, authority, stranger))

    try:
        answer = send_raw(sidecar.inbound, GOOD, context)
    except OSError:
        answer = b""

    assert answer == b"" or answer.startswith(b"HTTP/1.1 403 ")
    assert len(app_.requests) == seen_before


@pytest.mark.parametrize(
    "spiffe",
    [
        "spiffe://EXAMPLE.org/web",
        "spiffe://example.org/web/",
        "spiffe://example.org//web",
        "spiffe://example.org/./web",
        "spiffe://example.org/%77eb",
        "spiffe://example.org:443/web",
        "spiffe://user@example.org/web",
        "spiffe://example.org/web?x",
        "spiffe://example.org/web#x",
        "SPIFFE://example.org/web",
    ],
)
def test_a_spiffe_id_that_is_not_canonical_is_nobody(
    sidecar: Ambassador, app_: App, authority: Authority, spiffe: str
) -> None:
    """Threat B2, SPIFFE-ID §2."""
    seen_before = len(app_.requests)
    context = client_context(authority, authority.issue(spiffe=spiffe))

    try:
        answer = send_raw(sidecar.inbound, GOOD, context)
    except OSError:
        answer = b""

    assert answer == b"" or answer.startswith(b"HTTP/1.1 403 ")
    assert len(app_.requests) == seen_before


@pytest.mark.parametrize(
    "sent",
    [
        GOOD,
        b"G",
        b"POST / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1",
    ],
)
def test_plain_http_gets_a_short_text(sidecar: Ambassador, app_: App, sent: bytes) -> None:
    """Threat D1: the answer says what is wrong, and nothing of what was sent is a request."""
    seen_before, before = len(app_.requests), _refused(sidecar, "not_tls")

    answer = send_raw(sidecar.inbound, sent)

    status, fields, body = parse_response(answer)
    assert status == 400
    assert int(fields[b"content-length"]) == len(body)
    assert b"https" in body
    assert fields[b"connection"] == b"close"
    assert len(app_.requests) == seen_before
    eventually(lambda: _refused(sidecar, "not_tls") == before + 1, "one not_tls")
    sidecar.wait_for_event("handshake_refused", reason="not_tls")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 64,
        b"\xff" * 64,
        b"\x80\x2e\x01\x03\x01",
        b"\x17\x03\x03\x00\x02\x02\x28",
        b"\x16\x04\x01\x00\x05\x01\x00\x00\x01\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n",
        b"\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_what_is_neither_tls_nor_http_gets_an_alert(
    sidecar: Ambassador, sent: bytes, ends: bool
) -> None:
    """RFC 8446 §5, §6.2: unexpected_message for a record that is none, protocol_version for one of no version."""
    before = _refused(sidecar, "not_tls")
    with connect(sidecar.inbound) as connection:
        connection.send(sent)
        if ends:
            connection.half_close()
        answer = connection.read_to_end()

    assert answer in {b"\x15\x03\x03\x00\x02\x02\x0a", b"\x15\x03\x03\x00\x02\x02\x46"}
    eventually(lambda: _refused(sidecar, "not_tls") == before + 1, "one not_tls")


def test_a_broken_client_hello_gets_an_alert(sidecar: Ambassador) -> None:
    """RFC 8446 §6: a fatal alert, then the end."""
    before = _refused(sidecar, "malformed")

    answer = send_raw(sidecar.inbound, b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\xff\xff\xff\xff")

    assert answer[:1] == b"\x15"
    assert answer[5] == 2
    eventually(lambda: _refused(sidecar, "malformed") == before + 1, "one malformed")


def test_a_silent_handshake_ends_at_its_deadline(sidecar: Ambassador) -> None:
    """Threat E1."""
    before = _refused(sidecar, "timeout")

    with connect(sidecar.inbound) as connection:
        assert connection.is_ended()

    eventually(lambda: _refused(sidecar, "timeout") == before + 1, "one timeout")
    sidecar.wait_for_event("handshake_refused", reason="timeout")


def test_a_slow_handshake_ends_at_its_deadline_although_bytes_come(sidecar: Ambassador) -> None:
    """Threat E1: the deadline is total; a byte now and then buys nothing."""
    before = _refused(sidecar, "timeout")
    hello = _client_hello()

    with connect(sidecar.inbound) as connection:
        connection.sock.settimeout(0.02)
        with pytest.raises(ConnectionError):
            _drip(connection, hello)

    eventually(lambda: _refused(sidecar, "timeout") == before + 1, "one timeout")


def _drip(connection: PeerConnection, data: bytes) -> None:
    """Send a byte each time the other side has been silent for a while; ConnectionError when it ends."""
    for byte in data:
        connection.send(bytes([byte]))
        try:
            if not connection.sock.recv(1):
                raise BrokenPipeError
        except TimeoutError:
            continue


def test_a_handshake_in_single_bytes_succeeds(
    sidecar: Ambassador, authority: Authority, web: Issued
) -> None:
    class Dripping(socket.socket):
        def sendall(self, data: bytes, *_: object) -> None:  # type: ignore[override]
            for at in range(len(data)):
                super().sendall(data[at : at + 1])

    with Dripping(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(sidecar.inbound)  # type: ignore[arg-type]
        layer = TlsSocket(sock, client_context(authority, web))
        layer.sendall(GOOD)
        assert layer.recv(100).startswith(b"HTTP/1.1 200 ")


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def test_a_request_in_the_segment_of_the_finished_message_is_served(
    sidecar: Ambassador, authority: Authority, web: Issued
) -> None:
    """Threat D1, other side: bytes behind the handshake in one segment are a request like any other."""
    context = client_context(authority, web)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection(sidecar.inbound, timeout=10) as sock:  # type: ignore[arg-type]
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        while True:
            incoming.write(sock.recv(65536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        tls.write(GOOD)
        sock.sendall(outgoing.read())  # Certificate, Finished and the request at once
        while True:
            incoming.write(sock.recv(65536))
            try:
                answer = tls.read(65536)
            except ssl.SSLWantReadError:
                continue
            break

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("tail", [b"", b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"])
def test_plaintext_behind_a_client_hello_is_never_a_request(
    sidecar: Ambassador, app_: App, tail: bytes
) -> None:
    """Threat D1, CVE-2023-40217: what stands before the end of the handshake never reaches a parser."""
    seen_before = len(app_.requests)

    with connect(sidecar.inbound) as connection:
        connection.send(_client_hello() + tail)
        connection.half_close()
        with_alert = connection.read_to_end()

    assert b"HTTP/1.1 200" not in with_alert
    assert len(app_.requests) == seen_before


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_an_old_version_gets_protocol_version(
    sidecar: Ambassador, web: Issued, version: int
) -> None:
    """Threat D2; RFC 8446 §6.2 alert 70."""
    before = _refused(sidecar, "protocol_version")
    hello = bytearray(_old_hello(version))

    answer = send_raw(sidecar.inbound, bytes(hello))

    assert answer[0] == 0x15
    assert answer[5:7] == bytes([2, 70])
    eventually(lambda: _refused(sidecar, "protocol_version") == before + 1, "one more")


def _old_hello(version: int) -> bytes:
    """Spell a ClientHello of TLS 1.0 or 1.1 without extensions (RFC 4346 §7.4.1.2)."""
    number = version.to_bytes(2, "big")
    body = number + bytes(32) + b"\0" + b"\0\x04\xc0\x09\xc0\x13" + b"\x01\0"
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake


@pytest.mark.parametrize(
    "ciphers", [b"AES128-SHA", b"ECDHE-ECDSA-AES128-SHA", b"AES128-GCM-SHA256"]
)
def test_a_suite_without_forward_secrecy_or_aead_is_refused(
    sidecar: Ambassador, web: Issued, ciphers: bytes
) -> None:
    """Threat D2."""
    before = _refused(sidecar, "no_shared_cipher")
    context = foreign_client(web, version=SSL.TLS1_2_VERSION, ciphers=ciphers)

    with pytest.raises(SSL.Error):
        Dialled(sidecar, context)

    eventually(lambda: _refused(sidecar, "no_shared_cipher") == before + 1, "one more")


def test_no_overlap_of_application_protocols_is_refused(
    sidecar: Ambassador, authority: Authority, web: Issued
) -> None:
    """RFC 7301 §3.2: alert 120."""
    before = _refused(sidecar, "no_application_protocol")

    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        connect(sidecar.inbound, client_context(authority, web, alpn=["h2"]))

    eventually(lambda: _refused(sidecar, "no_application_protocol") == before + 1, "one more")


@pytest.mark.parametrize(
    ("offer", "chosen"), [([], None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1")]
)
def test_an_overlap_or_no_offer_is_served(
    sidecar: Ambassador, authority: Authority, web: Issued, offer: list[str], chosen: str | None
) -> None:
    with connect(sidecar.inbound, client_context(authority, web, alpn=offer)) as connection:
        connection.send(GOOD)
        assert connection.read_message().startswith(b"HTTP/1.1 200 ")
        assert connection.tls.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("name", ["EXAMPLE.org", "example.org.", "unknown", "127.0.0.1", "a" * 63])
def test_an_odd_server_name_changes_nothing(
    sidecar: Ambassador, authority: Authority, web: Issued, name: str
) -> None:
    """Threat C3: with a certificate served, without one refused."""
    good, bad = client_context(authority, web), client_context(authority)

    assert exchange(sidecar.inbound, GOOD, good, name).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ssl.SSLError):
        send_raw(sidecar.inbound, GOOD, bad, name)


def test_the_hybrid_group_is_used_when_offered(sidecar: Ambassador, web: Issued) -> None:
    """The issue: X25519MLKEM768 when the peer offers it, else what it has."""
    groups = {}
    for offer in (b"X25519MLKEM768:X25519", b"X25519:X25519MLKEM768", b"X25519", b"P-256"):
        with Dialled(sidecar, foreign_client(web, groups=offer)) as (sock, tls):
            groups[offer] = tls.get_group_name()
            del sock

    assert groups == {
        b"X25519MLKEM768:X25519": "X25519MLKEM768",
        b"X25519:X25519MLKEM768": "X25519MLKEM768",
        b"X25519": "x25519",
        b"P-256": "secp256r1",
    }


class Dialled:  # reads as a verb
    """A blocking pyOpenSSL client."""

    def __init__(self, sidecar: Ambassador, context: SSL.Context) -> None:
        self.sock = socket.create_connection(sidecar.inbound)  # type: ignore[arg-type]
        self.tls = SSL.Connection(context, self.sock)
        self.tls.set_connect_state()
        try:
            self.tls.do_handshake()
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> tuple[socket.socket, SSL.Connection]:
        return self.sock, self.tls

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def _handshake_and_read(tls: SSL.Connection) -> None:
    tls.do_handshake()
    tls.recv(1)


def test_renegotiation_is_refused(sidecar: Ambassador, web: Issued) -> None:
    """Threat D2; RFC 9325 §3.5: the connection ends or goes on without it, never with a new handshake."""
    before = sidecar.metric("handshakes_total", direction="inbound", result="ok")

    with Dialled(sidecar, foreign_client(web, version=SSL.TLS1_2_VERSION)) as (sock, tls):
        tls.renegotiate()
        with pytest.raises(SSL.Error):
            _handshake_and_read(tls)
        del sock

    assert sidecar.metric("handshakes_total", direction="inbound", result="ok") == before + 1


def test_a_flood_of_refusals_is_counted_whole_and_logged_in_part(
    sidecar: Ambassador, authority: Authority
) -> None:
    """Threat I7: at most ten events a second and reason, then a sum."""
    before = _refused(sidecar, "not_tls")

    for _ in range(60):
        send_raw(sidecar.inbound, b"GET / HTTP/1.1\r\n\r\n")

    eventually(lambda: _refused(sidecar, "not_tls") >= before + 60, "all counted")
    summed = sidecar.wait_for_event("handshakes_refused", reason="not_tls")
    assert summed["suppressed"] > 0
    assert sidecar.get("/ready")[0] == 200


def test_a_peer_that_connects_and_leaves_is_no_trouble(sidecar: Ambassador) -> None:
    for _ in range(5):
        connect(sidecar.inbound).close()
        connect(sidecar.inbound).reset()

    eventually(
        lambda: _refused(sidecar, "closed") + _refused(sidecar, "reset") >= 10, "all counted"
    )


def test_nothing_is_left_of_all_that(
    sidecar: Ambassador, authority: Authority, web: Issued
) -> None:
    """Whatever ran before in this file: the slots are free and the good peer is served."""
    assert exchange(sidecar.inbound, GOOD, client_context(authority, web)).startswith(
        b"HTTP/1.1 200"
    )
    eventually(lambda: sidecar.metric("connections", direction="inbound") == 0, "no connection")
