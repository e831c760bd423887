"""A certificate authority that makes good certificates and, on request, every kind of bad one.

Built on cryptography alone, because trustme and our own `identity.authority` only make sound ones.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# Tags of GeneralName (RFC 5280 §4.2.1.6), for subject alternative names of any bytes.
EMAIL, DNS, URI, IP = 1, 2, 6, 7

_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_EXTENDED = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key; `chain_pem` are the intermediates that its owner sends after it."""

    certificate: x509.Certificate
    private_key: PrivateKey
    chain_pem: bytes = b""

    @property
    def certificate_pem(self) -> bytes:
        """The leaf, then its intermediates."""
        return self.certificate.public_bytes(serialization.Encoding.PEM) + self.chain_pem

    @property
    def key_pem(self) -> bytes:
        """The private key, unencrypted PKCS #8."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def der(self) -> bytes:
        """The leaf alone."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, lower-case hexadecimal, as `Hash=` in X-Forwarded-Client-Cert."""
        return hashlib.sha256(self.der).hexdigest()

    def write(self, folder: Path, trust_bundle: bytes) -> Path:
        """Lay `tls.crt`, `tls.key` (0600) and `ca.crt`, as `identity.directory` wants them; give the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tls.crt").write_bytes(self.certificate_pem)
        (folder / "tls.key").touch(mode=0o600)
        (folder / "tls.key").write_bytes(self.key_pem)
        (folder / "ca.crt").write_bytes(trust_bundle)
        return folder


class Authority:
    """A CA, or with `parent` an intermediate below it."""

    def __init__(
        self,
        name: str = "test CA",
        *,
        parent: Authority | None = None,
        days: float = 365.0,
        path_length: int | None = None,
    ) -> None:
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.parent = parent
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = parent.private_key if parent else self.private_key
        issuer: x509.Name = parent.certificate.subject if parent else subject
        begin, end = _period(-1.0, days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(self.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_key_usage(("key_cert_sign", "crl_sign")), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.private_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        self.certificate: x509.Certificate = builder.sign(signer, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The certificate of this CA, for a trust bundle."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        """What a leaf's owner must send along: nothing for a root, else this CA and those above but the root."""
        return self.pem + self.parent.chain_pem if self.parent else b""

    def issue(  # every argument is one way in which a certificate can be odd
        self,
        *,
        spiffe: str | None = None,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
        cn: str | None = None,
        subject: x509.Name | None = None,
        raw_sans: Sequence[tuple[int, bytes]] = (),
        sans_critical: bool = False,
        extended_key_usage: Iterable[str] | None = ("client", "server"),
        key_usage: Iterable[str] | None = ("digital_signature",),
        is_ca: bool = False,
        begin_days: float = -1.0,
        end_days: float = 30.0,
        private_key: PrivateKey | None = None,
        serial: int | None = None,
        extra_extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Issued:
        """Sign a leaf.

        `raw_sans` are (tag, bytes) pairs, e.g. `(URI, b"spiffe://a/\\xff")`, and stand after the others.
        `extended_key_usage` or `key_usage` None leaves the extension out; `is_ca` makes a CA leaf.

        Units: `begin_days` and `end_days` count from now; both negative is expired, both positive not yet valid.
        """
        key = private_key or ec.generate_private_key(ec.SECP256R1())
        names = [(URI, uri.encode()) for uri in ([spiffe] if spiffe else []) + list(uris)]
        names += [(DNS, name.encode()) for name in dns]
        names += [(IP, ipaddress.ip_address(address).packed) for address in ips]
        names += list(raw_sans)
        if subject is None:
            subject = x509.Name(
                [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn is not None else []
            )
        begin, end = _period(begin_days, end_days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(serial if serial is not None else x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(_alternative_names(names), critical=sans_critical)
        if key_usage is not None:
            builder = builder.add_extension(_key_usage(key_usage), critical=True)
        if extended_key_usage is not None:
            oids = [_EXTENDED[usage] for usage in extended_key_usage]
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
        for extension, critical in extra_extensions:
            builder = builder.add_extension(extension, critical=critical)
        return Issued(builder.sign(self.private_key, hashes.SHA256()), key, self.chain_pem)

    def revoke(self, *revoked: Issued, hours: float = 24.0, age_hours: float = 1.0) -> bytes:
        """Give a CRL as PEM. Units: `hours` from now to nextUpdate (negative: an old list), `age_hours` since made."""
        now = datetime.datetime.now(datetime.UTC)
        made = now - datetime.timedelta(hours=max(age_hours, 1.0 - hours))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(made)
            .next_update(now + datetime.timedelta(hours=hours))
        )
        for issued in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(issued.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(made).build())
        return builder.sign(self.private_key, hashes.SHA256()).public_bytes(
            serialization.Encoding.PEM
        )


def client_context(
    authority: Authority | bytes,
    identity: Issued | None = None,
    *,
    version: ssl.TLSVersion | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """Give a stdlib TLS client: trusts only `authority`, checks the chain but no name, shows `identity` if given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _prepare(context, authority, identity, version, alpn)
    return context


def server_context(
    authority: Authority | bytes,
    identity: Issued,
    *,
    version: ssl.TLSVersion | None = None,
    alpn: Sequence[str] = (),
    client_certificate: bool = True,
) -> ssl.SSLContext:
    """Give a stdlib TLS server that demands a client certificate of `authority`, unless told otherwise."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    _prepare(context, authority, identity, version, alpn)
    return context


def _prepare(
    context: ssl.SSLContext,
    authority: Authority | bytes,
    identity: Issued | None,
    version: ssl.TLSVersion | None,
    alpn: Sequence[str],
) -> None:
    pem = authority.pem if isinstance(authority, Authority) else authority
    context.load_verify_locations(cadata=pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if identity is not None:
        with tempfile.TemporaryDirectory() as folder:  # `ssl` loads keys from files only
            path = Path(folder, "both.pem")
            path.write_bytes(identity.key_pem + identity.certificate_pem)
            context.load_cert_chain(path)


def _period(begin_days: float, end_days: float) -> tuple[datetime.datetime, datetime.datetime]:
    now = datetime.datetime.now(datetime.UTC)
    return now + datetime.timedelta(days=begin_days), now + datetime.timedelta(days=end_days)


def _key_usage(wanted: Iterable[str]) -> x509.KeyUsage:
    names = set(wanted)
    assert names <= set(_KEY_USAGES), names
    return x509.KeyUsage(**{usage: usage in names for usage in _KEY_USAGES})


def _alternative_names(names: Sequence[tuple[int, bytes]]) -> x509.UnrecognizedExtension:
    """Encode GeneralNames by hand: the library refuses the ones that attackers use."""
    content = b"".join(bytes([0x80 | tag]) + _length(len(value)) + value for tag, value in names)
    return x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30" + _length(len(content)) + content
    )


def _length(size: int) -> bytes:
    """Encode a DER length (X.690 §8.1.3)."""
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
