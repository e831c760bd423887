"""`protocol: tcp`: opaque bytes under the same mTLS and authorisation, inbound and outbound."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context, server_context
from tests.support.invariants import assert_idle
from tests.support.peers import PeerConnection, ScriptedPeer, TlsSocket, connect
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually


def _echo(connection: PeerConnection) -> None:
    """Send back what comes, then the number of bytes once the other side has ended its direction."""
    total = 0
    while data := connection.sock.recv(65536):
        total += len(data)
        connection.send(data)
    connection.send(b"[%d]" % total)


@contextlib.contextmanager
def _inbound(
    authority: Authority, script: object, folder: Path, loop: str = "uvloop", **more: object
) -> Iterator[tuple[Ambassador, Pod, ScriptedPeer]]:
    shop, web = Pod("shop", authority, folder), Pod("web", authority, folder)
    with ScriptedPeer(script) as app:  # type: ignore[arg-type]
        config = shop.config(inbound=shop.inbound(app.port, [web], protocol="tcp", **more))
        with running_ambassador(config, folder, loop) as sidecar:
            yield sidecar, web, app


@contextlib.contextmanager
def _both(
    authority: Authority, script: object, folder: Path, loop: str = "uvloop"
) -> Iterator[tuple[Ambassador, Ambassador]]:
    shop, web = Pod("shop", authority, folder), Pod("web", authority, folder)
    with ScriptedPeer(script) as app:  # type: ignore[arg-type]
        server = shop.config(inbound=shop.inbound(app.port, [web], protocol="tcp"))
        client = web.config(
            services={"shop": shop.endpoint()},
            outbound={
                "listen": f"127.0.0.1:{reserve_port()}",
                "protocol": "tcp",
                "service": "shop",
            },
        )
        with (
            running_ambassador(server, folder, loop) as inbound,
            running_ambassador(client, folder, loop) as outbound,
        ):
            yield inbound, outbound


def test_bytes_go_both_ways_and_half_close_too(
    authority: Authority, tmp_path: Path, loop_name: str
) -> None:
    """RFC 8446 §6.1: close_notify ends one direction; the record has the bytes of both."""
    with _inbound(authority, _echo, tmp_path, loop_name) as (sidecar, web, _):
        with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
            peer.send(b"\x00binary\r\n\r\n\xff")
            assert peer.read_exactly(12) == b"\x00binary\r\n\r\n\xff"
            peer.half_close()
            assert peer.read_to_end() == b"[12]"

        record = sidecar.wait_for_records(1)[0]
        assert (record["bytes_received"], record["bytes_sent"]) == (12, 16)
        assert record["protocol"] == "tcp"
        assert record["flags"] == "-"
        assert record["peer"] == web.spiffe
        assert_idle(sidecar)


def test_the_app_may_end_first(authority: Authority, tmp_path: Path) -> None:
    def greet(connection: PeerConnection) -> None:
        connection.send(b"hello")
        connection.half_close()
        assert connection.read_to_end() == b"late words"

    with _inbound(authority, greet, tmp_path) as (sidecar, web, _):
        with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
            assert peer.read_to_end() == b"hello"
            peer.send(b"late words")
            peer.half_close()

        record = sidecar.wait_for_records(1)[0]
        assert (record["bytes_received"], record["bytes_sent"]) == (10, 5)
        assert record["flags"] == "-"
        assert_idle(sidecar)


def test_a_slow_reader_gets_all_of_an_app_that_ends_first(
    authority: Authority, tmp_path: Path
) -> None:
    """Both ends in order: neither is a truncation, and no reset destroys what is still on its way."""
    data = bytes(3 * 1024 * 1024)

    def pour(connection: PeerConnection) -> None:
        connection.send(data)
        connection.half_close()
        assert connection.read_to_end() == b"thanks"

    with _both(authority, pour, tmp_path) as (inbound, outbound):
        with connect(outbound.outbound) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            assert client.read_exactly(1024) == data[:1024]
            client.send(b"thanks")
            client.half_close()
            assert client.read_to_end() == data[1024:]

        for sidecar in (inbound, outbound):
            assert sidecar.wait_for_records(1)[0]["flags"] == "-"
            assert_idle(sidecar)


def test_two_sidecars_in_a_row_keep_half_closes(
    authority: Authority, tmp_path: Path, loop_name: str
) -> None:
    with _both(authority, _echo, tmp_path, loop_name) as (inbound, outbound):
        for size in (0, 1, 5, 300_000):
            with connect(outbound.outbound) as client:
                writer = threading.Thread(
                    target=lambda c=client, n=size: (c.send(b"x" * n), c.half_close())
                )
                writer.start()
                answer = client.read_to_end()
                writer.join(10)
            assert answer == b"x" * size + b"[%d]" % size

        records = outbound.wait_for_records(4)
        assert [record["bytes_received"] for record in records] == [0, 1, 5, 300_000]
        assert {record["flags"] for record in records} == {"-"}
        assert_idle(inbound)
        assert_idle(outbound)


def test_sessions_are_resumed_by_tunnels(authority: Authority, tmp_path: Path) -> None:
    """The issue: sessions are resumed; in tcp mode every connection is a handshake."""
    with _both(authority, _echo, tmp_path) as (_, outbound):
        for _ in range(3):
            with connect(outbound.outbound) as client:
                client.send(b"x")
                client.half_close()
                assert client.read_to_end() == b"x[1]"
            eventually(lambda: outbound.metric("connections") == 0, "ended")

        assert outbound.metric("tls_sessions_total", direction="outbound", resumed="true") == 2


def test_a_peer_that_may_not_gets_the_end_and_the_app_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    with _inbound(authority, _echo, tmp_path) as (sidecar, _, app):
        stranger = authority.issue(spiffe="spiffe://example.org/stranger")
        with connect(sidecar.inbound, client_context(authority, stranger)) as peer:
            assert peer.read_to_end() == b"", "in order, with close_notify"

        event = sidecar.wait_for_event("authorization_denied")
        assert (event["peer"], event["reason"]) == (
            "spiffe://example.org/stranger",
            "no_rule_for_peer",
        )
        record = sidecar.wait_for_record(flags="AD")
        assert (record["status"], record["bytes_sent"]) == (403, 0)
        assert record["peer"] == "spiffe://example.org/stranger"
        assert app.connections == []
        assert sidecar.metric("authorization_total", decision="denied") == 1
        assert_idle(sidecar)


def test_no_client_certificate_is_refused_in_the_handshake(
    authority: Authority, tmp_path: Path
) -> None:
    with _inbound(authority, _echo, tmp_path) as (sidecar, _, app):
        with (
            pytest.raises(ssl.SSLError),
            connect(sidecar.inbound, client_context(authority)) as peer,
        ):
            peer.read_to_end()

        sidecar.wait_for_event("handshake_refused", reason="no_certificate")
        assert app.connections == []


@pytest.mark.parametrize("offer", [["h2"], ["postgresql", "h2"], []])
def test_a_configured_protocol_goes_through(
    authority: Authority, tmp_path: Path, offer: list[str]
) -> None:
    """config.md, tcp mode: `alpn: [h2]` lets gRPC through."""
    with _inbound(authority, _echo, tmp_path, alpn=["h2"]) as (sidecar, web, _):
        context = client_context(authority, web.identity, alpn=offer)
        with connect(sidecar.inbound, context) as peer:
            peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert peer.read_exactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            assert peer.tls.selected_alpn_protocol() == ("h2" if offer else None)


def test_a_dead_app_ends_the_connection(authority: Authority, tmp_path: Path) -> None:
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(inbound=shop.inbound(reserve_port(), [web], protocol="tcp"))
    with running_ambassador(config, tmp_path) as sidecar:
        with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
            assert peer.is_ended()

        assert sidecar.wait_for_record(flags="UF")["detail"] == "connect_refused"
        assert_idle(sidecar)


def test_a_silent_tunnel_ends_at_its_idle_deadline(authority: Authority, tmp_path: Path) -> None:
    with _inbound(authority, _echo, tmp_path, idle_timeout="400ms") as (sidecar, web, _):
        with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
            for _ in range(4):  # bytes put it off
                peer.send(b"x")
                assert peer.read_exactly(1) == b"x"
                time.sleep(0.2)
            assert peer.is_ended()

        record = sidecar.wait_for_records(1)[0]
        assert record["bytes_received"] == 4
        assert "idle" in record["detail"]
        assert_idle(sidecar)


def test_a_reset_goes_through_in_both_directions(authority: Authority, tmp_path: Path) -> None:
    """A broken connection must not look like an orderly end on the other side."""

    def break_off(connection: PeerConnection) -> None:
        connection.send(b"x")
        if connection.read_exactly(1) == b"r":
            connection.reset()
        else:
            with pytest.raises(ConnectionResetError):
                connection.read_to_end()

    with _inbound(authority, break_off, tmp_path) as (sidecar, web, _):
        context = client_context(authority, web.identity)
        with connect(sidecar.inbound, context) as peer:
            peer.read_exactly(1)
            peer.send(b"r")
            with pytest.raises(ConnectionError):
                peer.read_to_end()
        with connect(sidecar.inbound, context) as peer:
            peer.read_exactly(1)
            peer.send(b"c")
            peer.reset()

        flags = sorted(record["flags"] for record in sidecar.wait_for_records(2))
        assert flags == ["DC", "UR"]
        assert_idle(sidecar)


def test_tls_truncation_is_no_orderly_end(authority: Authority, tmp_path: Path) -> None:
    """RFC 8446 §6.1: TCP's end without close_notify."""

    def expect_cut(connection: PeerConnection) -> None:
        with pytest.raises(ConnectionResetError):
            connection.read_to_end()

    with _inbound(authority, expect_cut, tmp_path) as (sidecar, web, _):
        peer = connect(sidecar.inbound, client_context(authority, web.identity))
        peer.send(b"half a mess")
        eventually(lambda: sidecar.metric("connections") == 1, "open")
        peer.cut()

        assert sidecar.wait_for_records(1)[0]["flags"] == "DC"


