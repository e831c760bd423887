"""TLS contexts, handshakes judged, and refusals explained: the only module that makes pyOpenSSL's connections.

Rules: a context is built once and never changed. Verification never depends on SNI. The verify callback records
what OpenSSL said and asks `judge_early` about what it took, so that our refusals have alerts too; it never turns a
no into a yes, and if it fails the handshake fails (B8). What OpenSSL does not check in a resumed handshake is
checked by `peer` after *every* handshake (C1).

Known ugliness: pyOpenSSL has no names for groups, for whether a session was resumed, or for an ALPN refusal with
its alert, and its verify callback hides the leaf of a refused chain. So this module uses `_util.lib`, `_util.ffi`,
`Connection._ssl` and `Connection._reverse_mapping`; all such uses are here, in `callbacks.py` and in
`records.py`, and the handshake tests pin them.
The binding cannot set the size of a peer's certificate message: OpenSSL stops at 100 KiB, we refuse from 64 KiB.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from typing import Any, Final

import cryptography
import OpenSSL
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _untyped_ffi
from OpenSSL._util import lib as _lib

from ambassador.core.clock import Clock
from ambassador.core.errors import CredentialError
from ambassador.core.model import PeerIdentity, Progress, TlsSession
from ambassador.identity import peer as peers
from ambassador.identity.callbacks import AlpnSelection, Handshake, verify_callback
from ambassador.identity.credentials import Credentials
from ambassador.identity.judgement import Judge, refused_late, sni_of
from ambassador.identity.openssl_errors import first_reason, reason_of
from ambassador.identity.records import Io, io_of
from ambassador.identity.refusal import VERIFY_REASONS, TlsRefused
from ambassador.identity.settings import ServiceSettings, TlsSettings
from ambassador.identity.trust import FactsCache, Trust
from ambassador.policy import authorization

_ffi: Any = _untyped_ffi
#: A `socket.socket` of `net`, which alone may import it; pyOpenSSL takes its descriptor and nothing else.
Socket = Any

#: ECDHE and AEAD only; 128 bits first, for they are enough and a third cheaper. TLS 1.3 suites likewise.
_CIPHERS_1_2: Final = b":".join(
    (
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-CHACHA20-POLY1305",
        b"ECDHE-RSA-CHACHA20-POLY1305",
    )
)
_SUITES_1_3: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
_GROUP_NAMES: Final = {
    "x25519": "X25519",
    "x448": "X448",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}

_NO_CERTIFICATE_COMPRESSION: Final = (
    1 << 32 | 1 << 33
)  # SSL_OP_NO_TX_…, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION
_NO_AUTO_CHAIN: Final = (
    0x8  # SSL_MODE_NO_AUTO_CHAIN: else OpenSSL verifies our own chain in every handshake
)
_VERIFY_DEPTH: Final = 5
_MAX_SESSIONS: Final = 1024
MAX_SESSION_LIFETIME_S: Final = 600.0


_ssl_get_error: Any = _lib.SSL_get_error
_WANT_READ: Final = _lib.SSL_ERROR_WANT_READ
_WANT_WRITE: Final = _lib.SSL_ERROR_WANT_WRITE
_alpn_name: Any = _ffi.new("unsigned char **")
_alpn_length: Any = _ffi.new("unsigned int *")
#: Kinds of session that are described once per context: a peer may ask for any number of names.
_MAX_DESCRIBED: Final = 64


def versions() -> dict[str, str]:
    """Give the versions of the TLS libraries in use, as `floors.check` and `ambassador version` want them."""
    return {
        "pyOpenSSL": OpenSSL.__version__,
        "cryptography": cryptography.__version__,
        "OpenSSL": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().split()[1],
    }


def clear_errors() -> None:
    """Empty OpenSSL's error queue: it is per thread, so what one connection left would surface on another."""
    _lib.ERR_clear_error()


