"""Issue certificates: a small CA for development, demos and tests, and for those who have no other.

Knows what a sound CA and a sound workload certificate look like; must not know files or commands. P-256 keys,
random serials, critical constraints and usages, key identifiers (RFC 5280 §4.2; X509-SVID §4).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ambassador.core.errors import CredentialError
from ambassador.identity.peer import has_strange_bytes
from ambassador.policy import authorization

#: Clocks of two hosts differ; a certificate that is valid from now on is refused by the slower one.
_BACKDATED: Final = timedelta(minutes=5)
AUTHORITY_DAYS: Final = 3650
_MAX_CN: Final = 64  # ub-common-name, RFC 5280 appendix A.1


@dataclass(frozen=True, slots=True)
class LeafRequest:
    """What a workload certificate shall say. At least one name is needed.

    Units: `days` may be a fraction.
    """

    spiffe: str | None = None
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    common_name: str | None = None
    uris: tuple[str, ...] = ()
    days: float = 30.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, as PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class Authority:
    """A CA that issues workload certificates."""

    __slots__ = ("certificate", "key")

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()!r})"

    @classmethod
    def create(cls, name: str, *, wall_now: float, days: float = AUTHORITY_DAYS) -> Authority:
        """Make a new self-signed CA called `name`.

        Units: `wall_now` is Unix time in seconds.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            _builder(subject, subject, key.public_key(), wall_now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Authority:
        """Take up a CA that was made before.

        Errors: CredentialError `authority_unreadable`.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError):
            raise CredentialError(
                "authority_unreadable", "the CA's files cannot be read as PEM"
            ) from None
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != certificate.public_key()
        ):
            raise CredentialError(
                "authority_unreadable", "the CA's key does not match its certificate"
            )
        return cls(certificate, key)

    @property
    def issued(self) -> Issued:
        """The CA's own certificate and key, to be kept."""
        return Issued(self.certificate, self.key)

    def intermediate(
        self, name: str, *, wall_now: float, days: float = AUTHORITY_DAYS
    ) -> Authority:
        """Issue a CA below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), self.certificate.subject, key.public_key(), wall_now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Authority(certificate, key)

    def issue(self, request: LeafRequest, *, wall_now: float) -> Issued:
        """Issue a workload certificate for client and server use, with a fresh key.

        It never outlives its CA: such a leaf would only fail later and more strangely.
        Units: `wall_now` is Unix time in seconds.
        Errors: CredentialError `bad_name` when a name is none.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        sans = _sans(request)
        subject = _name(request.common_name) if request.common_name else x509.Name([])
        builder = (
            _builder(
                subject,
                self.certificate.subject,
                key.public_key(),
                wall_now,
                request.days,
                self._end,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(self._key_identifier(), critical=False)
        )
        if sans:  # critical when the subject is empty, RFC 5280 §4.2.1.6
            builder = builder.add_extension(
                x509.SubjectAlternativeName(sans), critical=not request.common_name
            )
        return Issued(builder.sign(self.key, hashes.SHA256()), key)

    @property
    def _end(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def is_due(certificate: x509.Certificate, wall_now: float) -> bool:
    """Say whether a certificate is in the last third of its life, or past it.

    Units: `wall_now` is Unix time in seconds.
    """
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return wall_now >= end - (end - start) / 3


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Give every SAN of a certificate as comparable text."""
    return frozenset(text for _, text in names_by_kind(certificate))


def names_by_kind(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """Give the SANs of a certificate that we issued: (`uri`, `dns`, `ip` or `other`, text)."""
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    kinds: dict[type, str] = {
        x509.UniformResourceIdentifier: "uri",
        x509.DNSName: "dns",
        x509.IPAddress: "ip",
    }
    return [(kinds.get(type(san), "other"), str(san.value)) for san in sans]


def common_names_of(certificate: x509.Certificate) -> list[str]:
    """Give the common names of the subject."""
    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [str(attribute.value) for attribute in attributes]


def check_names(request: LeafRequest) -> None:
    """Look whether the names can stand in a certificate, before anything is made.

    Errors: CredentialError `bad_name`.
    """
    _sans(request)


def _sans(request: LeafRequest) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    if request.spiffe is not None:
        if authorization.parse_spiffe_id(request.spiffe) is None:
            raise CredentialError(
                "bad_name",
                f'"{request.spiffe}" is no SPIFFE ID; one looks like spiffe://example.org/shop/web'
                " (lower-case domain; letters, digits, . _ - in the path; no / at the end)",
            )
        names.append(x509.UniformResourceIdentifier(request.spiffe))
    strange = [name for name in (*request.uris, *request.dns) if has_strange_bytes((name,))]
    if strange:
        raise CredentialError(
            "bad_name", f'"{strange[0]}" is no DNS name or URI: no blanks, no controls, plain ASCII'
        )
    try:
        names += [x509.UniformResourceIdentifier(uri) for uri in request.uris]
        names += [x509.DNSName(name) for name in request.dns]
    except ValueError:
        raise CredentialError("bad_name", "a DNS name or URI must be plain ASCII") from None
    for text in request.ips:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            raise CredentialError("bad_name", f'"{text}" is no IP address') from None
    if not names and not request.common_name:
        raise CredentialError(
            "bad_name", "a certificate needs a name: --spiffe, --dns, --ip or --cn"
        )
    return names


def _name(common_name: str) -> x509.Name:
    if not 0 < len(common_name) <= _MAX_CN:
        raise CredentialError("bad_name", f"a common name has 1 to {_MAX_CN} characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(  # noqa: PLR0917  # one certificate, spelt out
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    wall_now: float,
    days: float,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(wall_now, UTC).replace(microsecond=0)
    end = start + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(min(end, latest) if latest else end)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
