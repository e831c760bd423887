"""What a refused peer reads: the alert of its reason, whoever refuses, OpenSSL or our own judgement (RFC 8446 §6.2).

One sidecar has everything that can refuse after OpenSSL is content: bundles per trust domain and a revocation list
with grace. Its peers are the standard library's TLS, which tells the number of each alert that it reads.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from ambassador.identity import callbacks
from ambassador.identity.refusal import TlsRefused
from ambassador.identity.revocation import RevocationLists
from ambassador.identity.trust import FactsCache
from tests.support.certificates import (
    URI,
    Authority,
    Issued,
    client_context,
    server_context,
)
from tests.support.handshakes import foreign_client, part, shaking, store
from tests.support.peers import App, PeerConnection, ScriptedPeer, request, send_raw
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(60)

WEB = "spiffe://example.org/web"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
_ALERT_RECORD = 21
CLOSE_NOTIFY = 0
#: RFC 8446 §6: the numbers.
UNSUPPORTED, REVOKED, EXPIRED, UNKNOWN_CA, BAD = 43, 44, 45, 48, 42
ALERTS = {
    "": CLOSE_NOTIFY,  # a good one, so that the others prove something
    "expired": EXPIRED,
    "not_yet_valid": BAD,
    "unknown_issuer": UNKNOWN_CA,
    "revoked": REVOKED,
    "wrong_trust_domain": UNKNOWN_CA,
    "bad_purpose": UNSUPPORTED,
    "bad_purpose of a CA": UNSUPPORTED,
    "bad_issuer": UNKNOWN_CA,
    "bad_certificate": BAD,
    "crl_missing": UNKNOWN_CA,
}


class World:
    """Authorities, a certificate for each reason, and the identity section that refuses all but one of them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("ours")
        self.partner = Authority("theirs")
        self.pod = Pod("shop", self.authority, folder)
        forger = Authority("forger", parent=self.authority)
        leaf = self.authority.issue(cn="leaf", key_usage=["digital_signature", "key_cert_sign"])
        forger.private_key, forger.certificate = leaf.private_key, leaf.certificate  # type: ignore[assignment]
        issue = self.authority.issue
        self.certificates: dict[str, Issued] = {
            "": issue(spiffe=WEB),
            "expired": issue(spiffe=WEB, begin_days=-2, end_days=-1),
            "not_yet_valid": issue(spiffe=WEB, begin_days=1, end_days=2),
            "unknown_issuer": Authority("unheard of").issue(spiffe=WEB),
            "revoked": issue(spiffe=WEB),
            "wrong_trust_domain": self.partner.issue(spiffe=WEB),
            "bad_purpose": issue(spiffe=WEB, extended_key_usage=["code"]),
            "bad_purpose of a CA": issue(
                spiffe=WEB, is_ca=True, key_usage=["digital_signature", "key_cert_sign"]
            ),
            "bad_issuer": forger.issue(spiffe=WEB),
            "bad_certificate": issue(raw_sans=[(URI, b"spiffe://example.org/\xff\x80")]),
            "crl_missing": Authority("middle", parent=self.authority).issue(spiffe=WEB),
        }
        directory = self.pod.folder
        (directory / "partner.crt").write_bytes(self.partner.pem)
        (directory / "ca.crl").write_bytes(
            self.authority.revoke(self.certificates["revoked"]) + self.partner.revoke()
        )
        self.identity = {
            "certificate": str(directory / "tls.crt"),
            "private_key": str(directory / "tls.key"),
            "trust_bundle": {
                "example.org": str(directory / "ca.crt"),
                "partner.example": str(directory / "partner.crt"),
            },
            "crl": str(directory / "ca.crl"),
            "crl_grace": "1h",
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("alerts"))


@pytest.fixture(scope="module")
def sidecar(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ambassador]:
    with App() as app:
        inbound = world.pod.inbound(app.port, [{"spiffe": WEB}])
        config = {**world.pod.config(inbound=inbound), "identity": world.identity}
        with running_ambassador(config, tmp_path_factory.mktemp("sidecar")) as running:
            yield running


