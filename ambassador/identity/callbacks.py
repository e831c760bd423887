"""What OpenSSL calls in the middle of a handshake: chain verification and the choice of a protocol.

Knows the C side of pyOpenSSL. Callbacks record and refuse, nothing else: an exception in one of them is a refusal
(threats B8, CVE-2026-27448), and none turns a no into a yes. They are our own and not pyOpenSSL's, for its verify
callback hides the leaf of a refused chain, and its ALPN callback refuses with an alert only by raising.

What OpenSSL took is judged by us inside the callback too, when it comes to the leaf (its last call for the chain but
for name constraints): only there can OpenSSL still send the alert that belongs to a refusal (RFC 8446 §4.4.2.4). It
picks the alert by the number that we set; without a number the peer would read `internal_error`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _untyped_ffi
from OpenSSL._util import lib as _lib

from ambassador.identity.peer import CertificateFacts
from ambassador.identity.refusal import UNJUDGED, TlsRefused, verify_number

_ffi: Any = _untyped_ffi
_ALERT_FATAL: Final = 2  # SSL_TLSEXT_ERR_ALERT_FATAL
_CONNECTION_INDEX: Final = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
_ALERT: Final = SSL.SSL_CB_ALERT
_ROOT_OF_LEAF: Final = 1  # the depth of a root that issued the leaf itself
_BUFFER_BYTES: Final = 16384
_buffer: Any = _ffi.new("char[]", _BUFFER_BYTES)
_buffer_view: Any = _ffi.buffer(_buffer)
_memory: Any = _ffi.gc(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free)

#: Judges what OpenSSL took: connection, its `Handshake`, and the `X509_STORE_CTX` for `verified_chain`.
Judge = Callable[[SSL.Connection, "Handshake", Any], TlsRefused | None]


def der_of(certificate: crypto.X509) -> bytes:
    """Give a certificate as bytes."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


class Handshake:
    """What callbacks saw of one handshake, and the age of the client's session; `app_data` of a connection.

    `certificate` is the DER of the leaf as the callback saw it, refused or not; `has_issuers` says that its root did
    not issue it itself. `facts` and `verified` are there once `judge` took the leaf: what `Judge.judge` need not find
    out again.
    Units: `judged_at` is Unix time in seconds; `late_steps` counts what OpenSSL did for messages of a handshake
    after its end, since the last read.
    """

    __slots__ = (
        "certificate",
        "depth",
        "error",
        "facts",
        "has_issuers",
        "judge",
        "judged_at",
        "late_steps",
        "refused",
        "remembered",
        "session_deadline",
        "verified",
    )

    def __init__(self, judge: Judge | None, session_deadline: float = 0.0) -> None:
        self.judge = judge
        self.late_steps = 0
        self.error = 0
        self.depth = 0
        self.certificate: bytes | None = None
        self.facts: CertificateFacts | None = None
        self.has_issuers = False
        self.verified: list[bytes] = []
        self.judged_at = 0.0
        self.refused: TlsRefused | None = None
        self.remembered = False
        self.session_deadline = session_deadline

    def forget_peer(self) -> None:
        """Let go of what only the judgement needed: a connection may live for hours."""
        self.certificate = self.facts = None
        self.verified = []


def _on_verify(ok: int, store: Any) -> int:
    """Record why OpenSSL refuses a chain, and judge the leaf of one that it takes; a no of OpenSSL stays one."""
    depth = _lib.X509_STORE_CTX_get_error_depth(store)
    if ok == 1 and depth == _ROOT_OF_LEAF:
        return 1
    ssl = _lib.X509_STORE_CTX_get_ex_data(store, _CONNECTION_INDEX)
    connection = SSL.Connection._reverse_mapping[ssl]
    handshake: Handshake = connection.get_app_data()
    if ok != 1:
        handshake.error = _lib.X509_STORE_CTX_get_error(store)
        handshake.depth = depth
        handshake.certificate = _leaf_of(store)
        return 0
    if depth > 0:
        handshake.has_issuers = True
        return 1
    handshake.error = UNJUDGED  # what stands if one of the next lines raises (B8)
    if handshake.judge is None:
        return 0
    handshake.certificate = _leaf_of(store)
    refused = handshake.judge(connection, handshake, store)
    _lib.ERR_clear_error()  # what the judge's parsers left would end the handshake as OpenSSL's own failure
    if refused is None:
        handshake.error = 0
        return 1
    handshake.refused = refused
    _lib.X509_STORE_CTX_set_error(store, verify_number(refused.reason))
    return 0


def _leaf_of(store: Any) -> bytes | None:
    leaf = _lib.X509_STORE_CTX_get0_cert(store)
    return None if leaf == _ffi.NULL else _der(leaf)


