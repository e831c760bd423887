"""Bytes in clear where a handshake belongs are never data, even when their sender has ended already (threat D1)."""

from __future__ import annotations

import socket

import pytest

from tests.support.peers import PeerConnection, ScriptedPeer
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "stage"]

GET = b"GET /secret HTTP/1.1\r\nHost: payments\r\n\r\n"
HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"


def inbound_records(side: Side) -> int:
    """Count the exchanges with peers; a line of the other direction may be on its way still."""
    return sum(record["direction"] == "inbound" for record in side.sidecar.records)


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        GET * 100,
        b"G",
        HELLO + GET,
        b"\x16\x03\x03\x00\x00" + GET,
        b"\x17\x03\x03\x00\x20" + GET,
    ],
)
def test_plaintext_and_the_end_at_once_never_reach_the_app(inbound: Side, sent: bytes) -> None:
    """Python CVE-2023-40217: FIN before the handshake left a socket that gave plaintext as if it were TLS."""
    refused = inbound.sidecar.metric("handshakes_total", direction="inbound", result="refused")
    records = inbound_records(inbound)
    assert isinstance(inbound.sidecar.inbound, tuple)
    with PeerConnection(socket.create_connection(inbound.sidecar.inbound)) as client:
        client.send(sent)
        client.half_close()
        try:
            answer = client.read_to_end()
        except ConnectionError:
            answer = bytes(client.received)

    assert answer[:9] in {b"", b"HTTP/1.1 "} or answer[0] == 0x15
    assert not answer.startswith(b"HTTP/1.1 2")
    eventually(
        lambda: (
            inbound.sidecar.metric("handshakes_total", direction="inbound", result="refused")
            > refused
        ),
        "counted",
    )
    assert inbound.no_upstream()
    assert inbound_records(inbound) == records


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        b"\x17\x03\x03\x00\x06forged",
        b"\x15\x03\x03\x00\x02\x01\x00HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    ],
)
def test_an_upstream_that_answers_in_clear_and_ends_is_a_failed_connect(
    outbound: Side, sent: bytes
) -> None:
    """nginx CVE-2026-1642: not a byte of it is a response, and not a byte of the request was sent."""
    outbound.peer.close()
    got = bytearray()

    def script(up: PeerConnection) -> None:
        up.send(sent)
        up.half_close()
        got.extend(up.read_to_end())

    with ScriptedPeer(script, port=outbound.stage.peer_port):
        client = outbound.connect()
        client.send(GET)
        answer = client.read_message()
    outbound.stage.sides["outbound"] = Side(outbound.stage, "outbound")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"forged" not in answer
    assert b"secret" not in got
    assert outbound.sidecar.wait_for_record(direction="outbound", status=503)["flags"] == "UF"
