"""The lines that tell who and how (RFC 7239, RFC 9440, RFC 9110 §7.6.3, Envoy's XFCC modes; threats A1, A5)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import Field
from ambassador.policy.forwarding import (
    ForwardingLines,
    ForwardingSettings,
    bare_address,
    client_cert_lines,
    forwarded_cert_line,
    forwarded_for_line,
    forwarded_host_line,
    forwarded_line,
    kept_hops,
    names_us,
    via_line,
)
from tests.unit.policy.make import fields, identity

MODES = ("sanitize", "sanitize_set", "forward_only", "append_forward")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("10.0.0.7", b"10.0.0.7"),
        ("::ffff:10.0.0.7", b"10.0.0.7"),
        ("2001:DB8:0::1", b"2001:db8::1"),
        ("fe80::1%eth0", b"fe80::1"),
        ("", b""),
    ],
)
def test_an_address_is_given_as_applications_expect_it(text: str, bare: bytes) -> None:
    """A socket on [::] gives IPv4 peers as mapped ones (RFC 4291 §2.5.5.2)."""
    assert bare_address(text) == bare


@pytest.mark.parametrize(
    ("value", "hops", "kept"),
    [
        (b"1.1.1.1, 2.2.2.2, 3.3.3.3", 0, ()),
        (b"1.1.1.1, 2.2.2.2, 3.3.3.3", 1, (b"3.3.3.3",)),
        (b"1.1.1.1, 2.2.2.2,3.3.3.3", 2, (b"2.2.2.2", b"3.3.3.3")),
        (b"1.1.1.1", 5, (b"1.1.1.1",)),
        (b"", 2, ()),
        (b" , ,1.1.1.1,, \t", 2, (b"1.1.1.1",)),
        (b"evil, 1.1.1.1", 2, (b"1.1.1.1",)),
        (b"1.1.1.1, evil, 2.2.2.2", 3, (b"2.2.2.2",)),
        (b"1.1.1.1, evil", 2, ()),
        (b"::1, [::2], [::3]:80, 4.4.4.4:443", 4, (b"::1", b"[::2]", b"[::3]:80", b"4.4.4.4:443")),
        (b"999.1.1.1", 1, ()),
        (b":::", 1, ()),
        (b"[:::]", 1, ()),
        (b'"1.1.1.1"', 1, ()),
        (b"1.1.1.1;x", 1, ()),
    ],
)
def test_entries_of_trusted_hops_are_counted_from_the_right(
    value: bytes, hops: int, kept: tuple[bytes, ...]
) -> None:
    """config.md §3: trusted_hops; what no trusted hop can have written ends the count."""
    assert kept_hops(value, hops) == kept


@given(st.binary(max_size=40), st.integers(0, 3))
def test_nothing_but_addresses_is_kept(value: bytes, hops: int) -> None:
    """Threats A4: no byte of it can end a line or an element."""
    kept = kept_hops(value, hops)

    assert len(kept) <= hops
    assert all(re.fullmatch(rb"[0-9A-Fa-f:.\[\]]+", entry) for entry in kept)


@pytest.mark.parametrize(
    ("kept", "address", "authority", "value"),
    [
        ((), b"10.0.0.7", b"shop", b"for=10.0.0.7;host=shop;proto=https"),
        ((), b"10.0.0.7", b"shop:8443", b'for=10.0.0.7;host="shop:8443";proto=https'),
        ((), b"2001:db8::1", b"[::1]:1", b'for="[2001:db8::1]";host="[::1]:1";proto=https'),
        ((), b"", b"shop", b"for=unknown;host=shop;proto=https"),
        ((), b"10.0.0.7", b"", b"for=10.0.0.7;proto=https"),
        ((), b"10.0.0.7", b'a"b\\c', b'for=10.0.0.7;host="a\\"b\\\\c";proto=https'),
        ((b"1.1.1.1", b"::2"), b"10.0.0.7", b"", b'for=1.1.1.1, for="[::2]", for=10.0.0.7;proto=https'),
        ((b"[::2]", b"[::3]:80", b"4.4.4.4:5"), b"", b"",
         b'for="[::2]", for="[::3]:80", for="4.4.4.4:5", for=unknown;proto=https'),
    ],
)  # fmt: skip
def test_forwarded_is_spelled_by_its_grammar(
    kept: tuple[bytes, ...], address: bytes, authority: bytes, value: bytes
) -> None:
    """RFC 7239 §4, §6: IPv6 and ports are quoted."""
    assert forwarded_line(kept, address, authority=authority) == b"Forwarded: %b\r\n" % value


def test_forwarded_for_and_host_are_absent_rather_than_empty() -> None:
    """A Unix socket has no address, HTTP/1.0 perhaps no Host."""
    assert forwarded_for_line((), b"10.0.0.7") == b"X-Forwarded-For: 10.0.0.7\r\n"
    assert forwarded_for_line((b"1.1.1.1",), b"::1") == b"X-Forwarded-For: 1.1.1.1, ::1\r\n"
    assert forwarded_for_line((b"1.1.1.1",), b"") == b"X-Forwarded-For: 1.1.1.1\r\n"
    assert forwarded_for_line((), b"") == b""
    assert forwarded_host_line(b"shop:1") == b"X-Forwarded-Host: shop:1\r\n"
    assert forwarded_host_line(b"") == b""


@pytest.mark.parametrize(
    ("mode", "element", "received", "value"),
    [
        ("sanitize", b"By=us", b"By=them", b""),
        ("sanitize_set", b"By=us", b"By=them", b"By=us"),
        ("sanitize_set", b"By=us", b"", b"By=us"),
        ("forward_only", b"By=us", b"By=them", b"By=them"),
        ("forward_only", b"By=us", b"", b""),
        ("append_forward", b"By=us", b"By=them", b"By=them,By=us"),
        ("append_forward", b"By=us", b"", b"By=us"),
        ("append_forward", b"", b"By=them", b"By=them"),
        ("append_forward", b"", b"", b""),
    ],
)
def test_each_mode_writes_what_envoys_writes(
    mode: str, element: bytes, received: bytes, value: bytes
) -> None:
    """protocols §1: append is a comma without a blank."""
    line = forwarded_cert_line(mode, element, received=received)

    assert line == (b"X-Forwarded-Client-Cert: %b\r\n" % value if value else b"")


def test_an_unknown_mode_is_refused() -> None:
    """Envoy's ALWAYS_FORWARD_ONLY is not ours: it believes anybody."""
    with pytest.raises(ValueError, match="always_forward_only"):
        forwarded_cert_line("always_forward_only", b"", received=b"By=them")


