"""The checks of single values: from what the file says to what it means, or a sentence.

Each takes any value that YAML can give and either returns ours or raises ValueError: what was expected, what came,
what to do. Must not know which key a value belongs to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

from ambassador.config import addresses
from ambassador.config.annotations import Check
from ambassador.config.substitute import MASK, Substituted
from ambassador.config.words import NOT_BUILT, nearest, printable, show, wrong
from ambassador.core import units
from ambassador.core.model import Address
from ambassador.policy import hosts, paths, patterns
from ambassador.policy.routing import check_header_name

_LONGEST_TEXT = 255
_LONGEST_AMOUNT = 24
_LONGEST_DURATION_S = 10 * 365 * 86400.0

#: What a retry may be for, beside single statuses.
CONDITIONS: Final = ("connect_failure", "reset", "gateway_error", "refused_stream", "5xx")
#: A name for each kind of peer identity.
EXAMPLES: Final = {
    "spiffe": "spiffe://example.org/shop/web",
    "uri": "https://example.org/shop/web",
    "dns": "web.example.org",
    "cn": "web",
}


def _text(value: Any, expected: str) -> str:
    if isinstance(value, str):
        return value
    cure = f'quote it: "{show(value)}"' if isinstance(value, (int, float)) else ""
    raise wrong(expected, value, cure)


def text(value: Any) -> str:
    """Check a piece of text for logs: printable, neither empty nor endless."""
    given = _text(value, "text")
    if not given or not given.isprintable() or len(given) > _LONGEST_TEXT:
        raise wrong("1 to 255 printable characters", value)
    return str(given)


def flag(value: Any) -> bool:
    """Check a boolean; only `true` and `false` are."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Substituted) and str(value) in {"true", "false"}:
        return str(value) == "true"
    raise wrong("true or false", value)


def integer(lowest: int, highest: int | None = None) -> Check:
    """Give a check for whole numbers in a range."""
    expected = f"a whole number, at least {lowest}"
    if highest is not None:
        expected = (
            str(lowest) if lowest == highest else f"a whole number from {lowest} to {highest}"
        )

    def check(value: Any) -> int:
        number = value
        if isinstance(value, Substituted) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool):
            unquoted = isinstance(value, str) and value.isdigit()
            raise wrong(expected, value, f"without quotes: {value}" if unquoted else "")
        if number < lowest or (highest is not None and number > highest):
            raise wrong(expected, value)
        return number

    return check


_error_status = integer(400, 599)
_final_status = integer(200, 599)
_port = integer(1, 65535)


def matching(pattern: str, expected: str, cure: str = "") -> Check:
    """Give a check for text of a shape."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any) -> str:
        given = _text(value, expected)
        if compiled.fullmatch(given) is None:
            raise wrong(expected, value, cure)
        return str(given)

    return check


def choice(*words: str, later: tuple[str, ...] = ()) -> Check:
    """Give a check for one of some words; those of `later` are refused as such."""
    expected = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

    def check(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return str(value)
        if isinstance(value, str) and value in later:
            raise ValueError(f"{value} is {NOT_BUILT}; use {expected}")
        near = nearest(value, words) if isinstance(value, str) else ""
        raise wrong(expected, value, f"did you mean {near}?" if near else "")

    return check


def _amount(value: Any, parse: Callable[[str], Any], expected: str, unit: str) -> Any:
    """Parse a number with a unit; `core.units` quotes what it got, so its sentence is not used."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise wrong(expected, value, f"the unit is missing; did you mean {value}{unit}?")
    if not isinstance(value, str) or len(value) > _LONGEST_AMOUNT:
        raise wrong(expected, value)
    try:
        return parse(value)
    except ValueError:
        bare = value.isascii() and value.isdigit()
        cure = f"the unit is missing; did you mean {value}{unit}?" if bare else ""
        raise wrong(expected, value, cure) from None


def duration(*, zero: bool = False, longest: str = "") -> Check:
    """Give a check for DUR.

    Units: seconds.
    """
    expected = "a duration such as 250ms, 5s, 10m or 1h"

    def check(value: Any) -> float:
        seconds: float = _amount(value, units.parse_duration, expected, "s")
        if not seconds and not zero:
            raise wrong("more than 0s", value)
        if seconds > (units.parse_duration(longest) if longest else _LONGEST_DURATION_S):
            raise wrong(f"at most {longest or '3650d'}", value)
        return seconds

    return check


def or_none(check: Check, *spellings: str) -> Check:
    """Give a check that also takes `none` (and these spellings) for off."""

    def checked(value: Any) -> Any:
        if isinstance(value, str) and (value == "none" or value in spellings):
            return None
        return check(value)

    return checked


