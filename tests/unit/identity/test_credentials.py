"""Loading a set: every mistake has its word, and a sentence that names file and cure."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from ambassador.core.errors import CredentialError
from ambassador.identity import credentials
from ambassador.identity.reading import FileReader
from tests.support.certificates import DNS, Authority, Issued
from tests.support.handshakes import Identity, lay

AUTHORITY = Authority("credentials CA")
ID = "spiffe://example.org/web"


def _good(folder: Path) -> Identity:
    return lay(folder, AUTHORITY.issue(spiffe=ID, dns=["web"]), AUTHORITY.pem)


def _load(settings: Identity, wall_now: float | None = None) -> credentials.Credentials:
    return credentials.load(settings, clock=_At(wall_now) if wall_now else None)


class _At:
    def __init__(self, wall_now: float) -> None:
        self._now = wall_now

    def wall(self) -> float:
        return self._now

    monotonic = wall


def _refused(settings: Identity, wall_now: float | None = None) -> tuple[str, str]:
    with pytest.raises(CredentialError) as caught:
        _load(settings, wall_now)
    return caught.value.reason, str(caught.value)


def test_a_good_set_is_loaded_without_a_warning(tmp_path: Path) -> None:
    """Config §1: a fresh, sound installation has no warnings."""
    loaded = _load(_good(tmp_path))

    assert (loaded.spiffe, loaded.principal, loaded.trust_domain) == (ID, ID, "example.org")
    assert loaded.warnings == ()
    assert loaded.may_resume
    assert [len(bundle) for bundle in loaded.bundles.values()] == [1]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_every_usual_kind_of_key_is_taken(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
) -> None:
    """RFC 8446 §4.2.3."""
    settings = lay(tmp_path, AUTHORITY.issue(spiffe=ID, private_key=key), AUTHORITY.pem)

    assert _load(settings).spiffe == ID


def test_no_secret_is_in_any_text(tmp_path: Path) -> None:
    """Threats I3."""
    issued = AUTHORITY.issue(spiffe=ID)
    settings = lay(tmp_path, issued, AUTHORITY.pem)

    loaded = _load(settings)

    secret = issued.key_pem.decode().splitlines()[1]
    assert secret not in repr(loaded)
    with FileReader() as reader:
        assert secret not in repr(reader.read(settings.private_key))


@pytest.mark.parametrize("name", ["certificate", "private_key"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """The issue: one clear sentence, no traceback."""
    settings = dataclasses.replace(_good(tmp_path), **{name: tmp_path / "absent.pem"})

    reason, sentence = _refused(settings)

    assert reason == "file_missing"
    assert str(tmp_path / "absent.pem") in sentence


def test_an_unreadable_key_names_uid_mode_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Friction F6: key unreadable for a non-root uid. The kernel's part is played, for root may read all."""
    settings = _good(tmp_path)
    settings.private_key.chmod(0o040)
    original = os.open

    def denied(
        path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        if str(path) == settings.private_key.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", denied)

    reason, sentence = _refused(settings)

    assert reason == "file_unreadable"
    assert f"{settings.private_key}: uid {os.geteuid()} may not read it (mode 0040, " in sentence
    assert f"chown {os.geteuid()} {settings.private_key}" in sentence


def test_a_key_that_does_not_match_is_said_so(tmp_path: Path) -> None:
    """The issue: key that does not match."""
    settings = _good(tmp_path)
    settings.private_key.write_bytes(AUTHORITY.issue(spiffe=ID).key_pem)

    reason, sentence = _refused(settings)

    assert reason == "key_mismatch"
    assert "key does not match certificate" in sentence


def test_a_leaf_behind_its_issuer_is_said_so(tmp_path: Path) -> None:
    """Config identity.certificate: leaf first."""
    other, leaf = AUTHORITY.issue(cn="other"), AUTHORITY.issue(spiffe=ID)
    settings = lay(tmp_path, leaf, AUTHORITY.pem)
    settings.certificate.write_bytes(other.certificate_pem + leaf.certificate_pem)

    assert _refused(settings)[0] == "leaf_not_first"


def test_dates_are_judged_by_the_clock(tmp_path: Path) -> None:
    """The issue: expired certificate, one clear sentence."""
    settings = _good(tmp_path)
    certificate = x509.load_pem_x509_certificate(settings.certificate.read_bytes())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc

    late, sentence = _refused(settings, end.timestamp() + 1)
    early, _ = _refused(settings, begin.timestamp() - 1)

    assert (late, early) == ("certificate_expired", "certificate_not_yet_valid")
    assert f"expired on {end:%Y-%m-%d}" in sentence


def _encrypted() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def _pem(key: rsa.RSAPrivateKey | x25519.X25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "key_unreadable"),
        (b"garbage", "key_unreadable"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key_unreadable"),
        (_encrypted(), "key_encrypted"),
        (_pem(rsa.generate_private_key(65537, 1024)), "key_weak"),
        (_pem(x25519.X25519PrivateKey.generate()), "key_unsuitable"),
    ],
)
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Config identity.private_key: unencrypted PEM."""
    settings = _good(tmp_path)
    settings.private_key.write_bytes(content)

    assert _refused(settings)[0] == reason


@pytest.mark.parametrize(
    ("mode", "reason", "warned"),
    [
        (0o600, "", False),
        (0o440, "", False),
        (0o400, "", False),
        (0o644, "", True),
        (0o604, "", True),
        (0o602, "key_writable", False),
        (0o666, "key_writable", False),
    ],
)
def test_the_mode_of_the_key_is_judged(
    tmp_path: Path, mode: int, reason: str, warned: bool
) -> None:
    """Threats K4: refused when anybody may write it, warned when others may read it, 0440 silent."""
    settings = _good(tmp_path)
    settings.private_key.chmod(mode)

    outcome = _refused(settings) if reason else ("", " ".join(_load(settings).warnings))

    assert outcome[0] == reason
    assert ("anybody may read" in outcome[1]) == warned


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "certificate_unreadable"),
        (b"garbage", "certificate_unreadable"),
        (AUTHORITY.pem, "certificate_is_authority"),
    ],
)
def test_a_certificate_that_is_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """A CA certificate as workload identity is a mistake that peers would refuse."""
    settings = _good(tmp_path)
    settings.certificate.write_bytes(content)

    assert _refused(settings)[0] == reason


def _self_signed_leaf() -> Issued:
    return AUTHORITY.issue(cn="leaf")


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (b"", "bundle_unreadable"),
        (_self_signed_leaf().certificate_pem, "bundle_entry_not_authority"),
        (AUTHORITY.pem + _self_signed_leaf().certificate_pem, "bundle_entry_not_authority"),
        (
            AUTHORITY.issue(cn="ca", is_ca=True, key_usage=["digital_signature"]).certificate_pem,
            "bundle_entry_not_authority",
        ),
        (
            AUTHORITY.issue(cn="ca", is_ca=True, key_usage=None).certificate_pem,
            "bundle_entry_not_authority",
        ),
        (Authority("middle", parent=AUTHORITY).pem, "bundle_without_root"),
        (AUTHORITY.pem * 257, "bundle_too_large"),
        (Authority("old", days=-0.5).pem, "bundle_expired"),
    ],
)
def test_a_bundle_holds_authorities_only(tmp_path: Path, bundle: bytes, reason: str) -> None:
    """Threats B7: OpenSSL trusts any self-signed entry as itself."""
    settings = _good(tmp_path)
    (tmp_path / "ca.crt").write_bytes(bundle)

    assert _refused(settings)[0] == reason


def test_likely_mistakes_are_warned_of(tmp_path: Path) -> None:
    """They do not stop us: somebody else's bundle may be right."""
    issued = Authority("elsewhere").issue(spiffe=ID, extended_key_usage=["server"])

    warnings = " ".join(_load(lay(tmp_path, issued, AUTHORITY.pem)).warnings)

    assert "lacks clientAuth" in warnings
    assert "no CA of our own trust bundle issued it" in warnings


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"spiffe": ID, "uris": ["spiffe://example.org/other"]}, "several_uri_sans"),
        ({"spiffe": "spiffe://Example.org/x"}, "bad_spiffe_id"),
        ({"spiffe": ID, "is_ca": True}, "bad_purpose"),
        ({"spiffe": ID, "key_usage": None}, "svid_without_digital_signature"),
        ({"spiffe": ID, "key_usage": ["digital_signature", "crl_sign"]}, "svid_may_sign"),
        ({"raw_sans": [(DNS, b"a b")]}, "bad_san_bytes"),
        ({"dns": [f"n{number}" for number in range(65)]}, "too_many_sans"),
        ({}, "no_name"),
    ],
)
def test_a_leaf_that_peers_will_refuse_is_one_warning(
    tmp_path: Path, arguments: dict[str, Any], word: str
) -> None:
    """X509-SVID §2, §4; we would refuse such a peer ourselves."""
    settings = lay(tmp_path, AUTHORITY.issue(**arguments), AUTHORITY.pem)

    (warning,) = _load(settings).warnings

    assert warning.startswith(f"{settings.certificate}: the certificate ")
    assert warning.endswith(f"peers that check will refuse us ({word})")