class _Tls(Judge):
    """What both sides of a handshake share: one context, and the judgement of who shakes hands with it."""

    __slots__ = ("_context", "_described")

    def __init__(self, context: SSL.Context, trust: Trust, cache: FactsCache, clock: Clock) -> None:
        super().__init__(trust, cache, clock)
        self._context = context
        self._described: dict[tuple[object, ...], TlsSession] = {}

    def describe(
        self, connection: SSL.Connection, server_name: str, *, resumed: bool
    ) -> TlsSession:
        """Say what was negotiated, in the words of the log; the words for a kind of session are found once.

        OpenSSL's names of versions, ciphers and groups are constants of the context: their addresses are the key.
        """
        ssl = connection._ssl
        _lib.SSL_get0_alpn_selected(ssl, _alpn_name, _alpn_length)
        length = _alpn_length[0]
        key = (
            _lib.SSL_version(ssl),
            _lib.SSL_get_current_cipher(ssl),
            _lib.SSL_get0_group_name(ssl),
            _ffi.buffer(_alpn_name[0], length)[:] if length else b"",
            server_name,
            resumed,
        )
        session = self._described.get(key)
        if session is None:
            if len(self._described) >= _MAX_DESCRIBED:
                self._described.clear()
            session = self._described[key] = describe(connection, server_name, resumed=resumed)
        return session

    def io(self, connection: SSL.Connection) -> Io:
        """Give the calls of a connection that a transport needs; see `io_of`."""
        return io_of(connection, lambda error: self._refusal(connection, error, ""))

    def shake(self, connection: SSL.Connection) -> Progress:
        """Go on with a handshake, as far as what has arrived allows.

        Straight to OpenSSL, as `io_of`: no exception for the usual wait.
        Errors: SSL.Error, OSError; `refusal` explains them.
        """
        ssl = connection._ssl
        result = _lib.SSL_do_handshake(ssl)
        if result == 1:
            return Progress.DONE
        error = _ssl_get_error(ssl, result)
        if error == _WANT_READ:
            return Progress.WANTS_READ
        if error == _WANT_WRITE:
            return Progress.WANTS_WRITE
        connection._raise_ssl_error(ssl, result)
        return Progress.WANTS_READ

    def _refusal(self, connection: SSL.Connection, error: BaseException, sni: str) -> TlsRefused:
        """Give the reason of a failed call on a connection; empties the error queue."""
        clear_errors()
        if isinstance(error, TlsRefused):
            return error
        handshake: Handshake = connection.get_app_data()
        if handshake.refused is not None:
            return handshake.refused
        reason, detail = reason_of(error)
        if reason == "certificate_verify_failed":
            reason = VERIFY_REASONS.get(handshake.error, "bad_certificate")
            detail = f"depth {handshake.depth}: {_verify_text(handshake.error)}"
        return TlsRefused(reason, detail, peers.present(handshake.certificate, sni))


