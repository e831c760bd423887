"""Bytes and a reset in one moment: what came is used, the end is heard, and nothing waits for a deadline.

uvloop reports an error of a descriptor once and then forgets it, whatever was left to read.
"""

from __future__ import annotations

import contextlib
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context, server_context
from tests.support.invariants import assert_idle
from tests.support.peers import App, PeerConnection, ScriptedPeer, connect, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, Pod, running_ambassador

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
GET = request("/", host="plain")
PATIENT = {"timeout": "30s", "body_idle_timeout": "30s"}


def _plain(port: int) -> Config:
    return {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}", **PATIENT},
        "services": {"plain": {"endpoints": [f"127.0.0.1:{port}"], "plaintext": "loopback"}},
    }


class _Stopped:
    """Keeps the sidecar from reading, so that several things are there when it does."""

    def __init__(self) -> None:
        self.sidecar: Ambassador | None = None

    def __enter__(self) -> None:
        assert self.sidecar is not None
        self.sidecar.signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        assert self.sidecar is not None
        self.sidecar.signal(signal.SIGCONT)


@contextlib.contextmanager
def _resetting(
    *pieces: bytes, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[ScriptedPeer, _Stopped]]:
    stopped = _Stopped()

    def script(connection: PeerConnection) -> None:
        connection.read_message()
        with stopped:
            for piece in pieces:
                connection.send(piece)
            connection.reset()

    with ScriptedPeer(script, tls=tls) as peer:
        yield peer, stopped


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD,),
        (HEAD + b"half",),
        (HEAD, b"half"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end",),
        (b"HTTP/1.1 200 OK\r\nContent-",),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n",),
        (HEAD.replace(b"100", b"1000000"), b"x" * 400_000),
    ],
    ids=["head", "half", "two pieces", "chunk", "until eof", "half head", "interim", "much"],
)
@pytest.mark.parametrize("encrypted", [False, True])
def test_an_upstream_that_resets_behind_its_bytes_is_heard(
    authority: Authority,
    tmp_path: Path,
    loop_name: str,
    pieces: tuple[bytes, ...],
    encrypted: bool,  # noqa: FBT001
) -> None:
    web = Pod("web", authority, tmp_path)
    peer = authority.issue(spiffe="spiffe://example.org/peer")
    tls = server_context(authority, peer) if encrypted else None
    with _resetting(*pieces, tls=tls) as (server, stopped):
        config = _plain(server.port)
        if encrypted:
            service = {
                "endpoints": [f"127.0.0.1:{server.port}"],
                "peer": {"spiffe": "spiffe://example.org/peer"},
            }
            config = web.config(outbound=config["outbound"], services={"plain": service})
        with running_ambassador(config, tmp_path, loop_name) as sidecar:
            stopped.sidecar = sidecar
            with connect(sidecar.outbound) as client:
                client.send(request("/", "Connection: close", host="plain", method="POST"))
                with contextlib.suppress(ConnectionError):
                    client.read_to_end()

            record = sidecar.wait_for_records(1)[0]
            assert record["flags"] in {"UR", "UC", "UPE"}
            assert_idle(sidecar)


def test_a_whole_response_in_front_of_a_reset_is_delivered_and_the_next_request_served(
    tmp_path: Path, loop_name: str
) -> None:
    """The connection is dead but looks idle: the next request finds out at once, not at its deadline."""
    stopped = _Stopped()
    count = iter(range(100))

    def script(connection: PeerConnection) -> None:
        connection.read_message()
        if next(count) % 2 == 0:
            with stopped:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                connection.reset()
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    with (
        ScriptedPeer(script) as peer,
        running_ambassador(_plain(peer.port), tmp_path, loop_name) as sidecar,
    ):
        stopped.sidecar = sidecar
        with connect(sidecar.outbound) as client:
            for _ in range(4):
                client.send(GET)
                assert client.read_message().endswith(b"ok")

        assert {record["status"] for record in sidecar.wait_for_records(4)} == {200}
        assert_idle(sidecar)


@pytest.mark.parametrize(
    "sent", [GET, GET[:20], b"POST / HTTP/1.1\r\nHost: plain\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_client_that_resets_behind_its_bytes_leaves_nothing(
    app: App, tmp_path: Path, loop_name: str, sent: bytes
) -> None:
    with running_ambassador(_plain(app.port), tmp_path, loop_name) as sidecar:
        stopped = _Stopped()
        stopped.sidecar = sidecar
        with stopped:
            for _ in range(5):
                client = connect(sidecar.outbound)
                client.send(sent)
                client.reset()

        assert_idle(sidecar)


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_tunnel_whose_peer_resets_behind_its_bytes_is_cut(
    authority: Authority, tmp_path: Path, loop_name: str, pieces: int
) -> None:
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    done = threading.Event()

    def script(connection: PeerConnection) -> None:
        connection.read_exactly(1)
        stop.__enter__()
        for _ in range(pieces):
            connection.send(bytes(9000))
        connection.reset()
        done.set()

    stop = _Stopped()
    with ScriptedPeer(script) as app:
        config = shop.config(inbound=shop.inbound(app.port, [web], protocol="tcp"))
        with running_ambassador(config, tmp_path, loop_name) as sidecar:
            stop.sidecar = sidecar
            with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
                peer.send(b"x")
                assert done.wait(10)
                stop.__exit__()
                with pytest.raises(ConnectionError):
                    peer.read_to_end()

            assert sidecar.wait_for_records(1)[0]["flags"] == "UR"
            assert_idle(sidecar)
