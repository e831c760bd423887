"""Slow readers stop the other side, memory stays bounded, and everything arrives in the end (house §2; issue 3)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest

from tests.support.peers import PeerConnection
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

MIB = 1024 * 1024
PIECE = bytes(range(256)) * 256  # 64 KiB
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: What the two kernels between a stopped reader and its writer may hold besides us.
KERNEL = 16 * MIB


def in_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


class Pump:
    """Sends pieces until told the total; counts what the kernel took."""

    def __init__(self, to: PeerConnection, total: int) -> None:
        self.sent = 0
        self._to, self._total = to, total
        self.thread = in_thread(self._run)

    def _run(self) -> None:
        while self.sent < self._total:
            self._to.send(PIECE)
            self.sent += len(PIECE)

    def stands(self) -> bool:
        """Say whether nothing moved for a while."""
        before = self.sent
        self.thread.join(0.3)
        return self.sent == before


def take(connection: PeerConnection, size: int) -> str:
    """Read `size` bytes without keeping them; give their digest."""
    digest = hashlib.sha256()
    left = size
    while left:
        data = connection._io.recv(min(65536, left))
        assert data
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def expected(total: int) -> str:
    digest = hashlib.sha256()
    for _ in range(total // len(PIECE)):
        digest.update(PIECE)
    return digest.hexdigest()


def test_a_sleeping_client_stops_upstream(side: Side) -> None:
    """256 KiB per direction, then the app's writes block; waking up brings the rest."""
    total = 64 * MIB
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.sock.settimeout(30)
    up.read_message()
    memory = side.sidecar.resident_bytes()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
    pump = Pump(up, total)
    eventually(pump.stands)

    assert pump.sent < KERNEL
    assert side.sidecar.resident_bytes() - memory < 2 * MIB
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client._io.recv(1)
    assert take(client, total) == expected(total)
    client.send(GET)
    assert up.read_message().startswith(b"GET ")


def test_a_sleeping_upstream_stops_the_client(side: Side) -> None:
    """The same for uploads."""
    total = 64 * MIB
    client = side.connect()
    client.sock.settimeout(30)
    memory = side.sidecar.resident_bytes()
    client.send(b"POST / HTTP/1.1\r\nHost: payments\r\nContent-Length: %d\r\n\r\n" % total)
    pump = Pump(client, total)
    up = side.upstream()
    eventually(pump.stands)

    assert pump.sent < KERNEL
    assert side.sidecar.resident_bytes() - memory < 2 * MIB
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += up._io.recv(1)
    assert take(up, total) == expected(total)
    up.send(OK)
    assert client.read_message().endswith(b"ok")


def test_a_tunnel_has_pressure_both_ways(side: Side) -> None:
    """Opaque bytes are held back like bodies."""
    total = 32 * MIB
    client = side.connect()
    client.sock.settimeout(30)
    client.send(
        b"GET / HTTP/1.1\r\nHost: payments\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    up = side.upstream()
    up.sock.settimeout(30)
    up.read_until(b"\r\n\r\n")
    up.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    client.read_until(b"\r\n\r\n")
    down, upload = Pump(up, total), Pump(client, total)
    eventually(lambda: down.stands() and upload.stands())

    assert max(down.sent, upload.sent) < KERNEL
    digests: list[str] = []
    reading = in_thread(lambda: digests.append(take(up, total)))
    assert take(client, total) == expected(total)
    reading.join(30)
    assert digests == [expected(total)]


def test_a_large_chunked_echo(side: Side) -> None:
    """64 MiB up and down at the same time."""
    total = 64 * MIB
    client = side.connect()
    client.sock.settimeout(30)
    client.send(b"POST / HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n")
    up = side.upstream()
    up.sock.settimeout(30)

    def upload() -> None:
        for _ in range(total // len(PIECE)):
            client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        client.send(b"0\r\n\r\n")

    def echo() -> None:
        up.read_until(b"\r\n\r\n")
        up.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + bytes(up.received[up._taken :])
        )
        tail = bytes(up.received)[-16:]
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            data = up._io.recv(65536)
            up.send(data)
            tail = (tail + data)[-16:]

    uploading, echoing = in_thread(upload), in_thread(echo)
    client.read_until(b"\r\n\r\n")
    digest, size, buffer = hashlib.sha256(), 0, bytearray(client.received[client._taken :])
    while True:
        while (at := buffer.find(b"\r\n")) < 0 or len(buffer) < at + 4 + int(buffer[:at], 16):
            data = client._io.recv(65536)
            assert data
            buffer += data
        length = int(buffer[:at], 16)
        if not length:
            break
        digest.update(buffer[at + 2 : at + 2 + length])
        size += length
        del buffer[: at + 4 + length]
    uploading.join(10)
    echoing.join(10)
    assert (size, digest.hexdigest()) == (total, expected(total))


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_many_connections_at_once(side: Side, method: bytes) -> None:
    """A hundred clients, each with its own answer."""
    count = 100  # below the backlog of the scripted peers
    body = b"" if method == b"GET" else b"x" * 100
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    clients = [side.connect() for _ in range(count)]
    for number, client in enumerate(clients):
        client.send(
            b"%b /%d HTTP/1.1\r\nHost: payments\r\n%b\r\n%b" % (method, number, length, body)
        )
    ups = [side.upstream() for _ in range(count)]
    for up in ups:
        path = up.read_message().split(b" ")[1]
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    assert [client.read_message().split(b"/")[-1] for client in clients] == [
        b"%d" % n for n in range(count)
    ]
