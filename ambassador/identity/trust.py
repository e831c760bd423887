"""What is known of certificates, and which root may speak for which name.

Knows certificates that passed chain verification; must not know handshakes. Facts are kept, decisions never:
a decision depends on the time, on revocation and on rules (threats C1, C5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ambassador.core.model import PeerIdentity
from ambassador.identity import peer as peers
from ambassador.identity.credentials import Credentials
from ambassador.identity.peer import CertificateFacts

_MAX_FACTS: Final = 1024
#: Longer ones are read anew: a peer may send anything beside its chain, 64 KiB each time, and fill 64 MiB (E6).
_MAX_KEPT_CHAIN: Final = 8 * 1024


class FactsCache:
    """Certificates already read, by their bytes: facts about a certificate only, never a decision.

    Bounded; what is in it has passed chain verification once, so strangers cannot fill it.
    """

    __slots__ = ("_authorities", "_facts", "purpose")

    def __init__(self, purpose: x509.ObjectIdentifier) -> None:
        self.purpose = purpose
        self._facts: dict[tuple[bytes, ...] | bytes, CertificateFacts] = {}
        self._authorities: dict[bytes, bool] = {}

    def facts(self, chain: tuple[bytes, ...], *, resumed: bool) -> CertificateFacts:
        """Give the facts of a chain's leaf.

        Errors: ValueError when it cannot be parsed.
        """
        key = chain[0] if resumed else chain
        known = self._facts.get(key)
        if known is None:
            known = peers.read_facts(chain, resumed=resumed, purpose=self.purpose)
            if sum(map(len, chain)) > _MAX_KEPT_CHAIN:
                return known
            if len(self._facts) >= _MAX_FACTS:
                self._facts.clear()
            self._facts[key] = known
        return known

    def is_authority(self, der: bytes) -> bool:
        """Say whether an issuer in a verified chain is CA:TRUE; OpenSSL takes some without basic constraints.

        Errors: ValueError when it cannot be parsed.
        """
        known = self._authorities.get(der)
        if known is None:
            known = peers.is_authority(x509.load_der_x509_certificate(der))
            if len(self._authorities) >= _MAX_FACTS:
                self._authorities.clear()
            self._authorities[der] = known
        return known


@dataclass(frozen=True, slots=True)
class Trust:
    """What chains of one generation are judged by; built once, shared by its contexts."""

    credentials: Credentials
    domains_by_root: dict[bytes, frozenset[str]]

    @classmethod
    def of(cls, credentials: Credentials) -> Trust:
        domains: dict[bytes, set[str]] = {}
        for domain, authorities in credentials.bundles.items():
            for authority in authorities:
                domains.setdefault(authority.public_bytes(Encoding.DER), set()).add(domain)
        return cls(credentials, {root: frozenset(names) for root, names in domains.items()})

    @property
    def needs_chain(self) -> bool:
        """Whether the verified chain itself matters: then nothing is resumed, for a resumption has none."""
        return not self.credentials.may_resume

    def domain_problem(self, facts: CertificateFacts, root: bytes | None) -> str:
        """Say whether the peer's root may speak for its name (threats B6).

        An ID needs a root of its own trust domain. Names without a trust domain (DNS, URI, CN) are believed from
        roots of our own domain only, if we have one: a partner's CA could issue any of them (`identity`: also beside
        an ID).
        """
        bundles = self.credentials.bundles
        if "" in bundles:
            return ""  # one unmapped bundle: the rules name the domain
        domains = (
            self.domains_by_root.get(root, frozenset()) if root is not None else frozenset(bundles)
        )
        if facts.trust_domain:
            return "" if facts.trust_domain in domains else "wrong_trust_domain"
        own = self.credentials.trust_domain
        if len(bundles) > 1 and own in bundles and own not in domains:
            return "wrong_trust_domain"
        return ""

    def identity(self, facts: CertificateFacts) -> PeerIdentity:
        """Give the names by which the peer is known, to rules, to the log and to the app (threats B6).

        With several bundles: of a partner's domain the SPIFFE ID alone, of a broken ID nothing at all.
        """
        identity, own = facts.identity, self.credentials.trust_domain
        bundles = self.credentials.bundles
        if len(bundles) > 1:
            if identity.problem:
                return replace(identity, uris=(), dns=())
            if identity.dns and own in bundles and facts.trust_domain not in {"", own}:
                return replace(identity, dns=(), doubted_dns=identity.dns)
        return identity
