"""Connect, shake hands, check who answers: all before the first byte of a request.

Knows addresses, deadlines and the TLS handshake as readiness; must not know services, pools or what is spoken.
Why a certificate is refused is `identity.tls`, handed in as `TlsClient`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from ambassador.core.errors import AmbassadorError
from ambassador.core.model import Address, PeerIdentity, TlsSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.net.transport import Io

_CONNECT_REASONS = {
    errno.ECONNREFUSED: "connect_refused",
    errno.ETIMEDOUT: "connect_timeout",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETUNREACH: "network_unreachable",
    errno.ENOENT: "socket_missing",
    errno.EACCES: "socket_forbidden",
    errno.ECONNRESET: "connect_reset",
}


class TlsClient(Protocol):
    """The client side of TLS, as `identity.tls` builds it."""

    def new_connection(self, sock: socket.socket, session_key: object) -> SSL.Connection: ...

    def peer(
        self, connection: SSL.Connection, wall_now: float
    ) -> tuple[PeerIdentity, TlsSession]: ...

    def refusal(self, connection: SSL.Connection, error: BaseException) -> Exception: ...

    def io(self, connection: SSL.Connection) -> Io: ...


class DialError(AmbassadorError):
    """No usable connection; nothing of a request was sent. `reason` is a word, `cause` the TLS refusal, if it was."""

    def __init__(self, reason: str, message: str, cause: Exception | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connected socket, with TLS and a checked peer where the service has them."""

    socket: socket.socket
    connection: SSL.Connection | None = None
    io: Io | None = None
    peer: PeerIdentity | None = None
    session: TlsSession | None = None

    @property
    def peer_text(self) -> tuple[str, str, str] | None:
        """Principal, TLS version and group, as the log shows them; None in the clear."""
        if self.peer is None or self.session is None:
            return None
        return self.peer.principal, self.session.version, self.session.group


async def dial(
    address: Address,
    *,
    tls: TlsClient | None,
    session_key: object,
    timeout_s: float,
    wall: Callable[[], float],
    forbidden: Callable[[Address], bool],
) -> Dialled:
    """Give a connection to `address`, or say why there is none.

    Units: `timeout_s` seconds, for connecting and shaking hands together.
    Errors: DialError.
    """
    if forbidden(address):
        # Our own plaintext doors: a request would come back to us, or reach admin (H1).
        raise DialError("own_listener", f"{address} is a listener of this very sidecar")
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout_s):
            sock = await _connect(address)
            if tls is None:
                dialled = Dialled(sock)
            else:
                dialled = await _shake_hands(sock, tls, session_key, wall)
            sock = None
            return dialled
    except TimeoutError:
        reason = "connect_timeout" if sock is None else "handshake_timeout"
        raise DialError(reason, f"{address} did not answer within {timeout_s:g} s") from None
    finally:
        if sock is not None:
            sock.close()


async def _connect(address: Address) -> socket.socket:
    hosts = ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,)
    failure: OSError | None = None
    for host in hosts:
        try:
            return await _connect_one(address, host)
        except OSError as error:
            # Of the two families of localhost the refusal says more than `no such address`.
            if failure is None or error.errno == errno.ECONNREFUSED:
                failure = error
    number = failure.errno if failure is not None else None
    reason = _CONNECT_REASONS.get(number or 0, "connect_failed")
    # The system's words: asyncio's own name the address once more, as a tuple.
    text = os.strerror(number) if number and number > 0 else "failed"
    raise DialError(reason, f"{address}: {text.lower()}")


async def _connect_one(address: Address, host: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if address.path:
            await loop.sock_connect(sock, address.path)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, (host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _shake_hands(
    sock: socket.socket, tls: TlsClient, session_key: object, wall: Callable[[], float]
) -> Dialled:
    connection = tls.new_connection(sock, session_key)
    try:
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                await _ready(sock, writing=False)
            except SSL.WantWriteError:
                await _ready(sock, writing=True)
        peer, session = tls.peer(connection, wall())
    except asyncio.CancelledError:
        raise
    except Exception as error:  # an exception inside a decision is a refusal (fail-closed rule 9)
        refusal = tls.refusal(connection, error)
        reason = getattr(refusal, "reason", "tls_failed")
        raise DialError(reason, str(refusal), refusal) from None
    return Dialled(sock, connection, tls.io(connection), peer, session)


async def _ready(sock: socket.socket, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    fd = sock.fileno()
    watch, forget = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    watch(fd, _wake, future)
    try:
        await future
    finally:
        forget(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
