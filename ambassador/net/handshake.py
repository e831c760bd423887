"""One server handshake: readiness in, one of done, refused or timeout out; and the peek that words a refusal.

Knows the TLS handshake as a sequence of readiness; must not know ceilings (`listener`) nor why a certificate is
refused (`identity.tls`, handed in as `TlsServer`).

No byte read before the handshake is complete reaches a parser (D1): the peek only looks, and what it finds not to be
TLS is read for its first word alone.
"""

from __future__ import annotations

import contextlib
import re
import socket
from typing import TYPE_CHECKING, Final, Protocol

from OpenSSL import SSL

from ambassador.core.model import Progress

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.core.model import PeerIdentity, TlsSession
    from ambassador.net.listener import Listener
    from ambassador.net.transport import Io

#: How long a refused peer may take to read why, and how many may at a time. Units: seconds; sockets.
GRACE_S: Final = 0.1
MAX_GRACES: Final = 64


_HANDSHAKE_RECORD: Final = 0x16  # RFC 8446 §5.1: the first byte of every ClientHello
_METHODS: Final = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
)
_OTHER_METHOD: Final = re.compile(rb"[A-Z]{3,24} (?:/|\*|http)")
_FIRST_BYTES: Final = 32
#: Fatal alerts as records of their own: unexpected_message (RFC 8446 §5) and protocol_version (§6.2).
_UNEXPECTED_MESSAGE: Final = b"\x15\x03\x03\x00\x02\x02\x0a"
_PROTOCOL_VERSION: Final = b"\x15\x03\x03\x00\x02\x02\x46"
_PLAINTEXT_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 58\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS with client certificates: use https.\n"
)


class TlsServer(Protocol):
    """The server side of TLS, as `identity.tls` builds it."""

    def new_connection(self, sock: socket.socket) -> SSL.Connection: ...

    def shake(self, connection: SSL.Connection) -> Progress: ...

    def peer(
        self, connection: SSL.Connection, wall_now: float
    ) -> tuple[PeerIdentity, TlsSession]: ...

    def refusal(self, connection: SSL.Connection, error: BaseException) -> Exception: ...

    def io(self, connection: SSL.Connection) -> Io: ...


