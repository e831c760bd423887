"""Accept loop, ceilings, handshake with deadline, and the peek that words a refusal.

Knows listening sockets and the TLS handshake as a sequence of readiness; must not know what is spoken after it,
nor why a certificate is refused (that is `identity.tls`, handed in as `TlsServer`).

Rules
* A connection needs a slot, a TLS one first a *handshake* slot: at most a quarter of the listener's, `handshakes`
  and `handshake_rate` for the whole process. Without one it waits unaccepted in the kernel's queue (D3).
* One source has at most half of the handshake slots. Its next ones are accepted, for else they would block the
  queue for everybody, and wait *parked*: under their deadline, without a TLS object, until one of theirs ends.
* What exceeds the connection ceilings is accepted and closed at once, counted with its reason.
* No byte read before the handshake is complete reaches a parser (D1): the peek only looks.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from OpenSSL import SSL

from ambassador.core.errors import ListenError
from ambassador.core.model import Address, PeerIdentity, TlsSession
from ambassador.net.transport import Budget, Transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.transport import Io

ACCEPTS_PER_EVENT: Final = 16
#: Pause after running out of file descriptors; without it a level-triggered loop would spin.
EXHAUSTED_PAUSE_S: Final = 0.25
#: How long a refused peer may take to read why, and how many may at a time. Units: seconds; sockets.
GRACE_S: Final = 0.1
MAX_GRACES: Final = 64

_MAX_UNIX_PATH: Final = 107  # sockaddr_un has 108, the last one is NUL: unix(7)
_HANDSHAKE_RECORD: Final = 0x16  # RFC 8446 §5.1: the first byte of every ClientHello
_PLAINTEXT_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 58\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS with client certificates: use https.\n"
)


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Ceilings of one listener.

    Units: seconds, counts.
    """

    max_connections: int = 1024
    max_connections_per_peer: int = 512
    handshake_timeout_s: float = 5.0


class Refusal(Protocol):
    """Why a handshake was refused (`identity.tls.TlsRefused`)."""

    reason: str


