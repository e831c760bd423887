"""Deadlines and ceilings of HTTP connections, with small configured values (threats E1; config.md §3)."""

from __future__ import annotations

import ssl
import threading

import pytest

from tests.support.peers import PeerConnection, is_truncated
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

CONFIG = {
    "settings": {
        "head_timeout": "300ms",
        "idle_timeout": "400ms",
        "body_idle_timeout": "500ms",
        "timeout": "600ms",
        "total_timeout": "1500ms",
        "write_timeout": "200ms",  # seen within two of them, before body_idle_timeout
        "max_body": "1KiB",
        "max_head": "2KiB",
        "max_headers": 10,
        "max_uri": "100B",
    },
    "service": {"pool": {"idle_timeout": "300ms"}},
}
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: payments\r\n"


def trickle(side: Side, client: object, piece: bytes, until: threading.Event) -> None:
    while not until.wait(0.1):
        try:
            client.send(piece)  # type: ignore[attr-defined]
        except OSError:
            return


@pytest.mark.parametrize("begin", [b"G", b"GET / HTTP/1.1\r\nHost: payments\r\nX: "])
def test_a_slow_head_gets_408(side: Side, begin: bytes) -> None:
    """RFC 9110 §15.5.9; house §4 SI."""
    client = side.connect()
    client.send(begin)
    over = threading.Event()
    threading.Thread(target=trickle, args=(side, client, b"a", over), daemon=True).start()

    answer = client.read_until(b"\r\n\r\n")
    over.set()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close\r\n" in answer
    record = side.sidecar.wait_for_record(
        status=408, direction=side.direction, detail="head_timeout"
    )
    assert (record["flags"], record["phase"]) == ("SI", "head")


@pytest.mark.parametrize("served", [False, True])
def test_an_idle_connection_is_closed_without_a_word(side: Side, served: bool) -> None:
    """RFC 9112 §9.5."""
    client = side.connect()
    if served:
        client.send(GET)
        up = side.upstream()
        up.read_message()
        up.send(OK)
        client.read_message()

    assert client.read_to_end() == b""


def test_a_body_that_stops_coming_gets_408(side: Side) -> None:
    """body_idle_timeout."""
    client = side.connect()
    client.send(POST + b"Content-Length: 10\r\n\r\nabc")
    up = side.upstream()

    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert up.is_ended() or up.is_ended()
    record = side.sidecar.wait_for_record(detail="body_idle", direction=side.direction, status=408)
    assert (record["flags"], record["phase"], record["bytes_received"]) == ("SI", "send", 3)


def test_a_response_body_that_stops_coming_is_cut(side: Side) -> None:
    """body_idle_timeout, behind the head."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    assert is_truncated(client)
    record = side.sidecar.wait_for_record(detail="body_idle", direction=side.direction, status=200)
    assert (record["flags"], record["phase"], record["bytes_sent"]) == ("UT", "relay", 3)


def test_a_silent_tunnel_is_cut(side: Side) -> None:
    """body_idle_timeout: tunnels too."""
    client = side.connect()
    client.send(
        b"GET / HTTP/1.1\r\nHost: payments\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    client.read_until(b"\r\n\r\n")

    assert client.is_ended()
    assert up.is_ended()


def test_no_response_head_in_time_gets_504(side: Side) -> None:
    """timeout: from the last request byte to the response head; the client's connection goes on."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()

    answer = client.read_until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"Connection" not in answer
    assert up.is_ended()
    record = side.sidecar.wait_for_record(
        status=504, direction=side.direction, detail="response_timeout"
    )
    assert (record["flags"], record["phase"], record["attempts"]) == ("UT", "wait", 1)


