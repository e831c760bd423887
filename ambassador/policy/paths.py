"""Request paths: normal form, the key by which they are compared, patterns, and the rewrite of a prefix.

Knows the origin-form target as bytes; must not know rules or routes. A path is never repaired: what is not in
normal form is refused where somebody decides by paths, and what was matched is what is forwarded (threats F1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# What `%` may stand for in a normal path: everything but unreserved characters (RFC 3986 §6.2.2.2), controls,
# `/` `\` `;` (a second path to some application), overlong UTF-8 (of `.` and `/`: C0, C1, E0 80-9F, F0 80-8F), and
# a `%` that a second decoding turns into one of those.
_HARMLESS: Final = (
    rb"2[0-46-9A-Ca-c]|3[AaC-Fc-f]|40|5[BDEbde]|60|7[B-Db-d]|[89ABDabd][0-9A-Fa-f]|[Cc][2-9A-Fa-f]"
    rb"|[Ee](?:0(?!%(?:25)?[89])|[1-9A-Fa-f])|[Ff](?:0(?!%(?:25)?8)|[1-9A-Fa-f])"
)
_ESCAPE: Final = rb"%(?:" + _HARMLESS + rb"|25(?:(?=" + _HARMLESS + rb")|(?![0-9A-Fa-f]{2})))"
# Segments of pchar (RFC 3986 §3.3) without `;`, none of them `.` or `..`, only the last one empty. Possessive
# quantifiers: no input makes it walk back. benchmarks/micro/policy_paths.py
_NORMAL: Final = re.compile(
    rb"(?:/(?!/|\.\.?(?:[/?]|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,=:@]++|"
    + _ESCAPE
    + rb")*+)++(?:\?[!-~]*)?"
).fullmatch
_ANY_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_SUB_DELIMS: Final = b"!$&'()*+,=:@"  # legal both plain and escaped, and one to every application
_KEYS: Final = {
    b"%%%02X" % code: (bytes((code,)) if code in _SUB_DELIMS else b"%%%02X" % code)
    for code in range(256)
}


def is_normal_path(path: bytes) -> bool:
    """Say whether all readers of an origin-form target see the same path.

    Source: RFC 3986 §3.3, §6.2.2; threats F1.
    """
    return _NORMAL(path) is not None


def match_key(path: bytes) -> bytes:
    """Give the path without query in the one spelling by which equal paths are equal.

    Escapes become upper-case, escaped sub-delimiters plain: `/a%40b` and `/a@b` are one path to an application,
    so a `deny` must not tell them apart. No segment border can appear, since `/` is not among them.
    Source: RFC 3986 §6.2.2.1.
    """
    query = path.find(b"?")
    if query >= 0:
        path = path[:query]
    if b"%" in path:
        return _ANY_ESCAPE.sub(_key_of, path)
    return path


def _key_of(match: re.Match[bytes]) -> bytes:
    return _KEYS[match[0].upper()]


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A compiled path pattern: segments, None for `*`, and whether `**` ends it."""

    segments: tuple[bytes | None, ...]
    rest: bool

    def matches(self, key: bytes) -> bool:
        """Say whether the pattern covers a path given as its `match_key`.

        `*` is one segment that is not empty; `**` at least one more, which may be the empty one after a last
        slash. What has no path (CONNECT, `*`) matches nothing (threats F4). Linear in the path.
        """
        if not key.startswith(b"/"):
            return False
        segments = key[1:].split(b"/")
        wanted = len(self.segments)
        if len(segments) <= wanted if self.rest else len(segments) != wanted:
            return False
        for pattern, segment in zip(self.segments, segments, strict=False):
            if pattern is None:
                if not segment:
                    return False
            elif pattern != segment:
                return False
        return True


def check_path_pattern(text: str) -> str | None:
    """Give a sentence that says what is wrong with a path pattern, or None."""
    if not text.startswith("/"):
        return f'expected a path that begins with /, got "{text}"'
    problem = check_path(text)
    if problem:
        return problem
    segments = text[1:].split("/")
    for index, segment in enumerate(segments):
        if segment == "**" and index < len(segments) - 1:
            return f'"**" may only be the last segment, got "{text}"'
        if "*" in segment and segment not in {"*", "**"}:
            return f'"*" stands for a whole segment, got "{segment}"; write %2A for a literal star'
    return None


def check_path(text: str) -> str | None:
    """Give a sentence that says why a literal path could never match, or None."""
    if "?" in text or "#" in text:
        return f'a path has no query and no fragment, got "{text}"'
    if not text.isascii() or not is_normal_path(text.encode()):
        return f'expected a path in normal form (no "//", ".", "..", ";", "\\" or needless % escapes), got "{text}"'
    return None


def compile_path_pattern(text: str) -> PathPattern:
    """Give the compiled pattern.

    Errors: ValueError with the sentence of `check_path_pattern`.
    """
    problem = check_path_pattern(text)
    if problem:
        raise ValueError(problem)
    segments = text[1:].split("/")
    rest = segments[-1] == "**"
    if rest:
        segments.pop()
    return PathPattern(
        tuple(None if segment == "*" else match_key(segment.encode()) for segment in segments), rest
    )


def has_prefix(key: bytes, prefix: bytes) -> bool:
    """Say whether a path (its `match_key`) is the prefix or lies below it, by whole segments (threats F2)."""
    if prefix.endswith(b"/"):
        return key.startswith(prefix)
    return key == prefix or key.startswith(prefix + b"/")


def apply_rewrite(path: bytes, matched: bytes, replacement: bytes) -> bytes:
    """Put `replacement` in the place of the segments that `matched` covers; the query stays.

    What has no path (`*`, CONNECT) stays as it is. Segments are counted, not bytes: the path may spell the same
    prefix with other escapes.
    Errors: ValueError when `matched` is no prefix of the path or the result is not in normal form (threats F2).
    """
    if not path.startswith(b"/"):
        return path
    if not has_prefix(match_key(path), match_key(matched)):
        raise ValueError("the rewritten prefix does not begin the path")
    end = path.find(b"?")
    position = 0
    for _ in range(matched.rstrip(b"/").count(b"/")):
        position = path.find(b"/", position + 1, end if end >= 0 else len(path))
        if position < 0:
            position = end if end >= 0 else len(path)
    rest = path[position:]
    if rest.startswith(b"/"):
        replacement = replacement.rstrip(b"/")
    result = replacement + rest
    if not is_normal_path(result):
        raise ValueError("the rewritten path is not in normal form")
    return result
