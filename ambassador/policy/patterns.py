"""SPIFFE IDs, and the patterns that name peers.

Knows the text of names as certificates carry it; must not know certificates. Everything is compared by whole
segments or labels; nothing is normalised: a name that is not canonical is no name (threats B2, B3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SCHEME: Final = "spiffe://"
_MAX_ID: Final = 2048  # SPIFFE-ID §2.3: at least this much must be supported; more need not be
_MAX_DOMAIN: Final = 255
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]+", re.ASCII)
# What a wildcard may stand for in other URIs: no escape, no parameter, no dot segment, and no `*` of their own.
_URI_SEGMENT: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._~!$&'()+,=:@-]+", re.ASCII)
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[!-~]+", re.ASCII)
_URI_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/?#*]+)/([^?#]*)", re.ASCII)
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_MAX_DNS: Final = 253

KINDS: Final = ("spiffe", "uri", "dns", "cn")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A workload's SPIFFE ID in its only spelling."""

    trust_domain: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return _SCHEME + "/".join((self.trust_domain, *self.path))


def parse_spiffe_id(text: str) -> SpiffeId | None:
    """Read the SPIFFE ID of a workload; None for all but the canonical form, which is never repaired.

    Source: SPIFFE-ID §2; X509-SVID §2 (the ID of a leaf has a path); threats B2.
    """
    try:
        domain, segments = _split_spiffe(text)
    except ValueError:
        return None
    if not all(map(_SEGMENT.fullmatch, segments)):
        return None
    return SpiffeId(domain, tuple(segments))


def _split_spiffe(text: str) -> tuple[str, list[str]]:
    if not text.startswith(_SCHEME):
        raise ValueError(f'expected a SPIFFE ID, got "{text}"')
    if len(text) > _MAX_ID:
        raise ValueError(f"a SPIFFE ID has at most {_MAX_ID} bytes, got {len(text)}")
    domain, slash, path = text[len(_SCHEME) :].partition("/")
    if "*" in domain:
        raise ValueError(f'a trust domain is literal, "*" is not allowed in it: "{text}"')
    if len(domain) > _MAX_DOMAIN or not _TRUST_DOMAIN.fullmatch(domain):
        raise ValueError(
            f'a trust domain has 1 to {_MAX_DOMAIN} of a-z 0-9 . _ - and neither port nor user, got "{domain}"'
        )
    if not slash:
        raise ValueError(f'the SPIFFE ID of a workload has a path, got "{text}"')
    return domain, path.split("/")


def _segment_problem(segment: str, text: str) -> str:
    if not segment:
        return f'a SPIFFE ID has no empty path segment and no slash at its end, got "{text}"'
    return f'a path segment of a SPIFFE ID has only A-Z a-z 0-9 . _ - and is not "." or "..", got "{segment}"'


@dataclass(frozen=True, slots=True)
class Segments:
    """A pattern of segments: None is `*` (one whole segment), `rest` is a last `**` (one or more)."""

    parts: tuple[str | None, ...]
    rest: bool

    def match(self, segments: Sequence[str]) -> bool:
        """Say whether the pattern covers the segments; one comparison per segment, so it is linear."""
        wanted = len(self.parts)
        if len(segments) <= wanted if self.rest else len(segments) != wanted:
            return False
        for part, segment in zip(self.parts, segments, strict=False):
            if part is not None and part != segment:
                return False
        return True


def _segments(texts: list[str], allowed: re.Pattern[str], whole: str) -> Segments:
    rest = texts[-1] == "**"
    parts = texts[:-1] if rest else texts
    for text in parts:
        if text == "**":
            raise ValueError(f'"**" may only be the last segment, got "{whole}"')
        if "*" in text and text != "*":
            raise ValueError(f'"*" stands for a whole segment, got "{text}"')
        if text != "*" and not allowed.fullmatch(text):
            raise ValueError(_segment_problem(text, whole))
    return Segments(tuple(None if text == "*" else text for text in parts), rest)


@dataclass(frozen=True, slots=True)
class SpiffePattern:
    """SPIFFE IDs of one literal trust domain whose path the segments cover."""

    trust_domain: str
    segments: Segments

    def matches(self, text: str) -> bool:
        identity = parse_spiffe_id(text)
        return (
            identity is not None
            and identity.trust_domain == self.trust_domain
            and self.segments.match(identity.path)
        )