def test_client_cert_is_a_byte_sequence_and_the_chain_leaves_the_leaf_out() -> None:
    """RFC 9440 §2.2, §2.3; RFC 8941 §3.3.5."""
    peer = identity(
        "spiffe://a/b", certificate=b"\x00leaf", chain=(b"\x00leaf", b"\x01ca", b"\x02root")
    )
    leaf = b"Client-Cert: :%b:\r\n" % b64encode(b"\x00leaf")
    chain = b"Client-Cert-Chain: :%b:, :%b:\r\n" % (b64encode(b"\x01ca"), b64encode(b"\x02root"))

    assert client_cert_lines("none", peer) == b""
    assert client_cert_lines("leaf", peer) == leaf
    assert client_cert_lines("chain", peer) == leaf + chain
    assert client_cert_lines("chain", identity(certificate=b"\x00leaf")) == leaf


def settings(mode: str = "sanitize_set", hops: int = 0) -> ForwardingSettings:
    """Give settings whose check takes every value but `bad`."""
    return ForwardingSettings(mode, hops, lambda value: value != b"bad")


def rendered(
    lines: ForwardingLines,
    dropped: Sequence[Field] = (),
    *,
    authority: bytes = b"shop",
    may_forward: bool = False,
) -> list[bytes]:
    """Give the lines of one request, each without its CRLF."""
    *found, last = lines.render(authority, dropped, may_forward=may_forward).split(b"\r\n")
    assert last == b""
    return found


def test_the_app_is_told_who_and_how() -> None:
    """config.md §5: To the app."""
    lines = ForwardingLines(
        settings(),
        peer_address="::ffff:10.0.0.7",
        element=b"By=us",
        constant=b"Client-Cert: :eA==:\r\n",
    )

    assert rendered(lines) == [
        b"X-Forwarded-For: 10.0.0.7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: shop",
        b"Forwarded: for=10.0.0.7;host=shop;proto=https",
        b"X-Forwarded-Client-Cert: By=us",
        b"Client-Cert: :eA==:",
    ]


def test_lines_follow_the_authority_and_are_kept_while_it_stays() -> None:
    """House §8: a connection's constant part is rendered once."""
    lines = ForwardingLines(settings(), peer_address="10.0.0.7", element=b"By=us")
    first = lines.render(b"shop", (), may_forward=False)

    assert lines.render(b"shop", (), may_forward=False) is first
    assert b"X-Forwarded-Host: other" in rendered(lines, authority=b"other")
    assert lines.render(b"shop", (), may_forward=False) == first