class ServerTls(_Tls):
    """Accepts handshakes of one listener, with one generation of credentials.

    Units: `expires_at` is monotonic seconds, when the next context must take over (None: with the generation).
    """

    __slots__ = ("_alpn", "expires_at", "generation")

    def __init__(  # built in one place
        self,
        trust: Trust,
        settings: TlsSettings,
        cache: FactsCache,
        *,
        listener: str,
        generation: int,
        alpn: tuple[str, ...],
        clock: Clock,
    ) -> None:
        context = _new_context(SSL.TLS_SERVER_METHOD, trust.credentials, settings)
        lifetime_s = _lifetime_s(trust, settings)
        # Per listener, generation and context: a session of one is a full handshake at another (threats C2).
        name = f"{listener}\0{generation}\0".encode() + os.urandom(16)
        context.set_session_id(hashlib.sha256(name).digest())
        if lifetime_s is None:
            context.set_options(SSL.OP_NO_TICKET)
        else:
            context.set_timeout(max(1, int(lifetime_s)))
        self._alpn = AlpnSelection(alpn) if alpn else None
        if self._alpn is not None:
            _lib.SSL_CTX_set_alpn_select_cb(context._context, self._alpn.callback, _ffi.NULL)
        super().__init__(context, trust, cache, clock)
        self.generation = generation
        self.expires_at = None if lifetime_s is None else clock.monotonic() + lifetime_s

    def __repr__(self) -> str:
        return f"ServerTls(generation={self.generation})"

    def new_connection(self, sock: Socket | None) -> SSL.Connection:
        """Give a connection on an accepted socket, ready for `do_handshake` (None: memory buffers, for tests)."""
        connection = SSL.Connection(self._context, sock)
        connection.set_accept_state()
        connection.set_app_data(Handshake(self.judge_early))
        return connection

    def peer(self, connection: SSL.Connection, wall_now: float) -> tuple[PeerIdentity, TlsSession]:
        """Judge a finished handshake, full or resumed.

        Units: `wall_now` is Unix time in seconds.
        Errors: TlsRefused; the connection must then be closed without a byte of data.
        """
        sni = sni_of(connection)
        try:
            identity, resumed = self.judge(connection, wall_now, sni)
            return identity, self.describe(connection, sni, resumed=resumed)
        finally:
            clear_errors()

    def refusal(self, connection: SSL.Connection, error: BaseException) -> TlsRefused:
        """Explain a failed handshake, read or write."""
        return self._refusal(connection, error, sni_of(connection))