def record_alerts(context: ssl.SSLContext) -> list[int]:
    """Give a list that fills with the number of every alert that a connection of `context` reads."""
    read: list[int] = []

    def see(_: object, direction: str, _version: int, kind: int, _type: int, body: bytes) -> None:
        if direction == "read" and kind == _ALERT_RECORD:
            read.append(body[1])

    context._msg_callback = see  # type: ignore[attr-defined]
    return read


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", ALERTS)
def test_a_refused_client_reads_the_alert_of_its_reason(
    sidecar: Ambassador, world: World, case: str, version: ssl.TLSVersion
) -> None:
    """The issue: anything but plain HTTP gets a proper alert; RFC 8446 §4.4.2.4, RFC 5246 §7.2.2."""
    reason = case.partition(" ")[0]
    labels = {"direction": "inbound", "result": "refused", "reason": reason}
    before = sidecar.metric("handshakes_total", **labels)
    context = client_context(world.authority, world.certificates[case], version=version)
    alerts = record_alerts(context)

    with contextlib.suppress(ssl.SSLError):
        send_raw(sidecar.inbound, request("/", "Connection: close"), context)

    assert alerts == [ALERTS[case]]
    if case:
        eventually(
            lambda: sidecar.metric("handshakes_total", **labels) == before + 1, f"one {reason}"
        )
        event = sidecar.wait_for_event("handshake_refused", reason=reason)
        assert event["not_after"] > 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", [*(case for case in ALERTS if case), "wrong_peer"])
def test_a_refused_server_reads_the_alert_of_its_reason(
    world: World, tmp_path: Path, case: str, version: ssl.TLSVersion
) -> None:
    """The other direction: a verified stranger reads `bad_certificate`, all others as a client does."""
    issued = world.certificates["" if case == "wrong_peer" else case]
    wanted = "spiffe://example.org/somebody" if case == "wrong_peer" else WEB
    context = server_context(world.authority, issued, version=version)
    alerts = record_alerts(context)
    received: list[bytes] = []

    def keep(connection: PeerConnection) -> None:
        received.append(connection.read_to_end())

    with ScriptedPeer(keep, tls=context) as server:
        services = {"peer": {"endpoints": [f"127.0.0.1:{server.port}"], "peer": {"spiffe": wanted}}}
        config = {**world.pod.config(services=services), "identity": world.identity}
        with running_ambassador(config, tmp_path) as sidecar:
            answer = send_raw(sidecar.outbound, request("/", "Connection: close", host="peer"))
            eventually(lambda: alerts != [], "an alert at the server")

            reason = case.partition(" ")[0]
            assert sidecar.metric("handshakes_total", direction="outbound", reason=reason) == 1
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert alerts == [ALERTS.get(case, BAD)]
    assert b"".join(received) == b""


def test_a_resumed_session_that_is_refused_ends_with_close_notify(
    tmp_path: Path, authority: Authority
) -> None:
    """Threats C1: no verification runs, so OpenSSL has no alert to send; a bare end would look like truncation."""
    web = store(tmp_path / "web", authority.issue(spiffe=WEB), authority.pem).server("inbound", ())
    issued = authority.issue(spiffe=WEB)
    client = foreign_client(issued, version=SSL.TLS1_2_VERSION)
    with shaking(web, client) as first:
        session = first.client_connection.get_session()
        part(first)
    assert session is not None
    left, right = socket.socketpair()
    with left, right:
        accepting, dialling = web.new_connection(left), SSL.Connection(client, right)
        dialling.set_connect_state()
        dialling.set_session(session)
        drive(accepting, dialling)
        later = issued.certificate.not_valid_after_utc.timestamp() + 1

        with pytest.raises(TlsRefused) as caught:
            web.peer(accepting, later)
        left.close()

        assert (caught.value.reason, caught.value.detail) == ("expired", "resumed")
        with pytest.raises(SSL.ZeroReturnError):
            dialling.recv(1)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError])
