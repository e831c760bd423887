"""Normal form, keys, patterns and rewrites of paths (RFC 3986; threats B3, F1, F2, F4)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.paths import (
    apply_rewrite,
    check_path,
    check_path_pattern,
    compile_path_pattern,
    has_prefix,
    is_normal_path,
    match_key,
)

ABNORMAL = [
    b"", b"*", b"a", b"?x", b"//", b"/a//b", b"//a", b"/a//", b"/.", b"/..", b"/./", b"/../", b"/a/.", b"/a/..",
    b"/a/./b", b"/a/../b", b"/.?x", b"/..?x", b"/a/..?/b", b"/%2e", b"/%2E%2e", b"/.%2e/", b"/%2e%2e/a", b"/a%2fb",
    b"/a%2Fb", b"/a%5cb", b"/a%5Cb", b"/a\\b", b"/\\..\\", b"/a;x", b"/a;", b"/;", b"/..;/a", b"/a;x=1/b",
    b"/a%3bx", b"/a%3B", b"/%00", b"/a%00.txt", b"/a%", b"/a%2", b"/a%zz", b"/a%g0", b"/%u002e", b"/a%0a", b"/a%0D",
    b"/a%1f", b"/a%7f", b"/a%7F", b"/%41", b"/%61", b"/%7e", b"/%7E", b"/%2d", b"/%5f", b"/%30", b"/%c0%ae",
    b"/%C0%AF", b"/%c1%9c", b"/%252e%252e", b"/a%252fb", b"/a%255Cb", b"/%2500", b"/%25252e", b"/a%253b", b"/a#b",
    b"/a b", b"/a\x00b", b"/a\r\n", b"/a\n", b"/caf\xc3\xa9", b'/a"b', b"/a<b", b"/a|b", b"/a^b", b"/a`b", b"/a{b}",
    b"/a[b]", b"/a?\x00", b"/a? b", b"/a/%2e?x", b"/%2561dmin", b"/%252D", b"/a%250Ab", b"/%25C0%25AF", b"/%252525",
    b"/%25E0%2580%25AFa", b"/%E0%2580%AF", b"/%25F0%2580%2580%25AF", b"/%E0%80%AF", b"/%e0%9f%bf", b"/%F0%80%80%AF",
    b"/%f0%8f%bf%bf",
]  # fmt: skip
NORMAL = [
    b"/", b"/a", b"/a/", b"/a/b", b"/?", b"/a?", b"/a?x=//../;%00", b"/a/?b/../c", b"/...", b"/a./b.", b"/.well-known",
    b"/..a", b"/a..b/", b"/-._~!$&'()*+,=:@", b"/%20", b"/caf%C3%A9", b"/caf%c3%a9", b"/me%40example.org", b"/50%25",
    b"/50%25ab", b"/a%2520b", b"/%7B%7d", b"/a%5Bb%5d", b"/%3F", b"/%23", b"/%21", b"/%2b", b"/%80", b"/%ff",
    b"/%E0%A0%80", b"/%F0%9F%98%80", b"/%E0", b"/%25a", b"/%25zz", b"/a%25C3%25A9",
]  # fmt: skip


@pytest.mark.parametrize("path", ABNORMAL)
def test_a_path_that_readers_could_see_differently_is_not_normal(path: bytes) -> None:
    """Threats F1."""
    assert not is_normal_path(path)


@pytest.mark.parametrize("path", NORMAL)
def test_an_ordinary_path_is_normal_whatever_its_query(path: bytes) -> None:
    """RFC 3986 §3.3: pchar; §3.4: the query is not the path."""
    assert is_normal_path(path)


@pytest.mark.parametrize("code", range(256))
def test_an_escape_is_normal_only_where_it_is_needed_and_harmless(code: int) -> None:
    """RFC 3986 §2.3, §6.2.2.2, over all octets and both spellings of hex."""
    unreserved = re.fullmatch(rb"[A-Za-z0-9._~-]", bytes((code,))) is not None
    control = code < 0x20 or code == 0x7F
    expected = not (unreserved or control or code in b"/\\;" or code in {0xC0, 0xC1})

    assert is_normal_path(b"/a%%%02xb" % code) is expected
    assert is_normal_path(b"/a%%%02Xb" % code) is expected
    assert is_normal_path(b"/%%%02X" % code) is expected


@given(st.text("/.%2eEfF5cC;?a", max_size=30))
def test_decoding_a_normal_path_makes_no_new_segment(text: str) -> None:
    """Threats F1: what the application decodes has the segments that we matched, none of them a dot."""
    path = b"/" + text.encode()
    if is_normal_path(path):
        plain = path.partition(b"?")[0]
        decoded = unquote_to_bytes(plain)

        assert decoded.count(b"/") == plain.count(b"/")
        assert not set(decoded.split(b"/")) & {b".", b".."}
        assert not set(decoded) & set(b"\\;\x00")


def test_a_long_hostile_path_is_refused_without_walking_back() -> None:
    """Threats E4: possessive quantifiers; an expression that walks back never ends here."""
    assert not is_normal_path(b"/" + b"a" * 16000 + b";")
    assert not is_normal_path(b"/a" * 8000 + b"/..")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (b"/a?x=%40", b"/a"),
        (b"/a%40b", b"/a@b"),
        (b"/a%2Ab%2a", b"/a*b*"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/%20%3f", b"/%20%3F"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/50%25", b"/50%25"),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_equal_paths_have_one_key(path: bytes, key: bytes) -> None:
    """RFC 3986 §6.2.2.1: hex digits are case-insensitive; escaped sub-delimiters are one to applications."""
    assert match_key(path) == key


PATTERNS = [
    ("/", b"/", True),
    ("/", b"/a", False),
    ("/v1", b"/v1", True),
    ("/v1", b"/v1/", False),
    ("/v1", b"/v1/a", False),
    ("/v1/", b"/v1/", True),
    ("/v1/**", b"/v1", False),
    ("/v1/**", b"/v1/", True),
    ("/v1/**", b"/v1/a", True),
    ("/v1/**", b"/v1/a/b/", True),
    ("/v1/**", b"/v12", False),
    ("/**", b"/", True),
    ("/**", b"/a/b", True),
    ("/**", b"", False),
    ("/**", b"*", False),
    ("/*", b"/a", True),
    ("/*", b"/", False),
    ("/*", b"/a/b", False),
    ("/*/x", b"/a/x", True),
    ("/*/x", b"//x", False),
    ("/a/*/**", b"/a/b", False),
    ("/a/*/**", b"/a/b/c", True),
    ("/a/*/**", b"/a//c", False),
    ("/a.b", b"/axb", False),
    ("/me@x", b"/me@x", True),
    ("/%2A", b"/*", True),
    ("/%2A", b"/a", False),
    ("/caf%c3%a9", b"/caf%C3%A9", True),
]


@pytest.mark.parametrize(("pattern", "key", "expected"), PATTERNS)
def test_a_pattern_covers_whole_segments(pattern: str, key: bytes, expected: bool) -> None:  # noqa: FBT001
    """Threats B3, F4; house §5: `*` one segment, `**` last only, no expression."""
    assert compile_path_pattern(pattern).matches(key) is expected


@given(
    st.lists(st.sampled_from(["a", "b", "a.b", "a+", "(", "$"]), min_size=1, max_size=4), st.data()
)
def test_a_literal_pattern_matches_exactly_its_own_path(
    segments: list[str], data: st.DataObject
) -> None:
    """Threats B3: nothing in it is an expression."""
    other = data.draw(
        st.lists(st.sampled_from(["a", "b", "a.b", "axb", "aa"]), min_size=1, max_size=4)
    )
    pattern = compile_path_pattern("/" + "/".join(segments))

    assert pattern.matches(("/" + "/".join(segments)).encode())
    assert pattern.matches(("/" + "/".join(other)).encode()) is (segments == other)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("v1", "begins with /"),
        ("", "begins with /"),
        ("/**/a", "last segment"),
        ("/**/**", "last segment"),
        ("/a*", "whole segment"),
        ("/a/b**", "whole segment"),
        ("/***", "whole segment"),
        ("/a//b", "normal form"),
        ("/a/../b", "normal form"),
        ("/%2e", "normal form"),
        ("/é", "normal form"),
        ("/a?b", "no query"),
        ("/a#b", "no query"),
    ],
)
def test_a_bad_pattern_is_explained_in_a_sentence(pattern: str, words: str) -> None:
    """A pattern that could never match, or matches too much, is an error of the file."""
    assert words in (check_path_pattern(pattern) or "")
    with pytest.raises(ValueError, match=words):
        compile_path_pattern(pattern)


def test_a_good_pattern_has_no_problem() -> None:
    """The sentence is None."""
    assert check_path_pattern("/v1/*/items/**") is None
    assert check_path("/v1/items") is None


@pytest.mark.parametrize(
    ("key", "prefix", "expected"),
    [
        (b"/api", b"/api", True),
        (b"/api/", b"/api", True),
        (b"/api/x", b"/api", True),
        (b"/apifoo", b"/api", False),
        (b"/ap", b"/api", False),
        (b"/x", b"/", True),
        (b"/", b"/", True),
        (b"/api", b"/api/", False),
        (b"/api/x", b"/api/", True),
        (b"", b"/", False),
        (b"*", b"/", False),
    ],
)
def test_a_prefix_ends_at_the_border_of_a_segment(
    key: bytes, prefix: bytes, expected: bool
) -> None:  # noqa: FBT001
    """Threats F2: Traefik CVE-2026-48020; F4: what has no path has no prefix."""
    assert has_prefix(key, prefix) is expected


@pytest.mark.parametrize(
    ("path", "matched", "replacement", "result"),
    [
        (b"/api/v1?x=/", b"/api", b"/", b"/v1?x=/"),
        (b"/api/v1", b"/api", b"/v2", b"/v2/v1"),
        (b"/api/v1", b"/api", b"/v2/", b"/v2/v1"),
        (b"/api", b"/api", b"/", b"/"),
        (b"/api?x", b"/api", b"/", b"/?x"),
        (b"/api", b"/api", b"/v2", b"/v2"),
        (b"/api", b"/api", b"/v2/", b"/v2/"),
        (b"/api/", b"/api", b"/v2", b"/v2/"),
        (b"/api/x", b"/api/", b"/v2/", b"/v2/x"),
        (b"/x", b"/", b"/v2", b"/v2/x"),
        (b"/", b"/", b"/v2", b"/v2/"),
        (b"/a/b/c/d", b"/a/b", b"/", b"/c/d"),
        (b"/a/b?c/d", b"/a/b", b"/z", b"/z?c/d"),
        (b"/a?/b", b"/a", b"/z", b"/z?/b"),
        (b"/a%40b/c", b"/a@b", b"/z", b"/z/c"),
        (b"*", b"/", b"/v2", b"*"),
        (b"", b"/", b"/v2", b""),
    ],
)
def test_a_rewrite_puts_one_prefix_for_another(
    path: bytes, matched: bytes, replacement: bytes, result: bytes
) -> None:
    """config.md §3: rewrite {prefix}; the query stays, joins have one slash."""
    assert apply_rewrite(path, matched, replacement) == result


@pytest.mark.parametrize(
    ("path", "matched", "replacement"),
    [
        (b"/api//x", b"/api", b"/v1"),
        (b"/api/..", b"/api", b"/v1"),
        (b"/api/%2e%2e/x", b"/api", b"/v1"),
        (b"/api/x;y", b"/", b"/v1"),
        (b"/apifoo", b"/api", b"/v1"),
        (b"/other", b"/api", b"/v1"),
    ],
)
def test_a_rewrite_whose_result_is_not_normal_is_refused(
    path: bytes, matched: bytes, replacement: bytes
) -> None:
    """Threats F2."""
    with pytest.raises(ValueError, match="rewritten"):
        apply_rewrite(path, matched, replacement)


@given(
    st.lists(st.sampled_from(["a", "b", "%40"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["x", "y.z", ""]), max_size=3),
)
def test_a_rewrite_keeps_what_follows_the_prefix(prefix: list[str], rest: list[str]) -> None:
    """Threats F2: the bytes behind the border are the client's."""
    matched = ("/" + "/".join(prefix)).encode()
    tail = "".join("/" + x for x in rest if x).encode()

    assert apply_rewrite(matched + tail, matched, b"/new") == b"/new" + tail