class ClientTls(_Tls):
    """Dials the endpoints of one service, with one generation of credentials; keeps their sessions."""

    __slots__ = ("_lifetime_s", "_patterns", "_server_name", "_sessions", "generation")

    def __init__(  # built in one place
        self,
        trust: Trust,
        settings: TlsSettings,
        cache: FactsCache,
        *,
        service: ServiceSettings,
        generation: int,
        clock: Clock,
    ) -> None:
        context = _new_context(SSL.TLS_CLIENT_METHOD, trust.credentials, settings)
        if service.alpn:
            context.set_alpn_protos([name.encode() for name in service.alpn])
        self._lifetime_s = _lifetime_s(trust, settings)
        if self._lifetime_s is None:
            context.set_options(SSL.OP_NO_TICKET)
        super().__init__(context, trust, cache, clock)
        self._patterns = service.peer
        self._server_name = (
            service.server_name if service.server_name and _is_name(service.server_name) else ""
        )
        self._sessions: dict[object, tuple[SSL.Session, float]] = {}
        self.generation = generation

    def __repr__(self) -> str:
        return f"ClientTls(generation={self.generation}, sessions={len(self._sessions)})"

    def new_connection(self, sock: Socket | None, session_key: object) -> SSL.Connection:
        """Give a connection on a connected socket; it offers the session kept under `session_key`, if young."""
        connection = SSL.Connection(self._context, sock)
        connection.set_connect_state()
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode())
        mono_now = self._clock.monotonic()
        session, deadline = self._sessions.get(session_key, (None, 0.0))
        if session is not None and mono_now < deadline:
            connection.set_session(session)
        elif session is not None:
            del self._sessions[session_key]
        kept_s = deadline if session is not None and mono_now < deadline else 0.0
        handshake = Handshake(self.judge_early, kept_s)
        connection.set_app_data(handshake)
        return connection

    def peer(self, connection: SSL.Connection, wall_now: float) -> tuple[PeerIdentity, TlsSession]:
        """Judge a finished handshake, and whether this is the peer that the service wants.

        Units: `wall_now` is Unix time in seconds.
        Errors: TlsRefused, `wrong_peer` for a verified stranger; nothing may have been sent yet.
        """
        try:
            handshake: Handshake = connection.get_app_data()
            early = handshake.facts
            identity, resumed = self.judge(connection, wall_now, self._server_name)
            # Not asked twice about one certificate: 19 µs.
            is_known = early is not None and early.identity.certificate == identity.certificate
            if not is_known and self._is_stranger(identity):
                presented = peers.present(identity.certificate, self._server_name)
                raise refused_late(connection, "wrong_peer", self._expectation(identity), presented)
            if not resumed and self._lifetime_s is not None:
                # Counted from the full handshake: each resumption would renew the ticket's own clock (C1).
                handshake.session_deadline = self._clock.monotonic() + self._lifetime_s
            return identity, self.describe(connection, self._server_name, resumed=resumed)
        finally:
            clear_errors()

    def refusal(self, connection: SSL.Connection, error: BaseException) -> TlsRefused:
        """Explain a failed handshake, read or write; on TLS 1.3 a peer refuses us only on the first read."""
        return self._refusal(connection, error, self._server_name)

    def remember(self, session_key: object, connection: SSL.Connection, mono_now: float) -> None:
        """Keep the session of a judged connection; after the first response, for TLS 1.3 tickets come late.

        Only the first call for a connection does anything, so it may be called after every response.
        Units: `mono_now` is monotonic seconds.
        """
        if connection.get_context() is not self._context:
            # Made with credentials or a `peer` that have been replaced meanwhile: resuming it would show the old
            # identity and skip the check against the new trust bundle (C4).
            return
        handshake: Handshake = connection.get_app_data()
        if handshake.remembered:
            return
        handshake.remembered = True
        if mono_now >= handshake.session_deadline:
            return
        session = connection.get_session()
        if session is None:
            return
        if len(self._sessions) >= _MAX_SESSIONS and session_key not in self._sessions:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session_key] = (session, handshake.session_deadline)

    def forget(self, session_key: object) -> None:
        """Drop the session of an endpoint, after it refused us or was not whom we wanted."""
        self._sessions.pop(session_key, None)

    def judge_early(
        self, connection: SSL.Connection, handshake: Handshake, store: Any
    ) -> TlsRefused | None:
        """As of every handshake, and a verified stranger too reads that we do not want its certificate."""
        refused = super().judge_early(connection, handshake, store)
        facts = handshake.facts
        if refused is None and facts is not None and self._is_stranger(facts.identity):
            handshake.facts = None
            presented = peers.present(facts.identity.certificate, self._server_name)
            return TlsRefused("wrong_peer", self._expectation(facts.identity), presented)
        return refused

    def _is_stranger(self, identity: PeerIdentity) -> bool:
        return self._patterns is not None and not authorization.matches(identity, self._patterns)

    def _expectation(self, identity: PeerIdentity) -> str:
        """Say whom the service wants and who is there instead."""
        wanted = " or ".join(
            one.pattern if one.kind == "spiffe" else f"{one.kind} {one.pattern}"
            for one in self._patterns or ()
        )
        name = identity.principal
        return f"expected {wanted}" + (f", {name} answered" if name.isprintable() and name else "")


def _new_context(method: int, credentials: Credentials, settings: TlsSettings) -> SSL.Context:
    """Build a context: ours and nothing by default.

    Errors: CredentialError when OpenSSL does not take these credentials or groups.
    Source: Mozilla "intermediate"; threats B7, B8, C1, D2, D4.
    """
    context = SSL.Context(method)
    context.set_min_proto_version(_VERSIONS[settings.min_version])
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | _NO_CERTIFICATE_COMPRESSION
    )
    # pyOpenSSL has set ENABLE_PARTIAL_WRITE and ACCEPT_MOVING_WRITE_BUFFER: a retried write may come from another
    # buffer, as long as it begins with the same bytes.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _NO_AUTO_CHAIN)
    context.set_session_cache_mode(
        SSL.SESS_CACHE_OFF
    )  # tickets only: nothing of a peer is kept by OpenSSL
    context.set_cipher_list(_CIPHERS_1_2)
    context.set_tls13_ciphersuites(_SUITES_1_3)
    _set_groups(context, settings.groups, is_server=method == SSL.TLS_SERVER_METHOD)
    try:
        _use_certificate(context, credentials)
        _fill_store(context, credentials)
    except (SSL.Error, crypto.Error) as error:
        raise CredentialError(
            "credentials_unusable", f"OpenSSL does not take the credentials: {first_reason(error)}"
        ) from None
    context.set_verify_depth(_VERIFY_DEPTH)
    _lib.SSL_CTX_set_verify(
        context._context,
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
        verify_callback,
    )
    return context


