"""Read and check certificate, key, trust bundle and revocation lists: what one generation is made of.

Knows what must hold before anybody handshakes with these bytes. Every file is read once, and those bytes are
checked and later loaded; nothing is read again. Every failure is a word for metrics and one sentence that names
file and cure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ambassador.core.clock import Clock, SystemClock
from ambassador.core.errors import CredentialError
from ambassador.identity import peer
from ambassador.identity.reading import FileReader, OpenedFile
from ambassador.identity.revocation import RevocationLists, check_current, parse_lists
from ambassador.identity.settings import IdentitySettings

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

#: Why peers would not know or not take our leaf (`peer.leaf_problem`); it starts all the same: they may be laxer.
_LEAF_PROBLEMS: Final = {
    "several_uri_sans": "has a SPIFFE ID and other URI names, an X509-SVID has exactly one",
    "bad_spiffe_id": "has a SPIFFE ID that is none (lower-case domain; letters, digits, . _ - in the path; no / at"
    " the end)",
    "svid_without_digital_signature": "has a SPIFFE ID but not the key usage digitalSignature",
    "svid_may_sign": "has a SPIFFE ID and the key usage of a CA (keyCertSign or cRLSign)",
    "bad_san_bytes": "has a URI or DNS name with blanks, control characters or nothing in it",
    "too_many_sans": "has more than 64 names",
    "bad_purpose": "is a CA's (CA:TRUE), or has a key usage without digitalSignature",
    "no_name": "has no name that a rule could ask for (SPIFFE ID, URI, DNS name, or a common name alone)",
}

_MIN_RSA_BITS: Final = 2048
MAX_CRL_BYTES: Final = 16 * 1024 * 1024
_MAX_BUNDLE_ENTRIES: Final = 256


@dataclass(frozen=True, slots=True)
class Credentials:
    """One checked set. `bundles` maps trust domain to its authorities; the key "" is the unmapped bundle.

    `warnings` are sentences: likely mistakes that do not stop us.
    Units: `not_before` and `not_after` are Unix time in seconds.
    """

    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)  # what is sent after the leaf
    private_key: PrivateKey = field(repr=False)
    bundles: dict[str, tuple[x509.Certificate, ...]] = field(repr=False)
    revocation: RevocationLists | None = field(repr=False)
    spiffe: str | None
    subject: str
    not_before: float
    not_after: float
    warnings: tuple[str, ...] = ()

    @property
    def principal(self) -> str:
        """Our name for logs and `run`: SPIFFE ID, else the first SAN, else the subject."""
        return self.spiffe or next(iter(peer.sans_of(self.certificate)), self.subject)

    @property
    def trust_domain(self) -> str:
        """The trust domain of our own SPIFFE ID, empty without one."""
        return peer.trust_domain_of(self.spiffe) if self.spiffe else ""

    @property
    def may_resume(self) -> bool:
        """Whether a resumed session can be judged: not with revocation or several domains (threats C1, B6)."""
        return self.revocation is None and len(self.bundles) == 1


def load(settings: IdentitySettings, *, clock: Clock | None = None) -> Credentials:
    """Read every file once and check the set.

    Errors: CredentialError with a reason word and one sentence that names file and cure.
    Source: threats B7, C6, K1, K4.
    """
    wall_now = (clock or SystemClock()).wall()
    with FileReader() as reader:
        certificate_file = reader.read(settings.certificate)
        key_file = reader.read(settings.private_key)
        bundle_files = {
            domain: reader.read(path) for domain, path in settings.trust_bundles.items()
        }
        crl_files = [reader.read(path, max_bytes=MAX_CRL_BYTES) for path in settings.crl]
    warnings = _check_mode(key_file)
    leaf, *chain = _parse_certificates(certificate_file)
    _check_leaf(leaf, certificate_file.name)
    _check_dates([leaf, *chain], certificate_file.name, wall_now)
    key = _parse_key(key_file)
    _check_pair(key, leaf, chain, key_file.name, certificate_file.name)
    bundles = {domain: _parse_bundle(opened, wall_now) for domain, opened in bundle_files.items()}
    warnings += _leaf_warnings(leaf, chain, bundles, certificate_file.name)
    return Credentials(
        certificate=leaf,
        chain=tuple(chain),
        private_key=key,
        bundles=bundles,
        revocation=_read_lists(crl_files, settings.crl_grace_s, wall_now),
        spiffe=peer.own_spiffe(leaf),
        subject=peer.subject_of(leaf),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        warnings=tuple(warnings),
    )


def _check_mode(opened: OpenedFile) -> list[str]:
    """Look at the mode of the opened key file, not of whatever its path names by now (threats K4)."""
    if opened.mode & 0o002:
        raise CredentialError(
            "key_writable",
            f"{opened.name}: anybody may write the private key (mode {opened.mode:04o}); chmod 0600 {opened.name}",
        )
    if opened.mode & 0o004:
        return [
            f"{opened.name}: anybody may read the private key (mode {opened.mode:04o}); chmod 0600 {opened.name}"
        ]
    return []


def _parse_certificates(opened: OpenedFile) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(opened.content)
        for certificate in certificates:
            _ = (
                certificate.extensions
            )  # parsed lazily: a broken one must fail here, not in a handshake
    except ValueError:
        raise CredentialError(
            "certificate_unreadable",
            f"{opened.name}: holds no certificate in PEM (BEGIN CERTIFICATE) that can be read",
        ) from None
    return certificates


def _check_leaf(leaf: x509.Certificate, name: str) -> None:
    if peer.is_authority(leaf):
        raise CredentialError(
            "certificate_is_authority",
            f"{name}: the first certificate is a CA; put the workload's own certificate first, issuers after it",
        )


def _check_dates(certificates: list[x509.Certificate], name: str, wall_now: float) -> None:
    for place, certificate in enumerate(certificates):
        which = "the certificate" if place == 0 else f"certificate {place + 1} of the chain"
        if wall_now > certificate.not_valid_after_utc.timestamp():
            raise CredentialError(
                "certificate_expired",
                f"{name}: {which} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; issue a new one",
            )
        if wall_now < certificate.not_valid_before_utc.timestamp():
            raise CredentialError(
                "certificate_not_yet_valid",
                f"{name}: {which} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on;"
                " check the clock",
            )


def _parse_key(opened: OpenedFile) -> PrivateKey:
    """Parse the key; no message quotes its content."""
    try:
        key = serialization.load_pem_private_key(opened.content, password=None)
    except TypeError:
        raise CredentialError(
            "key_encrypted",
            f"{opened.name}: the private key is encrypted, and nobody types a password for a sidecar;"
            f" openssl pkey -in {opened.name} -out FILE",
        ) from None
    except Exception:  # the library raises several private classes; none may show key bytes
        raise CredentialError(
            "key_unreadable", f"{opened.name}: holds no private key in PEM that can be read"
        ) from None
    if not isinstance(key, PrivateKey):
        raise CredentialError(
            "key_unsuitable",
            f"{opened.name}: TLS needs an EC, Ed25519 or RSA key, this is another kind",
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        raise CredentialError(
            "key_weak",
            f"{opened.name}: an RSA key of {key.key_size} bits is too weak; use P-256, or RSA of 2048 bits",
        )
    return key


def _check_pair(
    key: PrivateKey, leaf: x509.Certificate, chain: list[x509.Certificate], key_name: str, name: str
) -> None:
    public = _spki(key.public_key())
    if public == _spki(leaf.public_key()):
        return
    if any(public == _spki(certificate.public_key()) for certificate in chain):
        raise CredentialError(
            "leaf_not_first",
            f"{name}: the key belongs to a later certificate of the file; put the workload's own first",
        )
    raise CredentialError(
        "key_mismatch",
        f"{key_name}: key does not match certificate {name}; both must come from one issue",
    )


def _spki(key: object) -> bytes:
    """Give the public key as bytes that compare; empty for kinds that cannot be a TLS leaf's."""
    if not isinstance(
        key,
        rsa.RSAPublicKey
        | ec.EllipticCurvePublicKey
        | ed25519.Ed25519PublicKey
        | ed448.Ed448PublicKey,
    ):
        return b""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _parse_bundle(opened: OpenedFile, wall_now: float) -> tuple[x509.Certificate, ...]:
    """Take authorities only: OpenSSL would trust any self-signed entry as itself (threats B7)."""
    name = opened.name
    try:
        entries = x509.load_pem_x509_certificates(opened.content)
        strangers = [entry for entry in entries if not peer.signs_certificates(entry)]
    except ValueError:
        raise CredentialError(
            "bundle_unreadable",
            f"{name}: holds no CA certificate in PEM (BEGIN CERTIFICATE) that can be read",
        ) from None
    if strangers:
        raise CredentialError(
            "bundle_entry_not_authority",
            f"{name}: {_shown(strangers[0])} is no CA (needs CA:TRUE and keyCertSign);"
            " remove it from the trust bundle",
        )
    if len(entries) > _MAX_BUNDLE_ENTRIES:
        raise CredentialError(
            "bundle_too_large",
            f"{name}: {len(entries)} authorities; a workload trusts at most {_MAX_BUNDLE_ENTRIES}",
        )
    _check_roots(entries, name, wall_now)
    return tuple(dict.fromkeys(entries))


