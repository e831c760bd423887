"""Which addresses discovery may send us to.

Knows networks; must not resolve a name. Whoever writes to a discovery source would else choose a port of this machine
or the address where clouds give out credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

#: Where clouds give out credentials, as far as it is not link-local: AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA: Final = tuple(
    map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
#: What routers turn back into IPv4 (RFC 6052 §2.1; RFC 8215, where the last 32 bits are the usual place).
_NAT64: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


def is_allowed(host: str, networks: Sequence[Network] | None) -> bool:
    """Say whether an address found by discovery may be dialled; None is the default of the configuration.

    An IPv4 address inside an IPv6 one is judged as what it is.
    Source: config.md, `allowed_networks`: all but loopback, link-local, multicast, metadata.
    """
    try:
        address = _inner(ip_address(host))
    except ValueError:
        return False
    if networks is not None:
        return any(address in network for network in networks)
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified  # connects to this very machine
        or address in _METADATA
        or address == _BROADCAST
    )


_BROADCAST: Final = ip_address("255.255.255.255")


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
