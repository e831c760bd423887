"""The one form of an authority by which routes, rules and logs name a host.

Knows the grammar of `host[:port]`; must not know which hosts exist. An authority is read once, here, so that no
two steps can see two hosts (threats F3).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

_AUTHORITY: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_.-]{1,254}))(?::([0-9]{1,5}))?"
)
#: The host alone.
_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,254}", re.ASCII)
_LABELS: Final = re.compile(
    r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII
)
_MAX_NAME: Final = 253
_MAX_PORT: Final = 65535


# The same few authorities come again and again; a pure function may remember them. An entry is at most 261
# bytes, since what is refused is not remembered. benchmarks/micro/policy_routing.py
@lru_cache(maxsize=1024)
def split_authority(authority: bytes) -> tuple[bytes, int | None]:
    """Give host (lower case, no final dot, IPv6 compressed in brackets) and port, None without one.

    User information, percent escapes, empty labels and ports out of range are refused: no name that we route by
    needs them, and they are what confusions are made of.
    Errors: ValueError with a sentence.
    Source: RFC 3986 §3.2, §6.2.2.1; RFC 5952 §4; RFC 9110 §4.2.4.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ValueError("expected host or host:port")
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise ValueError("the port is out of range")
    if match[1]:
        return _ipv6(match[1].decode()), port
    name = match[2].decode().lower().removesuffix(".")
    if len(name) > _MAX_NAME or not _LABELS.fullmatch(name):
        raise ValueError("the host has an empty or malformed label")
    return name.encode(), port


def _ipv6(text: str) -> bytes:
    try:
        return f"[{IPv6Address(text).compressed}]".encode()
    except AddressValueError:
        raise ValueError("the IPv6 address is malformed") from None


def normal_host(authority: bytes) -> bytes:
    """Give the host of an authority in the form of `split_authority`; empty, and so unknown, for an empty one.

    An empty Host is what RFC 9112 §3.2 wants from a client whose target has no authority.
    Errors: ValueError with a sentence.
    """
    return split_authority(authority)[0] if authority else b""


def check_host_pattern(text: str) -> str | None:
    """Give a sentence that says what is wrong with a host to route by (`*.` in front is allowed), or None."""
    literal = text.removeprefix("*.")
    if "*" in literal:
        return f'"*" is allowed only as "*." in front of a host, got "{text}"'
    if not _HOST.fullmatch(literal):
        # Before the authority's own sentence, which would ask for the port that is refused here.
        has_port = re.fullmatch(r"(?:\[.*\]|[^:]+):[0-9]+", literal)
        return f'expected a host{" without a port" if has_port else ""}, got "{text}"'
    try:
        host, _ = split_authority(literal.encode())
    except ValueError as problem:
        return f'expected a host, got "{text}": {problem}'
    if host.decode() != literal.lower().removesuffix("."):
        return f'expected the host in its shortest form {host.decode()}, got "{text}"'
    return None


def can_be_rebound(host: bytes, own_names: Collection[bytes]) -> bool:
    """Say whether a browser may have come by a host through DNS that a stranger controls.

    A listener that takes every host (`services.NAME.listen`, one catch-all route) asks this: an IP literal
    needs no DNS, `localhost` and what is below it is loopback to every browser (RFC 6761 §6.3), the service's
    own names are the user's. Anything else is a foreign Host.
    Units: `host` is a `normal_host`.
    Source: threats H7; MCP SDK CVE-2025-66414.
    """
    if host == b"localhost" or host.endswith(b".localhost") or host.startswith(b"["):
        return False
    return host not in own_names and not _is_ipv4(host)


def _is_ipv4(host: bytes) -> bool:
    try:
        IPv4Address(host.decode())
    except AddressValueError:
        return False
    return True