def size(smallest: str = "1B", largest: str = "1024GiB") -> Check:
    """Give a check for SIZE.

    Units: bytes.
    """

    def check(value: Any) -> int:
        amount: int = _amount(value, units.parse_size, "a size such as 512B, 64KiB or 1MiB", "B")
        if not units.parse_size(smallest) <= amount <= units.parse_size(largest):
            raise wrong(f"{smallest} to {largest}", value)
        return amount

    return check


def byte_rate(value: Any) -> float:
    """Check a SIZE per second.

    Units: bytes per second.
    """

    def parse(given: str) -> float:
        if not given.endswith("/s"):
            raise ValueError
        return float(units.parse_size(given.removesuffix("/s")))

    rate: float = _amount(value, parse, "bytes per second such as 500B/s or 2KiB/s", "B/s")
    if not rate:
        raise wrong("more than 0B/s", value, "none switches it off")
    return rate


def rate(value: Any) -> float:
    """Check a RATE.

    Units: 1/s.
    """
    number: float = _amount(value, units.parse_rate, "a rate such as 100/s or 600/m", "/s")
    if not number:
        raise wrong("more than 0/s", value)
    return number


def percentage(lowest: int, highest: int) -> Check:
    """Give a check for PCT in a range, itself in percent.

    Units: a fraction.
    """
    expected = f"{lowest}% to {highest}%" if lowest else f"at most {highest}%"

    def check(value: Any) -> float:
        fraction: float = _amount(value, units.parse_percent, "a percentage such as 20%", "%")
        if not lowest <= fraction * 100 <= highest:
            raise wrong(expected, value)
        return fraction

    return check


percent = percentage(0, 100)


def _address(parse: Callable[[str], Address | addresses.NamedPlace]) -> Check:
    def check(value: Any) -> Address | addresses.NamedPlace:
        given = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(given, str):
            raise wrong("an address such as 127.0.0.1:8080", value)
        try:
            return parse(given)
        except addresses.AddressProblem as problem:
            raise wrong(problem.expected, value, problem.cure) from None

    return check


listen_address = _address(addresses.parse_listen)
dial_address = _address(addresses.parse_dial)
app_address = _address(addresses.parse_app)
endpoint_address = _address(addresses.parse_endpoint)
app_or_name = _address(addresses.parse_app_or_name)


def url(value: Any) -> addresses.Url:
    """Check a URL; one that is refused is never shown, since it may hold a password (threats I3)."""
    try:
        return addresses.parse_url(_text(value, "a URL such as https://10.0.0.1:8443"))
    except addresses.AddressProblem as problem:
        hidden = any(mark in str(value) for mark in "@?#")
        raise wrong(problem.expected, Substituted(value) if hidden else value) from None


def secret(value: Any) -> str:
    """Check a SECRET, which no sentence shows, replaced or not (threats I3)."""
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]{1,8192}", value):
        raise ValueError(f"expected 1 to 8192 printable ASCII characters in quotes, got {MASK}")
    return str(value)


def retry_condition(value: Any) -> str | int:
    """Check what a route repeats: a word, or one status."""
    expected = f"{', '.join(CONDITIONS)} or a status from 400 to 599"
    if isinstance(value, str) and value in CONDITIONS:
        return str(value)
    try:
        return int(_error_status(value))
    except ValueError:
        if not isinstance(value, str):
            raise wrong(expected, value) from None
        near = nearest(value, CONDITIONS)
        cure = f"without quotes: {value}" if value.isdigit() else f"did you mean {near}?"
        raise wrong(expected, value, cure if near or value.isdigit() else "") from None


def status_range(value: Any) -> tuple[int, int]:
    """Check a status such as 204, or a range such as 200-299."""
    expected = 'a status such as 204, or a range such as "200-299"'
    match = re.fullmatch(r"([0-9]{3})-([0-9]{3})", str(value), re.ASCII)
    try:
        ends = (int(match[1]), int(match[2])) if match else (value, value)
        low, high = (_final_status(end) for end in ends)
    except ValueError:
        unquoted = isinstance(value, str) and value.isdigit()
        raise wrong(expected, value, f"without quotes: {value}" if unquoted else "") from None
    if low > high:
        raise wrong(expected, value)
    return low, high


def port_or_name(value: Any) -> int | str:
    """Check a port of Kubernetes: its number, or its name (RFC 6335 §5.1)."""
    expected = "a port's number or name"
    if isinstance(value, int) or str(value).isdigit():
        return int(_port(value))
    given = _text(value, expected)
    if re.fullmatch(r"(?=.*[a-z])[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?", given) is None:
        raise wrong(expected, value)
    return str(given)


def network(value: Any) -> IPv4Network | IPv6Network:
    """Check a CIDR."""
    expected = "a network such as 10.0.0.0/8"
    given = _text(value, expected)
    try:
        return ipaddress.ip_network(given)
    except ValueError as error:
        cure = "its bits behind the prefix must be 0" if "host bits" in str(error) else ""
        raise wrong(expected, value, cure) from None


