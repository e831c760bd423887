"""Every way a handshake is refused has its reason word, and what was presented with it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ambassador.identity.refusal import TlsRefused
from ambassador.identity.tls import ServerTls
from ambassador.policy.authorization import PeerPattern
from tests.support.certificates import Authority, Issued, server_context
from tests.support.handshakes import Service, Tls, foreign_client, shaking, store

WEB = "spiffe://example.org/web"
HTTP = ("http/1.1",)
_UNKNOWN = x509.ObjectIdentifier("1.2.3.4")


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> ServerTls:
    """An inbound listener's side."""
    web = store(tmp_path / "server", authority.issue(spiffe=WEB), authority.pem)
    return web.server("inbound", HTTP)


def _client_certificates(authority: Authority, stranger: Authority) -> dict[str, Issued | None]:
    leaf = authority.issue(cn="leaf", key_usage=["digital_signature", "key_cert_sign"])
    middle = Authority("middle", parent=authority)
    return {
        "no_certificate": None,
        "expired": authority.issue(spiffe=WEB, begin_days=-2, end_days=-1),
        "not_yet_valid": authority.issue(spiffe=WEB, begin_days=1, end_days=2),
        "unknown_issuer": Authority("unheard of").issue(spiffe=WEB),
        "unknown_issuer of the same name": stranger.issue(spiffe=WEB),
        "bad_signature": _tampered(authority.issue(spiffe=WEB)),
        "bad_purpose": authority.issue(spiffe=WEB, extended_key_usage=["server"]),
        "bad_purpose as CA": authority.issue(
            spiffe=WEB, is_ca=True, key_usage=["digital_signature", "key_cert_sign"]
        ),
        "bad_purpose for code": authority.issue(spiffe=WEB, extended_key_usage=["code"]),
        "bad_purpose by key usage": authority.issue(spiffe=WEB, key_usage=["crl_sign"]),
        "bad_issuer": _issued_by(leaf, authority),
        "bad_issuer without basic constraints": _issued_by(_old_style_ca(authority), authority),
        "chain_too_long": _deep(authority),
        "": middle.issue(spiffe=WEB),
    }


def _tampered(issued: Issued) -> Issued:
    """Break the signature of a certificate, leave the rest."""
    broken = bytearray(issued.der)
    broken[-1] ^= 1
    return Issued(x509.load_der_x509_certificate(bytes(broken)), issued.private_key)


def _issued_by(signer: Issued, authority: Authority) -> Issued:
    """Give a certificate that the key of a workload signed, which sends its own certificate as issuer."""
    forger = Authority("forger", parent=authority)
    assert isinstance(signer.private_key, ec.EllipticCurvePrivateKey)
    forger.private_key = signer.private_key
    forger.certificate = signer.certificate
    return forger.issue(spiffe=WEB)


