"""Chunked bodies at their most wasteful: what is read in one burst goes on in one write (threat E5)."""

from __future__ import annotations

import threading

import pytest

from tests.support.peers import PeerConnection, parse_request, parse_response
from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage

__all__ = ["side", "stage"]

SIZE = 1024 * 1024
CHUNKED = b"POST / HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = bytes(65 + at % 26 for at in range(256)) * (SIZE // 256)
IN_SINGLE_BYTES = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"


def chunks(message: bytes) -> int:
    """Give the number of chunks of a message, each of which was one piece of ours."""
    body = message.partition(b"\r\n\r\n")[2]
    count = 0
    while body:
        size = int(body.partition(b"\r\n")[0], 16)
        body = body.partition(b"\r\n")[2][size + 2 :]
        count += 1
    return count


def sending(connection: PeerConnection, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=connection.send, args=(data,), daemon=True)
    thread.start()
    return thread


def test_a_request_in_chunks_of_one_byte_is_sent_on_in_large_ones(side: Side) -> None:
    """h11 CVE-2025-43859's neighbourhood: a million chunks come, one per read of 16 KiB goes."""
    client = side.connect()
    thread = sending(client, CHUNKED + IN_SINGLE_BYTES)
    up = side.upstream()
    received = up.read_message()
    up.send(OK)

    assert parse_request(received).body == BODY
    assert chunks(received) < len(IN_SINGLE_BYTES) // 4096
    assert client.read_message().endswith(b"ok")
    thread.join(10)


def test_a_response_in_chunks_of_one_byte_is_sent_on_in_large_ones(side: Side) -> None:
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    thread = sending(up, head + IN_SINGLE_BYTES)
    received = client.read_message()

    assert parse_response(received)[2] == BODY
    assert chunks(received) < len(IN_SINGLE_BYTES) // 4096
    thread.join(10)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"00000000000000001\r\nx\r\n0\r\n\r\n", 400),
        (b"fffffffffffffffff\r\n", 400),
        (b"1;" + b"e" * 20_000 + b"\r\nx\r\n0\r\n\r\n", 400),
        (b"1;ext=12345678\r\nx\r\n" * 2000 + b"0\r\n\r\n", 400),
        (b"0\r\n" + b"X: 1\r\n" * 10_000 + b"\r\n", 431),
        (b"0\r\nX: " + b"1" * 100_000 + b"\r\n\r\n", 431),
    ],
    ids=[
        "17 digits",
        "17 f",
        "long extension",
        "many extensions",
        "endless trailers",
        "long trailer",
    ],
)
def test_what_a_body_may_waste_is_bounded(side: Side, body: bytes, status: int) -> None:
    """Extensions of 16 KiB a message, sizes of 15 digits, trailers within the limits of a head."""
    client = side.connect()
    thread = sending(client, CHUNKED + body + GET)
    answer = client.read_until(b"\r\n")

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    thread.join(10)


def test_empty_lines_without_end_are_refused(side: Side) -> None:
    """RFC 9112 §2.2 asks for one; an endless row of them is no request."""
    assert side.refused(b"\r\n" * 1000).startswith(b"HTTP/1.1 400 ")
