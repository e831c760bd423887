"""Look at a certificate without a listener or a service: what a server presents, and whether we would take it.

Knows how to ask the same questions as a handshake of ours would; nothing here ever carries data.
"""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL, crypto

from ambassador.core.model import PeerIdentity, TlsSession
from ambassador.identity import peer as peers
from ambassador.identity import tls
from ambassador.identity.callbacks import Handshake, der_of
from ambassador.identity.credentials import Credentials
from ambassador.identity.judgement import date_problem
from ambassador.identity.openssl_errors import reason_of
from ambassador.identity.records import Io, io_of
from ambassador.identity.refusal import VERIFY_REASONS, TlsRefused
from ambassador.identity.trust import FactsCache, Trust

_DEFAULT_GROUPS = ("X25519MLKEM768", "X25519", "P-256")


class ProbeTls:
    """A client that shakes hands with anybody, to see the certificate; it fits where `ClientTls` does."""

    __slots__ = ("_context", "_server_name")

    def __init__(self, credentials: Credentials | None, server_name: str) -> None:
        self._context = tls.new_probe_context(credentials, _DEFAULT_GROUPS)
        self._server_name = server_name

    def io(self, connection: SSL.Connection) -> Io:
        return io_of(connection, lambda error: self.refusal(connection, error))

    def new_connection(self, sock: tls.Socket | None, session_key: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, sock)
        connection.set_connect_state()
        connection.set_app_data(Handshake(None))  # nothing is verified, so nothing is judged
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode())
        return connection

    def peer(self, connection: SSL.Connection, wall_now: float) -> tuple[PeerIdentity, TlsSession]:
        """Give what the server presented, **unverified**.

        Errors: TlsRefused `no_certificate` or `bad_certificate`.
        """
        certificate = connection.get_peer_certificate()
        if certificate is None:
            raise TlsRefused("no_certificate")
        try:
            facts = peers.read_facts(sent_chain(connection), resumed=False, purpose=peers.SERVER)
        except ValueError:
            raise TlsRefused("bad_certificate") from None
        return facts.identity, tls.describe(connection, self._server_name, resumed=False)

    def refusal(self, connection: SSL.Connection, error: BaseException) -> TlsRefused:
        """Explain a failed handshake; a TLS 1.2 server that refuses us has shown its certificate before."""
        tls.clear_errors()
        if isinstance(error, TlsRefused):
            return error
        reason, detail = reason_of(error)
        certificate = connection.get_peer_certificate()
        der = der_of(certificate) if certificate is not None else None
        return TlsRefused(reason, detail, peers.present(der, self._server_name))


def sent_chain(connection: SSL.Connection) -> tuple[bytes, ...]:
    """Give the chain that a server sent, leaf first."""
    return tuple(der_of(certificate) for certificate in connection.get_peer_cert_chain() or ())


def judge_certificate(
    credentials: Credentials,
    chain: tuple[bytes, ...],
    *,
    purpose: x509.ObjectIdentifier,
    wall_now: float,
) -> PeerIdentity:
    """Say who a chain is, leaf first, by the trust bundle and dates of `credentials`.

    Units: `wall_now` is Unix time in seconds.
    Errors: TlsRefused with the reason that a handshake would give.
    """
    trust, cache = Trust.of(credentials), FactsCache(purpose)
    presented = peers.present(chain[0], "")
    try:
        facts = cache.facts(chain, resumed=False)
        verified = _verify(credentials, chain)
    except ValueError:
        raise TlsRefused("bad_certificate", "", presented) from None
    except crypto.X509StoreContextError as error:
        number = error.errors[0] if error.errors else 0
        reason = VERIFY_REASONS.get(number, "bad_certificate")
        raise TlsRefused(reason, str(error), presented) from None
    reason = facts.refusal or date_problem(facts, wall_now)
    if not reason and credentials.revocation is not None:
        reason = credentials.revocation.judge(verified, wall_now)
    reason = reason or trust.domain_problem(facts, verified[-1])
    if reason:
        raise TlsRefused(reason, "", presented)
    return trust.identity(facts)


def _verify(credentials: Credentials, chain: tuple[bytes, ...]) -> list[bytes]:
    store = crypto.X509Store()
    for authorities in credentials.bundles.values():
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
    parsed = [crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)) for der in chain]
    context = crypto.X509StoreContext(store, parsed[0], parsed[1:])
    return [der_of(certificate) for certificate in context.get_verified_chain()]