def _old_style_ca(authority: Authority) -> Issued:
    """Give a certificate with keyCertSign and no basic constraints, which OpenSSL takes for a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    like = authority.issue(cn="old", private_key=key, key_usage=["key_cert_sign"]).certificate
    builder = x509.CertificateBuilder(
        like.issuer,
        like.subject,
        key.public_key(),
        like.serial_number,
        like.not_valid_before_utc,
        like.not_valid_after_utc,
    )
    for extension in like.extensions:
        if not isinstance(extension.value, x509.BasicConstraints | x509.ExtendedKeyUsage):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    return Issued(builder.sign(authority.private_key, hashes.SHA256()), key)


def _deep(authority: Authority) -> Issued:
    for level in range(7):
        authority = Authority(f"level {level}", parent=authority)
    return authority.issue(spiffe=WEB)


@pytest.mark.parametrize(
    "case",
    [
        "no_certificate",
        "expired",
        "not_yet_valid",
        "unknown_issuer",
        "unknown_issuer of the same name",
        "bad_signature",
        "bad_purpose",
        "bad_purpose as CA",
        "bad_purpose for code",
        "bad_purpose by key usage",
        "bad_issuer",
        "bad_issuer without basic constraints",
        "chain_too_long",
        "",
    ],
)
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_bad_client_certificate_is_refused_with_its_reason(
    server: ServerTls, authority: Authority, stranger: Authority, case: str, version: int
) -> None:
    """Threats B7, D4; RFC 5280 §6.1. The last case is a good one, so that the others prove something."""
    issued = _client_certificates(authority, stranger)[case]
    client = foreign_client(issued, version=version)

    with shaking(server, client, sni="web.example") as both:
        assert both.server.reason == case.partition(" ")[0]
        assert (both.server.peer is None) == bool(case)
        if issued is not None and both.server.refused is not None:
            presented = both.server.refused.presented
            assert presented.sans == (f"URI:{WEB}",)
            assert presented.sni == "web.example"
            assert presented.not_after == issued.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("size", "reason"), [(60000, ""), (70000, "chain_too_large"), (120000, "chain_too_large")]
)
def test_a_peer_that_sends_too_much_is_refused(
    tmp_path: Path, authority: Authority, size: int, reason: str
) -> None:
    """Threats D4: 64 KiB of certificates; from 100 KiB on OpenSSL does not even read them.

    Without tickets, for OpenSSL itself fails to put such a leaf into one.
    """
    settings = Tls(session_lifetime_s=None)
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem, tls=settings)
    extension = x509.UnrecognizedExtension(_UNKNOWN, bytes(size))
    issued = authority.issue(spiffe=WEB, extra_extensions=[(extension, False)])

    with shaking(web.server("inbound", HTTP), foreign_client(issued)) as both:
        assert both.server.reason == reason


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not_tls"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "not_tls"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "malformed"),
    ],
)
def test_what_is_no_tls_is_called_so(server: ServerTls, sent: bytes, reason: str) -> None:
    """Threats D1: never a byte of it reaches a parser."""
    left, right = socket.socketpair()
    with left, right:
        connection = server.new_connection(left)
        right.sendall(sent)

        with pytest.raises(SSL.Error) as caught:
            connection.do_handshake()
        refused = server.refusal(connection, caught.value)

        assert refused.reason == reason


@pytest.mark.parametrize(
    ("version", "ciphers", "reason"),
    [
        (SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0", "protocol_version"),
        (SSL.TLS1_2_VERSION, b"AES128-GCM-SHA256", "no_shared_cipher"),
        (SSL.TLS1_2_VERSION, b"ECDHE-ECDSA-AES128-SHA256", "no_shared_cipher"),
    ],
)
def test_weak_versions_and_suites_are_refused(
    server: ServerTls, authority: Authority, version: int, ciphers: bytes, reason: str
) -> None:
    """Threats D2; RFC 8996, RFC 9325 §4.2."""
    client = foreign_client(authority.issue(spiffe=WEB), version=version, ciphers=ciphers)

    with shaking(server, client) as both:
        assert both.server.reason == reason


def test_a_client_without_a_common_group_is_refused(
    server: ServerTls, authority: Authority
) -> None:
    """RFC 8446 §4.1.1."""
    client = foreign_client(authority.issue(spiffe=WEB), groups=b"P-521")

    with shaking(server, client) as both:
        assert both.server.reason == "no_shared_group"


def test_a_peer_that_goes_away_is_closed_or_reset(server: ServerTls) -> None:
    """pyOpenSSL tells truncation as SysCallError(-1)."""
    left, right = socket.socketpair()
    with left:
        connection = server.new_connection(left)
        right.close()

        with pytest.raises(SSL.Error) as caught:
            connection.do_handshake()

        assert server.refusal(connection, caught.value).reason == "closed"
        assert server.refusal(connection, ConnectionResetError(104, "reset")).reason == "reset"
        assert server.refusal(connection, TimeoutError()).reason == "timeout"


def test_a_peer_that_refuses_us_is_reported_as_exactly_that_on_the_first_read(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """RFC 8446 §4.4.2.4: on TLS 1.3 our handshake is done before the server has judged our certificate."""
    web = store(tmp_path / "web", stranger.issue(spiffe=WEB), authority.pem)
    service = Service(peer=(PeerPattern("spiffe", WEB),))
    theirs = store(tmp_path / "server", authority.issue(spiffe=WEB), authority.pem)
    client = web.client(service)

    with shaking(theirs.server("inbound", HTTP), client) as both:
        assert both.client.peer is not None
        with pytest.raises(SSL.Error) as caught:
            both.client_connection.recv(16384)
        refused = client.refusal(both.client_connection, caught.value)

        assert refused.reason == "peer_refused_us"
        assert refused.detail in {"unknown_ca", "decrypt_error", "bad_certificate"}


def test_a_server_that_speaks_in_the_clear_is_not_tls(tmp_path: Path, authority: Authority) -> None:
    """Threats D1, CVE-2026-1642: plaintext instead of a handshake is no answer."""
    client = store(tmp_path, authority.issue(spiffe=WEB), authority.pem).client(Service())
    left, right = socket.socketpair()
    with left, right:
        connection = client.new_connection(left, "key")
        right.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        with pytest.raises(SSL.Error) as caught:
            connection.do_handshake()

        assert client.refusal(connection, caught.value).reason == "not_tls"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (PeerPattern("spiffe", "spiffe://example.org/payments"), ""),
        (PeerPattern("spiffe", "spiffe://example.org/*"), ""),
        (PeerPattern("dns", "payments.example"), ""),
        (PeerPattern("spiffe", "spiffe://example.org/other"), "wrong_peer"),
        (PeerPattern("dns", "example.org"), "wrong_peer"),
        (PeerPattern("cn", "payments"), "wrong_peer"),
    ],
)
def test_a_verified_server_must_also_be_the_expected_one(
    tmp_path: Path, authority: Authority, pattern: PeerPattern, reason: str
) -> None:
    """Threats rule 3: nothing is sent before the peer's identity is checked."""
    issued = authority.issue(
        spiffe="spiffe://example.org/payments", dns=["payments.example"], cn="payments"
    )
    payments = store(tmp_path / "server", issued, authority.pem)
    web = store(tmp_path / "web", authority.issue(spiffe=WEB), authority.pem)

    with shaking(payments.server("inbound", HTTP), web.client(Service(peer=(pattern,)))) as both:
        assert both.client.reason == reason


