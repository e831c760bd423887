"""A development set: one CA and a folder per workload, made where absent and renewed where due.

Knows the folders that Kubernetes and cert-manager also use (`tls.crt`, `tls.key`, `ca.crt`); safe to run at every
start, since what is good is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from ambassador.core.errors import CredentialError
from ambassador.identity import authority as authorities
from ambassador.identity.authority import Authority, LeafRequest
from ambassador.identity.reading import FileReader
from ambassador.identity.writing import PRIVATE, PUBLIC, SAME_OWNER, NewFile, Owner, write_files

AUTHORITY_FOLDER: Final = "ca"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one folder: `made`, `renewed` or `kept`, and the certificate that is in it now."""

    folder: Path
    action: str
    certificate: x509.Certificate


def make_authority(  # one call per command
    folder: Path,
    name: str,
    *,
    days: float,
    replace: bool,
    wall_now: float,
    owner: Owner = SAME_OWNER,
) -> Authority:
    """Make a CA and write it: the certificate for everybody, the key for its owner alone.

    Units: `wall_now` is Unix time in seconds.
    Errors: CredentialError.
    """
    made = Authority.create(name, wall_now=wall_now, days=days)
    files = (
        NewFile("ca.key", made.issued.key_pem, PRIVATE),
        NewFile("ca.crt", made.issued.certificate_pem, PUBLIC),
    )
    write_files(folder, files, replace=replace, owner=owner, mode=0o700)
    return made


def load_authority(folder: Path) -> Authority:
    """Read a CA that `make_authority` wrote.

    Errors: CredentialError.
    """
    with FileReader() as reader:
        certificate, key = reader.read(folder / "ca.crt"), reader.read(folder / "ca.key")
    return Authority.load(certificate.content, key.content)


def issue_into(  # one call per command
    folder: Path,
    issuer: Authority,
    request: LeafRequest,
    *,
    replace: bool,
    wall_now: float,
    owner: Owner = SAME_OWNER,
) -> x509.Certificate:
    """Issue a workload certificate and write certificate, key and CA.

    Units: `wall_now` is Unix time in seconds.
    Errors: CredentialError.
    """
    issued = issuer.issue(request, wall_now=wall_now)
    files = (
        NewFile("tls.key", issued.key_pem, PRIVATE),
        NewFile("tls.crt", issued.certificate_pem, PUBLIC),
        NewFile("ca.crt", issuer.issued.certificate_pem, PUBLIC),
    )
    write_files(folder, files, replace=replace, owner=owner)
    return issued.certificate


def ensure_authority(folder: Path, name: str, *, wall_now: float) -> tuple[Authority, str]:
    """Give the CA of a development set and what was done for it; one in its last third is made anew.

    Units: `wall_now` is Unix time in seconds.
    Errors: CredentialError when what is there cannot be read: it is never replaced on suspicion.
    """
    days = float(authorities.AUTHORITY_DAYS)
    if not (folder / "ca.crt").exists() and not (folder / "ca.key").exists():
        return make_authority(folder, name, days=days, replace=False, wall_now=wall_now), "made"
    known = load_authority(folder)
    if authorities.is_due(known.certificate, wall_now):
        return make_authority(folder, name, days=days, replace=True, wall_now=wall_now), "renewed"
    return known, "kept"


def ensure_workload(
    folder: Path,
    issuer: Authority,
    request: LeafRequest,
    *,
    wall_now: float,
    owner: Owner = SAME_OWNER,
) -> Outcome:
    """Keep a good set, or write a new one.

    Units: `wall_now` is Unix time in seconds.
    Errors: CredentialError.
    """
    known = _good_certificate(folder, issuer, request, wall_now)
    if known is not None:
        return Outcome(folder, "kept", known)
    action = "renewed" if (folder / "tls.crt").exists() else "made"
    certificate = issue_into(folder, issuer, request, replace=True, wall_now=wall_now, owner=owner)
    return Outcome(folder, action, certificate)


def _good_certificate(
    folder: Path, issuer: Authority, request: LeafRequest, wall_now: float
) -> x509.Certificate | None:
    """Give the certificate of a folder if nothing is wrong or due with its set."""
    try:
        with FileReader() as reader:
            certificate, key, bundle = (
                reader.read(folder / name).content for name in ("tls.crt", "tls.key", "ca.crt")
            )
        leaf = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
        leaf.verify_directly_issued_by(issuer.certificate)
    except (CredentialError, ValueError, TypeError, InvalidSignature):
        return None
    good = (
        bundle == issuer.issued.certificate_pem
        and private.public_key() == leaf.public_key()
        and authorities.names_of(leaf) == _wanted_names(request)
        and not authorities.is_due(leaf, wall_now)
    )
    return leaf if good else None


def _wanted_names(request: LeafRequest) -> frozenset[str]:
    spiffe = (request.spiffe,) if request.spiffe else ()
    return frozenset((*spiffe, *request.uris, *request.dns, *request.ips))
