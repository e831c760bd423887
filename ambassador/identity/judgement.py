"""Who has shaken hands: the judgement of a peer's certificate, inside a full handshake and after every one.

Knows what OpenSSL verified and what it did not look at; must not know contexts, nor the rules of listeners. There are
two looks: `judge_early` in the verify callback, where a refusal still gets the alert that belongs to it, and `judge`
after the handshake, which is all that a resumed session has (threats C1) and the second lock of a full one. What is
dear (DER of the certificates, revocation) is found out once, by the first look.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import lib as _lib

from ambassador.core.clock import Clock
from ambassador.core.model import PeerIdentity
from ambassador.identity import peer as peers
from ambassador.identity.callbacks import Handshake, der_of, sent_chain, verified_chain
from ambassador.identity.peer import CertificateFacts
from ambassador.identity.refusal import PresentedPeer, TlsRefused
from ambassador.identity.trust import FactsCache, Trust

_MAX_CHAIN_BYTES: Final = 64 * 1024
#: So long after it was asked inside the handshake, revocation is not asked again. Units: seconds.
_FRESH_S: Final = 10.0


class Judge:
    """Judges peers by the trust of one generation."""

    __slots__ = ("_cache", "_clock", "_trust")

    def __init__(self, trust: Trust, cache: FactsCache, clock: Clock) -> None:
        self._trust = trust
        self._cache = cache
        self._clock = clock

    def judge_early(
        self, connection: SSL.Connection, handshake: Handshake, store: Any
    ) -> TlsRefused | None:
        """Judge the leaf of a full handshake inside the verify callback, so that a refusal has its alert.

        Not its dates, which OpenSSL has just looked at, nor the size of what was sent beside the leaf, which
        cannot be seen yet. What is found stays in `handshake`.
        """
        leaf, wall_now = handshake.certificate or b"", self._clock.wall()
        facts: CertificateFacts | None = None
        verified: list[bytes] = []
        try:
            if len(leaf) > _MAX_CHAIN_BYTES:
                reason = "chain_too_large"
            else:
                # Leaf and root alone: the root is one of the trust bundle, which `credentials` checked.
                if handshake.has_issuers or self._trust.needs_chain:
                    verified = verified_chain(store, leaf)
                facts = self._cache.facts((leaf,), resumed=False)
                reason = (
                    self._issuer_problem(verified)
                    or facts.refusal
                    or self._revocation_problem(verified, wall_now)
                    or self._trust.domain_problem(facts, verified[-1] if verified else None)
                )
        except ValueError:
            reason = "bad_certificate"
        if facts is None or reason:
            return TlsRefused(reason, "", peers.present(leaf, sni_of(connection)))
        handshake.facts, handshake.verified, handshake.judged_at = facts, verified, wall_now
        return None

    def judge(
        self, connection: SSL.Connection, wall_now: float, sni: str
    ) -> tuple[PeerIdentity, bool]:
        """Check after a handshake, full or resumed, what is true only now; give the identity and `resumed`.

        A resumed one has not been judged before (C1); of a full one only what is dear is not asked again.
        Errors: TlsRefused, after close_notify: OpenSSL sends no other alert by now.
        """
        handshake: Handshake = connection.get_app_data()
        resumed = _lib.SSL_session_reused(connection._ssl) == 1
        if resumed:
            handshake.forget_peer()
        leaf = handshake.certificate
        if leaf is None:
            certificate = connection.get_peer_certificate()
            if certificate is None:  # FAIL_IF_NO_PEER_CERT already refused; believe nobody (B8)
                raise refused_late(connection, "no_certificate", "", peers.present(None, sni))
            leaf = der_of(certificate)
        chain = (leaf,) if resumed else sent_chain(connection, leaf)
        reason, facts = self._problem(connection, handshake, chain, wall_now, resumed=resumed)
        handshake.forget_peer()
        if facts is None or reason:
            detail = "resumed" if resumed else ""
            raise refused_late(connection, reason, detail, peers.present(leaf, sni))
        return self._trust.identity(facts), resumed

    def _problem(
        self,
        connection: SSL.Connection,
        handshake: Handshake,
        chain: tuple[bytes, ...],
        wall_now: float,
        *,
        resumed: bool,
    ) -> tuple[str, CertificateFacts | None]:
        if sum(map(len, chain)) > _MAX_CHAIN_BYTES:
            return "chain_too_large", None
        seen, revoked = handshake.facts, ""
        try:
            # The leaf alone is what `judge_early` has read; with issuers beside it the identity has a longer chain.
            known = seen if len(chain) == 1 else None
            facts = known or self._cache.facts(chain, resumed=resumed)
            verified = handshake.verified
            if seen is None:
                verified = self._verified_chain(connection, chain, resumed=resumed)
            if seen is None or abs(wall_now - handshake.judged_at) > _FRESH_S:
                revoked = self._revocation_problem(verified, wall_now)
            strange = self._issuer_problem(verified)
        except ValueError:
            return "bad_certificate", None
        reason = strange or facts.refusal or date_problem(facts, wall_now) or revoked
        root = verified[-1] if verified else None
        return reason or self._trust.domain_problem(facts, root), facts

    def _verified_chain(
        self, connection: SSL.Connection, chain: tuple[bytes, ...], *, resumed: bool
    ) -> list[bytes]:
        """Give the chain that OpenSSL verified, leaf first, where it matters; else nothing.

        Without sent issuers every issuer is one of the trust bundle, which `credentials` checked.
        """
        if resumed or (len(chain) == 1 and not self._trust.needs_chain):
            return []
        verified = connection.get_verified_chain() or []
        return [der_of(certificate) for certificate in verified]

    def _issuer_problem(self, verified: list[bytes]) -> str:
        """Refuse issuers that OpenSSL takes and we do not. Errors: ValueError when one cannot be parsed."""
        if len(verified) <= 1:
            return ""
        is_authority = self._cache.is_authority
        return "" if all(is_authority(issuer) for issuer in verified[1:]) else "bad_issuer"

    def _revocation_problem(self, verified: list[bytes], wall_now: float) -> str:
        """Ask revocation; without a verified chain, and needing one, refuse (rule 4)."""
        if self._trust.needs_chain and len(verified) < 2:  # noqa: PLR2004  # leaf and root
            return "not_judgeable"
        revocation = self._trust.credentials.revocation
        return revocation.judge(verified, wall_now) if revocation is not None else ""


def date_problem(facts: CertificateFacts, wall_now: float) -> str:
    """Say whether a certificate is out of its dates; empty when it is current."""
    if wall_now > facts.not_after:
        return "expired"
    return "not_yet_valid" if wall_now < facts.not_before else ""


def refused_late(
    connection: SSL.Connection, reason: str, detail: str, presented: PresentedPeer
) -> TlsRefused:
    """Give a refusal after the handshake, and the peer a close_notify, not a bare end (RFC 8446 §6.1)."""
    with contextlib.suppress(SSL.Error):  # a full or broken socket: then it is a bare end
        connection.shutdown()
    return TlsRefused(reason, detail, presented)


def sni_of(connection: SSL.Connection) -> str:
    """Give the name that the handshake asked for, empty without one."""
    name = connection.get_servername()
    return name.decode("latin-1") if name else ""