def test_a_server_for_clients_only_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Threats B7: the purpose is checked in both directions."""
    issued = authority.issue(spiffe=WEB, extended_key_usage=["client"])
    theirs = store(tmp_path / "server", issued, authority.pem)
    web = store(tmp_path / "web", authority.issue(spiffe=WEB), authority.pem)

    with shaking(theirs.server("inbound", HTTP), web.client(Service())) as both:
        assert both.client.reason == "bad_purpose"


def test_the_system_store_is_never_trusted(tmp_path: Path, authority: Authority) -> None:
    """Config identity.trust_bundle: nothing else is trusted, whatever SSL_CERT_FILE says."""
    other = Authority("of the system")
    (tmp_path / "system.pem").write_bytes(other.pem)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
        web = store(tmp_path / "web", authority.issue(spiffe=WEB), authority.pem)
        with shaking(web.server("inbound", HTTP), foreign_client(other.issue(spiffe=WEB))) as both:
            assert both.server.reason == "unknown_issuer"


def test_the_standard_library_as_server_refuses_us_in_its_own_words(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """A foreign TLS stack's alert is told apart from our own verdict."""
    web = store(tmp_path, stranger.issue(spiffe=WEB), authority.pem)
    client = web.client(Service())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server_context(authority, authority.issue(spiffe=WEB)).wrap_bio(
        incoming, outgoing, server_side=True
    )
    connection = client.new_connection(None, "key")
    refused: TlsRefused | None = None

    for _ in range(6):
        try:
            connection.do_handshake()
            connection.recv(16384)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            refused = client.refusal(connection, error)
            break
        try:
            incoming.write(connection.bio_read(65536))
            theirs.do_handshake()
        except (SSL.WantReadError, ssl.SSLError):
            pass
        connection.bio_write(outgoing.read())

    assert refused is not None
    assert refused.reason == "peer_refused_us"