def path(value: Any) -> Path:
    """Check a PATH; the loader makes it absolute."""
    given = _text(value, "a path")
    if not given or not given.isprintable():
        raise wrong("a path", value)
    return Path(str(given))


def peer_pattern(kind: str) -> Check:
    """Give a check for a PATTERN of this kind; what a pattern is, `policy.patterns` knows."""
    expected = "a SPIFFE ID" if kind == "spiffe" else f"a name such as {EXAMPLES[kind]}"
    return _sentence(lambda given: patterns.check_pattern(kind, given), expected)


def _sentence(check: Callable[[str], str | None], expected: str) -> Check:
    """Give a check out of a function of `policy` that says what is wrong, and may quote the text in it."""

    def checked(value: Any) -> str:
        given = _text(value, expected)
        problem = check(str(given))
        if problem is None:
            return str(given)
        # A replaced value is never shown, so then there is only the general sentence.
        raise (
            wrong(expected, value)
            if isinstance(value, Substituted)
            else ValueError(printable(problem))
        )

    return checked


path_pattern = _sentence(
    paths.check_path_pattern, "a path by segments such as /v1/*/items or /v1/**"
)
_host_pattern = _sentence(hosts.check_host_pattern, "a host name, *. in front at most")


def _check_literal_path(given: str) -> str | None:
    if not given.startswith("/"):
        return f'expected a path that begins with /, got "{given}"'
    if "*" in given:
        return f'here "*" is no pattern, got "{given}"; a prefix takes everything below it'
    return paths.check_path(given)


normal_path = _sentence(_check_literal_path, "a path in normal form such as /v1/items")


def host_pattern(value: Any) -> str:
    """Check a host to route by, and give it in lower case without a final dot, as hosts are compared."""
    given: str = _host_pattern(value)
    return given.lower().removesuffix(".")


def host_name(value: Any) -> str:
    """Check the name of one host."""
    if isinstance(value, str) and "*" in value:
        raise wrong("the name of one host", value)
    return host_pattern(value)


def method(value: Any) -> str:
    """Check a method: a token, and methods are case-sensitive (RFC 9110 §9.1)."""
    given = _text(value, "a method such as GET")
    if given.upper() != given:
        raise wrong("a method such as GET", value, f"did you mean {given.upper()}?")
    if re.fullmatch(r"[A-Z0-9!#$%&'*+.^_`|~-]+", given) is None or given == "*":
        raise wrong(
            "a method such as GET",
            value,
            "leave the key out for all methods" if given == "*" else "",
        )
    return str(given)


def upgrade(value: Any) -> str:
    """Check an upgrade token; `h2c` would carry requests past every rule (threats F5)."""
    given = _text(value, "an upgrade such as websocket").lower()
    if re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+(?:/[a-z0-9.]+)?", given) is None:
        raise wrong("an upgrade such as websocket", value)
    if given in {"h2c", "http/2", "http/2.0", "tls", "http/1.1"}:
        raise wrong("an upgrade such as websocket", value, "this one would go past the rules")
    return given


def server_name(value: Any) -> str:
    """Check a name to ask for in TLS: never an IP address (RFC 6066 §3)."""
    name = host_name(value)
    if name.startswith("[") or name.rpartition(".")[2].isdigit():
        raise wrong("a DNS name", value)
    return name


def header_name(value: Any) -> str:
    """Check the name of a header field to match: Host is `host`, framing is not ours to match."""
    name = str(value).lower()
    if re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name) is None:
        raise wrong("the name of a header field", value)
    if name in {"host", "content-length", "transfer-encoding", "connection", "expect"}:
        raise wrong(
            "a header field that goes from end to end",
            value,
            "hosts are matched by host" if name == "host" else "",
        )
    if reason := check_header_name(name):
        raise wrong("a header field to route by", value, reason)
    return name


def header_value(value: Any) -> str:
    """Check the value of a header field: RFC 9110 §5.5 without obs-text, which never matches (threats A8)."""
    given = _text(value, "the exact value, or present")
    if not given.isascii() or not given.isprintable() or given != given.strip():
        raise wrong("the exact value, or present", value)
    return str(given)


class Unmapped(str):
    """The key of the one trust bundle that no trust domain was written beside; no file can spell it."""

    __slots__ = ()


UNMAPPED: Final = Unmapped("")
_trust_domain = matching("[a-z0-9._-]{1,255}", "a trust domain such as example.org")


def trust_domain(value: Any) -> str:
    """Check the name of a trust domain (SPIFFE-ID §2.1)."""
    return "" if isinstance(value, Unmapped) else _trust_domain(value)