FORGED = fields(
    (b"X-Forwarded-Client-Cert", b"By=a"), (b"x_forwarded_client_cert", b"By=alias"), (b"X-Forwarded-For", b"6.6.6.6"),
    (b"X_Forwarded_For", b"7.7.7.7"), (b"x-forwarded-client-cert", b"By=b"), (b"Forwarded", b"for=8.8.8.8"),
)  # fmt: skip


@pytest.mark.parametrize("may_forward", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_received_identity_counts_only_by_mode_and_from_who_may_forward(
    mode: str, may_forward: bool
) -> None:  # noqa: FBT001
    """Threats A1, A5; config.md §3: may_forward."""
    lines = ForwardingLines(settings(mode), peer_address="10.0.0.7", element=b"By=us")
    found = rendered(lines, FORGED, may_forward=may_forward)
    values = [x for x in found if x.startswith(b"X-Forwarded-Client-Cert: ")]
    expected = {
        ("sanitize_set", False): b"By=us", ("sanitize_set", True): b"By=us", ("forward_only", True): b"By=a,By=b",
        ("append_forward", False): b"By=us", ("append_forward", True): b"By=a,By=b,By=us",
    }.get((mode, may_forward))  # fmt: skip

    assert values == ([b"X-Forwarded-Client-Cert: " + expected] if expected else [])
    assert b"X-Forwarded-For: 10.0.0.7" in found
    assert not any(x in line for line in found for x in (b"alias", b"7.7.7.7", b"8.8.8.8"))


def test_a_received_value_that_is_not_valid_is_dropped_whole() -> None:
    """Threats A5: the first error drops all of it."""
    received = fields((b"X-Forwarded-Client-Cert", b"bad"))

    for mode, expected in (
        ("append_forward", [b"X-Forwarded-Client-Cert: By=us"]),
        ("forward_only", []),
    ):
        lines = ForwardingLines(settings(mode), peer_address="10.0.0.7", element=b"By=us")
        found = rendered(lines, received, may_forward=True)

        assert [x for x in found if x.startswith(b"X-Forwarded-Client")] == expected


def test_a_believed_value_does_not_stay_for_the_next_request() -> None:
    """One exchange's received identity never reaches another one."""
    lines = ForwardingLines(
        settings("append_forward", 1), peer_address="10.0.0.7", element=b"By=us"
    )
    before = rendered(lines)
    believed = rendered(lines, FORGED, may_forward=True)

    assert believed != before
    assert b"X-Forwarded-For: 6.6.6.6, 10.0.0.7" in believed
    assert b"Forwarded: for=6.6.6.6, for=10.0.0.7;host=shop;proto=https" in believed
    assert rendered(lines) == before


def test_lines_print_no_identity() -> None:
    """House §8: __repr__ shows the state."""
    assert (
        repr(ForwardingLines(settings(), peer_address="::1", element=b"By=us"))
        == "ForwardingLines(b'::1', sanitize_set)"
    )


US = b"ambassador-0123456789ab"


def test_via_names_the_version_that_was_received() -> None:
    """RFC 9110 §7.6.3: received-protocol."""
    assert via_line(US, version=11) == b"Via: 1.1 ambassador-0123456789ab\r\n"
    assert via_line(US, version=10) == b"Via: 1.0 ambassador-0123456789ab\r\n"


@pytest.mark.parametrize(
    ("values", "loop"),
    [
        ((), False),
        ((b"1.1 ambassador-000000000000",), False),
        ((b"1.1 " + US,), True),
        ((b"1.0 a, 1.1 " + US + b" (x), HTTP/1.1 b",), True),
        ((b"1.0 a", b"HTTP/1.1\t" + US),  True),
        ((b"1.1 " + US + b"(comment)",), True),
        ((b"1.1 x" + US,), False),
        ((b"1.1 " + US + b"0",), False),
        ((b"1.1 " + US + b".example",), False),
        ((b"1.1 a (" + US + b")",), False),
        ((US,), False),
    ],
)  # fmt: skip
def test_a_loop_is_a_received_via_that_names_this_listener(
    values: tuple[bytes, ...], loop: bool
) -> None:  # noqa: FBT001
    """RFC 9110 §7.6.3; config.md §5: the same listener twice; threats H1."""
    received = fields((b"Accept", b"1.1 " + US), *((b"Via", value) for value in values))

    assert names_us(received, US) is loop
