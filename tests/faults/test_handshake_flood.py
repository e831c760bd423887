"""Handshakes by the thousand from everywhere: bounded, counted, and nobody good is kept out (threat D3)."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from tests.support.certificates import Authority, client_context
from tests.support.invariants import assert_idle
from tests.support.peers import App, PeerConnection, TlsSocket, connect, request
from tests.support.process import Ambassador, Pod, running_ambassador

SLOTS = 8
FLOODERS = 6


class Flood:
    """Peers that begin handshakes with garbage key shares, each from an address of its own, until it is over."""

    def __init__(self, sidecar: Ambassador, hello: bytes) -> None:
        self.tried = 0
        self._over = threading.Event()
        self._address = sidecar.inbound
        self._hello = hello
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(FLOODERS)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        assert isinstance(self._address, tuple)
        held: list[socket.socket] = []
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                sock = socket.create_connection(
                    self._address, timeout=5, source_address=(f"127.0.1.{number + 1}", 0)
                )
                sock.sendall(self._hello)
                held.append(sock)
                self.tried += 1
            while len(held) > 20:
                held.pop(0).close()
        for sock in held:
            sock.close()


def test_a_flood_of_handshakes_keeps_nobody_out(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Whoever is in goes on being served, whoever is good gets in, and slots are never exceeded."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(
        inbound=shop.inbound(app.port, [web], handshake_timeout="300ms", max_connections=400),
        limits={"handshakes": SLOTS, "handshake_rate": "300/s"},
    )
    context = client_context(authority, web.identity)
    with running_ambassador(config, tmp_path) as sidecar:
        inside = connect(sidecar.inbound, context)
        inside.send(request("/"))
        inside.read_message()
        flood = Flood(sidecar, client_hello())
        try:
            while flood.tried < 100:
                assert flood._threads[0].is_alive()
            at = flood.tried
            for _ in range(200):
                inside.send(request("/"))
                assert inside.read_message().startswith(b"HTTP/1.1 200 ")
            assert isinstance(sidecar.inbound, tuple)
            sock = socket.create_connection(sidecar.inbound, timeout=20)
            with PeerConnection(sock, TlsSocket(sock, context)) as good:
                good.send(request("/"))
                assert good.read_message().startswith(b"HTTP/1.1 200 ")
            assert flood.tried >= at, "the flood went on meanwhile"
            assert sidecar.get("/ready")[0] == 200
        finally:
            flood.end()
        inside.close()
        assert_idle(sidecar)
        refused = sidecar.metric("handshakes_total", direction="inbound", result="refused")
        logged = [event for event in sidecar.events if event["event"] == "handshake_refused"]
        assert refused > 0
        assert len(logged) <= refused


def client_hello() -> bytes:
    """Give a sound hello, which costs us a key exchange and a signature, by somebody who goes no further."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
