"""What OpenSSL calls in the middle of a handshake: chain verification and the choice of a protocol.

Knows the C side of pyOpenSSL. Callbacks record and refuse, nothing else: an exception in one of them is a refusal
(threats B8, CVE-2026-27448), and none turns a no into a yes. They are our own and not pyOpenSSL's, for its verify
callback hides the leaf of a refused chain, and its ALPN callback refuses with an alert only by raising.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _untyped_ffi
from OpenSSL._util import lib as _lib

_ffi: Any = _untyped_ffi
_ALERT_FATAL: Final = 2  # SSL_TLSEXT_ERR_ALERT_FATAL


def der_of(certificate: crypto.X509) -> bytes:
    """Give a certificate as bytes."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


class Handshake:
    """What callbacks saw of one handshake, and the age of the client's session; `app_data` of a connection.

    Units: `late_steps` counts what OpenSSL did for messages of a handshake after its end, since the last read.
    """

    __slots__ = ("certificate", "depth", "error", "late_steps", "remembered", "session_deadline")

    def __init__(self, session_deadline: float = 0.0) -> None:
        self.late_steps = 0
        self.error = 0
        self.depth = 0
        self.certificate: bytes | None = None  # DER of the refused leaf
        self.remembered = False
        self.session_deadline = session_deadline


def _on_verify(ok: int, store: Any) -> int:
    """Record why OpenSSL refuses a chain. Runs in the handshake: whatever OpenSSL said is what we say."""
    if ok == 1:
        return 1
    index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
    ssl = _lib.X509_STORE_CTX_get_ex_data(store, index)
    handshake = SSL.Connection._reverse_mapping[ssl].get_app_data()
    handshake.error = _lib.X509_STORE_CTX_get_error(store)
    handshake.depth = _lib.X509_STORE_CTX_get_error_depth(store)
    leaf = _lib.X509_STORE_CTX_get0_cert(store)
    if leaf != _ffi.NULL:
        _lib.X509_up_ref(leaf)
        handshake.certificate = der_of(crypto.X509._from_raw_x509_ptr(leaf))
    return 0


def _swallow(*_: object) -> None:
    """Keep a failing callback quiet; its result is the refusal that its definition names."""


# `error` is what OpenSSL gets if the Python side raises: 0 refuses.
verify_callback: Any = _ffi.callback(
    "int (*)(int, X509_STORE_CTX *)",
    lambda ok, store: _on_verify(ok, store),  # noqa: PLW0108  # looked up late, for the test of a failing one
    error=0,
    onerror=_swallow,
)


def _on_late_step(ssl: Any, _where: int, _result: int) -> None:
    """Count what one read does for messages that carry no byte of the application, and stop it when it is a storm.

    OpenSSL takes all that lie in the socket inside one `SSL_read`, which a peer at line rate would never let end: the
    whole loop would stand (threats D4, E2; RFC 8446 §4.6.3). Told that the peer has ended, it reads no further.
    """
    handshake = SSL.Connection._reverse_mapping[ssl].get_app_data()
    handshake.late_steps += 1
    if handshake.late_steps > MAX_LATE_STEPS:
        _lib.SSL_set_shutdown(ssl, SSL.RECEIVED_SHUTDOWN)


#: A KeyUpdate takes four, a session ticket five; about a hundred of them between two reads are nobody's honest need.
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
