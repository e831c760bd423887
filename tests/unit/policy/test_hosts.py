"""The one form of an authority (RFC 3986 §3.2; threats F3, H1, H7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.hosts import (
    can_be_rebound,
    check_host_pattern,
    normal_host,
    split_authority,
)


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        (b"payments", b"payments", None),
        (b"Payments.LocalHost:9000", b"payments.localhost", 9000),
        (b"payments.", b"payments", None),
        (b"PAY.example.org.:443", b"pay.example.org", 443),
        (b"a_b-c.d", b"a_b-c.d", None),
        (b"10.0.0.7:8443", b"10.0.0.7", 8443),
        (b"[::1]", b"[::1]", None),
        (b"[::1]:9000", b"[::1]", 9000),
        (b"[0:0:0:0:0:0:0:1]", b"[::1]", None),
        (b"[2001:DB8::A]:1", b"[2001:db8::a]", 1),
        (b"[::ffff:127.0.0.1]", b"[::ffff:7f00:1]", None),
        (b"a:00080", b"a", 80),
        (b"a:65535", b"a", 65535),
        (b"a" * 63 + b".b", b"a" * 63 + b".b", None),
    ],
)
def test_an_authority_has_one_host_and_perhaps_a_port(
    authority: bytes, host: bytes, port: int | None
) -> None:
    """Threats F3: lower case, no port, no final dot."""
    assert split_authority(authority) == (host, port)
    assert normal_host(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        b".", b"..", b"a..b", b".a", b"a..", b":80", b"a:", b"a:0", b"a:65536", b"a:123456", b"a:+1", b"a:-1", b"a:x",
        b"a:1:2", b"user@a", b"u:p@a", b"@a", b"a@", b"a/b", b"a?b", b"a#b", b"a b", b" a", b"a ", b"a\t", b"a\n",
        b"a,b",
        b"a%2eb", b"%61", b"::1", b"[::1", b"::1]", b"[]", b"[g::1]", b"[1.2.3.4]", b"[::1%eth0]", b"[::1%25eth0]",
        b"[:::]", b"[v1.x]", b"[::1]a", b"[::1]:", b"a[::1]", b"\xc3\xa9", b"a\x00", b"-a", b"a-", b"a.-b", b"*.a",
        b"*", b"a" * 64, b"a." * 126 + b"bb", b"a\\b", b"a;b", b"a!b", b"\xef\xbc\x8e",
    ],
)  # fmt: skip
def test_an_authority_that_somebody_could_read_differently_is_refused(authority: bytes) -> None:
    """Threats F3; RFC 9110 §4.2.4: user information."""
    with pytest.raises(ValueError, match=r"\w"):
        normal_host(authority)


def test_an_empty_authority_is_the_host_that_nobody_has() -> None:
    """RFC 9112 §3.2: an empty Host is legal."""
    assert normal_host(b"") == b""
    with pytest.raises(ValueError, match="expected host"):
        split_authority(b"")


@given(st.binary(max_size=30) | st.text("aA.:[]0129-_f", max_size=30).map(str.encode))
def test_a_normal_host_is_its_own_normal_form(authority: bytes) -> None:
    """One form: reading it again changes nothing."""
    try:
        host = normal_host(authority)
    except ValueError:
        return

    assert normal_host(host) == host
    assert host == host.lower()


@pytest.mark.parametrize(
    "text", ["payments", "Pay.Example.org", "*.example.org", "10.0.0.1", "[::1]", "a."]
)
def test_a_host_to_route_by_may_begin_with_a_wildcard(text: str) -> None:
    """config.md §3: match host, `*.` in front."""
    assert check_host_pattern(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a*.b", "only as"),
        ("a.*", "only as"),
        ("*", "only as"),
        ("*.*.a", "only as"),
        ("*.", "expected a host"),
        ("", "expected a host"),
        ("a b", "expected a host"),
        ("é", "expected a host"),
        ("a:80", "without a port"),
        ("[0::1]", "shortest form"),
    ],
)
def test_a_bad_host_to_route_by_is_explained(text: str, words: str) -> None:
    """A host that no request can have is an error of the file."""
    assert words in (check_host_pattern(text) or "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"localhost", False),
        (b"payments.localhost", False),
        (b"127.0.0.1", False),
        (b"10.0.0.1", False),
        (b"[::1]", False),
        (b"payments", False),
        (b"evil.example", True),
        (b"localhost.evil.example", True),
        (b"127.0.0.1.evil.example", True),
        (b"xlocalhost", True),
        (b"1.2.3", True),
        (b"", True),
    ],
)
def test_a_name_that_a_stranger_may_control_can_be_rebound(host: bytes, expected: bool) -> None:  # noqa: FBT001
    """Threats H7: MCP SDK CVE-2025-66414."""
    assert can_be_rebound(host, {b"payments"}) is expected


@pytest.mark.parametrize("text", ["a b", "", "-a", "[::1", "new.host:8", "[::1]:8", "a:b"])
def test_what_is_wrong_with_a_host_to_route_by_never_asks_for_a_port(text: str) -> None:
    """A port would be refused next."""
    sentence = check_host_pattern(text) or ""

    assert sentence.startswith("expected a host")
    assert "host:port" not in sentence