def _der(certificate: Any) -> bytes:
    """Give a borrowed certificate as bytes, by one memory BIO for all: 3 µs instead of 11 in every handshake.

    For one thread. A read takes all that a memory BIO holds, and so leaves it empty for the next.
    """
    written = _lib.i2d_X509_bio(_memory, certificate)
    pieces = []
    while (count := _lib.BIO_read(_memory, _buffer, _BUFFER_BYTES)) > 0:
        pieces.append(_buffer_view[:count])
        if count < _BUFFER_BYTES:
            break
    if written != 1:
        raise ValueError("a certificate that cannot be written")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def verified_chain(store: Any, leaf: bytes) -> list[bytes]:
    """Give the chain that OpenSSL has just verified, leaf first."""
    stack = _lib.X509_STORE_CTX_get1_chain(store)
    if stack == _ffi.NULL:
        return []
    chain = [leaf]
    for place in range(_lib.sk_X509_num(stack)):
        certificate = _ffi.gc(_lib.sk_X509_value(stack, place), _lib.X509_free)
        if place > 0:
            chain.append(_der(certificate))
    _lib.sk_X509_free(stack)
    return chain


def sent_chain(connection: SSL.Connection, leaf: bytes) -> tuple[bytes, ...]:
    """Give what the peer sent, leaf first; on the server's side OpenSSL leaves the leaf out."""
    stack = _lib.SSL_get_peer_cert_chain(connection._ssl)
    if stack == _ffi.NULL:
        return (leaf,)
    sent = [_der(_lib.sk_X509_value(stack, place)) for place in range(_lib.sk_X509_num(stack))]
    return (leaf, *(sent[1:] if sent and sent[0] == leaf else sent))


def _swallow(*_: object) -> None:
    """Keep a failing callback quiet; its result is the refusal that its definition names."""


# `error` is what OpenSSL gets if the Python side raises: 0 refuses.
verify_callback: Any = _ffi.callback(
    "int (*)(int, X509_STORE_CTX *)",
    lambda ok, store: _on_verify(ok, store),  # noqa: PLW0108  # looked up late, for the test of a failing one
    error=0,
    onerror=_swallow,
)


def _on_late_step(ssl: Any, where: int, _result: int) -> None:
    """Count what one read does for messages that carry no byte of the application, and stop it when it is a storm.

    OpenSSL takes all that lie in the socket inside one `SSL_read`, which a peer at line rate would never let end: the
    whole loop would stand (threats D4, E2; RFC 8446 §4.6.3). Told that the peer has ended, it reads no further.
    """
    if where & _ALERT:  # the end of nearly every connection; OpenSSL bounds other alerts itself
        return
    handshake = SSL.Connection._reverse_mapping[ssl].get_app_data()
    handshake.late_steps += 1
    if handshake.late_steps > MAX_LATE_STEPS:
        _lib.SSL_set_shutdown(ssl, SSL.RECEIVED_SHUTDOWN)


#: A KeyUpdate takes four; a hundred of them between two reads are nobody's honest need.
MAX_LATE_STEPS: Final = 400
_late_step_callback: Any = _ffi.callback("void (*)(const SSL *, int, int)", _on_late_step)


def watch_late_steps(connection: SSL.Connection) -> Handshake:
    """Begin to count in the `late_steps` that is given back: whoever reads resets it, and ends what exceeds."""
    _lib.SSL_set_info_callback(connection._ssl, _late_step_callback)
    handshake: Handshake = connection.get_app_data()
    return handshake


class AlpnSelection:
    """Selects among our protocols, ours first; no overlap is refused with its alert (RFC 7301 §3.2)."""

    __slots__ = ("_wire", "callback")

    def __init__(self, protocols: tuple[str, ...]) -> None:
        # OpenSSL keeps a pointer to the chosen name, so the names live as long as the context.
        self._wire = {
            name.encode(): _ffi.new("unsigned char[]", name.encode()) for name in protocols
        }
        self.callback: Any = _ffi.callback(
            "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)",
            self._select,
            error=_ALERT_FATAL,
            onerror=_swallow,
        )

    def _select(
        self, _ssl: Any, out: Any, out_length: Any, offer: Any, length: int, _arg: Any
    ) -> int:
        offered = _split_protocols(_ffi.buffer(offer, length)[:])
        for name, pointer in self._wire.items():
            if name in offered:
                out[0] = pointer
                out_length[0] = len(name)
                return 0
        return _ALERT_FATAL


def _split_protocols(wire: bytes) -> list[bytes]:
    names = []
    place = 0
    while place < len(wire):
        end = place + 1 + wire[place]
        names.append(wire[place + 1 : end])
        place = end
    return names
