"""The grammar of X-Forwarded-Client-Cert: elements by comma, pairs by semicolon, values quoted or bare.

Knows the text only; whom to believe is for `policy`. Written byte for byte as Envoy 1.40 does, except that URI
and DNS values with a separator in them are quoted, which Envoy forgets (its own TODO): unquoted, a certificate
could write a second element into the header (threat A4).

Source: Envoy "HTTP header manipulation: x-forwarded-client-cert", and its conn_manager_utility.
"""

# ruff: noqa: PLR2004  # versions, status codes and byte values are the words of the RFC

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ambassador.core.model import PeerIdentity

#: What can be asked for beside By and Hash, in the order in which it is written.
DETAILS: Final = ("cert", "chain", "subject", "uri", "dns")

_is_bare = re.compile(r"[\x21-\x7e]*").fullmatch
_needs_quotes = re.compile(r'[,;="]').search
_is_subject = re.compile(r"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*+").fullmatch
_is_hash = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
# One pair and what stands behind it: ",", ";" or nothing. A quote is a whole value or none of it.
_pair = re.compile(
    rb'([A-Za-z]+)=(?:"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*+)"|([\x21\x23-\x2b\x2d-\x3a\x3c-\x7e]*+))([,;]|\Z)'
).match
_unescape = re.compile(r'\\([\\"])').sub


class XfccError(Exception):
    """A value that is not well-formed, or that must not be written; `detail` is a snake_case word."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Element:
    """What one proxy said of its peer.

    `subject` is RFC 4514 text with its escapes; `cert` and `chain` stay URL-encoded.
    """

    by: str | None = None
    hash: str | None = None
    cert: str | None = None
    chain: str | None = None
    subject: str | None = None
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


def render(by: str | None, identity: PeerIdentity, details: Collection[str]) -> bytes:
    """Give the element for a peer: By (our own URI) and Hash always, of `DETAILS` what is asked for.

    Errors: XfccError if a name holds bytes outside 0x21-0x7e; `identity` refuses such certificates before.
    """
    pairs = [] if by is None else ["By=" + _value(by)]
    pairs.append("Hash=" + identity.fingerprint)
    for detail in DETAILS:
        if detail in details:
            pairs += _pairs(detail, identity)
    return ";".join(pairs).encode("ascii")


def _pairs(detail: str, identity: PeerIdentity) -> list[str]:
    match detail:
        case "cert":
            return ['Cert="' + _url_encoded_pem(identity.certificate) + '"']
        case "chain":
            # Not known for a resumed session; Envoy leaves the key out then.
            pems = [_url_encoded_pem(certificate) for certificate in identity.chain]
            return ['Chain="' + "".join(pems) + '"'] if pems else []
        case "subject":
            # Quoted without a second escaping, as Envoy does: RFC 4514 has escaped quote and backslash already.
            return ['Subject="' + _subject(identity.subject) + '"']
        case "uri":
            # Envoy writes the key also when there is no URI.
            return ["URI=" + _value(uri) for uri in identity.uris] or ["URI="]
        case _:
            return ["DNS=" + _value(name) for name in identity.dns]


def _value(text: str) -> str:
    if not _is_bare(text):
        raise XfccError("bad_name")
    if not _needs_quotes(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _subject(text: str) -> str:
    if _is_subject(text):
        return text
    # Not RFC 4514 text: whatever produced it must not be able to leave the quotes (threat A4).
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )


def _url_encoded_pem(der: bytes) -> str:
    """Give a certificate as PEM with the five characters encoded that Envoy encodes."""
    text = b64encode(der).decode("ascii")
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
    for plain, encoded in (("\n", "%0A"), (" ", "%20"), ("+", "%2B"), ("/", "%2F"), ("=", "%3D")):
        pem = pem.replace(plain, encoded)
    return pem


def parse(value: bytes) -> list[Element]:
    """Give the elements of a value, the oldest first.

    Errors: XfccError for the first thing wrong: then nothing of the value may be believed (threat A5).
    """
    elements: list[Element] = []
    pairs: list[tuple[str, str]] = []
    position = 0
    while True:
        found = _pair(value, position)
        if found is None:
            raise XfccError("malformed")
        key = found[1].decode("ascii").lower()
        pairs.append((key, _read(key, found[2], found[3])))
        position = found.end()
        if found[4] != b";":
            elements.append(_element(pairs))
            pairs = []
        if not found[4]:
            return elements


def valid(value: bytes) -> bool:
    """Say whether a value is well-formed."""
    try:
        parse(value)
    except XfccError:
        return False
    return True


def _read(key: str, quoted: bytes | None, bare: bytes) -> str:
    """Give what a value says: without quotes, and without our escapes except in Subject, which has its own."""
    if quoted is None:
        # "=" in a bare value is left alone: Envoy writes URIs with a query so.
        return bare.decode("ascii")
    text = quoted.decode("ascii")
    return text if key == "subject" else _unescape(r"\1", text)


def _element(pairs: list[tuple[str, str]]) -> Element:
    """Put pairs together; a key that may stand once must not stand twice."""
    once: dict[str, str] = {}
    many: dict[str, list[str]] = {"uri": [], "dns": []}
    for key, text in pairs:
        if key in many:
            if text:  # an empty "URI=" says that there is none
                many[key].append(text)
        elif key not in _ONCE or key in once:
            raise XfccError("unknown_key" if key not in _ONCE else "key_twice")
        else:
            once[key] = text
    if "hash" in once and not _is_hash(once["hash"]):
        raise XfccError("bad_hash")
    return Element(**once, uris=tuple(many["uri"]), dns=tuple(many["dns"]))


_ONCE: Final = frozenset({"by", "hash", "cert", "chain", "subject"})
