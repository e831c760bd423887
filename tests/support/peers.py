"""Raw peers: what they send is exactly what the test says, and all that they receive is kept.

Threads and blocking sockets on purpose: nothing of asyncio or of ours can mend what a test wants broken, and the
same peers serve tests with and without a loop. Every blocking call gives up after `PATIENCE_S`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import eventually

PATIENCE_S = 10.0
Address = tuple[str, int] | str  # (host, port), or the path of a Unix socket


class Truncated(ConnectionError):
    """TCP ended without TLS's close_notify (RFC 8446 §6.1): what came may not be all."""


class TlsSocket:
    """Blocking TLS over a socket, with a half-close that the standard library's `SSLSocket` does not have.

    `tls` is the `ssl.SSLObject`: `tls.version()`, `tls.getpeercert(True)`, `tls.session_reused` …
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **arguments: Any) -> None:
        self.sock = sock
        # One thread may send while another receives; records must leave in the order they were made.
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, **arguments)
        self._call(self.tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        if data:
            self._call(self.tls.write, data)

    def recv(self, size: int) -> bytes:
        """Give up to `size` bytes, empty at close_notify; Truncated when TCP ends before."""
        try:
            return bytes(self._call(self.tls.read, size))
        except ssl.SSLZeroReturnError:
            return b""

    def close_notify(self) -> None:
        """Say that we send nothing more, and do not wait for the peer to say so."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        self.sock.sendall(self._outgoing.read())

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                if function == self.tls.write:
                    with self._sending:
                        return self._make_records(function, *arguments)
                with self._lock:
                    result = function(*arguments)
            except ssl.SSLWantReadError:
                self._exchange_records()
            except ssl.SSLEOFError:
                raise Truncated from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.sock.sendall(self._outgoing.read())  # the alert that tells the peer
                raise
            else:
                self._flush()
                return result

    def _make_records(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            result = function(*arguments)
            data = self._outgoing.read()
        self.sock.sendall(data)
        return result

    def _exchange_records(self) -> None:
        self._flush()
        data = self.sock.recv(65536)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what OpenSSL has written; who receives does not wait for a sender that is held up."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            with self._lock:
                data = self._outgoing.read()
            if data:
                self.sock.sendall(data)
        finally:
            self._sending.release()


class PeerConnection:
    """One connection, driven by the test; `received` is all that came so far, `tls` the handshake's result."""

    def __init__(self, sock: socket.socket, layer: TlsSocket | None = None) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_S)
        self._layer = layer
        self._io: socket.socket | TlsSocket = layer or sock
        self.received = bytearray()
        self._taken = 0

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS object; AssertionError in the clear."""
        assert self._layer is not None
        return self._layer.tls

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._io.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Give what was not taken yet, up to and with `mark`; EOFError when the peer ends before."""
        while (at := self.received.find(mark, self._taken)) < 0:
            if not self._read():
                raise EOFError(f"ended before {mark!r}: {bytes(self.received[self._taken :])!r}")
        return self._take(at + len(mark))

    def read_exactly(self, size: int) -> bytes:
        """Give the next `size` bytes; EOFError when the peer ends before."""
        while len(self.received) - self._taken < size:
            if not self._read():
                raise EOFError(
                    f"ended before {size} bytes: {bytes(self.received[self._taken :])!r}"
                )
        return self._take(self._taken + size)

    def read_to_end(self) -> bytes:
        """Give everything up to the peer's end of its direction.

        Errors: ConnectionResetError when it was reset, Truncated when TLS ended without close_notify.
        """
        while self._read():
            pass
        return self._take(len(self.received))

    def read_message(self) -> bytes:
        """Give a whole HTTP/1.1 message as it came: head, then a body by its Content-Length or chunks.

        For well-formed messages of the other side only; a message without framing ends with its head.
        """
        head = self.read_until(b"\r\n\r\n")
        fields = _fields(head)
        if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            return head + self._read_chunks()
        return head + self.read_exactly(int(fields.get(b"content-length", b"0")))

    def half_close(self) -> None:
        """End our direction and go on reading: FIN, or for TLS close_notify (RFC 8446 §6.1) without a FIN."""
        if self._layer is not None:
            self._layer.close_notify()
        else:
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close in an orderly way, for TLS with close_notify; what was not read makes it a reset, as for any TCP."""
        with contextlib.suppress(OSError):
            if self._layer is not None and self.sock.fileno() >= 0:
                self._layer.close_notify()
        self.sock.close()

    def cut(self) -> None:
        """Close TCP without close_notify: for TLS a truncation."""
        self.sock.close()

    def reset(self) -> None:
        """Cut: the peer gets a TCP RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def is_ended(self) -> bool:
        """Say, after waiting for the next bytes, whether the peer has ended or cut its direction."""
        try:
            return not self._read()
        except ConnectionError:
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> bool:
        data = self._io.recv(65536)
        self.received += data
        return bool(data)

    def _take(self, upto: int) -> bytes:
        piece = bytes(self.received[self._taken : upto])
        self._taken = upto
        return piece

    def _read_chunks(self) -> bytes:
        parts = []
        while True:
            line = self.read_until(b"\r\n")
            parts.append(line)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(self.read_exactly(size + 2))
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            parts.append(line)
        return b"".join([*parts, line])


