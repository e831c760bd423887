"""Certificate revocation lists: read, checked, and asked after every handshake.

Knows RFC 5280 §5. With a CRL configured "unknown" is "revoked": every issuer in a chain needs a current, signed
list. OpenSSL checks the same lists in the handshake, so that the peer gets the right alert, unless a grace
period is configured, which OpenSSL does not know: a verify callback here never turns a no into a yes.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from ambassador.core.errors import CredentialError

_PEM_MARK: Final = b"-----BEGIN X509 CRL-----"
_PEM_END: Final = b"-----END X509 CRL-----"


class _RevocationList:
    """One list, with its serial numbers ready to ask."""

    __slots__ = ("crl", "next_update", "serials", "this_update", "verified")

    def __init__(self, crl: x509.CertificateRevocationList) -> None:
        self.crl = crl
        self.serials = frozenset(entry.serial_number for entry in crl)
        self.this_update = crl.last_update_utc.timestamp()
        self.next_update = crl.next_update_utc.timestamp() if crl.next_update_utc else 0.0
        self.verified: set[bytes] = set()  # DER of issuers whose key signed this list

    def is_signed_by(self, issuer: x509.Certificate, der: bytes) -> bool:
        """Check the signature, once per issuer certificate."""
        if der in self.verified:
            return True
        if not _may_sign_lists(issuer):
            return False
        key = issuer.public_key()
        if not isinstance(
            key,
            rsa.RSAPublicKey
            | ec.EllipticCurvePublicKey
            | ed25519.Ed25519PublicKey
            | ed448.Ed448PublicKey
            | dsa.DSAPublicKey,
        ):
            return False
        try:
            signed = self.crl.is_signature_valid(key)
        except (InvalidSignature, TypeError, ValueError):
            return False
        if signed:
            self.verified.add(der)
        return signed


class RevocationLists:
    """All configured lists of a generation.

    Units: `grace_s` is seconds for which an expired list still counts.
    """

    __slots__ = ("_by_issuer", "grace_s")

    def __init__(
        self, lists: tuple[x509.CertificateRevocationList, ...], grace_s: float | None
    ) -> None:
        self.grace_s = grace_s
        self._by_issuer: dict[bytes, list[_RevocationList]] = {}
        for crl in lists:
            self._by_issuer.setdefault(crl.issuer.public_bytes(), []).append(_RevocationList(crl))

    @property
    def lists(self) -> tuple[x509.CertificateRevocationList, ...]:
        return tuple(one.crl for same in self._by_issuer.values() for one in same)

    @property
    def next_update(self) -> float:
        """When the first of them expires, Unix time in seconds."""
        return min(
            (one.next_update for same in self._by_issuer.values() for one in same), default=0.0
        )

    def judge(self, chain: list[bytes], wall_now: float) -> str:
        """Give the reason word for a verified chain, leaf first and root last; empty when nothing is revoked.

        Units: `wall_now` is Unix time in seconds.
        """
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        for place in range(len(chain) - 1):
            issuer, issuer_der = certificates[place + 1], chain[place + 1]
            reason = self._judge_one(certificates[place], issuer, issuer_der, wall_now)
            if reason:
                return reason
        return ""

    def _judge_one(
        self,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        issuer_der: bytes,
        wall_now: float,
    ) -> str:
        reason = "crl_missing"
        for one in self._by_issuer.get(certificate.issuer.public_bytes(), ()):
            if not one.is_signed_by(issuer, issuer_der):
                reason = "crl_invalid"
            elif certificate.serial_number in one.serials:
                return "revoked"  # whatever the list's age: an old revocation stays one
            elif wall_now < one.this_update:
                reason = "crl_not_yet_valid"
            elif wall_now > one.next_update + (self.grace_s or 0.0):
                reason = "crl_expired"
            else:
                return ""
        return reason


def parse_lists(content: bytes, name: str) -> list[x509.CertificateRevocationList]:
    """Read the lists of one file, PEM (one or several) or DER.

    Errors: CredentialError `crl_unreadable` or `crl_partial` with the file's name.
    """
    blocks = _pem_blocks(content)
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
        lists = lists or [x509.load_der_x509_crl(content)]
    except ValueError:
        raise CredentialError(
            "crl_unreadable", f"{name}: is no certificate revocation list in PEM or DER"
        ) from None
    for crl in lists:
        _refuse_partial(crl, name)
    return lists


def check_current(
    crl: x509.CertificateRevocationList, name: str, grace_s: float, wall_now: float
) -> None:
    """Refuse a list that is expired beyond its grace, or not yet valid.

    Errors: CredentialError `crl_expired`, `crl_not_yet_valid`.
    """
    if wall_now < crl.last_update_utc.timestamp():
        raise CredentialError(
            "crl_not_yet_valid",
            f"{name}: the list is valid from {crl.last_update_utc:%Y-%m-%d %H:%M} UTC on; check the clock",
        )
    if crl.next_update_utc is None or wall_now > crl.next_update_utc.timestamp() + grace_s:
        when = (
            f"on {crl.next_update_utc:%Y-%m-%d %H:%M} UTC"
            if crl.next_update_utc
            else "(it has no nextUpdate)"
        )
        raise CredentialError(
            "crl_expired", f"{name}: the list expired {when}; fetch a new one from its issuer"
        )


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    """RFC 5280 §6.3.3 (f): where key usage is given, it must have cRLSign."""
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False


def _pem_blocks(content: bytes) -> list[bytes]:
    return [
        _PEM_MARK + part.partition(_PEM_END)[0] + _PEM_END + b"\n"
        for part in content.split(_PEM_MARK)[1:]
    ]


def _refuse_partial(crl: x509.CertificateRevocationList, name: str) -> None:
    """Refuse delta lists and lists of a part of the certificates: their absence of an entry proves nothing.

    Likewise with a critical extension that nobody here knows: what it says could be just that (RFC 5280 §5.2).
    """
    kinds: tuple[type[x509.ExtensionType], ...] = (
        x509.DeltaCRLIndicator,
        x509.IssuingDistributionPoint,
    )
    for kind in kinds:
        try:
            crl.extensions.get_extension_for_class(kind)
        except x509.ExtensionNotFound:
            continue
        except ValueError:
            pass
        raise CredentialError(
            "crl_partial", f"{name}: is a delta or partial list; only complete lists are taken"
        )
    for extension in crl.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise CredentialError(
                "crl_partial",
                f"{name}: has the critical extension {extension.oid.dotted_string}, which is not understood",
            )
