"""Bound sockets: TCP on one or both families, Unix sockets with their mode; each failure is one sentence.

Knows addresses and the file system of Unix sockets; must not know what listens there.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Final

from ambassador.core.errors import ListenError
from ambassador.core.model import Address

_MAX_UNIX_PATH: Final = 107  # sockaddr_un has 108, the last one is NUL: unix(7)


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
    if dialled in {"localhost", "0.0.0.0", "::"}:  # noqa: S104  # compared, not bound; they reach loopback
        return True
    if listening in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
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
        unlink_socket(temporary)
        sock.bind(temporary)
        os.chmod(temporary, mode)
        sock.listen(backlog)
        os.rename(temporary, path)
    except OSError as error:
        sock.close()
        unlink_socket(temporary)  # ours, never a file that was in its way
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


def socket_file(path: str) -> tuple[int, int] | None:
    """Give what tells one file from another at the same path."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def unlink_socket(path: str) -> None:
    """Remove a socket's file, and nothing else that lies there."""
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
