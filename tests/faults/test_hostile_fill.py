"""Everybody reads slowly at once: the process keeps its bound and says so with 503 (threat E6)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.peers import PeerConnection
from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage
from tests.support.waiting import eventually

__all__ = ["side", "stage"]

KIB, MIB = 1024, 1024 * 1024
BUFFERS = 4 * MIB
CONFIG = {"limits": {"buffers": "4MiB"}, "settings": {"write_timeout": "60s"}}
CLIENTS = 80
#: The bound: `limits.buffers`, and what an exchange that was let in before may still take, 256 KiB in its direction;
#: besides a connection's own 64 KiB (TLS, heads, objects) on either side.
BOUND = BUFFERS + CLIENTS * (256 + 2 * 64) * KIB
BULK = b"x" * (8 * MIB)
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def full(side: Side) -> Iterator[tuple[Side, list[PeerConnection]]]:
    """A side whose clients read nothing of what upstream sends at line rate, until one was refused."""
    side.sidecar.metric("requests_total")
    before = side.sidecar.resident_bytes()
    clients = []
    for _ in range(CLIENTS):
        client = side.connect()
        client.sock.settimeout(0.1)
        client.send(GET)
        clients.append(client)
        eventually(lambda: not side.no_upstream() or refusals(side), "upstream or a refusal")
        if side.no_upstream():
            break
        up = side.upstream()
        up.read_message()
        up.sock.settimeout(0.05)
        with contextlib.suppress(OSError):
            up.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BULK) + BULK)
    assert side.sidecar.resident_bytes() - before < BOUND
    yield side, clients
    for client in clients:
        with contextlib.suppress(OSError):
            client.reset()


def refusals(side: Side) -> float:
    return side.sidecar.metric("requests_total", direction=side.direction, flag="OM")


def test_a_process_full_of_waiting_bytes_refuses_new_exchanges(
    full: tuple[Side, list[PeerConnection]],
) -> None:
    """OM, 503 with Retry-After, whether there is a body or not; then the fill ends and all are served again."""
    side, clients = full
    assert len(clients) < CLIENTS, "it went on for ever"

    for request in (GET, b"POST / HTTP/1.1\r\nHost: payments\r\nContent-Length: 2\r\n\r\nok"):
        client = side.connect()
        client.send(request)
        answer = client.read_until(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        # A remote peer gets the bare status.
        assert (b"Retry-After: " in answer) == (side.direction == "outbound")
        client.close()
    record = side.sidecar.wait_for_record(direction=side.direction, flags="OM")
    assert (record["detail"], record["status"]) == ("buffers", 503)
    assert side.sidecar.get("/ready")[0] == 200, "admin keeps its own slots"

    side.finish()
    assert side.exchange(GET, OK)[1].endswith(b"ok")
