"""What a certificate says, and what gives no identity."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from ambassador.core.model import PeerIdentity
from ambassador.identity import peer
from ambassador.identity.names import read_alternative_names
from tests.support.certificates import DNS, EMAIL, IP, URI, Authority, Issued

AUTHORITY = Authority("peers CA")
ID = "spiffe://example.org/web"


def _facts(issued: Issued, purpose: x509.ObjectIdentifier = peer.CLIENT) -> peer.CertificateFacts:
    return peer.read_facts((issued.der,), resumed=False, purpose=purpose)


def _identity(**arguments: object) -> PeerIdentity:
    return _facts(AUTHORITY.issue(**arguments)).identity  # type: ignore[arg-type]


def test_a_sound_certificate_gives_everything() -> None:
    """SPIFFE X509-SVID §2."""
    issued = AUTHORITY.issue(spiffe=ID, dns=["web"], ips=["10.0.0.1"], cn="web", serial=0xABC)

    facts = _facts(issued)

    identity = facts.identity
    assert (identity.spiffe, identity.uris, identity.dns) == (ID, (ID,), ("web",))
    assert (identity.subject, identity.issuer, identity.serial) == ("CN=web", "CN=peers CA", "abc")
    assert (identity.fingerprint, identity.certificate) == (issued.fingerprint, issued.der)
    assert identity.chain == (issued.der,)
    assert (identity.problem, facts.refusal, facts.trust_domain) == ("", "", "example.org")
    assert identity.not_after == issued.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://Example.org/web",
        "spiffe://example.org/%2f",
        "spiffe://example.org/../a",
        "spiffe://example.org//a",
        "spiffe://example.org/a/",
        "spiffe://example.org:80/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe:///a",
        "SPIFFE://example.org/a",
        "spiffe:example.org/a",
        "spiffe://" + "a" * 256 + "/a",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_a_spiffe_id_that_is_not_canonical_is_no_identity(uri: str) -> None:
    """SPIFFE-ID §2; threats B2: never normalised."""
    identity = _identity(uris=[uri])

    assert identity.spiffe is None
    assert identity.problem == "bad_spiffe_id"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"uris": [ID, "spiffe://example.org/other"]}, "several_uri_sans"),
        ({"uris": [ID, "https://example.org/"]}, "several_uri_sans"),
        ({"uris": ["https://example.org/", ID]}, "several_uri_sans"),
        ({"spiffe": ID, "key_usage": None}, "svid_without_digital_signature"),
        ({"spiffe": ID, "key_usage": ["key_agreement"]}, "svid_without_digital_signature"),
        ({"spiffe": ID, "key_usage": ["digital_signature", "crl_sign"]}, "svid_may_sign"),
        ({"spiffe": ID, "key_usage": ["digital_signature", "key_cert_sign"]}, "svid_may_sign"),
        ({"uris": ["https://a/", "https://b/"]}, ""),
        ({"dns": [f"n{number}.example" for number in range(65)]}, "too_many_sans"),
    ],
)
def test_a_certificate_that_breaks_the_svid_rules_gives_no_identity(
    arguments: dict[str, object], problem: str
) -> None:
    """X509-SVID §2, §4.3; threats B1, CVE-2022-40716."""
    identity = _identity(**arguments)

    assert (identity.spiffe, identity.problem) == (None, problem)


@pytest.mark.parametrize("tag", [URI, DNS])
@pytest.mark.parametrize(
    "raw", [b"a\r\nx: y", b"a\x00b", b"a b", b"", b"a\x7f", b"a\x1b[2J", b"\t", b" ", "é".encode()]
)
def test_strange_bytes_in_a_name_are_no_name(tag: int, raw: bytes) -> None:
    """Threats A4, CVE-2025-66220: OpenSSL hands them over raw."""
    identity = _facts(AUTHORITY.issue(spiffe=ID, raw_sans=[(tag, raw)])).identity

    assert (identity.spiffe, identity.uris, identity.dns) == (None, (), ())
    assert identity.problem == "bad_san_bytes"


@pytest.mark.parametrize("tag", [URI, DNS])
@pytest.mark.parametrize("raw", [b"\xff", b"a\x85"])
def test_a_name_in_no_known_encoding_cannot_be_read_at_all(tag: int, raw: bytes) -> None:
    """RFC 5280 §4.2.1.6: IA5String; the handshake ends as `bad_certificate`."""
    issued = AUTHORITY.issue(spiffe=ID, raw_sans=[(tag, raw)])

    with pytest.raises(ValueError, match=r".+"):
        _facts(issued)


def test_names_are_compared_by_type() -> None:
    """Threats B5, CVE-2022-21656: an e-mail or address is never a DNS name or URI."""
    identity = _identity(
        raw_sans=[
            (EMAIL, b"web@example.org"),
            (EMAIL, b"spiffe://example.org/web"),
            (IP, b"\x0a\0\0\1"),
        ]
    )

    assert (identity.spiffe, identity.uris, identity.dns, identity.common_name) == (
        None,
        (),
        (),
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "common_name"),
    [
        ({"cn": "web"}, "web"),
        ({"cn": "web", "dns": ["other"]}, None),
        ({"cn": "web", "ips": ["10.0.0.1"]}, None),
        ({"cn": None, "dns": ["other"]}, None),
    ],
)
def test_a_common_name_counts_only_without_any_other_name(
    arguments: dict[str, object], common_name: str | None
) -> None:
    """RFC 9525 §6.1; threats B4."""
    assert _identity(**arguments).common_name == common_name


@pytest.mark.parametrize(
    ("arguments", "client", "server"),
    [
        ({}, "", ""),
        ({"extended_key_usage": None}, "", ""),
        ({"extended_key_usage": ["client"]}, "", "bad_purpose"),
        ({"extended_key_usage": ["server"]}, "bad_purpose", ""),
        ({"extended_key_usage": ["code"]}, "bad_purpose", "bad_purpose"),
        ({"extended_key_usage": ["any"]}, "bad_purpose", "bad_purpose"),
        ({"is_ca": True}, "bad_purpose", "bad_purpose"),
        ({"key_usage": ["key_encipherment"]}, "bad_purpose", "bad_purpose"),
        ({"key_usage": None}, "", ""),
    ],
)
def test_a_leaf_serves_its_purpose_only(
    arguments: dict[str, object], client: str, server: str
) -> None:
    """Threats B7; RFC 5280 §4.2.1.3, §4.2.1.12."""
    issued = AUTHORITY.issue(dns=["web"], **arguments)  # type: ignore[arg-type]

    assert _facts(issued, peer.CLIENT).refusal == client
    assert _facts(issued, peer.SERVER).refusal == server


def test_a_resumed_session_has_no_chain() -> None:
    """House §1: OpenSSL keeps the leaf alone."""
    issued = AUTHORITY.issue(spiffe=ID)

    assert peer.read_facts((issued.der,), resumed=True, purpose=peer.CLIENT).identity.chain == ()


def test_what_was_presented_is_shown_raw_and_by_type() -> None:
    """The issue: SNI, subject, SANs, issuer and expiry as far as presented."""
    issued = AUTHORITY.issue(spiffe=ID, dns=["web"], ips=["10.0.0.1"], cn="a\nb")

    shown = peer.present(issued.der, "sni")

    assert shown.sans == (f"URI:{ID}", "DNS:web", "IP:10.0.0.1")
    assert (shown.sni, shown.subject, shown.issuer) == ("sni", "CN=a\\0Ab", "CN=peers CA")
    assert shown.not_after == issued.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ((URI, b"spiffe://a/\xff"), "URI:spiffe://a/\\xff"),
        ((DNS, b"a\x85"), "DNS:a\\x85"),
        ((EMAIL, b"\xe9@b"), "email:\\xe9@b"),
        ((IP, b"\1\2\3"), "other:#010203"),
    ],
)
def test_one_bad_name_does_not_hide_the_others(bad: tuple[int, bytes], shown: str) -> None:
    """The issue: SANs as far as presented; `cryptography` gives all or none."""
    issued = AUTHORITY.issue(spiffe=ID, dns=["web"], ips=["10.0.0.1", "::1"], raw_sans=[bad])

    presented = peer.present(issued.der, "")

    assert presented.sans == (f"URI:{ID}", "DNS:web", "IP:10.0.0.1", "IP:::1", shown)
    assert presented.issuer == "CN=peers CA"


def test_another_bad_extension_does_not_hide_the_names() -> None:
    """All extensions are parsed at once."""
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), b"\x30\x05nope")
    issued = AUTHORITY.issue(spiffe=ID, extra_extensions=[(broken, False)])

    assert peer.present(issued.der, "").sans == (f"URI:{ID}",)


def test_a_certificate_without_names_has_none_to_read() -> None:
    """The walk ends where the certificate does."""
    issued = AUTHORITY.issue(cn="x")

    assert read_alternative_names(issued.der) == []
    assert all(read_alternative_names(issued.der[:cut]) == [] for cut in range(0, 300, 7))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"spiffe": ID}, ""),
        ({"dns": ["web"]}, ""),
        ({"cn": "web"}, ""),
        ({"spiffe": ID, "uris": ["spiffe://example.org/other"]}, "several_uri_sans"),
        ({"spiffe": "spiffe://EXAMPLE.org/web"}, "bad_spiffe_id"),
        ({"spiffe": ID, "is_ca": True}, "bad_purpose"),
        ({"spiffe": ID, "key_usage": ["crl_sign"]}, "bad_purpose"),
        ({"spiffe": ID, "key_usage": None}, "svid_without_digital_signature"),
        ({"spiffe": ID, "key_usage": ["digital_signature", "crl_sign"]}, "svid_may_sign"),
        ({"raw_sans": [(DNS, b"a b")]}, "bad_san_bytes"),
        ({"dns": [f"n{number}" for number in range(65)]}, "too_many_sans"),
        ({}, "no_name"),
        ({"ips": ["10.0.0.1"], "cn": "web"}, "no_name"),
        ({"spiffe": ID, "extended_key_usage": ["server"]}, ""),
    ],
)
def test_what_is_wrong_with_a_leaf_of_our_own_has_a_word(
    arguments: dict[str, Any], problem: str
) -> None:
    """X509-SVID §2, §4: what a strict peer would refuse, or know nobody by."""
    assert peer.leaf_problem(AUTHORITY.issue(**arguments).certificate) == problem


@pytest.mark.parametrize("certificate", [b"", b"garbage", b"\x30\x82\xff\xff"])
def test_presenting_garbage_never_fails(certificate: bytes) -> None:
    """Rule 9: an exception inside a refusal is still a refusal."""
    assert peer.present(certificate, "x").subject == "(unreadable)"


def test_nobody_presents_nothing() -> None:
    """A peer without a certificate has shown at most a name."""
    assert peer.present(None, "").not_after is None
    assert peer.present(None, "name").sni == "name"
