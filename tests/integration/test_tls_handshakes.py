"""Handshakes between our own server and client contexts, and with a foreign client, over a socket pair."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from OpenSSL import SSL

from ambassador.identity import callbacks, tls
from ambassador.policy.authorization import PeerPattern
from tests.support.certificates import Authority
from tests.support.handshakes import (
    Service,
    Tls,
    TodayClock,
    exchange,
    foreign_client,
    part,
    shaking,
    store,
)

WEB = "spiffe://example.org/web"
PAYMENTS = "spiffe://example.org/payments"
HTTP = ("http/1.1",)


def test_both_ends_learn_the_identity_of_the_other(tmp_path: Path, authority: Authority) -> None:
    """SPIFFE X509-SVID §5.2: validation gives the ID of the peer's leaf."""
    web = store(tmp_path / "web", authority.issue(spiffe=WEB, dns=["web"]), authority.pem)
    payments = store(tmp_path / "payments", authority.issue(spiffe=PAYMENTS), authority.pem)
    service = Service(peer=(PeerPattern("spiffe", PAYMENTS),), server_name="payments")

    with shaking(payments.server("inbound", HTTP), web.client(service)) as both:
        assert both.server.peer is not None
        assert both.client.peer is not None
        assert (both.server.peer.spiffe, both.server.peer.dns) == (WEB, ("web",))
        assert both.client.peer.spiffe == PAYMENTS


def test_a_handshake_is_hybrid_and_says_what_was_negotiated(
    tmp_path: Path, authority: Authority
) -> None:
    """House §1: X25519MLKEM768 wherever the peer knows it."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)

    with shaking(web.server("inbound", HTTP), web.client(Service(server_name="web"))) as both:
        session = both.server.session
        assert session is not None
        assert (
            session.version,
            session.group,
            session.alpn,
            session.server_name,
            session.resumed,
        ) == (
            "TLSv1.3",
            "X25519MLKEM768",
            "http/1.1",
            "web",
            False,
        )


@pytest.mark.parametrize(
    ("version", "name"), [(SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")]
)
def test_both_versions_of_tls_use_forward_secrecy_and_aead(
    tmp_path: Path, authority: Authority, version: int, name: str
) -> None:
    """RFC 9325 §4.2: only ECDHE with AEAD."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    client = foreign_client(authority.issue(spiffe=PAYMENTS), version=version)

    with shaking(web.server("inbound", HTTP), client) as both:
        session = both.server.session
        assert session is not None
        assert session.version == name
        assert session.group
        assert "GCM" in session.cipher or "POLY1305" in session.cipher


def test_the_chain_that_a_peer_sent_is_kept_leaf_first(
    tmp_path: Path, authority: Authority
) -> None:
    """RFC 9440 §2.3: Client-Cert-Chain is what the client sent."""
    middle = Authority("middle", parent=authority)
    web = store(tmp_path / "web", middle.issue(spiffe=WEB), authority.pem)
    payments = store(tmp_path / "payments", authority.issue(spiffe=PAYMENTS), authority.pem)

    with shaking(payments.server("inbound", HTTP), web.client(Service())) as both:
        peer = both.server.peer
        assert peer is not None
        assert len(peer.chain) == 2
        assert peer.chain[0] == peer.certificate