class HandshakeEnded(Exception):  # an outcome, worded by identity.tls
    """A handshake that was ended here and not by OpenSSL; `reason` is the word for it: timeout, not_tls, shutdown."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Handshake:
    """A server handshake in flight: readiness in, one of done, refused or timeout out."""

    __slots__ = (
        "_connection",
        "_listener",
        "_loop",
        "_peeked",
        "_timer",
        "_tls",
        "_tls_of",
        "_watching",
        "_writing",
        "ended",
        "peer_address",
        "socket",
        "source",
    )

    def __init__(
        self,
        listener: Listener,
        loop: asyncio.AbstractEventLoop,
        *,
        sock: socket.socket,
        peer_address: str,
        source: str,
        tls_of: Callable[[], TlsServer],
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._tls_of = tls_of
        self._tls: TlsServer | None = None
        self._connection: SSL.Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing = self._watching = False
        self._peeked = False
        self.socket = sock
        self.peer_address = peer_address
        self.source = source
        self.ended = False

    def set_deadline(self, timeout_s: float) -> None:
        """Bound the whole of it, waiting for a slot included."""
        self._timer = self._loop.call_later(timeout_s, self._timed_out)

    def may_begin(self) -> bool:
        """Say whether its listener has a slot for it."""
        return self._listener.may_begin(self)

    def begin(self) -> None:
        """Let it have its slot, and start."""
        self._listener.begin(self)

    def start(self) -> None:
        """Start, with the context of this moment."""
        try:
            self._tls = tls = self._tls_of()
            self._connection = tls.new_connection(self.socket)
        except Exception as error:  # the slots of this handshake must not be lost (E8)
            self._refuse(error)
            return
        self._watching = True
        self._loop.add_reader(self.socket.fileno(), self._on_ready)

    def end(self) -> None:
        """Close without a word, at shutdown."""
        if not self.ended:
            self._refuse(HandshakeEnded("shutdown"))

    def _on_ready(self) -> None:
        try:
            self._go_on()
        except Exception as error:  # the guard of this callback (E8); refuse, never accept (B8)
            self._refuse(error)

    def _go_on(self) -> None:
        if not self._peeked and not self._looks_like_tls():
            return
        connection = self._connection
        if connection is None:
            return
        tls = self._tls
        if tls is None:
            return
        try:
            progress = tls.shake(connection)
        except (SSL.Error, OSError) as error:
            self._refuse(error)
            return
        if progress is Progress.DONE:
            self._complete(connection, tls)
        else:
            self._watch_writing(wanted=progress is Progress.WANTS_WRITE)

    def _looks_like_tls(self) -> bool:
        """Look at the first byte without taking it (D1); plain HTTP gets words, all else that is not TLS an alert."""
        try:
            first = self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        if not first or first[0] == _HANDSHAKE_RECORD:
            self._peeked = True
            return True
        if _is_http(self.socket.recv(_FIRST_BYTES)):
            self._refuse_plaintext(_PLAINTEXT_ANSWER, "plain HTTP")
        else:
            self._refuse_plaintext(_UNEXPECTED_MESSAGE, "")
        return False

    def _refuse_plaintext(self, answer: bytes, detail: str) -> None:
        _send_best_effort(self.socket, answer)
        self._refuse(HandshakeEnded("not_tls", detail))

    def _complete(self, connection: SSL.Connection, tls: TlsServer) -> None:
        refusal = self._listener.finish_handshake(self, connection, tls)
        if refusal is not None:
            self._refused(refusal)

    def _watch_writing(self, *, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self.socket.fileno(), self._on_ready)
            else:
                self._loop.remove_writer(self.socket.fileno())

    def _timed_out(self) -> None:
        self._timer = None
        self._refuse(HandshakeEnded("timeout"))

    def _refuse(self, error: Exception) -> None:
        if self.ended:
            return
        if self._tls is not None and self._connection is not None:
            failure, error = error, self._tls.refusal(self._connection, error)
            if getattr(error, "reason", "") == "not_tls" and isinstance(failure, SSL.Error):
                # A first record of no known version: OpenSSL ends without the alert (RFC 8446 §6.2).
                _send_best_effort(self.socket, _PROTOCOL_VERSION)
        self._refused(error)

    def _refused(self, refusal: Exception) -> None:
        self.stop_watching()
        self._listener.close_refused(self.socket)
        self._listener.handshake_failed(self, refusal)

    def stop_watching(self) -> None:
        """Forget timer and readiness: the socket is closed next."""
        if not self.ended:
            self.hand_over()
            if self._watching:
                self._loop.remove_reader(self.socket.fileno())

    def hand_over(self) -> None:
        """Forget all but the reader, whose place the transport's takes."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing:
            self._loop.remove_writer(self.socket.fileno())


class RefusedSockets:
    """Closes sockets so that alert or answer arrive: unread bytes in the socket would turn our FIN into a RST."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[socket.socket] = set()

    def close_after_answer(self, sock: socket.socket) -> None:
        """Take what has arrived (at most 64 KiB), end our direction, give the peer's last segments a moment."""
        try:
            sock.shutdown(socket.SHUT_WR)
            for _ in range(4):
                if not sock.recv(16384):
                    sock.close()
                    return
        except (BlockingIOError, InterruptedError):
            if len(self._waiting) < MAX_GRACES:
                # Nothing more for now: one short grace instead of a second watcher per refused peer.
                self._waiting.add(sock)
                self._loop.call_later(GRACE_S, self._drain_and_close, sock)
                return
        except OSError:
            pass  # the peer is gone already; closing is all that is left
        sock.close()

    def close(self) -> None:
        """End every grace, at shutdown."""
        for sock in self._waiting:
            sock.close()
        self._waiting.clear()

    def _drain_and_close(self, sock: socket.socket) -> None:
        self._waiting.discard(sock)
        with contextlib.suppress(
            OSError
        ):  # nothing came, the peer is gone, or the shutdown was here before
            sock.recv(16384)
        sock.close()


def _is_http(first: bytes) -> bool:
    """Say whether these are the first bytes of a request, of which little may have come (RFC 9110 §9.1)."""
    return any(first.startswith(method) or method.startswith(first) for method in _METHODS) or bool(
        _OTHER_METHOD.match(first)
    )


def _send_best_effort(sock: socket.socket, answer: bytes) -> None:
    try:
        sock.send(answer)
    except OSError:
        return  # who does not take 200 bytes does not get them
