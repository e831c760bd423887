"""Streams of whole messages, each read whole, byte by byte and at random splits."""

from __future__ import annotations

import pytest

from ambassador.wire.head import HeadLimits
from tests.support.transcripts import Event, MessageReader, splits

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
GOT: list[Event] = [("head", b"GET", b"x", b"/a", [], True), ("end",)]


def post(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: x", *lines, b"", b""])


POSTED: Event = ("head", b"POST", b"x", b"/", [], True)

REQUESTS: list[tuple[bytes, list[Event]]] = [
    (GET, GOT),
    (GET * 3, GOT * 3),
    (b"\r\n" + GET + b"\r\n\r\n" + GET, GOT * 2),
    (post(b"Content-Length: 5") + b"hello" + GET, [POSTED, ("body", b"hello"), ("end",), *GOT]),
    (post(b"Content-Length: 0") + GET, [POSTED, ("end",), *GOT]),
    (
        post(b"Transfer-Encoding: chunked") + b"2\r\nhe\r\n3;x\r\nllo\r\n0\r\nA: b\r\n\r\n" + GET,
        [POSTED, ("body", b"hello"), ("trailers", [(b"a", b"b")]), ("end",), *GOT],
    ),
    # A body that looks like a request is a body.
    (post(b"Content-Length: %d" % len(GET)) + GET, [POSTED, ("body", GET), ("end",)]),
    # Nothing behind a refused head is read, however good it looks (threat G4).
    (
        post(b"Content-Length: 5", b"Content-Length: 5") + GET,
        [("error", 400, "two_content_lengths")],
    ),
    (
        post(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + GET,
        [("error", 400, "length_and_coding")],
    ),
    (post(b"Transfer-Encoding: x") + GET, [("error", 400, "bad_transfer_encoding")]),
    (GET + b"GET /#a HTTP/1.1\r\n\r\n" + GET, [*GOT, ("error", 400, "fragment_in_target")]),
    (post(b"X: a", b" b") + GET, [("error", 400, "obs_fold")]),
    (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n" + GET, [("error", 400, "obs_fold")]),
    (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n" + GET, [("error", 400, "space_before_colon")]),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [("error", 400, "http2_preface")]),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n" + GET, [("error", 505, "bad_version")]),
    (b"\r\n\r\n\r\n" + GET, [("error", 400, "empty_lines")]),
    (
        post(b"Transfer-Encoding: chunked") + b"X\r\n\r\n" + GET,
        [POSTED, ("error", 400, "bad_chunk_size")],
    ),
]

TEST_HEAD: Event = ("head", 200, [(b"server", b"s")], True)

RESPONSES: list[tuple[bytes, bytes, list[Event]]] = [
    (
        b"GET",
        b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 2\r\n\r\nhi",
        [TEST_HEAD, ("body", b"hi"), ("end",)],
    ),
    (
        b"GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nServer: s\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        [
            ("head", 100, [], True),
            ("end",),
            ("head", 103, [(b"link", b"x")], True),
            ("end",),
            TEST_HEAD,
            ("body", b"hi"),
            ("trailers", []),
            ("end",),
        ],
    ),
    (
        b"HEAD",
        b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 2\r\n\r\n",
        [TEST_HEAD, ("end",)],
    ),
    (
        b"GET",
        b"HTTP/1.1 200 OK\r\n\r\nuntil\r\n\r\nthe end",
        [("head", 200, [], False), ("body", b"until\r\n\r\nthe end"), ("end",)],
    ),
    (
        b"GET",
        b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x00raw",
        [("head", 101, [], False), ("body", b"\x00raw"), ("end",)],
    ),
    (
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [("error", 400, "length_and_coding")],
    ),
    (b"GET", b"\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\n", [("error", 400, "bad_status_line")]),
    (b"GET", b"HTTP/1.1 200 OK\nX: y\r\n\r\n", [("error", 400, "bad_status_line")]),
]


@pytest.mark.parametrize(("received", "events"), REQUESTS)
def test_requests_mean_the_same_in_whatever_pieces_they_arrive(
    received: bytes, events: list[Event]
) -> None:
    """RFC 9112 §2, §6, §7; threats G1, G4."""
    for pieces in splits(received):
        assert MessageReader().run(pieces) == events


@pytest.mark.parametrize(("method", "received", "events"), RESPONSES)
def test_responses_mean_the_same_in_whatever_pieces_they_arrive(
    method: bytes, received: bytes, events: list[Event]
) -> None:
    """RFC 9112 §6.3; threat G3. A lone LF is named when it is seen, hence the prefix of the word."""
    for pieces in splits(received):
        found = MessageReader(method_asked=method).run(pieces)

        assert found == events or found == [("error", 400, "bare_lf")] != events


@pytest.mark.parametrize(
    ("received", "limits", "error"),
    [
        (b"GET /" + b"a" * 200, HeadLimits(max_head=100, max_uri=50), (414, "uri_too_long")),
        (
            b"GET / HTTP/1.1\r\nX: " + b"a" * 200,
            HeadLimits(max_head=100, max_uri=50),
            (431, "head_too_large"),
        ),
    ],
)
def test_a_head_without_end_is_refused_at_its_limit(
    received: bytes, limits: HeadLimits, error: tuple[int, str]
) -> None:
    """RFC 6585 §5, RFC 9112 §3; threat E6."""
    for pieces in splits(received):
        assert MessageReader(limits=limits).run(pieces) == [("error", *error)]