def is_truncated(client: PeerConnection) -> bool:
    """Read on; say whether the end is in the middle: no close_notify, a reset, or an unfinished framing."""
    try:
        client.read_to_end()
    except ConnectionError:
        return True
    head, _, body = bytes(client.received).partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        return not body.endswith(b"0\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return length is not None and len(body) < int(length[1])


def connect(
    address: Address, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> PeerConnection:
    """Open a connection; with `tls` the handshake is done (TLS 1.3 servers refuse a client only afterwards)."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
    else:
        sock = socket.create_connection(address, timeout=PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return PeerConnection(sock)
    try:
        return PeerConnection(sock, TlsSocket(sock, tls, server_hostname=server_name))
    except BaseException:
        sock.close()
        raise


def send_raw(
    address: Address, data: bytes, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> bytes:
    """Send `data`, and give all that comes until the peer ends; say `Connection: close` in `data`."""
    with connect(address, tls, server_name) as connection:
        connection.send(data)
        return connection.read_to_end()


def exchange(
    address: Address, data: bytes, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> bytes:
    """Send `data`, and give one whole response (`read_message`)."""
    with connect(address, tls, server_name) as connection:
        connection.send(data)
        return connection.read_message()


Script = Callable[[PeerConnection], None]


class ScriptedPeer:
    """A listening peer that runs `script` in a thread for every connection.

    An `OSError` or `EOFError` in a script is kept in `errors` (the other side may cut at any time); anything else
    fails the test when the peer is closed. Use as a context manager.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
    ) -> None:
        self.script = script
        self.connections: list[PeerConnection] = []
        self.errors: list[BaseException] = []
        self._tls = tls
        self._bugs: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        if path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(128)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def address(self) -> Address:
        """Where it listens."""
        name = self._listener.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    def wait_for_connection(self, count: int = 1) -> PeerConnection:
        """Give the connection number `count` once it is accepted and its handshake is over."""
        eventually(lambda: len(self.connections) >= count, f"{count} connections")
        return self.connections[count - 1]

    def close(self) -> None:
        """Close everything and fail if a script had a bug."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(PATIENCE_S)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                # Wakes a script that still waits; close() alone would leave its recv hanging.
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for connection in self.connections:
            connection.close()
        if self._bugs:
            raise AssertionError("a script failed") from self._bugs[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        try:
            layer = TlsSocket(sock, self._tls, server_side=True) if self._tls else None
        except OSError as error:
            self.errors.append(error)
            _close_after_reading(sock)
            return
        connection = PeerConnection(sock, layer)
        self.connections.append(connection)
        try:
            self.script(connection)
        except (OSError, EOFError) as error:
            self.errors.append(error)
        except BaseException as error:  # told to the test's own thread by close()
            self._bugs.append(error)
        finally:
            connection.close()


def _close_after_reading(sock: socket.socket) -> None:
    """Close once the other side has ended: unread bytes would make it a reset, which can overtake our alert."""
    with sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def answer_once(response: bytes) -> Script:
    """Script: read one message, send `response`, close."""

    def script(connection: PeerConnection) -> None:
        connection.read_message()
        connection.send(response)

    return script


def send_and_hold(data: bytes) -> Script:
    """Script: read one message, send `data`, and stay until the other side ends."""

    def script(connection: PeerConnection) -> None:
        connection.read_message()
        connection.send(data)
        connection.read_to_end()

    return script


def silent(connection: PeerConnection) -> None:
    """Script: read and never answer."""
    connection.read_to_end()


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as the app got it, byte for byte in `raw`."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes
    raw: bytes = field(repr=False)

    def values(self, name: str) -> list[bytes]:
        """Give the values of all lines with this name."""
        return [value for key, value in self.fields if key == name.lower().encode()]

    def value(self, name: str) -> bytes:
        """Give the value of the only line with this name."""
        values = self.values(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]


class App(ScriptedPeer):
    """A sound little HTTP/1.1 application with keep-alive; `requests` is what it got.

    `respond` gives the whole raw response; by default 200 with the body `ok`.
    """

    def __init__(
        self,
        respond: Callable[[ReceivedRequest], bytes] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self._respond = respond or (lambda request: OK)
        super().__init__(self._run, tls=tls, host=host, port=port, path=path)

    def _run(self, connection: PeerConnection) -> None:
        while True:
            try:
                raw = connection.read_message()
            except EOFError:
                return
            request = parse_request(raw)
            self.requests.append(request)
            connection.send(self._respond(request))
            if b"close" in b",".join(request.values("connection")).lower():
                return


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def response(body: bytes = b"", status: str = "200 OK", *lines: str) -> bytes:
    """Spell a response with Content-Length and the further head `lines`."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def request(
    target: str = "/", *lines: str, method: str = "GET", host: str = "app", body: bytes = b""
) -> bytes:
    """Spell a request with Host, with Content-Length if there is a body, and the further head `lines`."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def parse_request(raw: bytes) -> ReceivedRequest:
    """Take a well-formed request apart; a chunked body is joined."""
    head, body = raw.split(b"\r\n\r\n", 1)
    line, *rest = head.split(b"\r\n")
    method, target, _ = line.split(b" ", 2)
    pairs = [
        (name.lower(), value.strip()) for name, value in (each.split(b":", 1) for each in rest)
    ]
    if dict(pairs).get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        body = b"".join(_chunks(body))
    return ReceivedRequest(method, target, pairs, body, raw)


def parse_response(raw: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Give status, fields (lower-case names; of doubled lines the last) and body, chunks joined."""
    head, body = raw.split(b"\r\n\r\n", 1)
    fields = _fields(head)
    if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        body = b"".join(_chunks(body))
    return int(head.split(b" ", 2)[1]), fields, body


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = [line for line in head.split(b"\r\n")[1:] if line]
    return {name.lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines)}


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        line, body = body.split(b"\r\n", 1)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return
        yield body[:size]
        body = body[size + 2 :]
