"""ADDR: `IP:PORT`, `[IP6]:PORT`, `localhost:PORT`, `unix:/path`; for an app a bare port, for an endpoint `NAME:PORT`.

Also the URLs of sources of discovery. Knows the spelling and which addresses are this machine's own; must not open
or resolve anything.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from ambassador.core.model import Address
from ambassador.policy.hosts import check_host_pattern

_MAX_UNIX_PATH = 107  # sun_path has 108 bytes, the last one is NUL (unix(7))
_MAX_PORT = 65535
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?", re.ASCII)
_URL = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?(?:/[!-~]*)?", re.ASCII
)
_EXPECTED = "IP:PORT, [IP6]:PORT, localhost:PORT or unix:/path"

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressProblem(ValueError):
    """What is wrong with an address: `expected` (after that word) never quotes it, `cure` may."""

    def __init__(self, expected: str, cure: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.cure = cure


class NameProblem(AddressProblem):
    """A name stands where only an IP address can."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__("an IP address or localhost before the port")
        self.name = name
        self.port = port


class NamedPlace(NamedTuple):
    """A port at every address of a name."""

    name: str
    port: int


class Url(NamedTuple):
    """Where a source of discovery answers."""

    text: str
    is_encrypted: bool
    is_local: bool


def parse_listen(text: str) -> Address:
    """Give the address to bind.

    Errors: AddressProblem.
    """
    if _PORT.fullmatch(text):
        raise AddressProblem(_EXPECTED, f"write 127.0.0.1:{text} or 0.0.0.0:{text}")
    return _parse(text)


def parse_dial(text: str) -> Address:
    """Give the address to connect to.

    Errors: AddressProblem, also for addresses that nothing can be sent to.
    """
    address = _parse(text)
    if address.path:
        return address
    if not address.port:
        raise AddressProblem("a port from 1 to 65535")
    ip = ip_of(address)
    if ip is not None and ip.is_unspecified:
        raise AddressProblem("an address to connect to", f"write 127.0.0.1:{address.port}")
    if ip is not None and ip.is_multicast:
        raise AddressProblem("the address of one host")
    return address


def parse_app(text: str) -> Address:
    """Give the app's address; a bare port means both loopback families.

    Errors: AddressProblem.
    """
    return parse_dial(f"localhost:{text}" if _PORT.fullmatch(text) else text)


def parse_endpoint(text: str) -> Address | NamedPlace:
    """Give the address of an endpoint, or the name that stands for addresses.

    Errors: AddressProblem.
    """
    try:
        return parse_dial(text)
    except NameProblem as problem:
        name = problem.name.lower().removesuffix(".")
        if name == "localhost":  # with a final dot
            return parse_dial(f"localhost:{problem.port}")
        # What ends in a number is an address to some resolvers, such as 0x7f.1.
        if check_host_pattern(name) is not None or name.rpartition(".")[2].isdigit():
            raise AddressProblem("a host name before the port") from None
        if not problem.port:
            raise AddressProblem("a port from 1 to 65535") from None
        return NamedPlace(name, problem.port)


def parse_app_or_name(text: str) -> Address | NamedPlace:
    """Give the app's address, or the name that stands for addresses.

    Errors: AddressProblem.
    """
    return parse_endpoint(f"localhost:{text}" if _PORT.fullmatch(text) else text)


def parse_url(text: str) -> Url:
    """Give the URL of a source of discovery, without a final slash.

    Errors: AddressProblem, which never quotes: what is refused may hold a password.
    """
    if any(mark in text for mark in "@?#"):
        raise AddressProblem("a URL without user, password, query and fragment")
    match = _URL.fullmatch(text)
    if match is None:
        raise AddressProblem("a URL such as https://10.0.0.1:8443")
    scheme, host, port = match.groups()
    if check_host_pattern(host.lower()) is not None:
        raise AddressProblem("a URL with the name or address of a host")
    if port is not None and not 0 < int(port) <= _MAX_PORT:
        raise AddressProblem("a URL with a port from 1 to 65535")
    return Url(text.rstrip("/"), scheme == "https", _is_local_host(host))


def _is_local_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in {"localhost", "localhost."}


def ip_of(address: Address) -> IpAddress | None:
    """Give the IP address, unwrapped when it is an IPv4-mapped one; None for `localhost` and Unix paths."""
    if address.path or address.host == "localhost":
        return None
    ip = ipaddress.ip_address(address.host)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def is_local(address: Address) -> bool:
    """Say whether only this machine can reach it: loopback or a Unix socket."""
    ip = ip_of(address)
    return ip is None or ip.is_loopback


def overlap(one: Address, other: Address) -> bool:
    """Say whether both cannot be bound at once; `[::]` takes IPv4 too, port 0 never collides."""
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port or not one.port:
        return False
    ips, others = _bound(one), _bound(other)
    if ips & others:
        return True
    wildcards = {"::", "0.0.0.0"} & (ips | others)  # noqa: S104  # compared, not bound
    return "::" in wildcards or bool(wildcards and _has_ipv4(ips) and _has_ipv4(others))


def _bound(address: Address) -> set[str]:
    return {"127.0.0.1", "::1"} if address.host == "localhost" else {str(ip_of(address))}


def _has_ipv4(ips: set[str]) -> bool:
    return any("." in ip for ip in ips)


def _parse(text: str) -> Address:
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if "://" in text:
        raise AddressProblem(_EXPECTED, "leave the scheme and the path out")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise AddressProblem(_EXPECTED, "the port is missing")
    if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        raise AddressProblem(_EXPECTED, "a port is a number from 1 to 65535")
    if not host:
        raise AddressProblem(
            _EXPECTED,
            f"write 127.0.0.1:{port} for this machine, 0.0.0.0:{port} for all, [::]:{port} with IPv6",
        )
    return Address(_host(host, port), int(port))


def _host(host: str, port: str) -> str:
    if host.lower() == "localhost":
        return "localhost"
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        raise _not_an_ip(host, int(port)) from None
    if (ip.version == 6) != bracketed:  # noqa: PLR2004  # IPv6
        raise AddressProblem(
            _EXPECTED, f"write [{bare}]:{port}" if not bracketed else f"write {bare}:{port}"
        )
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id:
        raise AddressProblem("an address without a zone (%)")
    return str(ip)


def _not_an_ip(host: str, port: int) -> AddressProblem:
    digits = host.replace(".", "")
    if _NAME.fullmatch(host) and not digits.isdigit():
        return NameProblem(host, port)
    return AddressProblem(_EXPECTED)


def _unix(path: str) -> Address:
    if not path.startswith("/"):
        raise AddressProblem("an absolute path after unix:")
    if len(path.encode()) > _MAX_UNIX_PATH:
        raise AddressProblem(f"a socket path of at most {_MAX_UNIX_PATH} bytes")
    if not path.isprintable() or path.endswith("/"):
        raise AddressProblem("the path of a socket after unix:")
    return Address(path=path)