def new_probe_context(credentials: Credentials | None, groups: tuple[str, ...]) -> SSL.Context:
    """Build a context that believes nobody and refuses nobody, to look at what a server presents.

    Only for `certs inspect`: nothing is ever sent over such a connection.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    _set_groups(context, groups, is_server=False)
    if credentials is not None:
        _use_certificate(context, credentials)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _use_certificate(context: SSL.Context, credentials: Credentials) -> None:
    context.use_certificate(credentials.certificate)
    for certificate in credentials.chain:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(credentials.private_key)
    context.check_privatekey()


def _fill_store(context: SSL.Context, credentials: Credentials) -> None:
    """Trust the bundle and nothing else. The store must not be touched once the context is in use."""
    store = context.get_cert_store()
    if store is None:
        raise SSL.Error
    for authorities in credentials.bundles.values():
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
    revocation = credentials.revocation
    if revocation is not None and not revocation.grace_s:
        for crl in revocation.lists:
            store.add_crl(crl)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _set_groups(context: SSL.Context, groups: tuple[str, ...], *, is_server: bool) -> None:
    """Set the key-exchange groups, the hybrid ahead of all others.

    A server asks anew (HelloRetryRequest) when the peer knows the hybrid but sent no share for it: `/` ends the
    set of what is preferred. A client sends two shares, `*`, so that a peer without the hybrid costs no round trip.
    Errors: CredentialError `unknown_group`.
    """
    first, rest = groups[0], list(groups[1:])
    if is_server:
        text = "/".join((first, ":".join(rest))) if rest and "MLKEM" in first else ":".join(groups)
    else:
        shares = 2 if "MLKEM" in first else 1
        text = ":".join(f"*{name}" if place < shares else name for place, name in enumerate(groups))
    if _lib.SSL_CTX_set1_curves_list(context._context, text.encode()) != 1:
        clear_errors()
        raise CredentialError(
            "unknown_group", f"tls.groups: OpenSSL does not know all of {', '.join(groups)}"
        )


def _lifetime_s(trust: Trust, settings: TlsSettings) -> float | None:
    """Give how long sessions may be resumed; None when they may not at all."""
    if settings.session_lifetime_s is None or trust.needs_chain:
        return None
    return min(settings.session_lifetime_s, MAX_SESSION_LIFETIME_S)


def _is_name(server_name: str) -> bool:
    """Say whether this may be SNI: addresses may not (RFC 6066 §3)."""
    try:
        ipaddress.ip_address(server_name)
    except ValueError:
        return True
    return False


def describe(connection: SSL.Connection, server_name: str, *, resumed: bool) -> TlsSession:
    """Say what was negotiated, in the words of the log."""
    version = connection.get_protocol_version_name()
    # TLS 1.2 resumes without a key exchange; OpenSSL would name the group of the first handshake.
    group = "" if resumed and version == "TLSv1.2" else connection.get_group_name() or ""
    return TlsSession(
        version=version,
        cipher=connection.get_cipher_name() or "",
        group=_GROUP_NAMES.get(group, group),
        resumed=resumed,
        server_name=server_name,
        alpn=connection.get_alpn_proto_negotiated().decode("latin-1"),
    )


def _verify_text(number: int) -> str:
    text: bytes = _ffi.string(_lib.X509_verify_cert_error_string(number))
    return text.decode("latin-1")