def test_a_slow_reader_stops_the_writer(authority: Authority, tmp_path: Path) -> None:
    """Back-pressure through both sidecars: constant memory while 64 MiB wait for a reader."""
    sent = []

    def pour(connection: PeerConnection) -> None:
        block = bytes(65536)
        for _ in range(1024):
            connection.send(block)
            sent.append(len(block))
        connection.half_close()
        connection.read_to_end()

    with _both(authority, pour, tmp_path) as (inbound, outbound):
        with connect(outbound.outbound) as client:
            client.read_exactly(1)
            before = -1
            while before != len(sent):  # until the writer stands still
                before = len(sent)
                time.sleep(0.3)
            assert sum(sent) < 24 * 1024 * 1024, "the kernel's buffers and ours, not all of it"
            memory = max(inbound.resident_bytes(), outbound.resident_bytes())
            assert memory < 120 * 1024 * 1024
            client.half_close()
            total = len(client.received)
            while data := client.sock.recv(1 << 20):
                total += len(data)
        assert total == 64 * 1024 * 1024
        assert outbound.wait_for_records(1)[0]["bytes_sent"] == total


def test_a_peer_that_never_reads_is_cut_at_the_write_timeout(
    authority: Authority, tmp_path: Path
) -> None:
    """Threat E1: also when everything else has ended, so that its slot comes back."""

    def pour_and_leave(connection: PeerConnection) -> None:
        connection.send(bytes(256 * 1024))  # fits into buffers on the way
        connection.half_close()
        connection.read_to_end()

    with _inbound(authority, pour_and_leave, tmp_path, write_timeout="400ms") as (sidecar, web, _):
        assert isinstance(sidecar.inbound, tuple)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(10)
        raw.connect(sidecar.inbound)
        peer = PeerConnection(raw, TlsSocket(raw, client_context(authority, web.identity)))
        peer.half_close()

        sidecar.wait_for_records(1)
        eventually(lambda: sidecar.metric("connections") == 0, "the slot is free")
        peer.cut()