def test_odd_server_names_change_nothing_about_verification(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """Threats C3: SNI never selects verification."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    client = foreign_client(stranger.issue(spiffe=WEB))
    reasons = set()

    for name in ("web", "WEB", "web.", "unknown.example", "127.0.0.1"):
        with shaking(web.server("inbound", HTTP), client, sni=name) as both:
            reasons.add(both.server.reason)

    assert len(reasons) == 1
    assert reasons <= {"unknown_issuer", "bad_signature"}


def test_application_protocols_without_overlap_are_refused_with_the_alert(
    tmp_path: Path, authority: Authority
) -> None:
    """RFC 7301 §3.2: no_application_protocol."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    client = foreign_client(authority.issue(spiffe=PAYMENTS), alpn=("h2", "h3"))

    with shaking(web.server("inbound", HTTP), client) as both:
        assert both.server.reason == "no_application_protocol"
        with pytest.raises(SSL.Error):
            both.client_connection.recv(16384)


@pytest.mark.parametrize(
    ("ours", "theirs", "selected"),
    [
        (("http/1.1",), (), ""),
        (("http/1.1",), ("h2", "http/1.1"), "http/1.1"),
        (("h2", "http/1.1"), ("http/1.1", "h2"), "h2"),
        ((), ("h2",), ""),
    ],
)
def test_the_first_of_our_protocols_that_the_peer_offers_is_selected(
    tmp_path: Path,
    authority: Authority,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    selected: str,
) -> None:
    """RFC 7301 §3.2; a client without ALPN is let in."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    client = foreign_client(authority.issue(spiffe=PAYMENTS), alpn=theirs)

    with shaking(web.server("inbound", ours), client) as both:
        assert both.server.session is not None
        assert both.server.session.alpn == selected


def test_a_failing_verify_callback_refuses_the_handshake(
    tmp_path: Path, authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threats B8, CVE-2026-27448: an exception in a callback never lets anybody in."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)

    def fail(ok: int, _store: object) -> int:
        raise RuntimeError(ok)

    monkeypatch.setattr(callbacks, "_on_verify", fail)

    for issuer in (stranger, authority):
        with shaking(web.server("inbound", HTTP), foreign_client(issuer.issue(spiffe=WEB))) as both:
            assert both.server.peer is None
            assert both.server.refused is not None


def test_a_failing_protocol_callback_refuses_the_handshake(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threats B8."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)

    def fail(_wire: bytes) -> list[bytes]:
        raise RuntimeError

    monkeypatch.setattr(callbacks, "_split_protocols", fail)
    client = foreign_client(authority.issue(spiffe=WEB), alpn=HTTP)

    with shaking(web.server("inbound", HTTP), client) as both:
        assert both.server.reason == "no_application_protocol"


def test_no_error_of_one_connection_surfaces_on_another(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """House §1: OpenSSL's error queue is per thread and outlives the call that filled it."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    server = web.server("inbound", HTTP)

    with shaking(server, web.client(Service())) as healthy:
        for client in (
            foreign_client(stranger.issue(spiffe=WEB)),
            foreign_client(None),
            foreign_client(authority.issue(spiffe=WEB), alpn=("h2",)),
        ):
            with shaking(server, client) as broken:
                assert broken.server.refused is not None
            with pytest.raises(SSL.WantReadError):
                healthy.server_connection.recv(16384)
        exchange(healthy)


def test_entries_left_in_the_error_queue_are_dropped_by_a_refusal(
    tmp_path: Path, authority: Authority
) -> None:
    """House §1: pyOpenSSL leaves entries behind when a system call failed too."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    server = web.server("inbound", HTTP)

    with shaking(server, web.client(Service())) as healthy:
        tls._lib.ERR_put_error(tls._lib.ERR_LIB_EVP, 0, 1, b"left.c", 1)
        server.refusal(healthy.server_connection, SSL.SysCallError(104, "ECONNRESET"))

        assert tls._lib.ERR_peek_error() == 0
        exchange(healthy)


def test_renegotiation_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Threats D2; RFC 9325 §3.5."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    client = foreign_client(authority.issue(spiffe=WEB), version=SSL.TLS1_2_VERSION)

    with shaking(web.server("inbound", ()), client) as both:
        both.client_connection.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            both.client_connection.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            both.server_connection.recv(16384)
        with pytest.raises(SSL.Error) as caught:
            both.client_connection.do_handshake()

        assert "no renegotiation" in str(caught.value)


def test_modern_refuses_tls_1_2(tmp_path: Path, authority: Authority) -> None:
    """Config tls.min_version TLSv1.3."""
    settings = Tls(min_version="TLSv1.3")
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem, tls=settings)
    client = foreign_client(authority.issue(spiffe=WEB), version=SSL.TLS1_2_VERSION)

    with shaking(web.server("inbound", HTTP), client) as both:
        assert both.server.reason == "protocol_version"


def test_a_client_without_the_hybrid_group_is_served_with_another(
    tmp_path: Path, authority: Authority
) -> None:
    """House §1: the hybrid group when the peer offers it, else X25519."""
    old = Tls(groups=("X25519", "P-256"))
    web = store(tmp_path / "web", authority.issue(spiffe=WEB), authority.pem)
    other = store(tmp_path / "other", authority.issue(spiffe=PAYMENTS), authority.pem, tls=old)

    with shaking(web.server("inbound", HTTP), other.client(Service())) as both:
        assert both.server.session is not None
        assert both.server.session.group == "X25519"


def test_a_reload_is_seen_by_the_next_handshake_and_by_no_older_connection(
    tmp_path: Path, authority: Authority
) -> None:
    """House §7, Rotation."""
    clock = TodayClock()
    first = authority.issue(spiffe=WEB)
    web = store(tmp_path / "web", first, authority.pem, clock=clock)
    peer = store(tmp_path / "peer", authority.issue(spiffe=PAYMENTS), authority.pem)
    second = authority.issue(spiffe=WEB)

    with shaking(web.server("inbound", HTTP), peer.client(Service())) as old:
        second.write(tmp_path / "web", authority.pem)
        web.reload()
        with shaking(web.server("inbound", HTTP), peer.client(Service())) as new:
            assert old.client.peer is not None
            assert new.client.peer is not None
            assert (old.client.peer.fingerprint, new.client.peer.fingerprint) == (
                first.fingerprint,
                second.fingerprint,
            )
        exchange(old)
        part(old)


def test_what_a_failed_write_leaves_in_the_queue_does_not_surface(
    tmp_path: Path, authority: Authority
) -> None:
    """House §1: a write to a dead peer leaves an entry behind; the next connection's calls do not mind."""
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem)
    server = web.server("inbound", HTTP)

    with shaking(server, web.client(Service())) as healthy:
        exchange(healthy)
        with shaking(server, web.client(Service())) as dying:
            dying.client_connection.sock_shutdown(2)
            with pytest.raises(SSL.SysCallError):
                dying.server_connection.send(b"x")
        assert tls._lib.ERR_peek_error() != 0, "nothing is left any more: this test proves nothing"

        with pytest.raises(SSL.WantReadError):
            healthy.server_connection.recv(16384)
        exchange(healthy)
