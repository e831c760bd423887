from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import PeerIdentity
from ambassador.wire.xfcc import DETAILS, Element, XfccError, parse, render, valid

HASH = "0123456789abcdef" * 4

PEER = PeerIdentity(
    spiffe="spiffe://ex.org/ns/d/sa/client",
    uris=("spiffe://ex.org/ns/d/sa/client", "spiffe://ex.org/second"),
    dns=("a.ex.org", "b.ex.org"),
    common_name=None,
    subject=r"CN=client=1,O=Acme\, \"Inc\",C=US",
    issuer="CN=ca",
    serial="1",
    not_after=0.0,
    fingerprint=HASH,
    certificate=bytes(range(100)),
    chain=(bytes(range(100)), b"\xff\xfe"),
)
US = "spiffe://ex.org/ns/d/sa/server"


def test_an_element_is_what_envoy_writes() -> None:
    """Measured on Envoy 1.40 with this certificate: order, quotes, no second escaping of the subject."""
    written = render(US, PEER, frozenset({"dns", "uri", "subject"}))

    assert written == (
        b"By=spiffe://ex.org/ns/d/sa/server;Hash=" + HASH.encode() + b";"
        rb'Subject="CN=client=1,O=Acme\, \"Inc\",C=US";'
        b"URI=spiffe://ex.org/ns/d/sa/client;URI=spiffe://ex.org/second;DNS=a.ex.org;DNS=b.ex.org"
    )


def test_by_and_hash_always_stand_there() -> None:
    """By only when our own certificate has a URI, as in Envoy."""
    assert render(US, PEER, ()) == b"By=" + US.encode() + b";Hash=" + HASH.encode()
    assert render(None, PEER, ()) == b"Hash=" + HASH.encode()


def test_a_certificate_is_url_encoded_pem() -> None:
    """Envoy encodes exactly newline, blank, plus, slash and equals sign."""
    pem = (
        "-----BEGIN%20CERTIFICATE-----%0A"
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v%0A"
        "MDEyMzQ1Njc4OTo7PD0%2BP0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5f%0A"
        "YGFiYw%3D%3D%0A-----END%20CERTIFICATE-----%0A"
    )
    second = "-----BEGIN%20CERTIFICATE-----%0A%2F%2F4%3D%0A-----END%20CERTIFICATE-----%0A"

    written = render(None, PEER, ("chain", "cert")).decode()

    assert written == f'Hash={HASH};Cert="{pem}";Chain="{pem}{second}"'


def test_keys_without_a_value_are_written_as_envoy_writes_them() -> None:
    """An empty URI and an empty Subject stand there, an unknown chain and no DNS name do not."""
    bare = replace(PEER, uris=(), dns=(), subject="", chain=())

    assert render(None, bare, DETAILS).endswith(b';Subject="";URI=')
    assert b"Chain" not in render(None, bare, DETAILS)


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("spiffe://a/b", b"URI=spiffe://a/b"),
        ("spiffe://a/b,By=x", b'URI="spiffe://a/b,By=x"'),
        ("spiffe://a/b;DNS=x", b'URI="spiffe://a/b;DNS=x"'),
        ('spiffe://a/"', b'URI="spiffe://a/\\""'),
        ('spiffe://a/\\"', b'URI="spiffe://a/\\\\\\""'),
        ("spiffe://a/\\", b"URI=spiffe://a/\\"),
    ],
)
def test_a_name_with_a_separator_is_quoted(uri: str, written: bytes) -> None:
    """Threat A4: Envoy does not, and lets a certificate write elements."""
    value = render(None, replace(PEER, uris=(uri,)), ("uri",))

    assert value.endswith(written)
    assert parse(value)[0].uris == (uri,)


@pytest.mark.parametrize("name", ["a\r\nX: y", "a\x00", "a b", "a\x7f", "\xe4", "a\x85", "a\tb"])
def test_a_name_with_other_bytes_is_not_written(name: str) -> None:
    """Threat A4: header injection by certificate."""
    for peer in (replace(PEER, uris=(name,)), replace(PEER, dns=(name,))):
        with pytest.raises(XfccError, match="bad_name"):
            render(None, peer, DETAILS)
    with pytest.raises(XfccError, match="bad_name"):
        render(name, PEER, ())