def _shown(certificate: x509.Certificate) -> str:
    return peer.subject_of(certificate) or next(iter(peer.sans_of(certificate)), "an entry")


def _check_roots(entries: list[x509.Certificate], name: str, wall_now: float) -> None:
    roots = [entry for entry in entries if entry.issuer == entry.subject]
    if not roots:
        raise CredentialError(
            "bundle_without_root",
            f"{name}: holds no self-signed CA, so no chain could end in it; add the root",
        )
    current = [
        root
        for root in roots
        if root.not_valid_before_utc.timestamp() <= wall_now <= root.not_valid_after_utc.timestamp()
    ]
    if not current:
        raise CredentialError(
            "bundle_expired", f"{name}: no CA in it is valid today; fetch a new trust bundle"
        )


def _leaf_warnings(
    leaf: x509.Certificate,
    chain: list[x509.Certificate],
    bundles: dict[str, tuple[x509.Certificate, ...]],
    name: str,
) -> list[str]:
    warnings = []
    missing = peer.missing_purposes(leaf)
    if missing:
        warnings.append(
            f"{name}: the certificate lacks {' and '.join(missing)}; a sidecar answers and calls"
        )
    problem = peer.leaf_problem(leaf)
    if problem:
        warnings.append(
            f"{name}: the certificate {_LEAF_PROBLEMS[problem]}; peers that check will refuse us"
            f" ({problem})"
        )
    last = [leaf, *chain][-1]
    authorities = [authority for bundle in bundles.values() for authority in bundle]
    if last not in authorities and not any(_issued(last, authority) for authority in authorities):
        warnings.append(
            f"{name}: no CA of our own trust bundle issued it; peers with the same bundle will refuse us"
        )
    return warnings


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read_lists(
    opened: list[OpenedFile], grace_s: float | None, wall_now: float
) -> RevocationLists | None:
    if not opened:
        return None
    lists = []
    for one in opened:
        for crl in parse_lists(one.content, one.name):
            check_current(crl, one.name, grace_s or 0.0, wall_now)
            lists.append(crl)
    return RevocationLists(tuple(lists), grace_s)


def paths(settings: IdentitySettings) -> tuple[Path, ...]:
    """Every file that a generation is made of."""
    return (
        settings.certificate,
        settings.private_key,
        *settings.trust_bundles.values(),
        *settings.crl,
    )
