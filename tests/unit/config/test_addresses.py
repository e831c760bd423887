"""Addresses: spelling, what is local, what cannot be bound at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.config import addresses
from ambassador.core.model import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8443", Address("0.0.0.0", 8443)),
        ("[::]:8443", Address("::", 8443)),
        ("[0:0:0:0:0:0:0:1]:80", Address("::1", 80)),
        ("localhost:9000", Address("localhost", 9000)),
        ("LocalHost:9000", Address("localhost", 9000)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
    ],
)
def test_a_listener_takes_an_address(text: str, address: Address) -> None:
    """config.md §1, ADDR; port 0 lets the system choose."""
    assert addresses.parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "a", "1.2.3.4", "1.2.3.4:", "1.2.3.4:08", "1.2.3.4:+8", "1.2.3.4:65536", "01.2.3.4:1", "1.2.3:4",
     "[::1]", "[::1", "::1", "[::g]:1", "[]:1", "unix:", "unix:/", "8443", "a@b:1", "1.2.3.4:1 ", "2130706433:80"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """Threats H1: no decimal or octal IP, no repaired address."""
    with pytest.raises(addresses.AddressProblem):
        addresses.parse_listen(text)


def test_the_port_alone_is_the_apps_on_both_families() -> None:
    """config.md §1; nodejs/node#40702: localhost is ::1 for some."""
    assert addresses.parse_app("8080") == Address("localhost", 8080)
    assert addresses.parse_app("unix:/a") == Address(path="/a")
    assert addresses.parse_app("[::1]:1") == Address("::1", 1)


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "[::ffff:0.0.0.0]:1", "224.0.0.1:1", "1.2.3.4:0", "web:1"]
)
def test_what_cannot_be_dialled_is_refused(text: str) -> None:
    """Connecting to 0.0.0.0 reaches loopback on Linux: never by accident (threats H2)."""
    with pytest.raises(addresses.AddressProblem):
        addresses.parse_dial(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [("127.0.0.1:1", True), ("127.9.9.9:1", True), ("[::1]:1", True), ("[::ffff:127.0.0.1]:1", True),
     ("localhost:1", True), ("unix:/a", True), ("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False),
     ("[::ffff:10.0.0.1]:1", False), ("169.254.1.1:1", False)],
)  # fmt: skip
def test_local_is_loopback_or_a_socket_file(text: str, local: bool) -> None:  # noqa: FBT001
    assert addresses.is_local(addresses.parse_listen(text)) is local


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("127.0.0.1:1", "[::]:1", True),
        ("[::1]:1", "[::]:1", True),
        ("[::1]:1", "0.0.0.0:1", False),
        ("[::1]:1", "127.0.0.1:1", False),
        ("localhost:1", "127.0.0.1:1", True),
        ("localhost:1", "[::1]:1", True),
        ("localhost:1", "0.0.0.0:1", True),
        ("localhost:1", "10.0.0.1:1", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:1", False),
    ],
)
def test_two_listeners_cannot_share_an_address(one: str, other: str, clash: bool) -> None:  # noqa: FBT001
    """bind(2): EADDRINUSE, and `[::]` takes IPv4 too."""
    first, second = addresses.parse_listen(one), addresses.parse_listen(other)

    assert addresses.overlap(first, second) is clash
    assert addresses.overlap(second, first) is clash


@given(st.ip_addresses(), st.integers(0, 65535))
def test_what_an_address_prints_it_reads_back(ip: object, port: int) -> None:
    text = str(Address(str(ip), port))

    assert str(addresses.parse_listen(text)) == text


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        addresses.parse_app(text)
    except addresses.AddressProblem:
        return
    assert text


@pytest.mark.parametrize("text", ["web:80", "WEB:80", "web.:80"])
def test_an_endpoint_may_be_a_name(text: str) -> None:
    """config.md §3, endpoints: names are compared in lower case, without the final dot (RFC 9110 §4.2.3)."""
    assert addresses.parse_endpoint(text) == addresses.NamedPlace("web", 80)
    assert addresses.parse_app_or_name(text) == addresses.NamedPlace("web", 80)


@pytest.mark.parametrize("text", ["localhost:80", "LOCALHOST:80", "localhost.:80"])
def test_localhost_is_never_asked_for(text: str) -> None:
    """RFC 6761 §6.3."""
    assert addresses.parse_endpoint(text) == Address("localhost", 80)


@pytest.mark.parametrize(
    "text", ["0x7f.1:80", "127.1:80", "a.b.1:80", "a..b:80", "a b:80", "web:0", "-a:80"]
)
def test_what_some_resolver_takes_for_an_address_is_no_name(text: str) -> None:
    """Threats H2: such a name would go past the rules about addresses."""
    with pytest.raises(addresses.AddressProblem):
        addresses.parse_endpoint(text)


@given(st.text() | st.from_regex(r"https?://[a-z.0-9\[\]:@?#/-]{0,30}", fullmatch=True))
def test_a_text_is_a_url_or_refused_without_a_word_of_it(text: str) -> None:
    """Threats I3: what is refused may hold a password, so the sentence is one of ours."""
    sentence = text_of_url = ""
    try:
        text_of_url = addresses.parse_url(text).text
    except addresses.AddressProblem as problem:
        sentence = problem.expected + problem.cure

    assert sentence.startswith("a URL") or text_of_url.startswith(("http://", "https://"))
    assert not set("@?#") & set(text_of_url)
