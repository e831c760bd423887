"""The header lines by which we tell the next hop who sent a request and how it came.

Knows the grammar of what we write, as whole lines that end in CRLF; must not know how certificates are read
(`wire.xfcc` renders and checks elements, its results are handed in). What does not change within a connection
is rendered once; per request only the authority is compared, unless a mode believes received values.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final

from ambassador.core.model import (
    EXPECTED_TIMEOUT,
    FORWARDED_CERT,
    FORWARDED_FOR,
    VIA,
    Field,
    PeerIdentity,
)
from ambassador.policy.headers import joined

FORWARDED_PROTO: Final = b"X-Forwarded-Proto: https\r\n"  # an inbound listener always speaks TLS
_MAX_DIGITS: Final = 9
_TOKEN: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NODE: Final = re.compile(
    rb"(?:\[(?P<bracketed>[0-9A-Fa-f:.]{2,45})\]|(?P<ipv4>[0-9.]{7,15}))(?P<port>:[0-9]{1,5})?"
    rb"|(?P<ipv6>[0-9A-Fa-f:.]{2,45})"
)

#: Modes that write a received X-Forwarded-Client-Cert, when its sender is believed.
_BELIEVING: Final = frozenset(("forward_only", "append_forward"))


@dataclass(frozen=True, slots=True)
class ForwardingSettings:
    """What a listener says about forwarding fields.

    `forwarded_client_cert`: sanitize, sanitize_set, forward_only or append_forward (Envoy's words).
    `trusted_hops`: X-Forwarded-For entries kept, from the right. `valid`: the strict check of a received
    X-Forwarded-Client-Cert (`wire.xfcc.valid`); what it refuses is dropped whole (threats A5).
    """

    forwarded_client_cert: str
    trusted_hops: int
    valid: Callable[[bytes], bool]


class ForwardingLines:
    """What an inbound connection tells the app, as header lines.

    `peer_address`: IP of the peer, empty on a Unix socket. `element`: our rendered XFCC element. `constant`:
    whole lines that go with every request (`client_cert_lines`).
    """

    __slots__ = ("_address", "_authority", "_constant", "_element", "_lines", "_reads", "_settings")

    def __init__(
        self,
        settings: ForwardingSettings,
        *,
        peer_address: str,
        element: bytes = b"",
        constant: bytes = b"",
    ) -> None:
        self._settings = settings
        self._address = bare_address(peer_address)
        self._element = element
        self._constant = constant
        self._reads = settings.trusted_hops > 0 or settings.forwarded_client_cert in _BELIEVING
        self._authority: bytes | None = None
        self._lines = b""

    def render(self, authority: bytes, dropped: Sequence[Field], *, may_forward: bool) -> bytes:
        """Give the lines of one request.

        `authority` as received, `dropped` what `headers.sanitize` gave, `may_forward` of the rule that let the
        request in. See `benchmarks/micro/policy_headers.py`.
        """
        if dropped and self._reads:
            return self._compose(authority, dropped, may_forward=may_forward)
        if authority != self._authority:
            self._lines = self._compose(authority, (), may_forward=False)
            self._authority = authority
        return self._lines

    def _compose(self, authority: bytes, dropped: Sequence[Field], *, may_forward: bool) -> bytes:
        settings = self._settings
        kept = kept_hops(joined(dropped, FORWARDED_FOR), settings.trusted_hops)
        received = joined(dropped, FORWARDED_CERT) if may_forward else b""
        if received and not settings.valid(received):
            received = b""
        return b"".join(
            (
                forwarded_for_line(kept, self._address),
                FORWARDED_PROTO,
                forwarded_host_line(authority),
                forwarded_line(kept, self._address, authority=authority),
                forwarded_cert_line(
                    settings.forwarded_client_cert, self._element, received=received
                ),
                self._constant,
            )
        )

    def __repr__(self) -> str:
        return f"ForwardingLines({self._address!r}, {self._settings.forwarded_client_cert})"


def bare_address(text: str) -> bytes:
    """Give an IP address as applications expect it: no zone, IPv4 out of its mapped form; empty for none.

    Source: RFC 4291 §2.5.5.2; RFC 5952.
    """
    if not text:
        return b""
    if ":" not in text:
        return text.encode()  # IPv4 has one spelling, the kernel's: 0.1 µs, not 3
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.compressed.encode()


def kept_hops(value: bytes, hops: int) -> tuple[bytes, ...]:
    """Give the entries of a received X-Forwarded-For that trusted hops have written, in their order.

    They are counted from the right. What is left of an entry that is no address was not written by a hop that
    can be trusted, so the count ends there. Empty list members do not count (RFC 9110 §5.6.1.2).
    """
    kept: list[bytes] = []
    if hops > 0:
        for part in reversed(value.split(b",")):
            entry = part.strip(b" \t")
            if not entry:
                continue
            if not _is_node(entry):
                break
            kept.append(entry)
            if len(kept) == hops:
                break
    return tuple(reversed(kept))


def _is_node(entry: bytes) -> bool:
    match = _NODE.fullmatch(entry)
    if match is None:
        return False
    try:
        if match["ipv4"]:
            IPv4Address(match["ipv4"].decode())
        else:
            IPv6Address((match["bracketed"] or match["ipv6"]).decode())
    except AddressValueError:
        return False
    return True


def forwarded_for_line(kept: Sequence[bytes], address: bytes) -> bytes:
    """Give X-Forwarded-For, or nothing when nobody has an address (a Unix socket)."""
    nodes = (*kept, address) if address else kept
    return b"X-Forwarded-For: %b\r\n" % b", ".join(nodes) if nodes else b""


def forwarded_host_line(authority: bytes) -> bytes:
    """Give X-Forwarded-Host, or nothing for an HTTP/1.0 request without Host."""
    return b"X-Forwarded-Host: %b\r\n" % authority if authority else b""


def forwarded_line(kept: Sequence[bytes], address: bytes, *, authority: bytes) -> bytes:
    """Give Forwarded: an element per trusted hop, and ours with host and proto. `by` would only name ourselves.

    Source: RFC 7239 §4 (grammar), §6 (nodes: IPv6 and anything with a port is quoted), §6.2 (`unknown`).
    """
    elements = [b"for=" + _node(entry) for entry in kept]
    ours = b"for=" + (_node(address) if address else b"unknown")
    if authority:
        ours += b";host=" + _quoted(authority)
    elements.append(ours + b";proto=https")
    return b"Forwarded: %b\r\n" % b", ".join(elements)


def _node(entry: bytes) -> bytes:
    if b":" not in entry:
        return entry
    if entry.count(b":") > 1 and not entry.startswith(b"["):
        entry = b"[%b]" % entry
    return b'"%b"' % entry


def _quoted(value: bytes) -> bytes:
    if _TOKEN.fullmatch(value):
        return value
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def forwarded_cert_line(mode: str, element: bytes, *, received: bytes) -> bytes:
    """Give X-Forwarded-Client-Cert by mode; `received` is empty unless its sender is believed and it is valid.

    Source: Envoy, forward_client_cert_details; an append is `,` without a blank (protocols §1).
    Errors: ValueError for an unknown mode.
    """
    match mode:
        case "sanitize":
            value = b""
        case "sanitize_set":
            value = element
        case "forward_only":
            value = received
        case "append_forward":
            value = received + b"," + element if received and element else received or element
        case _:
            raise ValueError(f'unknown mode of forwarded_client_cert "{mode}"')
    return b"X-Forwarded-Client-Cert: %b\r\n" % value if value else b""


def client_cert_lines(mode: str, identity: PeerIdentity) -> bytes:
    """Give Client-Cert, and with `chain` Client-Cert-Chain; a resumed session has no chain to show.

    Source: RFC 9440 §2.2, §2.3 (the chain is without the leaf); RFC 8941 §3.3.5.
    """
    if mode == "none":
        return b""
    lines = b"Client-Cert: :%b:\r\n" % b64encode(identity.certificate)
    issuers = identity.chain[1:]
    if mode == "chain" and issuers:
        lines += b"Client-Cert-Chain: %b\r\n" % b", ".join(b":%b:" % b64encode(x) for x in issuers)
    return lines


def timeout_line(timeout_s: float | None) -> bytes:
    """Give the line that says how long we wait for a response, or nothing when that is for ever.

    Units: seconds.
    Source: Envoy, `x-envoy-expected-rq-timeout-ms`.
    """
    if timeout_s is None:
        return b""
    return b"X-Envoy-Expected-Rq-Timeout-Ms: %d\r\n" % max(1, round(timeout_s * 1000))


def attempt_line(number: int) -> bytes:
    """Give the line that counts the attempts, from 1. Source: Envoy, `x-envoy-attempt-count`."""
    return b"X-Envoy-Attempt-Count: %d\r\n" % number


def expected_timeout_ms(fields: Iterable[Field]) -> int | None:
    """Give how long the sender of a request waits, None when it does not say, or says it twice.

    Units: milliseconds, never 0.
    """
    values = [field.value for field in fields if field.role & EXPECTED_TIMEOUT]
    if len(values) != 1 or not values[0].isdigit() or len(values[0]) > _MAX_DIGITS:
        return None
    return int(values[0]) or None


def via_line(pseudonym: bytes, *, version: int) -> bytes:
    """Give our Via line; it stands after the received ones, which go on as they are.

    Units: `version` is that of the received message, 10 or 11.
    Source: RFC 9110 §7.6.3.
    """
    return b"Via: %b %b\r\n" % (b"1.0" if version == 10 else b"1.1", pseudonym)  # noqa: PLR2004


def names_us(fields: Iterable[Field], pseudonym: bytes) -> bool:
    """Say whether a received Via has passed through this very listener.

    A search for the bytes answers nearly every request; only a hit is read. A comment that holds our name
    after a comma would count too: who writes one meets his own 508.
    Source: RFC 9110 §7.6.3 (received-by, then an optional comment).
    """
    for field in fields:
        if field.role & VIA and pseudonym in field.value:
            for element in field.value.replace(b"(", b" (").split(b","):
                words = element.split()
                if len(words) > 1 and words[1] == pseudonym:
                    return True
    return False
