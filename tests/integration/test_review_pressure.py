"""What readers with fresh eyes found where an end meets bytes that still wait, each with the rule that it broke."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peers import (
    App,
    PeerConnection,
    ScriptedPeer,
    connect,
    is_truncated,
    request,
    silent,
)
from tests.support.ports import reserve_port
from tests.support.process import Config, running_ambassador
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

CONFIG = {"settings": {"upgrades": ["websocket"], "head_timeout": "300ms", "idle_timeout": "800ms"}}
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
KIB, MIB = 1024, 1024 * 1024


def slow_reader(side: Side) -> PeerConnection:
    """Give a client with a small window, in which little of an answer has room."""
    client = side.connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    return client


@contextlib.contextmanager
def pouring(up: PeerConnection, data: bytes) -> Iterator[None]:
    """Send in a thread, for the reader may be slower."""

    def pour() -> None:
        with contextlib.suppress(OSError):
            up.send(data)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("how", ["upgrade", "connect"])
def test_a_half_close_before_the_tunnel_opens_goes_through_it(outbound: Side, how: str) -> None:
    """A peer may end its direction at once; upstream must hear of it, and the exchange end (RFC 9110 §9.3.6)."""
    client = outbound.connect()
    if how == "upgrade":
        client.send(b"GET /half HTTP/1.1\r\nHost: payments\r\n" + UPGRADE)
    else:
        authority = b"payments:%d" % outbound.stage.peer_port
        client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
    client.half_close()
    up = outbound.upstream()
    if how == "upgrade":
        up.read_until(b"\r\n\r\n")
        up.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE)

    assert up.read_to_end() == b""

    up.send(b"late")
    up.close()
    assert client.read_to_end().endswith(b"late")
    which = {"path": "/half"} if how == "upgrade" else {"method": "CONNECT"}
    record = outbound.sidecar.wait_for_record(**which)
    assert (record["flags"], record["bytes_sent"]) == ("-", 4)


def test_a_request_behind_connection_close_is_never_served(side: Side) -> None:
    """RFC 9112 §9.6: a server MUST NOT process what comes after it, however long the answer takes to leave."""
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n")
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    body = bytes(16 * MIB)  # more than the buffers of two kernels: part of it waits in the sidecar
    with pouring(up, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body):
        client.read_until(b"\r\n\r\n")
        client.send(GET.replace(b"GET", b"POST"))
        assert client.read_exactly(len(body)) == body
        with contextlib.suppress(ConnectionError):
            assert client.read_to_end() == b""

    assert side.no_upstream()
    assert side.sidecar.metric("upstream_connections", state="busy") == 0


def test_a_late_request_behind_connection_close_does_not_hurt_the_answer(side: Side) -> None:
    """RFC 9112 §9.6: all has been written, but not all has arrived; a reset now would destroy it."""
    client = slow_reader(side)
    client.send(b"GET /late HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n")
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    body = bytes(120 * KIB)  # more than the client's buffer has room for, less than the sidecar's
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    side.sidecar.wait_for_record(path="/late", direction=side.direction)
    client.send(GET.replace(b"GET", b"POST"))
    client.read_until(b"\r\n\r\n")

    assert client.read_exactly(len(body)) == body
    assert side.no_upstream()


def test_an_answer_that_fails_does_not_hurt_the_one_before_it(side: Side) -> None:
    """RFC 9112 §9.3.2, §9.6: a reset would throw away what is still on its way."""
    client = slow_reader(side)
    client.send(GET + GET)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    body = b"z" * (400 * KIB)
    with pouring(up, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body):
        client.read_until(b"\r\n\r\n")
        client.read_exactly(200 * KIB)
    second = up if side.no_upstream() else side.upstream()
    second.read_until(b"\r\n\r\n")
    second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    client.read_exactly(200 * KIB)
    client.read_until(b"abc")
    second.close()

    client.received.clear()
    client._taken = 0
    assert is_truncated(client) or client.received == b""
    side.sidecar.wait_for_record(bytes_sent=3, detail="response_truncated")


@pytest.mark.parametrize(
    "body", [b"3\r\nabc\r\nzz\r\n", b"zz\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"]
)
def test_what_is_malformed_before_its_head_went_out_is_a_502(side: Side, body: bytes) -> None:
    """House §7: before the head is forwarded a failure becomes a local reply, however the bytes were cut."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

    answer = client.read_message()

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"abc" not in answer
    record = side.sidecar.wait_for_record(status=502, direction=side.direction)
    assert (record["flags"], record["phase"]) == ("UPE", "wait")


def test_an_empty_line_is_not_the_begin_of_a_request(side: Side) -> None:
    """RFC 9112 §2.2: no deadline of a head runs, and nobody gets a 408 for it."""
    client = side.connect()
    path = f"/before-an-empty-line-{side.direction}"
    client.send(GET.replace(b" / ", b" %b " % path.encode()))
    up = side.upstream()
    up.read_message()
    up.send(OK)
    client.read_message()
    side.sidecar.wait_for_record(path=path)
    records = len(side.sidecar.records)

    client.send(b"\r\n")

    assert client.read_to_end() == b"", "the end at idle_timeout, without a word"
    client.close()
    eventually(lambda: side.sidecar.metric("connections") == 0, "ended")
    assert len(side.sidecar.records) <= records + 1


def plain(port: int, timeout: str) -> Config:
    """Give a sidecar that leads to one app in the clear."""
    return {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"app": {"endpoints": [f"127.0.0.1:{port}"], "plaintext": "loopback"}},
        "drain": {"delay": "0s", "timeout": timeout},
    }


def test_a_drain_does_not_wait_for_an_idle_connection_that_was_slow(tmp_path: Path) -> None:
    """The exchange is over, its last bytes are not: once they are read the connection has nothing to wait for."""
    body = bytes(3 * MIB)
    with (
        App(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as app,
        running_ambassador(plain(app.port, "20s"), tmp_path) as sidecar,
        connect(sidecar.outbound) as client,
    ):
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        client.send(request("/", host="app"))
        client.read_until(b"\r\n\r\n")
        sidecar.wait_for_record(path="/")  # the exchange is over, for us

        sidecar.signal(signal.SIGTERM)
        sidecar.wait_for_event("drain_started")

        assert client.read_exactly(len(body)) == body
        assert sidecar.wait() == 0


def test_a_forced_drain_says_that_it_was_us(tmp_path: Path) -> None:
    """House §4: flag, phase and detail are enough for a diagnosis."""
    with (
        ScriptedPeer(silent) as app,
        running_ambassador(plain(app.port, "500ms"), tmp_path, exit_code=None) as sidecar,
    ):
        with connect(sidecar.outbound) as client:
            client.send(request("/", host="app"))
            app.wait_for_connection().read_until(b"\r\n\r\n")
            sidecar.signal(signal.SIGTERM)

            with pytest.raises(ConnectionError):
                client.read_to_end()
        assert sidecar.wait() == 1
        record = sidecar.wait_for_record(detail="drain_forced")
        assert (record["flags"], record["status"], record["phase"]) == ("DC", 0, "wait")
