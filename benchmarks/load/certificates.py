"""A throw-away authority and the leaves of the two workloads: P-256, one SPIFFE URI SAN and one DNS SAN each.

nginx and HAProxy cannot check a URI SAN of their upstream, so for them the DNS SAN stands in.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "example.org"
_LIFETIME = datetime.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload's credentials. `both` is certificate and key in one file, as HAProxy wants them."""

    name: str
    certificate: Path
    key: Path
    both: Path
    trust_bundle: Path

    @property
    def spiffe(self) -> str:
        return f"spiffe://{TRUST_DOMAIN}/shop/{self.name}"

    @property
    def dns(self) -> str:
        return f"{self.name}.{TRUST_DOMAIN}"


class Authority:
    """Signs the leaves of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark CA")])
        builder = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.add_extension(_usage(signs=True), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.trust_bundle = folder / "ca.crt"
        self.trust_bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Workload:
        """Write certificate and key of one workload."""
        certificate_file, key_file, both = (
            self._folder / f"{name}{suffix}" for suffix in (".crt", ".key", ".pem")
        )
        workload = Workload(name, certificate_file, key_file, both, self.trust_bundle)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._leaf(workload, key).public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for path, content in (
            (workload.certificate, certificate),
            (workload.key, secret),
            (workload.both, certificate + secret),
        ):
            path.write_bytes(content)
            path.chmod(0o600)
        return workload

    def _leaf(self, workload: Workload, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, workload.name)])
        names = [x509.UniformResourceIdentifier(workload.spiffe), x509.DNSName(workload.dns)]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            self._builder(subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        authority_key = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _LIFETIME)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key), critical=False
            )
        )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
