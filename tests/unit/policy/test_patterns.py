"""SPIFFE IDs and patterns of peers (SPIFFE-ID §2; RFC 9525; threats B2-B5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.patterns import (
    check_pattern,
    parse_cn_pattern,
    parse_dns_pattern,
    parse_spiffe_id,
    parse_spiffe_pattern,
    parse_uri_pattern,
)

GOOD_IDS = [
    "spiffe://example.org/shop/web",
    "spiffe://example.org/a",
    "spiffe://a/b",
    "spiffe://trust_domain-1.x/9eebccd2-12bf-40a6-b262-65fe0487d453",
    "spiffe://example.org/Ns/.../..a/a..",
    "spiffe://1.2.3.4/a",
    "spiffe://" + "a" * 255 + "/b",
    "spiffe://a/" + "b" * 2037,
]
BAD_IDS = [
    "", "spiffe", "spiffe:", "spiffe:/", "spiffe://", "spiffe:///", "spiffe:///a", "spiffe://example.org",
    "spiffe://example.org/", "spiffe://example.org/a/", "spiffe://example.org//a", "spiffe://example.org/a//b",
    "spiffe://example.org/.", "spiffe://example.org/..", "spiffe://example.org/a/./b", "spiffe://example.org/a/../b",
    "spiffe://Example.org/a", "spiffe://EXAMPLE.ORG/a", "SPIFFE://example.org/a", "Spiffe://example.org/a",
    "spiffe://example.org:443/a", "spiffe://user@example.org/a", "spiffe://u:p@example.org/a", "spiffe://[::1]/a",
    "spiffe://example.org/a?b", "spiffe://example.org/a?", "spiffe://example.org/a#b", "spiffe://example.org/a#",
    "spiffe://example.org?x", "spiffe://example.org#x", "spiffe://example.org/%61", "spiffe://example.org/a%2fb",
    "spiffe://exam%70le.org/a", "spiffe://example.org/a b", "spiffe://example.org/a\n", "spiffe://example.org\n/a",
    "spiffe://example.org/é", "spiffe://éxample.org/a", "spiffe://example.org/a~b", "spiffe://example.org/a:b",
    "spiffe://example.org/*", "spiffe://*/a", "spiffe://example.org/a;b", "spiffe://example.org/a,b",
    " spiffe://example.org/a", "spiffe://example.org/a ", "spiffe://example.org\\a", "https://example.org/a",
    "spiffe://example.org/a\x00", "spiffe://example.org/\u0430", "spiffe://example.org/\u0660",
    "spiffe://" + "a" * 256 + "/b", "spiffe://a/" + "b" * 2038,
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD_IDS)
def test_a_canonical_spiffe_id_reads_back_as_itself(text: str) -> None:
    """SPIFFE-ID §2."""
    assert str(parse_spiffe_id(text)) == text


@pytest.mark.parametrize("text", BAD_IDS)
def test_anything_else_is_no_identity(text: str) -> None:
    """SPIFFE-ID §2.1-§2.4; threats B2: never normalised."""
    assert parse_spiffe_id(text) is None


def test_an_id_has_trust_domain_and_segments() -> None:
    """SPIFFE-ID §2."""
    found = parse_spiffe_id("spiffe://example.org/shop/web")

    assert found is not None
    assert (found.trust_domain, found.path) == ("example.org", ("shop", "web"))


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_repair_anything(text: str) -> None:
    """Whatever is read is what was given."""
    for candidate in (text, "spiffe://" + text, "spiffe://a/" + text):
        found = parse_spiffe_id(candidate)

        assert found is None or str(found) == candidate


SPIFFE = "spiffe://example.org"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/shop/web", "/shop/web", True),
        ("/shop/web", "/shop/web2", False),
        ("/shop/web", "/shop/webx/y", False),
        ("/shop/web", "/shop", False),
        ("/shop/w.b", "/shop/wab", False),
        ("/shop/*", "/shop/web", True),
        ("/shop/*", "/shop", False),
        ("/shop/*", "/shop/web/a", False),
        ("/*/web", "/shop/web", True),
        ("/*/*", "/shop/web", True),
        ("/*", "/shop/web", False),
        ("/shop/**", "/shop/web", True),
        ("/shop/**", "/shop/web/a/b", True),
        ("/shop/**", "/shop", False),
        ("/shop/**", "/shop2/web", False),
        ("/**", "/a", True),
        ("/*/**", "/a", False),
        ("/*/**", "/a/b/c", True),
    ],
)
def test_a_spiffe_pattern_covers_whole_segments(pattern: str, text: str, expected: bool) -> None:  # noqa: FBT001
    """Threats B3: Istio CVE-2026-39350."""
    assert parse_spiffe_pattern(SPIFFE + pattern).matches(SPIFFE + text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.com/a",
        "spiffe://xexample.org/a",
        "spiffe://sub.example.org/a",
        SPIFFE,
        "a",
    ],
)
def test_a_spiffe_pattern_never_leaves_its_trust_domain(text: str) -> None:
    """Threats B3, B6."""
    assert not parse_spiffe_pattern(SPIFFE + "/**").matches(text)


_SEGMENT = st.text("ab.-_A0", min_size=1, max_size=4).filter(lambda x: x not in {".", ".."})
_IDS = st.lists(_SEGMENT, min_size=1, max_size=4).map(lambda x: "spiffe://a.b/" + "/".join(x))


@given(_IDS, _IDS)
def test_a_rule_without_a_star_matches_exactly_one_id(pattern: str, other: str) -> None:
    """Threats B3, as a property."""
    compiled = parse_spiffe_pattern(pattern)

    assert compiled.matches(pattern)
    assert compiled.matches(other) is (pattern == other)


def test_a_thousand_stars_are_one_comparison_each() -> None:
    """Threats B3: an exponential matcher would not end within the test's life."""
    pattern = parse_spiffe_pattern("spiffe://a/" + "*/" * 1000 + "**")

    assert pattern.matches("spiffe://a/" + "/".join("b" * 1001))
    assert pattern.segments.match(["b"] * 1001)
    assert not pattern.segments.match(["b"] * 1000)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("payments", "did you mean dns: payments?"),
        ("pay.example.org", "did you mean dns: pay.example.org?"),
        ("https://example.org/a", "expected a SPIFFE ID, got"),
        ("spiffe://*/a", "a trust domain is literal"),
        ("spiffe://*.org/a", "a trust domain is literal"),
        ("spiffe://Example.org/a", "a trust domain has"),
        ("spiffe://example.org:1/a", "a trust domain has"),
        ("spiffe:///a", "a trust domain has"),
        ("spiffe://" + "a" * 256 + "/b", "a trust domain has"),
        ("spiffe://a/" + "b" * 2048, "at most 2048"),
        ("spiffe://example.org", "has a path"),
        ("spiffe://example.org/", "no empty path segment"),
        ("spiffe://example.org/a/", "no empty path segment"),
        ("spiffe://example.org/..", 'is not "." or ".."'),
        ("spiffe://example.org/a%20", "a path segment"),
        ("spiffe://example.org/**/a", '"**" may only be the last segment'),
        ("spiffe://example.org/**/**", '"**" may only be the last segment'),
        ("spiffe://example.org/a*", "stands for a whole segment"),
        ("spiffe://example.org/***", "stands for a whole segment"),
    ],
)
def test_a_bad_spiffe_pattern_is_explained(pattern: str, words: str) -> None:
    """config.md §4: one sentence, with a suggestion where one is near."""
    assert words in (check_pattern("spiffe", pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "uri", "expected"),
    [
        ("https://a.org/x", "https://a.org/x", True),
        ("https://a.org/x", "https://a.org/X", False),
        ("https://a.org/x", "https://a.org/x/", False),
        ("https://a.org/x.y", "https://a.org/xzy", False),
        ("urn:example:web", "urn:example:web", True),
        ("urn:example:web", "urn:example:web2", False),
        ("https://a.org/*", "https://a.org/x", True),
        ("https://a.org/*", "https://a.org/", False),
        ("https://a.org/*", "https://a.org/x/y", False),
        ("https://a.org/*", "https://b.org/x", False),
        ("https://a.org/*", "https://a.org", False),
        ("https://a.org/*", "https://a.orgx/x", False),
        ("https://a.org/*", "https://a.org/..", False),
        ("https://a.org/*", "https://a.org/%2e", False),
        ("https://a.org/*", "https://a.org/*", False),
        ("https://a.org/*", "https://a.org/x?y", False),
        ("https://a.org/*", "https://a.org/x;y", False),
        ("https://a.org/v/**", "https://a.org/v/x/y", True),
        ("https://a.org/v/**", "https://a.org/v", False),
        ("https://a.org/v/**", "https://a.org/v/../w", False),
        ("https://a.org/v/**", "https://a.org/v//w", False),
        ("https://a.org:8443/*", "https://a.org:8443/x", True),
    ],
)
def test_a_uri_pattern_covers_whole_segments_of_a_plain_path(
    pattern: str,
    uri: str,
    expected: bool,  # noqa: FBT001
) -> None:
    """Threats B3; a wildcard stands for nothing that could hide a second path."""
    assert parse_uri_pattern(pattern).matches(uri) is expected


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("spiffe://example.org/a", "is written with spiffe:"),
        ("SPIFFE://example.org/a", "is written with spiffe:"),
        ("web", "expected a URI"),
        ("https://a b", "expected a URI"),
        ("https://é", "expected a URI"),
        ("https://*.org/a", "only in the path"),
        ("urn:example:*", "only in the path"),
        ("https://a.org/x?y=*", "only in the path"),
        ("https://a.org/**/x", "last segment"),
        ("https://a.org/x*", "whole segment"),
        ("https://a.org//*", "empty path segment"),
    ],
)
def test_a_bad_uri_pattern_is_explained(pattern: str, words: str) -> None:
    """A pattern that would be read otherwise than it looks is an error of the file."""
    assert words in (check_pattern("uri", pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("web.example.org", "web.example.org", True),
        ("Web.Example.ORG", "wEB.example.org", True),
        ("web.example.org", "web.example.org.", False),
        ("web.example.org", "webxexample.org", False),
        ("web.example.org", "a.web.example.org", False),
        ("*.example.org", "web.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.b.example.org", False),
        ("*.*.example.org", "a.b.example.org", True),
        ("a.*.example.org", "a.b.example.org", True),
        ("*.example.org", "*.example.org", False),
        ("*.example.org", "w*.example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "-a.example.org", False),
        ("*.example.org", "a b.example.org", False),
        ("*.example.org", "\u212aing.example.org", False),
        ("king.example.org", "\u212aing.example.org", False),
        ("localhost", "localhost", True),
        ("_a.b-c", "_a.b-c", True),
    ],
)
def test_a_dns_pattern_covers_whole_labels_and_never_a_star_of_the_certificate(
    pattern: str,
    name: str,
    expected: bool,  # noqa: FBT001
) -> None:
    """RFC 9525 §6.3; threats B4. U+212A is the Kelvin sign, whose lower case is `k`."""
    assert parse_dns_pattern(pattern).matches(name) is expected


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "expected a DNS name"),
        ("a..b", "expected a DNS name"),
        (".a", "expected a DNS name"),
        ("a.", "expected a DNS name"),
        ("-a", "expected a DNS name"),
        ("w*.example.org", "expected a DNS name"),
        ("exämple.org", "expected a DNS name"),
        ("a" * 64, "expected a DNS name"),
        ("a." * 127 + "a", "expected a DNS name"),
        ("spiffe://a/b", "expected a DNS name"),
        ("**.example.org", "no meaning in a DNS name"),
        ("example.**", "no meaning in a DNS name"),
        ("*", "last label"),
        ("example.*", "last label"),
    ],
)
def test_a_bad_dns_pattern_is_explained(pattern: str, words: str) -> None:
    """RFC 1035 §2.3.4; RFC 9525 §6.3."""
    assert words in (check_pattern("dns", pattern) or "")


def test_a_common_name_is_compared_whole() -> None:
    """It has no segments; threats B4."""
    pattern = parse_cn_pattern("web (blue)")

    assert pattern.matches("web (blue)")
    assert not pattern.matches("web (blue) ")
    assert not pattern.matches("Web (blue)")


@pytest.mark.parametrize(
    ("kind", "pattern", "words"),
    [
        ("cn", "", "empty"),
        ("cn", "web*", "compared whole"),
        ("email", "a@b", "expected one of spiffe, uri, dns, cn"),
    ],
)
def test_other_bad_patterns_are_explained(kind: str, pattern: str, words: str) -> None:
    """config.md §3: Rules."""
    assert words in (check_pattern(kind, pattern) or "")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("spiffe", "spiffe://example.org/ns/*/sa/**"),
        ("uri", "https://example.org/*/x"),
        ("dns", "*.example.org"),
        ("cn", "web"),
    ],
)
def test_a_good_pattern_has_no_problem(kind: str, pattern: str) -> None:
    """The sentence is None."""
    assert check_pattern(kind, pattern) is None
