"""What a certificate says: facts that do not change, and the identity that they give.

Knows X.509 and the X509-SVID rules. Facts only: whether a peer is current, revoked or wanted is decided after
each handshake by those who know the time and the rules.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ambassador.core.model import PeerIdentity
from ambassador.identity.names import read_alternative_names, read_names
from ambassador.identity.refusal import NOBODY, PresentedPeer
from ambassador.policy import authorization

#: More than this many names in one certificate is nobody's workload; it bounds what a header can become.
_MAX_SANS: Final = 64

_TEXT_TAGS: Final = {0x81: "email", 0x82: "DNS", 0x86: "URI"}
_IP_TAG: Final = 0x87
_MAX_OTHER_BYTES: Final = 64

CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH


class CertificateFacts:
    """A leaf certificate, read once: identity, dates and purposes.

    `refusal` is the reason word when no peer may use such a certificate, whatever the rules say.
    Units: `not_before` and `not_after` are Unix time in seconds.
    """

    __slots__ = ("identity", "not_after", "not_before", "refusal", "trust_domain")

    def __init__(
        self, identity: PeerIdentity, not_before: float, refusal: str, trust_domain: str
    ) -> None:
        self.identity = identity
        self.not_before = not_before
        self.not_after = identity.not_after
        self.refusal = refusal
        self.trust_domain = trust_domain

    def __repr__(self) -> str:
        return f"CertificateFacts({self.identity.principal!r}, refusal={self.refusal!r})"


def read_facts(
    chain: tuple[bytes, ...], *, resumed: bool, purpose: x509.ObjectIdentifier
) -> CertificateFacts:
    """Read the leaf of a chain as the peer sent it; `purpose` is the EKU that the peer must have.

    Errors: ValueError when the leaf cannot be parsed (OpenSSL took it, we do not understand it).
    Source: RFC 5280 §4.2; SPIFFE X509-SVID §2, §4, §5.
    """
    der = chain[0]
    certificate = x509.load_der_x509_certificate(der)
    extensions = certificate.extensions
    names = read_names(der)
    sans = _find(extensions, x509.SubjectAlternativeName)
    uris = tuple(sans.get_values_for_type(x509.UniformResourceIdentifier)) if sans else ()
    dns = tuple(sans.get_values_for_type(x509.DNSName)) if sans else ()
    problem = _names_problem(uris, dns)
    if problem:  # such text, or so much of it, must not reach a header or a rule (threats A4)
        uris = dns = ()
    problem = problem or _svid_problem(uris, extensions)
    spiffe = uris[0] if uris and _is_spiffe(uris[0]) and not problem else None
    common = names.common_names
    identity = PeerIdentity(
        spiffe=spiffe,
        uris=uris,
        dns=dns,
        common_name=common[0] if sans is None and len(common) == 1 else None,
        subject=names.subject,
        issuer=names.issuer,
        serial=f"{certificate.serial_number:x}",
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=hashlib.sha256(der).hexdigest(),
        certificate=der,
        chain=() if resumed else chain,
        problem=problem,
    )
    return CertificateFacts(
        identity,
        certificate.not_valid_before_utc.timestamp(),
        _purpose_problem(extensions, purpose),
        trust_domain_of(spiffe) if spiffe else "",
    )


def trust_domain_of(spiffe: str) -> str:
    """Give the trust domain of a checked SPIFFE ID."""
    return spiffe.removeprefix("spiffe://").partition("/")[0]


def present(certificate: bytes | None, sni: str) -> PresentedPeer:
    """Give what a refused peer showed, as far as it can be read; never fails."""
    if certificate is None:
        return PresentedPeer(sni=sni) if sni else NOBODY
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = read_names(certificate)
        not_after = parsed.not_valid_after_utc.timestamp()
    except ValueError:
        return PresentedPeer(sni, "(unreadable)", _sans_one_by_one(certificate))
    return PresentedPeer(sni, names.subject, _all_sans(parsed), names.issuer, not_after)


def _all_sans(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError:  # one bad name, or another bad extension, hides all others from this parser
        return _sans_one_by_one(certificate.public_bytes(Encoding.DER))
    return tuple(_san_text(san) for san in list(sans)[:_MAX_SANS])


def _sans_one_by_one(certificate: bytes) -> tuple[str, ...]:
    """Give what can be read of the SANs; bytes that are no ASCII are shown as `\\xNN`."""
    return tuple(
        _raw_san_text(tag, content)
        for tag, content in read_alternative_names(certificate)[:_MAX_SANS]
    )


def _raw_san_text(tag: int, content: bytes) -> str:
    """Name one SAN by its tag in GeneralName (RFC 5280 §4.2.1.6)."""
    if tag == _IP_TAG and len(content) in {4, 16}:
        return f"IP:{ipaddress.ip_address(content)}"
    kind = _TEXT_TAGS.get(tag)
    if kind is None:
        return f"other:#{content[:_MAX_OTHER_BYTES].hex()}"
    return f"{kind}:{content.decode('ascii', 'backslashreplace')}"


def _san_text(san: x509.GeneralName) -> str:
    kind = {
        x509.UniformResourceIdentifier: "URI",
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.RFC822Name: "email",
    }.get(type(san), "other")
    return f"{kind}:{san.value}"


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_spiffe(uri: str) -> bool:
    return uri[:7].lower() == "spiffe:"


def leaf_problem(certificate: x509.Certificate) -> str:
    """Give the word for why peers would not know, or not take, this leaf of ours; empty for a sound one.

    The words of `PeerIdentity.problem`, `bad_purpose`, and `no_name` for what no rule can name.
    """
    der = certificate.public_bytes(Encoding.DER)
    identity = read_facts((der,), resumed=True, purpose=CLIENT).identity
    extensions = certificate.extensions
    constraints = _find(extensions, x509.BasicConstraints)
    usage = _find(extensions, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (
        usage is not None and not usage.digital_signature
    ):
        return "bad_purpose"  # a missing purpose alone is another sentence: `missing_purposes`
    if identity.problem:
        return identity.problem
    is_named = identity.uris or identity.dns or identity.common_name
    return "" if is_named else "no_name"


def _names_problem(uris: tuple[str, ...], dns: tuple[str, ...]) -> str:
    """Say why the names of a certificate cannot be believed; empty when they can."""
    if has_strange_bytes((*uris, *dns)):
        return "bad_san_bytes"
    return "too_many_sans" if len(uris) + len(dns) > _MAX_SANS else ""


def has_strange_bytes(names: Iterable[str]) -> bool:
    """Look for anything outside 0x21-0x7e: such a name is a header, log or metric injection (threats A4)."""
    return any(
        not name or not name.isascii() or min(name) < "!" or max(name) > "~" for name in names
    )


def _svid_problem(uris: tuple[str, ...], extensions: x509.Extensions) -> str:
    """Say which X509-SVID rule a certificate with a `spiffe:` name breaks; empty without such a name.

    Source: X509-SVID §2 (exactly one URI SAN), §4.1 (leaf is no CA), §4.3 (key usage).
    """
    if not any(_is_spiffe(uri) for uri in uris):
        return ""
    if len(uris) != 1:
        return "several_uri_sans"
    if authorization.parse_spiffe_id(uris[0]) is None:
        return "bad_spiffe_id"
    usage = _find(extensions, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        return "svid_without_digital_signature"
    return "svid_may_sign" if usage.key_cert_sign or usage.crl_sign else ""


def _purpose_problem(extensions: x509.Extensions, purpose: x509.ObjectIdentifier) -> str:
    """Refuse CA certificates as leaves, and leaves made for something else (threats B7).

    OpenSSL checks purposes in a full handshake only; this holds for resumed ones too.
    """
    constraints = _find(extensions, x509.BasicConstraints)
    usage = _find(extensions, x509.KeyUsage)
    extended = _find(extensions, x509.ExtendedKeyUsage)
    is_authority = constraints is not None and constraints.ca
    cannot_sign = usage is not None and not usage.digital_signature
    wrong_use = extended is not None and purpose not in extended
    return "bad_purpose" if is_authority or cannot_sign or wrong_use else ""


def is_authority(certificate: x509.Certificate) -> bool:
    """Say whether a certificate may issue others: CA:TRUE, and keyCertSign where key usage is given.

    Errors: ValueError when its extensions cannot be parsed.
    Source: RFC 5280 §4.2.1.9 and §6.1.4 (k), (n).
    """
    constraints = _find(certificate.extensions, x509.BasicConstraints)
    usage = _find(certificate.extensions, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        return False
    return usage is None or usage.key_cert_sign


def signs_certificates(certificate: x509.Certificate) -> bool:
    """As `is_authority`, but key usage must be there: what a trust bundle's entry must have (threats B7)."""
    usage = _find(certificate.extensions, x509.KeyUsage)
    return is_authority(certificate) and usage is not None and usage.key_cert_sign


def own_spiffe(certificate: x509.Certificate) -> str | None:
    """Give our own SPIFFE ID, None when the certificate has none."""
    sans = _find(certificate.extensions, x509.SubjectAlternativeName)
    uris = sans.get_values_for_type(x509.UniformResourceIdentifier) if sans else []
    return (
        uris[0] if len(uris) == 1 and authorization.parse_spiffe_id(uris[0]) is not None else None
    )


def sans_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Give every SAN as text for people, without its kind."""
    return tuple(text.partition(":")[2] for text in _all_sans(certificate))


def subject_of(certificate: x509.Certificate) -> str:
    """Give the subject in RFC 2253 text; empty for the empty name."""
    return read_names(certificate.public_bytes(Encoding.DER)).subject


def missing_purposes(certificate: x509.Certificate) -> list[str]:
    """Name those of clientAuth and serverAuth that a restricted certificate lacks."""
    extended = _find(certificate.extensions, x509.ExtendedKeyUsage)
    if extended is None:
        return []
    return [
        name
        for name, use in (("clientAuth", CLIENT), ("serverAuth", SERVER))
        if use not in extended
    ]
