"""Ports that nobody else takes until the process under test binds them.

A port number is reserved by holding its *UDP* twin: other test processes that reserve in the same way (pytest-xdist,
several checkouts) see that it is taken, while its TCP side stays free for the sidecar. The numbers lie below
Linux' ephemeral range (from 32768), so no outgoing connection lands on them.
"""

from __future__ import annotations

import atexit
import random
import socket

_FIRST, _LAST = 10_000, 32_000
_random = random.SystemRandom()  # not the seeded one: parallel runs must differ
_held: list[socket.socket] = []


def reserve_port(host: str = "127.0.0.1") -> int:
    """Give a port free for TCP, reserved until this process ends."""
    for _ in range(1000):
        port = _random.randrange(_FIRST, _LAST)
        if _reserve(host, port):
            return port
    raise RuntimeError("no free port")


def _reserve(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_DGRAM)
    try:
        holder.bind((host, port))
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        holder.close()
        return False
    _held.append(holder)
    return True


@atexit.register
def _release() -> None:
    for holder in _held:
        holder.close()
