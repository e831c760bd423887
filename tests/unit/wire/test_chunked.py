from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.wire.chunked import (
    LAST_CHUNK,
    MAX_EXTENSIONS,
    ChunkedReader,
    chunk,
    last_chunk,
)
from ambassador.wire.head import HeadError, HeadLimits
from tests.support.transcripts import line_cache, pairs, splits


def read(pieces: list[bytes], *, limits: HeadLimits | None = None) -> tuple[bytes, ChunkedReader]:
    reader = ChunkedReader(line_cache(), limits or HeadLimits())
    body = []
    for number, piece in enumerate(pieces):
        body.append(reader.feed(piece))
        if reader.done:
            reader.rest += b"".join(pieces[number + 1 :])
            break
    return b"".join(body), reader


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", b"hello!"),
        (b"00000000000000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"0123456789" + b"\r\n" * 5),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
        (b'1 ; a = "q\\"\\\\;,\xe4" ;b\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1\t;\ta=b;c\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1001\r\n" + b"y" * 4097 + b"\r\n0\r\n\r\n", b"y" * 4097),
    ],
)
def test_chunks_are_joined_however_they_arrive(received: bytes, body: bytes) -> None:
    """RFC 9112 §7.1; whole, byte by byte, at random splits, with a next request behind."""
    for pieces in splits(received + b"GET / "):
        found, reader = read(pieces)

        assert (found, reader.done, reader.rest, reader.trailers) == (body, True, b"GET / ", [])


@pytest.mark.parametrize(
    ("received", "details"),
    [
        (b"\r\n", {"bad_chunk_size"}),
        (b"g\r\n", {"bad_chunk_size"}),
        (b"-1\r\n", {"bad_chunk_size"}),
        (b"+1\r\n", {"bad_chunk_size"}),
        (b"0x5\r\n", {"bad_chunk_size"}),
        (b"1_0\r\n", {"bad_chunk_size"}),
        (b" 5\r\n", {"bad_chunk_size"}),
        (b"5 \r\n", {"bad_chunk_size"}),
        (b"5\t\r\n", {"bad_chunk_size"}),
        (b"5,\r\n", {"bad_chunk_size"}),
        (b"\xd9\xa5\r\n", {"bad_chunk_size"}),
        (b"5;\r\n", {"bad_chunk_size"}),
        (b"5;=b\r\n", {"bad_chunk_size"}),
        (b"5;a=\r\n", {"bad_chunk_size"}),
        (b"5;a b\r\n", {"bad_chunk_size"}),
        (b"5;a;\r\n", {"bad_chunk_size"}),
        (b'5;a="b\r\n', {"bad_chunk_size"}),
        (b'5;a="b"c\r\n', {"bad_chunk_size"}),
        (b'5;a="\x00"\r\n', {"bad_chunk_size"}),
        (b'5;a="\\\x01"\r\n', {"bad_chunk_size"}),
        (b"5;a\rb\r\n", {"bad_chunk_size", "bare_cr"}),
        (b"5\rX\r\n", {"bad_chunk_size", "bare_cr"}),
        (b"5\nhello\n0\n\n", {"bare_lf"}),
        (b"5\r\nhello\n0\r\n\r\n", {"bad_chunk_end"}),
        (b"5\r\nhelloX\r\n", {"bad_chunk_end"}),
        (b"5\r\nhello\rX", {"bad_chunk_end"}),
        (b"5\r\nhello0\r\n\r\n", {"bad_chunk_end"}),
        (b"1000000000000000\r\n", {"chunk_too_large"}),
        (b"00000000000000005\r\n", {"chunk_too_large"}),
        (b"0\r\nX: 1\n\r\n", {"bare_lf", "bad_field_value"}),
        (b"0\r\n\n", {"bare_lf"}),
        (b"0\r\nX: 1\rY\r\n\r\n", {"bare_cr", "bad_field_value"}),
        (b"0\r\nX : 1\r\n\r\n", {"space_before_colon"}),
        (b"0\r\nX: 1\r\n Y\r\n\r\n", {"obs_fold"}),
        (b"0\r\nGET / HTTP/1.1\r\n\r\n", {"no_colon"}),
    ],
)
def test_a_malformed_chunk_is_refused_however_it_arrives(
    received: bytes, details: set[str]
) -> None:
    """RFC 9112 §7.1, §7.1.1, §7.1.2; threats E5, G1. Pieces may only change the word for a lone CR or LF."""
    for pieces in splits(received + b"later"):
        with pytest.raises(HeadError) as caught:
            read(pieces)

        assert (caught.value.status, caught.value.detail in details) == (400, True), caught.value


