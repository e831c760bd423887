"""TLS connections with our client certificate, one after the other, straight to an inbound proxy.

A program of its own (`python -m benchmarks.load.handshakes`), since only a fresh process reads OPENSSL_CONF, the
one way to fix the key-exchange group with the standard library: with X25519 for everyone the proxies do the same work.
Each connection carries one request, because some servers send their session tickets with the first response.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.certificates import Workload
from benchmarks.load.errors import LoadError
from benchmarks.load.place import CIPHER_SUITE, LOOPBACK, SERVICE, SMALL_BYTES, SMALL_PATH
from benchmarks.load.processes import environment, pinned

FULL, RESUMED, KEPT = "full", "resumed", "kept"
_OPENSSL_CONF = f"""
openssl_conf = start
[start]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
Groups = X25519
Ciphersuites = {CIPHER_SUITE}
"""
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)\r\n", re.IGNORECASE)
_REQUEST = (
    f"GET {SMALL_PATH} HTTP/1.1\r\nHost: {SERVICE}\r\nUser-Agent: handshakes\r\n\r\n".encode()
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to shake hands with, and as whom."""

    name: str
    port: int
    web: Workload
    server_name: str
    folder: Path
    core: int


def run(peer: Peer, mode: str, count: int) -> str:
    """Make connections (`full`, `resumed`) with one request each, or one connection with all of them (`kept`).

    Gives protocol and cipher suite.
    Errors: LoadError when a response was wrong, or a session was resumed that should not be, or the other way round.
    """
    config = peer.folder / "handshakes.cnf"
    config.write_text(_OPENSSL_CONF)
    files = [peer.web.certificate, peer.web.key, peer.web.trust_bundle]
    arguments = [mode, str(count), str(peer.port), peer.server_name, *map(str, files)]
    done = subprocess.run(
        pinned(peer.core, [sys.executable, "-m", "benchmarks.load.handshakes", *arguments]),
        capture_output=True,
        text=True,
        check=False,
        env={**environment(), "OPENSSL_CONF": str(config)},
    )
    if done.returncode:
        raise LoadError(f"{peer.name}, {mode} handshakes: {done.stderr.strip()[-400:]}")
    return str(json.loads(done.stdout))


class _Client:
    """Makes one connection after the other."""

    def __init__(self, port: int, server_name: str, files: list[str]) -> None:
        certificate, key, trust_bundle = files
        self._address = LOOPBACK, port
        self._server_name = server_name
        self._tls = ssl.create_default_context(cafile=trust_bundle)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.load_cert_chain(certificate, key)
        self._tls.set_alpn_protocols(["http/1.1"])

    def connect(self, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address, timeout=5.0)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = self._tls.wrap_socket(plain, server_hostname=self._server_name, session=session)
        if secure.session_reused != (session is not None):
            raise LoadError(f"session resumed: {secure.session_reused}, against the plan")
        return secure

    def full(self, count: int) -> str:
        for _ in range(count):
            self._one(None)
        return self._words()

    def resumed(self, count: int) -> str:
        """Resume each time with the session of the connection before; the first one is full and counts, too."""
        session = None
        for _ in range(count):
            session = self._one(session)
        return self._words()

    def kept(self, count: int) -> str:
        with self.connect(None) as connection:
            for _ in range(count):
                _exchange(connection)
            self._cipher = connection.cipher()
            _shut_down(connection)
        return self._words()

    def _one(self, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with self.connect(session) as connection:
            _exchange(connection)
            self._cipher = connection.cipher()
            ticket = connection.session
            _shut_down(connection)
            return ticket

    def _words(self) -> str:
        return f"{self._cipher[1]} {self._cipher[0]}" if self._cipher else ""


def _exchange(connection: ssl.SSLSocket) -> None:
    connection.sendall(_REQUEST)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + SMALL_BYTES:
        piece = connection.recv(65536)
        if not piece:
            raise LoadError(f"the connection ended within a response: {received[:200]!r}")
        received += piece
        if not received.startswith(b"HTTP/1.1 200 "[: len(received)]):
            raise LoadError(f"wrong response: {received[:200]!r}")
    length = _LENGTH.search(received, 0, end + 2)
    if not length or int(length[1]) != SMALL_BYTES or len(received) != end + 4 + SMALL_BYTES:
        raise LoadError(f"wrong length: {received[:end]!r}")


def _shut_down(connection: ssl.SSLSocket) -> None:
    """Send close_notify and leave without waiting for the peer's: what an impatient client does."""
    connection.setblocking(False)
    with contextlib.suppress(OSError):  # what the peer says now is no part of a handshake
        connection.unwrap()


def _main(arguments: list[str]) -> None:
    mode, count, port, server_name, *files = arguments
    client = _Client(int(port), server_name, files)
    modes = {FULL: client.full, RESUMED: client.resumed, KEPT: client.kept}
    sys.stdout.write(json.dumps(modes[mode](int(count))))


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except (LoadError, OSError) as error:
        sys.exit(str(error))