@pytest.mark.parametrize(
    ("subject", "written"),
    [
        ('CN=a",By=x', rb"CN=a\22,By=x"),
        ("CN=a\\", rb"CN=a\5C"),
        ("CN=a\r\nX: y", rb"CN=a\0D\0AX: y"),
        ("CN=\xe4", rb"CN=\C3\A4"),
    ],
)
def test_a_subject_that_is_no_rfc_4514_text_cannot_leave_its_quotes(
    subject: str, written: bytes
) -> None:
    """Threat A4."""
    value = render(None, replace(PEER, subject=subject), ("subject",))

    assert value.endswith(b';Subject="' + written + b'"')
    assert len(parse(value)) == 1


def test_what_we_write_is_read_back() -> None:
    """Threat A5: parse(render(x)) == x."""
    value = render(US, PEER, DETAILS)

    [element] = parse(value)

    assert (element.by, element.hash, element.subject) == (US, HASH, PEER.subject)
    assert (element.uris, element.dns) == (PEER.uris, PEER.dns)
    assert element.cert
    assert element.chain
    assert element.chain.startswith(element.cert)


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"By=a", [Element(by="a")]),
        (b"by=a;BY_=", None),
        (b"HASH=" + HASH.encode() + b",DNS=a", [Element(hash=HASH), Element(dns=("a",))]),
        (b'Subject="/C=US/CN=x";URI=', [Element(subject="/C=US/CN=x")]),
        (b"Subject=/C=US/CN=x", [Element(subject="/C=US/CN=x")]),
        (b'Subject=""', [Element(subject="")]),
        (b'URI="a\\"\\\\";URI=b', [Element(uris=('a"\\', "b"))]),
    ],
)
def test_a_received_value_is_taken_apart(value: bytes, elements: list[Element] | None) -> None:
    """Envoy's grammar: keys in any case, values quoted or bare."""
    if elements is None:
        assert not valid(value)
    else:
        assert valid(value)
        assert parse(value) == elements


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"", "malformed"),
        (b"By", "malformed"),
        (b"=a", "malformed"),
        (b"By=a,", "malformed"),
        (b"By=a;", "malformed"),
        (b"By=a;;URI=b", "malformed"),
        (b"By=a, URI=b", "malformed"),
        (b"By=a b", "malformed"),
        (b'By="a', "malformed"),
        (b'By="a"b', "malformed"),
        (b'By=a"b"', "malformed"),
        (b'By="a\\"', "malformed"),
        (b"By=\xe4", "malformed"),
        (b'By="\xe4"', "malformed"),
        (b'By="a\nb"', "malformed"),
        (b"By=a\n", "malformed"),
        (b"By=a\x00", "malformed"),
        (b"By=a;By=b", "key_twice"),
        (b"by=a;BY=b", "key_twice"),
        (b"Name=a", "unknown_key"),
        (b"Hash=abc", "bad_hash"),
        (b"Hash=", "bad_hash"),
        (b"Hash=" + b"g" * 64, "bad_hash"),
    ],
)
def test_a_malformed_value_is_refused_whole(value: bytes, detail: str) -> None:
    """Threat A5: the first error drops everything."""
    with pytest.raises(XfccError) as caught:
        parse(value)

    assert caught.value.detail == detail
    assert not valid(value)


@given(
    st.lists(
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1), max_size=4
    ),
    st.text(st.characters(max_codepoint=0x2FF)),
)
def test_no_certificate_can_write_a_second_element(names: list[str], subject: str) -> None:
    """Threat A4: whatever the names are, our own strict parser reads one element with them."""
    peer = replace(PEER, uris=tuple(names), dns=tuple(names), subject=subject)

    [element] = parse(render(US, peer, DETAILS))

    assert (element.by, element.uris, element.dns) == (US, tuple(names), tuple(names))