def test_an_intermediate_that_is_sent_along_is_no_mistake(tmp_path: Path) -> None:
    """RFC 8446 §4.4.2: the root may be left out."""
    issued = Authority("middle", parent=AUTHORITY).issue(spiffe=ID)

    assert _load(lay(tmp_path, issued, AUTHORITY.pem)).warnings == ()


def _partial() -> bytes:
    extension = x509.IssuingDistributionPoint(
        None,
        None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    return _list_with(extension)


def _delta() -> bytes:
    return _list_with(x509.DeltaCRLIndicator(1))


def _list_with(extension: x509.ExtensionType) -> bytes:
    crl = x509.load_pem_x509_crl(AUTHORITY.revoke())
    builder = x509.CertificateRevocationListBuilder(
        crl.issuer, crl.last_update_utc, crl.next_update_utc
    )
    signed = builder.add_extension(extension, critical=True).sign(
        AUTHORITY.private_key,
        crl.signature_hash_algorithm,  # type: ignore[arg-type]
    )
    return signed.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "crl_unreadable"),
        (b"garbage", "crl_unreadable"),
        (AUTHORITY.revoke(hours=-1.0, age_hours=3.0), "crl_expired"),
        (AUTHORITY.revoke(hours=5.0, age_hours=-2.0), "crl_not_yet_valid"),
        (_partial(), "crl_partial"),
        (_delta(), "crl_partial"),
        (
            _list_with(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")),
            "crl_partial",
        ),
    ],
)
def test_a_revocation_list_must_be_whole_and_current(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """Threats C6: no deltas, no parts, no old ones."""
    (tmp_path / "ca.crl").write_bytes(content)
    settings = dataclasses.replace(_good(tmp_path), crl=(tmp_path / "ca.crl",))

    assert _refused(settings)[0] == reason


def test_an_expired_list_is_loaded_within_its_grace(tmp_path: Path) -> None:
    """Config identity.crl_grace must be typed."""
    (tmp_path / "ca.crl").write_bytes(AUTHORITY.revoke(hours=-1.0, age_hours=3.0))
    settings = dataclasses.replace(
        _good(tmp_path), crl=(tmp_path / "ca.crl",), crl_grace_s=2 * 3600.0
    )

    assert not _load(settings).may_resume


def test_several_trust_domains_are_not_resumed(tmp_path: Path) -> None:
    """Threats B6: a resumed session has no verified chain."""
    settings = _good(tmp_path)
    bundle = settings.trust_bundles[""]
    several = dataclasses.replace(
        settings, trust_bundles={"a.example": bundle, "b.example": bundle}
    )

    assert not _load(several).may_resume
    assert set(_load(several).bundles) == {"a.example", "b.example"}