def test_interim_responses_do_not_prolong_the_wait(side: Side) -> None:
    """The response head is what counts."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    over = threading.Event()
    threading.Thread(
        target=trickle, args=(side, up, b"HTTP/1.1 102 Processing\r\n\r\n", over), daemon=True
    ).start()

    while (answer := client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 102 "):
        pass
    over.set()
    assert answer.startswith((b"HTTP/1.1 504 ", b"HTTP/1.1 502 "))


def test_an_endless_response_is_cut_at_the_total_timeout(side: Side) -> None:
    """total_timeout: to the last response byte."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\n\r\n")
    over = threading.Event()
    threading.Thread(target=trickle, args=(side, up, b"x", over), daemon=True).start()

    assert is_truncated(client)
    over.set()
    side.sidecar.wait_for_record(detail="total_timeout", direction=side.direction, flags="UT")


def test_an_endless_upload_ends_at_the_total_timeout(side: Side) -> None:
    """total_timeout counts from the head."""
    client = side.connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    up = side.upstream()
    over = threading.Event()
    threading.Thread(target=trickle, args=(side, client, b"1\r\nx\r\n", over), daemon=True).start()

    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 504 ")
    over.set()
    with pytest.raises((ConnectionError, EOFError)):
        up.read_until(b"0\r\n\r\n")


def _flood(connection: PeerConnection) -> None:
    for _ in range(1000):
        connection.send(b"x" * 65536)


def test_a_reader_that_takes_nothing_is_cut(side: Side) -> None:
    """write_timeout."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.sock.settimeout(5)
    up.send(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises((ConnectionError, ssl.SSLError)):  # the cut, not the socket's five seconds
        _flood(up)

    record = side.sidecar.wait_for_record(direction=side.direction, detail="write_timeout")
    assert (record["flags"], record["phase"], record["status"]) == ("SI", "relay", 200)


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 1025\r\n\r\n" + b"x" * 1025,
        POST + b"Content-Length: 1025\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_a_body_beyond_its_ceiling_is_refused_at_its_head(side: Side, request_: bytes) -> None:
    """RFC 9110 §15.5.14; nothing reaches upstream."""
    answer = side.refused(request_ + GET)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer


def test_a_chunked_body_beyond_its_ceiling_is_refused(side: Side) -> None:
    """RFC 9110 §15.5.14; upstream sees a truncated request."""
    client = side.connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n200\r\n" + b"x" * 512 + b"\r\n")
    up = side.upstream()
    up.read_until(b"x" * 512)
    client.send(b"201\r\n" + b"x" * 513 + b"\r\n0\r\n\r\n" + GET)

    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert up.is_ended()
    assert b"0\r\n\r\n" not in up.received


def test_a_chunked_body_at_its_ceiling_passes(side: Side) -> None:
    """max_body counts body bytes."""
    received, answer = side.exchange(
        POST + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n", OK
    )

    assert received.count(b"x" * 1024) == 1
    assert answer.endswith(b"ok")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: payments\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: payments\r\n" + b"X: a\r\n" * 10 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: payments\r\nX: " + b"a" * 2048 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: payments\r\n\r\n", 414),
    ],
)
def test_a_head_beyond_its_ceilings_is_refused(side: Side, request_: bytes, status: int) -> None:
    """RFC 6585 §5, RFC 9112 §3."""
    assert side.refused(request_).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 99 + b" HTTP/1.1\r\nHost: payments\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: payments\r\n" + b"X: a\r\n" * 9 + b"\r\n",
    ],
)
def test_a_head_at_its_ceilings_passes(side: Side, request_: bytes) -> None:
    """The ceilings are inclusive."""
    assert side.exchange(request_, OK)[1].endswith(b"ok")


def test_an_idle_pooled_connection_is_closed_in_time(outbound: Side) -> None:
    """pool.idle_timeout."""
    client = outbound.connect()
    client.send(GET)
    up = outbound.upstream()
    up.read_message()
    up.send(OK)
    client.read_message()

    assert up.read_to_end() == b""
    eventually(lambda: outbound.sidecar.metric("upstream_connections") == 0)