@dataclass(frozen=True, slots=True)
class UriPattern:
    """One literal URI, or URIs of one literal scheme and authority whose path the segments cover."""

    text: str
    segments: Segments | None

    def matches(self, uri: str) -> bool:
        if self.segments is None:
            return uri == self.text
        if not uri.startswith(self.text + "/"):
            return False
        path = uri[len(self.text) + 1 :].split("/")
        return all(_URI_SEGMENT.fullmatch(segment) for segment in path) and self.segments.match(
            path
        )


@dataclass(frozen=True, slots=True)
class DnsPattern:
    """DNS names by labels; `*` is one whole label of the pattern, never of the certificate (RFC 9525 §6.3)."""

    labels: tuple[str | None, ...]

    def matches(self, name: str) -> bool:
        # Not only is `*` in a certificate a literal: no pattern can spell that literal (threats B4). ASCII is
        # asked first, because lower() maps the Kelvin sign to `k`.
        if not name.isascii():
            return False
        labels = name.lower().split(".")
        if len(labels) != len(self.labels):
            return False
        for pattern, label in zip(self.labels, labels, strict=True):
            if not _LABEL.fullmatch(label) or pattern not in {None, label}:
                return False
        return True


@dataclass(frozen=True, slots=True)
class CnPattern:
    """One literal common name."""

    text: str

    def matches(self, common_name: str) -> bool:
        return common_name == self.text


def parse_spiffe_pattern(text: str) -> SpiffePattern:
    """Read `spiffe://DOMAIN/…` with `*` for a segment and `**` at the end.

    Errors: ValueError with a sentence, and a suggestion when a DNS name was meant.
    """
    if not text.startswith(_SCHEME) and _is_dns(text):
        raise ValueError(f'expected a SPIFFE ID, got "{text}"; did you mean dns: {text}?')
    domain, texts = _split_spiffe(text)
    return SpiffePattern(domain, _segments(texts, _SEGMENT, text))


def parse_uri_pattern(text: str) -> UriPattern:
    """Read a URI, literal or with wildcards in the path of `scheme://authority/…`.

    Errors: ValueError with a sentence.
    """
    if text.lower().startswith("spiffe:"):
        # As a plain URI it would miss the checks of X509-SVID.
        raise ValueError(f'a SPIFFE ID is written with spiffe:, got uri: "{text}"')
    if not _URI.fullmatch(text):
        raise ValueError(f'expected a URI such as https://example.org/shop/web, got "{text}"')
    if "*" not in text:
        return UriPattern(text, None)
    parts = _URI_PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(
            f'"*" is allowed only in the path of a URI, after scheme://authority/, got "{text}"'
        )
    return UriPattern(parts[1], _segments(parts[2].split("/"), _URI_SEGMENT, text))


def parse_dns_pattern(text: str) -> DnsPattern:
    """Read a DNS name with `*` for whole labels, but not for the last one.

    Errors: ValueError with a sentence.
    """
    labels = text.lower().split(".") if text.isascii() else []
    if "**" in labels:
        raise ValueError(
            f'"**" has no meaning in a DNS name, got "{text}"; write one "*" per label'
        )
    if (
        not labels
        or len(text) > _MAX_DNS
        or not all(x == "*" or _LABEL.fullmatch(x) for x in labels)
    ):
        raise ValueError(f'expected a DNS name (A-labels, "*" only as a whole label), got "{text}"')
    if labels[-1] == "*":
        raise ValueError(f'the last label of a DNS name is literal, got "{text}"')
    return DnsPattern(tuple(None if label == "*" else label for label in labels))


def parse_cn_pattern(text: str) -> CnPattern:
    """Read a common name; it is compared whole, having no segments.

    Errors: ValueError with a sentence.
    """
    if not text:
        raise ValueError("expected a common name, got an empty one")
    if "*" in text:
        raise ValueError(f'a common name is compared whole, "*" is not allowed: "{text}"')
    return CnPattern(text)


def check_pattern(kind: str, text: str) -> str | None:
    """Give a sentence that says what is wrong with a peer pattern, or None."""
    try:
        match kind:
            case "spiffe":
                parse_spiffe_pattern(text)
            case "uri":
                parse_uri_pattern(text)
            case "dns":
                parse_dns_pattern(text)
            case "cn":
                parse_cn_pattern(text)
            case _:
                return f'expected one of {", ".join(KINDS)}, got "{kind}"'
    except ValueError as problem:
        return str(problem)
    return None


def _is_dns(text: str) -> bool:
    return check_pattern("dns", text) is None
