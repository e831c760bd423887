"""Accept loop and ceilings.

Knows listening sockets, slots and rates; must not know how a handshake goes (`handshake`) nor what is spoken after it.

Rules
* A connection needs a slot, a TLS one first a *handshake* slot: at most a quarter of the listener's, `handshakes`
  and `handshake_rate` for the whole process. Without one it waits unaccepted in the kernel's queue (D3).
* One source has at most half of the handshake slots, over all listeners; its next ones wait parked at the gate.
* What exceeds the connection ceilings is accepted and closed at once, counted with its reason.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from OpenSSL import SSL

from ambassador.core.model import Address, PeerIdentity, TlsSession
from ambassador.net.binding import socket_file, unlink_socket
from ambassador.net.gate import HandshakeGate
from ambassador.net.handshake import Handshake, RefusedSockets, TlsServer
from ambassador.net.transport import Budget, Transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.net.transport import Io

#: Pause after running out of file descriptors; without it a level-triggered loop would spin.
EXHAUSTED_PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Ceilings of one listener.

    Units: seconds, counts.
    """

    max_connections: int = 1024
    max_connections_per_peer: int = 512
    handshake_timeout_s: float = 5.0


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
        self._handshakes: set[Handshake] = set()
        self._parked: set[Handshake] = set()
        self._refused = RefusedSockets(loop)
        self._per_source: dict[str, int] = {}
        self._inodes = [socket_file(address.path)] if address.path else []
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
        if self._address.path and socket_file(self._address.path) in self._inodes:
            unlink_socket(self._address.path)  # ours still, not the one of a successor (I2)

    def abort_handshakes(self) -> None:
        """End what has not become a connection yet."""
        for handshake in [*self._handshakes, *self._parked]:
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
        # One for each readiness: to ask on until there is no more costs 5 µs where connections come one by one.
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
        if len(self._handshakes) >= self._slots:
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
        handshake = Handshake(
            self, self._loop, sock=sock, peer_address=peer_address, source=source, tls_of=self._tls
        )
        handshake.set_deadline(self._limits.handshake_timeout_s)
        if self._gate.has_share(source, min(self._slots, self._gate.ceiling)):
            self._parked.add(handshake)
            self._gate.park(handshake)
        else:
            self.begin(handshake)

    @property
    def _slots(self) -> int:
        return max(1, self._limits.max_connections // 4)

    def may_begin(self, handshake: Handshake) -> bool:
        """Say whether a parked handshake may begin."""
        slots = self._slots
        return len(self._handshakes) < slots and not self._gate.has_share(
            handshake.source, min(slots, self._gate.ceiling)
        )

    def begin(self, handshake: Handshake) -> None:
        """Let a handshake have its slot."""
        self._parked.discard(handshake)
        self._gate.take(handshake.source)
        self._handshakes.add(handshake)
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
            has_reader=connection is not None,
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

    def handshake_ended(self, handshake: Handshake) -> None:
        """Give the slot of a handshake back, if it had begun."""
        if handshake in self._handshakes:
            self._handshakes.discard(handshake)
            self._gate.give_back(handshake.source)
        else:
            self._parked.discard(handshake)
            self._gate.unpark(handshake)

    def handshake_failed(self, handshake: Handshake, error: Exception) -> None:
        self.handshake_ended(handshake)
        self.release(handshake.peer_address)
        self._events.handshake_refused(error, handshake.peer_address)

    def close_refused(self, sock: socket.socket) -> None:
        """Close so that alert or answer arrive."""
        self._refused.close_after_answer(sock)

    def finish_handshake(
        self, handshake: Handshake, connection: SSL.Connection, tls: TlsServer
    ) -> Exception | None:
        """Judge who has shaken hands, resumed or not, and hand over; gives the refusal otherwise (C1)."""
        try:
            peer, session = tls.peer(connection, self._wall())
            io = tls.io(connection)
        except (
            Exception
        ) as error:  # an exception inside a decision is a refusal (fail-closed rule 9)
            return tls.refusal(connection, error)
        handshake.hand_over()
        self.handshake_ended(handshake)
        self.hand_over(handshake.socket, handshake.peer_address, connection, io, peer, session)
        return None


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