class TlsServer(Protocol):
    """The server side of TLS, as `identity.tls` builds it."""

    def new_connection(self, sock: socket.socket) -> SSL.Connection: ...

    def peer(
        self, connection: SSL.Connection, wall_now: float
    ) -> tuple[PeerIdentity, TlsSession]: ...

    def refusal(self, connection: SSL.Connection, error: BaseException) -> Exception: ...

    def io(self, connection: SSL.Connection) -> Io: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection whose handshake, if it has one, is complete."""

    transport: Transport
    peer_address: str
    peer: PeerIdentity | None
    tls: TlsSession | None


class ListenerEvents(Protocol):
    """What a listener reports."""

    def connection_accepted(self, accepted: Accepted) -> None: ...

    def connection_refused(self, reason: str, peer_address: str) -> None: ...

    def handshake_refused(self, error: Exception, peer_address: str) -> None: ...

    def callback_crashed(self, error: BaseException) -> None: ...


class HandshakeGate:
    """Handshakes in flight and per second, for the whole process (a token bucket of one second's worth).

    Units: `rate` is handshakes per second.
    """

    __slots__ = ("_filled_at", "_rate", "_tokens", "ceiling", "in_flight", "waiting")

    def __init__(self, *, ceiling: int, rate: float) -> None:
        self.ceiling = ceiling
        self._rate = rate
        self._tokens = rate
        self._filled_at = 0.0
        self.in_flight = 0
        self.waiting: set[Listener] = set()

    def pause_s(self, now: float) -> float | None:
        """Give 0 when a handshake may begin, seconds to wait for the rate, or None: until one ends."""
        if self.in_flight >= self.ceiling:
            return None
        self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def take(self) -> None:
        self.in_flight += 1
        self._tokens -= 1

    def give_back(self) -> None:
        self.in_flight -= 1
        for listener in list(self.waiting):
            listener.resume_accepting()


class Listener:
    """One bound address: accepts, shakes hands, hands over."""

    __slots__ = (
        "_accepting",
        "_address",
        "_budget",
        "_events",
        "_gate",
        "_handshakes",
        "_inodes",
        "_limits",
        "_loop",
        "_parked",
        "_per_source",
        "_refused",
        "_shaking",
        "_sockets",
        "_tls",
        "_wall",
        "closed",
        "connections",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        sockets: list[socket.socket],
        events: ListenerEvents,
        *,
        limits: ListenLimits,
        gate: HandshakeGate,
        wall: Callable[[], float],
        tls: Callable[[], TlsServer] | None,
        budget: Budget,
    ) -> None:
        self._budget = budget
        self._loop = loop
        self._address = address
        self._sockets = sockets
        self._events = events
        self._limits = limits
        self._gate = gate
        self._wall = wall
        self._tls = tls
        self._handshakes: set[_Handshake] = set()
        self._parked: dict[str, deque[_Handshake]] = {}  # by source, in the order of arrival
        self._shaking: dict[str, int] = {}  # handshakes in flight by source
        self._refused = RefusedSockets(loop)
        self._per_source: dict[str, int] = {}
        self._inodes = [_socket_file(address.path)] if address.path else []
        self._accepting = False
        self.connections = 0
        self.closed = False

    def __repr__(self) -> str:
        return f"Listener({self.connections} connections, {len(self._handshakes)} handshakes)"

    @property
    def addresses(self) -> list[Address]:
        """Where it really listens (a port of 0 is resolved)."""
        if self._address.path:
            return [self._address]
        return [Address(*sock.getsockname()[:2]) for sock in self._sockets]

    def start(self) -> None:
        """Begin to accept."""
        self.resume_accepting()

    def resume_accepting(self) -> None:
        """Accept again after a pause."""
        self._gate.waiting.discard(self)
        if self._accepting or self.closed:
            return
        self._accepting = True
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._on_acceptable, sock)

    def close(self) -> None:
        """Stop to accept; what waits in the kernel's queue is refused. Handshakes in flight end by themselves."""
        if self.closed:
            return
        self._pause_accepting()
        self._gate.waiting.discard(self)
        self.closed = True
        for sock in self._sockets:
            sock.close()
        if self._address.path and _socket_file(self._address.path) in self._inodes:
            _unlink_socket(self._address.path)  # ours still, not the one of a successor (I2)

    def abort_handshakes(self) -> None:
        """End what has not become a connection yet."""
        for handshake in [
            *self._handshakes,
            *(one for queue in self._parked.values() for one in queue),
        ]:
            handshake.end()
        self._refused.close()

    def release(self, peer_address: str) -> None:
        """Give the slot of a connection back; called by whoever got it, once, when its transport has closed."""
        self.connections -= 1
        source = source_of(peer_address)
        left = self._per_source[source] - 1
        if left:
            self._per_source[source] = left
        else:
            del self._per_source[source]

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())

    def _on_acceptable(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            if self.closed or not self._may_accept():
                return
            try:
                sock, raw_address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            try:
                self._accepted(sock, _peer_text(raw_address))
            except Exception as error:  # the guard of this callback (E8)
                sock.close()
                self._events.callback_crashed(error)

    def _may_accept(self) -> bool:
        if self._tls is None:
            return True
        if len(self._handshakes) >= max(1, self._limits.max_connections // 4):
            pause: float | None = None
        else:
            pause = self._gate.pause_s(self._loop.time())
        if pause == 0.0:
            return True
        self._pause_accepting()
        if pause is None:
            self._gate.waiting.add(self)
        else:
            self._loop.call_later(pause, self.resume_accepting)
        return False

    def _accept_failed(self, error: OSError) -> None:
        reason = "out_of_files" if error.errno in {errno.EMFILE, errno.ENFILE} else "accept_failed"
        self._events.connection_refused(reason, "")
        self._pause_accepting()
        self._loop.call_later(EXHAUSTED_PAUSE_S, self.resume_accepting)

    def _accepted(self, sock: socket.socket, peer_address: str) -> None:
        source = source_of(peer_address)
        of_source = self._per_source.get(source, 0)
        # Unix peers all look alike: only the total bounds them.
        if self.connections >= self._limits.max_connections:
            self._refuse(sock, "max_connections", peer_address)
            return
        if source and of_source >= self._limits.max_connections_per_peer:
            self._refuse(sock, "max_connections_per_peer", peer_address)
            return
        sock.setblocking(False)
        self.connections += 1
        self._per_source[source] = of_source + 1
        if self._tls is None:
            self.hand_over(sock, peer_address)
            return
        handshake = _Handshake(self, self._loop, sock, peer_address, source, self._tls)
        handshake.set_deadline(self._limits.handshake_timeout_s)
        if source and self._shaking.get(source, 0) >= max(1, self._handshake_slots() // 2):
            self._parked.setdefault(source, deque()).append(handshake)
        else:
            self._begin(handshake)

    def _handshake_slots(self) -> int:
        return min(max(1, self._limits.max_connections // 4), self._gate.ceiling)

    def _begin(self, handshake: _Handshake) -> None:
        self._gate.take()
        self._handshakes.add(handshake)
        self._shaking[handshake.source] = self._shaking.get(handshake.source, 0) + 1
        handshake.start()

    def _refuse(self, sock: socket.socket, reason: str, peer_address: str) -> None:
        sock.close()
        self._events.connection_refused(reason, peer_address)

    def hand_over(
        self,
        sock: socket.socket,
        peer_address: str,
        connection: SSL.Connection | None = None,
        io: Io | None = None,
        peer: PeerIdentity | None = None,
        session: TlsSession | None = None,
    ) -> None:
        """Make the transport and report it; its slot stays taken until `release`."""
        transport = Transport(
            self._loop,
            sock,
            tls=connection,
            io=io,
            budget=self._budget,
            crashed=self._events.callback_crashed,
        )
        try:
            self._events.connection_accepted(Accepted(transport, peer_address, peer, session))
        except Exception as error:  # a bug above ends this connection and gives its slot back (E8)
            self._events.callback_crashed(error)
            if not hasattr(transport, "receiver"):
                transport.detach()
                self.release(peer_address)
            elif not transport.closed:
                transport.abort()

    def handshake_ended(self, handshake: _Handshake) -> None:
        """Give the handshake's slot to the next of its source that is parked, or back."""
        source = handshake.source
        queue = self._parked.get(source)
        if handshake in self._handshakes:
            self._handshakes.discard(handshake)
            left = self._shaking[source] - 1
            if left:
                self._shaking[source] = left
            else:
                del self._shaking[source]
            self._gate.give_back()
            if queue and not self.closed:
                self._begin(queue.popleft())
        elif queue:
            queue.remove(handshake)
        if queue is not None and not queue:
            del self._parked[source]

    def handshake_failed(self, handshake: _Handshake, error: Exception) -> None:
        self.handshake_ended(handshake)
        self.release(handshake.peer_address)
        self._events.handshake_refused(error, handshake.peer_address)

    def close_refused(self, sock: socket.socket) -> None:
        """Close so that alert or answer arrive."""
        self._refused.close_after_answer(sock)

    def finish_handshake(
        self, handshake: _Handshake, connection: SSL.Connection, tls: TlsServer
    ) -> Exception | None:
        """Judge who has shaken hands, resumed or not, and hand over; gives the refusal otherwise (C1)."""
        try:
            peer, session = tls.peer(connection, self._wall())
        except (
            Exception
        ) as error:  # an exception inside a decision is a refusal (fail-closed rule 9)
            return tls.refusal(connection, error)
        handshake.stop_watching()
        self.handshake_ended(handshake)
        self.hand_over(
            handshake.socket, handshake.peer_address, connection, tls.io(connection), peer, session
        )
        return None


class HandshakeEnded(Exception):  # an outcome, worded by identity.tls
    """A handshake that was ended here and not by OpenSSL; `reason` is the word for it: timeout, not_tls, shutdown."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Handshake:
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

    def start(self) -> None:
        """Begin, with the context of this moment."""
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
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._watch_writing(wanted=False)
        except SSL.WantWriteError:
            self._watch_writing(wanted=True)
        except (SSL.Error, OSError) as error:
            self._refuse(error)
        else:
            self._complete(connection)

    def _looks_like_tls(self) -> bool:
        """Look at the first byte without taking it (D1); plain HTTP gets words, all else OpenSSL's alert."""
        try:
            first = self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        self._peeked = True
        if first and first[0] != _HANDSHAKE_RECORD and first.isalpha():
            _send_best_effort(self.socket, _PLAINTEXT_ANSWER)
            self._refuse(HandshakeEnded("not_tls", "plain HTTP"))
            return False
            # OpenSSL says `wrong version number` and sends the alert that belongs to it.
        return True

    def _complete(self, connection: SSL.Connection) -> None:
        tls = self._tls
        refusal = (
            self._listener.finish_handshake(self, connection, tls) if tls is not None else None
        )
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
            error = self._tls.refusal(self._connection, error)
        self._refused(error)

    def _refused(self, refusal: Exception) -> None:
        self.stop_watching()
        self._listener.close_refused(self.socket)
        self._listener.handshake_failed(self, refusal)

    def stop_watching(self) -> None:
        """Forget timer and readiness; the socket belongs to somebody else, or is closed next."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fd = self.socket.fileno()
        if self._watching:
            self._loop.remove_reader(fd)
        if self._writing:
            self._loop.remove_writer(fd)


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
        try:
            sock.recv(16384)
        except OSError:
            pass  # nothing came, the peer is gone, or the shutdown was here before: closed in any case
        sock.close()


def _send_best_effort(sock: socket.socket, answer: bytes) -> None:
    try:
        sock.send(answer)
    except OSError:
        return  # who does not take 200 bytes does not get them


def source_of(peer_address: str) -> str:
    """Give the source that ceilings count: an IPv4 address, an IPv6 /64 (one host can have all of it), or ""."""
    if not peer_address or peer_address.startswith("unix:"):
        return ""
    host = peer_address.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    if host.startswith("::ffff:"):
        return host[7:]
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[:8].hex()


def _peer_text(raw: Any) -> str:
    """Give `IP:port`, with v4-mapped addresses unwrapped, or `unix:`."""
    if not isinstance(raw, tuple):
        return "unix:"
    host = raw[0].partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"[{host}]:{raw[1]}" if ":" in host else f"{host}:{raw[1]}"


def is_own_address(address: Address, own: list[Address]) -> bool:
    """Say whether dialling `address` would reach one of our `own` plaintext listeners (H1)."""
    if address.path:
        path = os.path.realpath(address.path)
        return any(listener.path and path == os.path.realpath(listener.path) for listener in own)
    return any(
        address.port == listener.port
        and not listener.path
        and _same_host(address.host, listener.host)
        for listener in own
    )


def _same_host(dialled: str, listening: str) -> bool:
    dialled, listening = _unmapped(dialled), _unmapped(listening)
    if dialled in {"localhost", "0.0.0.0", "::"}:  # compared, not bound; they reach loopback
        return True
    if listening in {"0.0.0.0", "::"}:  # compared, not bound
        return dialled.startswith("127.") or dialled == "::1"
    return dialled == listening


def _unmapped(host: str) -> str:
    """Give the IPv4 address inside `::ffff:127.0.0.1`, and an IPv6 address in its one spelling."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


def bind(address: Address, *, socket_mode: int = 0o600, backlog: int = 1024) -> list[socket.socket]:
    """Give bound, listening, non-blocking sockets for `address`; `localhost` gives one per family that exists.

    Errors: ListenError with one sentence that names the address.
    """
    if address.path:
        return [_bind_unix(address.path, socket_mode, backlog)]
    hosts = ["127.0.0.1", "::1"] if address.host == "localhost" else [address.host]
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    port = address.port
    for host in hosts:
        try:
            sock = _bind_tcp(host, port, backlog, dual=len(hosts) == 1)
        except OSError as error:
            if len(hosts) > 1 and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                continue  # what is missing is skipped
            failure = error
            break
        port = port or sock.getsockname()[1]
        sockets.append(sock)
    if failure is not None or not sockets:
        for sock in sockets:
            sock.close()
        raise ListenError(_bind_sentence(str(address), failure))
    return sockets


def _bind_tcp(host: str, port: int, backlog: int, *, dual: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Not SO_REUSEPORT: anybody of our uid could then take a share of our connections (K4).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted: one system call less per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual and host == "::" else 1
            )
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, mode: int, backlog: int) -> socket.socket:
    """Bind below a temporary name, set the mode, move it into place: nobody sees it with another mode."""
    _refuse_foreign_file(path)
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise ListenError(
            f"cannot listen on unix:{path}: the path is longer than {_MAX_UNIX_PATH} bytes; choose a shorter one"
        )
    # Short, for the name counts as part of the path; what lies there is of a process of our number that died.
    temporary = os.path.join(os.path.dirname(path), f".{os.getpid() % 1_000_000:x}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _unlink_socket(temporary)
        sock.bind(temporary)
        os.chmod(temporary, mode)
        sock.listen(backlog)
        os.rename(temporary, path)
    except OSError as error:
        sock.close()
        _unlink_socket(temporary)  # ours, never a file that was in its way
        raise ListenError(_bind_sentence(f"unix:{path}", error)) from error
    return sock


def _refuse_foreign_file(path: str) -> None:
    """Take over a socket nobody answers at; refuse a living one and anything that is no socket."""
    try:
        mode = Path(path).lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"cannot listen on unix:{path}: there is a file that is no socket; remove it or choose another path"
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except OSError:
        return
    finally:
        probe.close()
    raise ListenError(
        f"cannot listen on unix:{path}: another process answers there; stop it or choose another path"
    )


def _socket_file(path: str) -> tuple[int, int] | None:
    """Give what tells one file from another at the same path."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(Path(path).lstat().st_mode):
            Path(path).unlink()
    except OSError:
        return  # somebody removed it before us


def _bind_sentence(address: str, error: OSError | None) -> str:
    if error is None:
        return f"cannot listen on {address}: this machine has no such address"
    match error.errno:
        case errno.EADDRINUSE:
            cure = "the port is in use; stop the other process or choose another port"
        case errno.EACCES:
            cure = "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher one"
        case errno.EADDRNOTAVAIL:
            cure = "this machine has no such address"
        case errno.ENOENT | errno.ENOTDIR:
            cure = "its folder does not exist; make it first"
        case _:
            cure = (error.strerror or "it failed").lower()
    return f"cannot listen on {address}: {cure}"
