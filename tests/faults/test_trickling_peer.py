"""A byte now and then in each place of an exchange: the peer is ended on time and its slot is free (threat E1).

The place without a test is the PROXY header, whose key is refused as not built yet (`test_the_key_is_refused_…`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.peers import PeerConnection
from tests.support.process import failed_start
from tests.support.sabotage import sabotage
from tests.support.stage import Side, Stage, staged
from tests.support.stage_fixtures import inbound, outbound, side
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side"]

#: `body_min_rate` is measured over 20 s, which no key makes shorter.
SHORT = {"ambassador.http.http1.body_rate:RATE_WINDOW_S": 0.4}
SETTINGS = {
    "head_timeout": "400ms",
    "idle_timeout": "400ms",
    "body_idle_timeout": "400ms",
    "write_timeout": "400ms",
    "total_timeout": "1500ms",
    "body_min_rate": "500B/s",
}
EVERY_S = 0.05
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"POST / HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with (
        sabotage(folder / "short", constants=SHORT),
        staged(
            authority, folder, settings=SETTINGS, inbound={"handshake_timeout": "400ms"}
        ) as stage,
    ):
        yield stage


@contextlib.contextmanager
def trickling(connection: PeerConnection, piece: bytes = b"1") -> Iterator[threading.Event]:
    """Send `piece` again and again until the other side has had enough; the event says so."""
    over, refused = threading.Event(), threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError, ValueError):
            while not over.wait(EVERY_S):
                connection.send(piece)
        refused.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield refused
    finally:
        over.set()
        thread.join()


def slots_are_free(side: Side) -> None:
    eventually(
        lambda: side.sidecar.metric("connections", direction=side.direction) == 0, "a free slot"
    )


#: What is understood of the request, what comes for ever, and the word for it; the head's has no exchange upstream.
PLACES = {
    "head": (b"GET / HTTP/1.1\r\nX: ", b"1", "head_timeout"),
    "body": (
        b"POST / HTTP/1.1\r\nHost: payments\r\nContent-Length: 9999\r\n\r\n",
        b"1",
        "body_too_slow",
    ),
    "chunk size": (CHUNKED + b"0" * 13, b"0", "body_too_slow"),
    "chunk extension": (CHUNKED + b"1;", b"x", "body_too_slow"),
    "chunks": (CHUNKED, b"1\r\nx\r\n", "body_too_slow"),
    "trailers": (CHUNKED + b"0\r\nX: ", b"1", "body_too_slow"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_request_that_trickles_is_ended(side: Side, place: str) -> None:
    """Slowloris; RFC 9110 §15.5.9. A chunk size that never ends is no chunk size after 15 digits."""
    begin, piece, word = PLACES[place]
    client = side.connect()
    client.send(begin)

    with trickling(client, piece), contextlib.suppress(ConnectionError):
        client.read_to_end()

    answer = bytes(client.received)
    assert answer.startswith(b"HTTP/1.1 400 " if place == "chunk size" else b"HTTP/1.1 408 ")
    client.close()
    slots_are_free(side)
    if place != "chunk size":
        side.sidecar.wait_for_record(direction=side.direction, detail=word, status=408)


def test_a_handshake_that_trickles_is_ended(inbound: Side) -> None:
    """A total deadline, however many bytes come."""
    before = inbound.sidecar.metric("handshakes_total", direction="inbound", reason="timeout")
    assert isinstance(inbound.sidecar.inbound, tuple)
    client = PeerConnection(socket.create_connection(inbound.sidecar.inbound))
    client.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03")

    with client, trickling(client) as refused:
        eventually(refused.is_set, "the end")

    slots_are_free(inbound)
    timeouts = inbound.sidecar.metric("handshakes_total", direction="inbound", reason="timeout")
    assert timeouts == before + 1


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_response_that_trickles_is_ended(side: Side, begin: bytes) -> None:
    """An upstream that never ends its head, or its body, with `total_timeout`."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(begin)

    with trickling(up) as refused:
        with contextlib.suppress(ConnectionError):
            client.read_to_end()
        eventually(refused.is_set, "upstream is cut")

    client.close()
    slots_are_free(side)


def test_a_reader_that_trickles_is_ended(side: Side) -> None:
    """A byte now and then opens no window: nothing is taken within `write_timeout`."""
    client = side.connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(GET)
    up = side.upstream()
    up.read_message()

    with contextlib.suppress(OSError):
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        for _ in range(400):
            up.send(b"x" * 65536)
            if client.sock.fileno() >= 0:
                client.sock.recv(1)

    assert up.is_ended()
    slots_are_free(side)


@pytest.mark.parametrize("silent", ["client", "upstream"])
def test_a_tunnel_that_is_not_read_is_ended(side: Side, silent: str) -> None:
    """Bytes that one side sends do not keep a tunnel whose other side takes none."""
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n" + UPGRADE)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE)
    client.read_until(b"\r\n\r\n")
    sender = up if silent == "client" else client

    with contextlib.suppress(OSError):
        for _ in range(1000):
            sender.send(b"x" * 65536)

    assert sender.is_ended()
    slots_are_free(side)


def test_a_lingering_close_that_trickles_is_ended(side: Side) -> None:
    """RFC 9112 §9.6: what comes behind our last answer is thrown away, for two seconds and no longer."""
    client = side.connect()
    client.send(b"GARBAGE\r\n\r\n")

    with trickling(client) as refused:
        assert client.read_to_end().startswith(b"HTTP/1.1 400 ")
        eventually(refused.is_set, "the end")

    slots_are_free(side)


def test_a_lingering_close_takes_64_kib_and_no_more(side: Side) -> None:
    """House §7: a peer that goes on at line rate is cut by bytes, long before the time."""
    client = side.connect()
    client.send(b"GARBAGE\r\n\r\n")
    sent = 0

    with contextlib.suppress(OSError):
        while sent < 64 * 1024 * 1024:
            client.send(b"x" * 4096)
            sent += 4096

    assert sent < 16 * 1024 * 1024  # what two kernels hold
    slots_are_free(side)


def test_the_key_of_the_proxy_header_is_refused_as_not_built_yet(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The ninth place: nobody can send one before somebody can read it."""
    config = stage.config(inbound={"proxy_protocol": {"version": "v2", "from": ["127.0.0.0/8"]}})

    code, text = failed_start(config, tmp_path_factory.mktemp("refused"))

    assert code == 3
    assert "proxy_protocol" in text
    assert "not built yet" in text