def test_a_judgement_that_fails_refuses_with_internal_error(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    """Threats B8, CVE-2026-27448: a bug in the callback is a no, and says so."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem).server("inbound", ())

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FactsCache, "facts", fail)

    with shaking(web, foreign_client(authority.issue(spiffe=WEB))) as both:
        assert both.server.peer is None
        assert both.server.reason == "internal_error"
        with pytest.raises(SSL.Error) as caught:
            both.client_connection.recv(1)
        assert "internal error" in str(caught.value)


@pytest.mark.parametrize(
    "case",
    [
        "",
        "revoked",
        "wrong_trust_domain",
        "bad_purpose of a CA",
        "bad_certificate",
        "crl_missing",
    ],
)
def test_the_judgement_after_the_handshake_stands_on_its_own(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Threats C1, B8: were the callback never to ask us, `peer` would still refuse what only we see."""
    bundles = {"example.org": world.authority.pem, "partner.example": world.partner.pem}
    revoked = world.authority.revoke(world.certificates["revoked"]) + world.partner.revoke()
    own = world.authority.issue(spiffe=WEB)
    web = store(tmp_path, own, b"", bundles=bundles, crl=revoked, crl_grace_s=3600.0)
    monkeypatch.setattr(callbacks, "_on_verify", lambda ok, _: ok)

    with shaking(web.server("inbound", ()), foreign_client(world.certificates[case])) as both:
        assert both.server.reason == case.partition(" ")[0]
        assert (both.server.peer is None) == bool(case)


def test_revocation_is_asked_once_in_a_full_handshake(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It parses every certificate of the chain: CPU that each handshake pays."""
    asked: list[int] = []
    judge = RevocationLists.judge

    def count(lists: RevocationLists, chain: list[bytes], wall_now: float) -> str:
        asked.append(len(chain))
        return judge(lists, chain, wall_now)

    monkeypatch.setattr(RevocationLists, "judge", count)
    own = authority.issue(spiffe=WEB)
    web = store(tmp_path, own, authority.pem, crl=authority.revoke(), crl_grace_s=60.0)

    with shaking(web.server("inbound", ()), foreign_client(authority.issue(spiffe=WEB))) as both:
        assert both.server.peer is not None
    assert asked == [2]


def test_a_name_constraint_is_still_openssl_s_own_refusal(
    tmp_path: Path, authority: Authority
) -> None:
    """It comes after our look at the leaf; a yes of ours must not stand in its way (RFC 5280 §4.2.1.10)."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem).server("inbound", ())
    narrow = Authority("narrow", parent=authority)
    constraints = x509.NameConstraints([x509.DNSName("inside.example")], None)
    narrow.certificate = _with(narrow, authority, constraints)

    for name, reason in (("a.inside.example", ""), ("outside.example", "name_constraint")):
        with shaking(web, foreign_client(narrow.issue(dns=[name]))) as both:
            assert both.server.reason == reason
            assert (both.server.peer is None) == bool(reason)


def _with(
    intermediate: Authority, issuer: Authority, constraints: x509.NameConstraints
) -> x509.Certificate:
    """Give the certificate of an intermediate once more, with name constraints."""
    like = intermediate.certificate
    builder = x509.CertificateBuilder(
        like.issuer,
        like.subject,
        like.public_key(),
        like.serial_number,
        like.not_valid_before_utc,
        like.not_valid_after_utc,
    )
    for extension in like.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(constraints, critical=True)
    return builder.sign(issuer.private_key, hashes.SHA256())


def drive(server: SSL.Connection, client: SSL.Connection) -> None:
    """Finish a handshake over a socket pair."""
    for end in (server, client):
        end.setblocking(False)
    for _ in range(10):
        for end in (client, server):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