def test_the_peer_of_a_tunnel_is_checked_before_the_first_byte(
    authority: Authority, tmp_path: Path
) -> None:
    """The issue: chain and expected identity before anything leaves."""
    web = Pod("web", authority, tmp_path)
    received = []

    def keep(connection: PeerConnection) -> None:
        received.append(connection.read_to_end())

    wrong = authority.issue(spiffe="spiffe://example.org/other")
    with ScriptedPeer(keep, tls=server_context(authority, wrong)) as server:
        service = {"endpoints": [f"127.0.0.1:{server.port}"], "peer": {"spiffe": web.spiffe}}
        config = web.config(
            services={"shop": service},
            outbound={
                "listen": f"127.0.0.1:{reserve_port()}",
                "protocol": "tcp",
                "service": "shop",
            },
        )
        with running_ambassador(config, tmp_path) as sidecar:
            with connect(sidecar.outbound) as client:
                client.send(b"secret")
                assert client.is_ended()

            record = sidecar.wait_for_record(flags="UF")
            assert (record["detail"], record["bytes_sent"]) == ("wrong_peer", 0)
            assert_idle(sidecar)

    assert b"".join(received) == b""


def test_a_tls_1_3_peer_that_refuses_us_is_named(authority: Authority, tmp_path: Path) -> None:
    """RFC 8446 §4.6.2: its refusal comes with the first read."""
    web = Pod("web", authority, tmp_path)
    peer = authority.issue(spiffe="spiffe://example.org/peer")
    context = server_context(Authority("others"), peer, version=ssl.TLSVersion.TLSv1_3)
    with ScriptedPeer(_echo, tls=context) as server:
        service = {
            "endpoints": [f"127.0.0.1:{server.port}"],
            "peer": {"spiffe": "spiffe://example.org/peer"},
        }
        config = web.config(
            services={"shop": service},
            outbound={
                "listen": f"127.0.0.1:{reserve_port()}",
                "protocol": "tcp",
                "service": "shop",
            },
        )
        with running_ambassador(config, tmp_path) as sidecar:
            with connect(sidecar.outbound) as client:
                assert client.is_ended()

            record = sidecar.wait_for_records(1)[0]
            assert (record["flags"], record["detail"]) == ("UF", "peer_refused_us")
