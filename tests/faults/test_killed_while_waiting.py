"""Whoever is waited for, or waits, is killed at each point: one record each, and every slot is free (threat E9)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ambassador.core.model import Address
from ambassador.net.dialer import DialError, dial
from tests.support.certificates import Authority
from tests.support.handshakes import Service, store
from tests.support.invariants import nothing_left, open_sockets
from tests.support.peers import PeerConnection, ScriptedPeer
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

#: `head_timeout` is longer than a test's patience: it is not what ends a connection that nobody hears of.
CONFIG = {
    "settings": {"timeout": "10s", "head_timeout": "60s"},
    "service": {"connect_timeout": "10s"},
}
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"


# --- each await of a dial, by cancelling the coroutine there


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], number: int) -> Generator[Any, Any, Any]:
    """Run `coroutine`, and have its task cancelled while it waits for the `number`th time."""
    waits = 0
    result = None
    while True:
        try:
            future = coroutine.send(result)
        except StopIteration as end:
            return end.value
        waits += 1
        if waits == number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            result = yield future
        except BaseException as error:
            try:
                future = coroutine.throw(error)
            except StopIteration as end:
                return end.value
            raise AssertionError(f"waits for {future} after its end") from error


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_tls", [False, True])
def test_a_dial_that_is_cancelled_at_any_await_leaves_no_socket(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    is_tls: bool,
    tmp_path: Path,
    authority: Authority,
) -> None:
    """Connecting, the flights of the handshake: nothing is open afterwards, here or there."""
    identity = authority.issue(spiffe="spiffe://example.org/web")
    web = store(tmp_path, identity, authority.pem)
    server = web.server("inbound", ("http/1.1",))

    def accept(connection: PeerConnection) -> None:
        if not is_tls:
            connection.read_to_end()
            return
        connection.sock.settimeout(None)
        tls = server.new_connection(connection.sock)
        tls.do_handshake()
        tls.recv(1)

    async def run(port: int, number: int) -> str:
        coroutine = dial(
            Address("127.0.0.1", port),
            tls=web.client(Service()) if is_tls else None,
            session_key="x",
            timeout_s=10,
            wall=time.time,
            forbidden=lambda _: False,
        )
        try:
            dialled = await cancelled_at(coroutine, number)
        except asyncio.CancelledError:
            return "cancelled"
        except DialError as error:
            return error.reason
        dialled.socket.close()
        return "dialled"

    outcomes: list[str] = []
    before = open_sockets()
    while not outcomes or outcomes[-1] == "cancelled":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            thread = threading.Thread(target=serve_one, args=(listening, accept))
            thread.start()
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                outcomes.append(runner.run(run(port, len(outcomes) + 1)))
            socket.create_connection(("127.0.0.1", port)).close()  # for who was not even connected
            thread.join(10)
            assert not thread.is_alive()
        eventually(lambda: open_sockets() == before, f"no socket after {outcomes}")
        assert len(outcomes) < 50

    assert outcomes[-1] == "dialled"
    assert "cancelled" in outcomes or not is_tls


def serve_one(listening: socket.socket, script: Callable[[PeerConnection], None]) -> None:
    sock, _ = listening.accept()
    try:
        script(PeerConnection(sock))
    except Exception:  # it is killed at every point, in every library's words
        return
    finally:
        sock.close()


# --- each state of an exchange, by killing either side of it


def connecting(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client = side.connect()
    client.send(GET)
    return client, None


def waiting(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    return client, up


def sending(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client = side.connect()
    client.send(CHUNKED)
    up = side.upstream()
    up.read_until(b"1\r\nx\r\n")
    return client, up


def waiting_for_continue(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client = side.connect()
    client.send(
        b"POST / HTTP/1.1\r\nHost: payments\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    return client, up


def head_half_way(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client, up = waiting(side)
    assert up is not None
    up.send(b"HTTP/1.1 200 OK\r\nX-")
    return client, up


def interim(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client, up = waiting(side)
    assert up is not None
    up.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    return client, up


def relaying(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client, up = waiting(side)
    assert up is not None
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    client.read_until(b"abc")
    return client, up


def relaying_both_ways(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client, up = sending(side)
    assert up is not None
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    client.read_until(b"abc")
    return client, up


def tunnel(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n" + UPGRADE)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE)
    client.read_until(b"\r\n\r\n")
    return client, up


def tunnel_half_closed(side: Side) -> tuple[PeerConnection, PeerConnection | None]:
    client, up = tunnel(side)
    assert up is not None
    up.half_close()
    assert client.is_ended()
    return client, up


STATES = [
    connecting,
    waiting,
    sending,
    waiting_for_continue,
    head_half_way,
    interim,
    relaying,
    relaying_both_ways,
    tunnel,
    tunnel_half_closed,
]
KILLS: dict[str, Callable[[PeerConnection], None]] = {
    "reset": PeerConnection.reset,
    "cut": PeerConnection.cut,
    "close": PeerConnection.close,
}


@pytest.mark.parametrize(
    ("who", "how"),
    [*((who, how) for who in ("client", "upstream") for how in KILLS), ("both", "reset")],
)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_an_exchange_that_is_killed_in_any_state_leaves_one_record_and_nothing_else(
    side: Side, state: Callable[[Side], tuple[PeerConnection, Any]], who: str, how: str
) -> None:
    """Envoy CVE-2026-26311: late events after the end; slots are released synchronously."""
    records = side.sidecar.records
    before = len(records)
    client, up = state(side)
    victims = {"client": [client], "upstream": [up], "both": [client, up]}[who]
    if up is None and who != "client":
        up = side.upstream()
        victims = [up] if who == "upstream" else [client, up]

    for victim in victims:
        KILLS[how](victim)

    side.finish()
    eventually(lambda: len(records) > before, "a record")
    assert side.sidecar.metric("requests_total") == len(records)
    assert len(records) == before + 1
    record = records[before]
    assert record["flags"] != "-" or record["status"] in {101, 200}
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.read_message().endswith(b"ok"), "the next one is served"
    side.finish()
    eventually(lambda: len(records) == before + 2, "its record")


@pytest.mark.parametrize("request_", [GET, b""], ids=["with a request", "without"])
def test_a_client_that_is_gone_behind_its_handshake_leaves_nothing(
    inbound: Side, request_: bytes
) -> None:
    """The end of the handshake, a request and a reset arrive as one event: the last that the loop tells of."""
    sidecar = inbound.sidecar
    before = len(sidecar.records)
    context = inbound.stage.client_tls
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="payments")
    with socket.create_connection(sidecar.inbound, timeout=10) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        if request_:
            tls.write(request_)
        with sidecar.stopped():
            sock.sendall(outgoing.read())
            PeerConnection(sock).reset()

    eventually(lambda: sidecar.metric("connections") == 0, "no connection")
    eventually(lambda: len(sidecar.records) == before + bool(request_), "a record")


# --- each flight of the handshake with upstream, by killing the client meanwhile


@pytest.fixture
def held(outbound: Side) -> Iterator[tuple[Side, ScriptedPeer]]:
    """An outbound side whose upstream says nothing: it never shakes hands."""
    outbound.peer.close()
    listening = ScriptedPeer(lambda up: up.read_to_end(), port=outbound.stage.peer_port)  # type: ignore[arg-type,return-value]
    yield outbound, listening
    listening.close()
    fresh = Side(outbound.stage, "outbound")
    outbound.stage.sides["outbound"] = fresh


@pytest.mark.parametrize("count", [1, 30])
def test_clients_that_leave_while_upstream_shakes_hands_leave_nothing(
    held: tuple[Side, ScriptedPeer], count: int
) -> None:
    """One dial each, of no use to anybody; one record each, and no connection remains on either side."""
    side, peer = held
    records = side.sidecar.records
    before = len(records)
    with nothing_left():
        clients = [side.connect() for _ in range(count)]
        for client in clients:
            client.send(GET)
        peer.wait_for_connection(count)
        for client in clients:
            client.reset()
        side._clients.clear()

        eventually(lambda: len(records) == before + count, f"{count} records")
        eventually(lambda: side.sidecar.metric("connections") == 0, "downstream slots")
        peer.close()
    eventually(lambda: side.sidecar.metric("upstream_connections") == 0, "upstream slots")
    assert {record["flags"] for record in records[before:]} == {"DC"}
