"""Certificate chains as large as they may be, by the hundred: memory is given back (threat D4)."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.certificates import Authority, client_context
from tests.support.invariants import assert_idle
from tests.support.peers import App, PeerConnection, connect, exchange, request
from tests.support.process import Pod, running_ambassador
from tests.support.waiting import eventually

MIB = 1024 * 1024
OTHER = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")
CLOSE = request("/", "Connection: close")


@pytest.mark.parametrize("size", [40_000, 90_000])
def test_two_hundred_large_chains_cost_no_memory(
    authority: Authority, app: App, tmp_path: Path, size: int
) -> None:
    """The smaller is let in, the larger refused: above 64 KiB nobody is read on."""
    shop = Pod("shop", authority, tmp_path)
    large = authority.issue(
        spiffe="spiffe://example.org/large",
        extra_extensions=[(x509.UnrecognizedExtension(OTHER, bytes(size)), False)],
    )
    config = shop.config(
        inbound=shop.inbound(app.port, [{"spiffe": "spiffe://example.org/large"}]),
        tls={"session_lifetime": "none"},
        limits={"handshake_rate": "10000/s"},
    )
    with running_ambassador(config, tmp_path) as sidecar:
        context = client_context(authority, large)
        for _ in range(5):
            with contextlib.suppress(OSError):
                exchange(sidecar.inbound, CLOSE, context)
        sidecar.metric("connections")
        before = sidecar.resident_bytes()
        served = 0

        held: list[PeerConnection] = []
        for number in range(200):
            with contextlib.suppress(OSError, EOFError):
                held.append(connect(sidecar.inbound, context))
                held[-1].send(request("/"))
                served += held[-1].read_message().startswith(b"HTTP/1.1 200 ")
            if number % 2 and held:
                held.pop().close()

        grown = sidecar.resident_bytes() - before
        for connection in held:
            connection.close()
        assert served == (200 if size < 65_536 else 0)
        assert grown < 64 * MIB
        assert_idle(sidecar)


def test_a_chain_deeper_than_five_is_refused(app: App, tmp_path: Path) -> None:
    """Each link is sound; there are only too many of them."""
    root = issuer = Authority("root")
    for number in range(8):
        issuer = Authority(f"intermediate {number}", parent=issuer)
    shop = Pod("shop", root, tmp_path)
    deep = issuer.issue(spiffe="spiffe://example.org/web")
    config = shop.config(inbound=shop.inbound(app.port, [{"spiffe": "spiffe://example.org/web"}]))
    with running_ambassador(config, tmp_path) as sidecar:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            exchange(sidecar.inbound, CLOSE, client_context(root, deep))

        eventually(
            lambda: sidecar.metric("handshakes_total", direction="inbound", result="refused") == 1,
            "refused",
        )
        assert not app.requests


def test_two_hundred_half_sent_chains_cost_no_memory(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Peers that stop in the middle of 64 KiB hold what they sent, until their deadline."""
    shop = Pod("shop", authority, tmp_path)
    config = shop.config(
        inbound=shop.inbound(app.port, handshake_timeout="2s"),
        limits={"handshakes": 256, "handshake_rate": "10000/s"},
    )
    with running_ambassador(config, tmp_path) as sidecar:
        sidecar.metric("connections")
        before = sidecar.resident_bytes()
        assert isinstance(sidecar.inbound, tuple)
        held = []
        for number in range(200):
            sock = socket.create_connection(
                sidecar.inbound, timeout=5, source_address=(f"127.0.2.{number % 200 + 1}", 0)
            )
            # A hello that announces 16 KiB in one record, all but the last byte of it.
            sock.sendall(b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03" + bytes(0x3FFF - 7))
            held.append(sock)

        assert sidecar.resident_bytes() - before < 64 * MIB
        for sock in held:
            sock.close()
        eventually(lambda: sidecar.metric("connections") == 0, "free slots")