def test_a_size_line_that_cannot_become_valid_is_refused_before_it_ends() -> None:
    """No waiting for the body deadline."""
    with pytest.raises(HeadError, match="bad_chunk_size"):
        read([b"GET / "])


def test_extensions_are_bounded_over_the_whole_message() -> None:
    """Threat E5; Go's CVE-2023-39326: a bound per chunk is none."""
    line = b"1;" + b"e" * 1023 + b"\r\nx\r\n"
    good = line * (MAX_EXTENSIONS // 1024)

    assert read([good + LAST_CHUNK])[0] == b"x" * 16
    for pieces in ([good + line], [good, b"1;", b"e" * 1023, b"\r\n"]):
        with pytest.raises(HeadError, match="chunk_extensions_too_large"):
            read(pieces)


def test_an_endless_extension_is_refused_before_its_line_ends() -> None:
    """Threat E5: what waits in memory is bounded too."""
    with pytest.raises(HeadError, match="chunk_extensions_too_large"):
        read([b"1;a=", *[b"b" * 1000] * 17])


def test_trailers_are_kept_unless_they_could_be_taken_for_something_else() -> None:
    """RFC 9110 §6.5.1; threat A6: identity, framing, Host and their aliases never arrive."""
    received = (
        b"0\r\nX-Checksum: 1\r\nHost: evil\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
        b"X-Forwarded-Client-Cert: By=x\r\nX_Forwarded_For: 1\r\nAuthorization: x\r\nCookie: a=b\r\n"
        b"Set-Cookie: a=b\r\nContent-Type: x\r\nCache-Control: x\r\nConnection: x\r\nX-Api-Key: 2\r\n\r\n"
    )
    for pieces in splits(received):
        _, reader = read(pieces)

        assert pairs(reader.trailers) == [(b"x-checksum", b"1"), (b"x-api-key", b"2")]


@pytest.mark.parametrize(
    "trailers",
    [
        [b"X: 1\r\n"] * 4,
        [b"X: " + b"a" * 60 + b"\r\n"],
        [b"X: " + b"a" * 60],
        [b"X: 1\r\n", b"X: " + b"a" * 50],
    ],
)
def test_a_trailer_section_beyond_the_limits_of_a_head_is_refused(trailers: list[bytes]) -> None:
    """Threat E5: endless trailers, also those whose line never ends."""
    with pytest.raises(HeadError) as caught:
        read([b"0\r\n", *trailers], limits=HeadLimits(max_head=50, max_fields=3))

    assert (caught.value.status, caught.value.detail) == (431, "trailers_too_large")


def test_one_feed_gives_one_piece() -> None:
    """Threat E5: many tiny chunks are one write for whoever forwards them."""
    reader = ChunkedReader(line_cache(), HeadLimits())

    assert reader.feed(b"1\r\na\r\n" * 1000 + b"5\r\nbc") == b"a" * 1000 + b"bc"
    assert repr(reader) == "ChunkedReader(data, remaining=5)"


def test_data_inside_a_large_chunk_is_handed_on_as_it_is() -> None:
    """House §8: no copy of a body."""
    reader = ChunkedReader(line_cache(), HeadLimits())
    reader.feed(b"ffff\r\n")
    piece = b"z" * 1000

    assert reader.feed(piece) is piece


def test_a_written_body_is_read_back() -> None:
    """Writer and reader agree (RFC 9112 §7.1)."""
    field = line_cache().line(b"X-Sum: 7")
    written = chunk(b"hello") + b"hello\r\n" + chunk(b"y" * 300) + b"y" * 300 + b"\r\n"

    body, reader = read([written + last_chunk([field])])

    assert (body, pairs(reader.trailers)) == (b"hello" + b"y" * 300, [(b"x-sum", b"7")])
    assert last_chunk([]) == LAST_CHUNK


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=10),
)
def test_any_body_survives_any_split(chunks: list[bytes], cuts: list[int]) -> None:
    """RFC 9112 §7.1, with CR, LF and digits in the data."""
    written = b"".join(chunk(data) + data + b"\r\n" for data in chunks) + LAST_CHUNK + b"next"
    places = sorted({0, len(written), *(cut % len(written) for cut in cuts)})
    pieces = [written[a:b] for a, b in pairwise(places)]

    body, reader = read(pieces)

    assert (body, reader.done, reader.rest) == (b"".join(chunks), True, b"next")
