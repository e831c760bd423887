"""Two sides of a TLS handshake over a socket pair, driven by hand: no loop, no thread, no waiting."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import lib

from ambassador.core.model import PeerIdentity, TlsSession
from ambassador.identity.refusal import TlsRefused
from ambassador.identity.store import IdentityStore
from ambassador.identity.tls import ClientTls, ServerTls
from ambassador.policy.authorization import PeerPattern
from tests.support.certificates import Issued

_ROUNDS = 40


@dataclass(frozen=True)
class Identity:
    """Settings of identity, by the shape that `identity.settings` asks for."""

    certificate: Path
    private_key: Path
    trust_bundles: dict[str, Path]
    crl: tuple[Path, ...] = ()
    crl_grace_s: float | None = None


@dataclass(frozen=True)
class Tls:
    """Settings of TLS."""

    min_version: str = "TLSv1.2"
    groups: tuple[str, ...] = ("X25519MLKEM768", "X25519", "P-256")
    session_lifetime_s: float | None = 600.0


@dataclass(frozen=True)
class Service:
    """Settings of a service, as far as TLS goes."""

    name: str = "payments"
    peer: tuple[PeerPattern, ...] | None = None
    server_name: str | None = None
    alpn: tuple[str, ...] = ("http/1.1",)


class TodayClock:
    """Wall time as it is, for OpenSSL asks the machine; monotonic as the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return time.time()


def lay(folder: Path, issued: Issued, bundle: bytes) -> Identity:
    """Write a set and give the settings that name it."""
    issued.write(folder, bundle)
    return Identity(folder / "tls.crt", folder / "tls.key", {"": folder / "ca.crt"})


def store(
    folder: Path,
    issued: Issued,
    bundle: bytes,
    *,
    tls: Tls | None = None,
    clock: TodayClock | None = None,
    bundles: dict[str, bytes] | None = None,
    crl: bytes | None = None,
    crl_grace_s: float | None = None,
) -> IdentityStore:
    """Give a store over files in `folder`; `bundles` replaces the unmapped bundle, per trust domain."""
    identity = lay(folder, issued, bundle)
    if bundles is not None:
        paths = {}
        for domain, content in bundles.items():
            paths[domain] = folder / f"{domain}.crt"
            paths[domain].write_bytes(content)
        identity = dataclasses.replace(identity, trust_bundles=paths)
    if crl is not None:
        (folder / "ca.crl").write_bytes(crl)
        identity = dataclasses.replace(identity, crl=(folder / "ca.crl",), crl_grace_s=crl_grace_s)
    return IdentityStore(identity, tls or Tls(), clock or TodayClock())


@dataclass
class Outcome:
    """How a handshake ended for one side: `peer` or `refused`."""

    peer: PeerIdentity | None = None
    session: TlsSession | None = None
    refused: TlsRefused | None = None

    @property
    def reason(self) -> str:
        return self.refused.reason if self.refused is not None else ""


@dataclass
class Handshake:
    """Both ends after a handshake, still connected."""

    server_connection: SSL.Connection
    client_connection: SSL.Connection
    server: Outcome = field(default_factory=Outcome)
    client: Outcome = field(default_factory=Outcome)


@contextmanager
def shaking(
    server: ServerTls,
    client: ClientTls | SSL.Context,
    *,
    key: object = "endpoint",
    sni: str | None = None,
    wall_now: float | None = None,
) -> Iterator[Handshake]:
    """Shake hands between two of ours, or with a client context of any kind; judge both ends."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    try:
        accepting = server.new_connection(left)
        if isinstance(client, ClientTls):
            dialling = client.new_connection(right, key)
        else:
            dialling = SSL.Connection(client, right)
            dialling.set_connect_state()
        if sni is not None:
            dialling.set_tlsext_host_name(sni.encode())
        both = Handshake(accepting, dialling)
        _drive(both, server, client, wall_now)
        yield both
    finally:
        left.close()
        right.close()


def _drive(
    both: Handshake, server: ServerTls, client: ClientTls | SSL.Context, wall_now: float | None
) -> None:
    now = time.time() if wall_now is None else wall_now
    done = {"client": False, "server": False}
    for _ in range(_ROUNDS):
        if not done["client"]:
            done["client"] = _step_client(both, client, now)
        if not done["server"]:
            done["server"] = _step_server(both, server, now)
        if all(done.values()):
            return
    raise AssertionError("the handshake did not end")


def _step_server(both: Handshake, server: ServerTls, now: float) -> bool:
    try:
        both.server_connection.do_handshake()
        both.server.peer, both.server.session = server.peer(both.server_connection, now)
    except (SSL.WantReadError, SSL.WantWriteError):
        return False
    except (SSL.Error, TlsRefused) as error:
        both.server.refused = server.refusal(both.server_connection, error)
    return True


def _step_client(both: Handshake, client: ClientTls | SSL.Context, now: float) -> bool:
    try:
        both.client_connection.do_handshake()
        if isinstance(client, ClientTls):
            both.client.peer, both.client.session = client.peer(both.client_connection, now)
    except (SSL.WantReadError, SSL.WantWriteError):
        return False
    except (SSL.Error, TlsRefused) as error:
        if isinstance(client, ClientTls):
            both.client.refused = client.refusal(both.client_connection, error)
    return True


def exchange(both: Handshake) -> None:
    """Send a byte each way, as a request and its response; TLS 1.3 tickets come with the second."""
    both.client_connection.send(b"?")
    both.server_connection.recv(16384)
    both.server_connection.send(b"!")
    both.client_connection.recv(16384)


def part(both: Handshake) -> None:
    """End both sides orderly: else the session may not be resumed."""
    for connection in (both.client_connection, both.server_connection):
        connection.shutdown()


def foreign_client(
    issued: Issued | None,
    *,
    version: int | None = None,
    alpn: tuple[str, ...] = (),
    ciphers: bytes | None = None,
    groups: bytes | None = None,
) -> SSL.Context:
    """Give a client that checks nothing: somebody else's program."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if ciphers is not None:
        context.set_cipher_list(ciphers)
    if groups is not None:
        assert lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    if alpn:
        context.set_alpn_protos([name.encode() for name in alpn])
    if issued is not None:
        context.use_certificate(issued.certificate)
        for certificate in (
            x509.load_pem_x509_certificates(issued.chain_pem) if issued.chain_pem else []
        ):
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(issued.private_key)
    context.set_verify(SSL.VERIFY_NONE)
    return context
