"""What our own CA issues."""

from __future__ import annotations

import pytest
from cryptography import x509

from ambassador.core.errors import CredentialError
from ambassador.identity.authority import Authority, LeafRequest, is_due

NOW = 1_800_000_000.0
DAY = 86400.0


def _extension(
    certificate: x509.Certificate, kind: type[x509.ExtensionType]
) -> tuple[object, bool]:
    extension = certificate.extensions.get_extension_for_class(kind)
    return extension.value, extension.critical


def test_an_authority_may_sign_certificates_and_nothing_else() -> None:
    """RFC 5280 §4.2.1.3, §4.2.1.9."""
    certificate = Authority.create("example CA", wall_now=NOW).certificate

    usage, critical = _extension(certificate, x509.KeyUsage)
    assert isinstance(usage, x509.KeyUsage)
    assert critical
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert _extension(certificate, x509.BasicConstraints) == (
        x509.BasicConstraints(True, None),
        True,
    )


def test_a_leaf_is_an_svid_for_both_directions() -> None:
    """X509-SVID §4; RFC 5280 §4.2.1.6: the SAN is critical when the subject is empty."""
    authority = Authority.create("example CA", wall_now=NOW)

    leaf = authority.issue(
        LeafRequest(spiffe="spiffe://example.org/web", dns=("web",), ips=("::1",)), wall_now=NOW
    ).certificate

    names, critical = _extension(leaf, x509.SubjectAlternativeName)
    assert critical
    assert [str(name.value) for name in names] == ["spiffe://example.org/web", "web", "::1"]  # type: ignore[attr-defined]
    assert _extension(leaf, x509.BasicConstraints) == (x509.BasicConstraints(False, None), True)
    extended, _ = _extension(leaf, x509.ExtendedKeyUsage)
    assert len(list(extended)) == 2  # type: ignore[call-overload]
    leaf.verify_directly_issued_by(authority.certificate)
    key_id, _ = _extension(leaf, x509.AuthorityKeyIdentifier)
    own_id, _ = _extension(authority.certificate, x509.SubjectKeyIdentifier)
    assert key_id.key_identifier == own_id.digest  # type: ignore[attr-defined]


def test_serials_and_keys_are_fresh_each_time() -> None:
    """RFC 5280 §4.1.2.2: unique, at most 20 octets."""
    authority = Authority.create("example CA", wall_now=NOW)
    request = LeafRequest(dns=("web",))

    first, second = (authority.issue(request, wall_now=NOW) for _ in range(2))

    assert first.certificate.serial_number != second.certificate.serial_number
    assert first.key_pem != second.key_pem
    assert first.certificate.serial_number.bit_length() <= 160


def test_a_leaf_does_not_outlive_its_authority() -> None:
    """It would only fail later and more strangely."""
    authority = Authority.create("short", wall_now=NOW, days=10)

    leaf = authority.issue(LeafRequest(dns=("a",), days=30), wall_now=NOW).certificate

    assert leaf.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    "request_",
    [
        LeafRequest(),
        LeafRequest(spiffe="payments"),
        LeafRequest(spiffe="spiffe://Example.org/a"),
        LeafRequest(ips=("10.0.0.300",)),
        LeafRequest(dns=("ä.example",)),
        LeafRequest(common_name="a" * 65),
    ],
)
def test_a_name_that_is_none_is_refused(request_: LeafRequest) -> None:
    """SPIFFE-ID §2: a certificate that no peer would take is not made."""
    authority = Authority.create("example CA", wall_now=NOW)

    with pytest.raises(CredentialError) as caught:
        authority.issue(request_, wall_now=NOW)

    assert caught.value.reason == "bad_name"


@pytest.mark.parametrize(("day", "due"), [(0, False), (19, False), (21, True), (31, True)])
def test_a_certificate_is_due_in_its_last_third(day: int, due: bool) -> None:
    """Config §4: renewed in the last third."""
    authority = Authority.create("example CA", wall_now=NOW)
    leaf = authority.issue(LeafRequest(dns=("a",), days=30), wall_now=NOW).certificate

    assert is_due(leaf, NOW + day * DAY) == due


def test_an_authority_is_taken_up_again_from_its_files() -> None:
    """And only with its own key."""
    made, other = (Authority.create("example CA", wall_now=NOW).issued for _ in range(2))

    loaded = Authority.load(made.certificate_pem, made.key_pem)

    assert loaded.certificate == made.certificate
    assert made.key_pem.decode().splitlines()[1] not in repr(made)
    with pytest.raises(CredentialError, match="does not match"):
        Authority.load(made.certificate_pem, other.key_pem)
    with pytest.raises(CredentialError, match="cannot be read"):
        Authority.load(b"", made.key_pem)
