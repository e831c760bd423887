"""Ceilings of a listener: connections, sources, handshakes in flight and their rate, file descriptors."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.invariants import assert_idle
from tests.support.peers import App, PeerConnection, TlsSocket, connect, exchange, request, send_raw
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

GOOD = request("/", "Connection: close")


def _refused(sidecar: Ambassador, listener: str, reason: str) -> float:
    return sidecar.metric("connections_refused_total", listener=listener, reason=reason)


@contextlib.contextmanager
def _sidecar(
    authority: Authority,
    app: App,
    folder: Path,
    limits: dict[str, object] | None = None,
    **inbound: object,
) -> Iterator[tuple[Ambassador, Pod, Pod]]:
    shop, web = Pod("shop", authority, folder), Pod("web", authority, folder)
    config = shop.config(inbound=shop.inbound(app.port, [web], **inbound))
    if limits:
        config["limits"] = limits
    with running_ambassador(config, folder) as sidecar:
        yield sidecar, shop, web


def _silent(sidecar: Ambassador, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    """Open connections that never begin a handshake."""
    assert isinstance(sidecar.inbound, tuple)
    return [
        socket.create_connection(sidecar.inbound, timeout=10, source_address=(source, 0))
        for _ in range(count)
    ]


def test_connections_above_the_ceiling_are_refused_and_counted(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Threat D3: closed at once, and the slot of one that ends is free again."""
    limits = {"max_connections": 4, "max_connections_per_peer": 4}
    with _sidecar(authority, app, tmp_path, **limits) as (sidecar, _, web):
        context = client_context(authority, web.identity)
        held = [connect(sidecar.inbound, context) for _ in range(4)]
        for each in held:
            each.send(request("/"))
            each.read_message()

        with pytest.raises(ConnectionError):  # end of file or reset, by how far the hello came
            connect(sidecar.inbound, context)

        eventually(lambda: _refused(sidecar, "inbound", "max_connections") == 1, "counted")
        held.pop().close()
        eventually(lambda: sidecar.metric("connections", direction="inbound") == 3, "free slot")
        assert exchange(sidecar.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")
        for each in held:
            each.close()
        assert_idle(sidecar)


def test_one_source_cannot_take_all_connections(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    limits = {"max_connections": 16, "max_connections_per_peer": 2}
    with _sidecar(authority, app, tmp_path, **limits) as (sidecar, _, web):
        context = client_context(authority, web.identity)
        held = [connect(sidecar.inbound, context) for _ in range(2)]
        for each in held:
            each.send(request("/"))
            each.read_message()

        with pytest.raises(ConnectionError):  # as above
            connect(sidecar.inbound, context)

        eventually(lambda: _refused(sidecar, "inbound", "max_connections_per_peer") == 1, "counted")
        assert _from(sidecar, "127.0.0.2", context).startswith(b"HTTP/1.1 200 ")
        for each in held:
            each.close()


def _from(sidecar: Ambassador, source: str, context: object) -> bytes:
    (sock,) = _silent(sidecar, 1, source)
    with PeerConnection(sock, TlsSocket(sock, context)) as connection:  # type: ignore[arg-type]
        connection.send(GOOD)
        return connection.read_message()


def test_an_outbound_listener_has_its_ceiling_too(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    pod = Pod("web", authority, tmp_path)
    config = pod.config(
        services={"app": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}}
    )
    config["outbound"]["max_connections"] = 2
    config["outbound"]["max_connections_per_peer"] = 2
    with running_ambassador(config, tmp_path) as sidecar:
        held = [connect(sidecar.outbound) for _ in range(2)]
        eventually(lambda: sidecar.metric("connections", direction="outbound") == 2, "both open")

        with connect(sidecar.outbound) as third:
            assert third.is_ended()

        assert _refused(sidecar, "outbound", "max_connections") == 1
        for each in held:
            each.close()


def test_more_handshakes_than_slots_wait_and_are_not_refused(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Threat D3: what exceeds `limits.handshakes` waits unaccepted, until a silent one's deadline frees its slot."""
    with _sidecar(authority, app, tmp_path, {"handshakes": 2}, handshake_timeout="400ms") as (
        sidecar,
        _,
        web,
    ):
        silent = [*_silent(sidecar, 2), *_silent(sidecar, 2, "127.0.0.3")]

        answer = exchange(sidecar.inbound, GOOD, client_context(authority, web.identity))

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert sidecar.metric("connections_refused_total") == 0
        for each in silent:
            each.close()


def test_silent_handshakes_of_one_source_do_not_keep_out_another(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Threat D3: one source has half of the slots; its next ones wait without blocking the queue."""
    with _sidecar(
        authority, app, tmp_path, {"handshakes": 4}, handshake_timeout="5s", max_connections=64
    ) as (sidecar, _, web):
        silent = _silent(sidecar, 12, "127.0.0.9")

        answer = _from(sidecar, "127.0.0.2", client_context(authority, web.identity))

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert sidecar.metric("handshakes_total", reason="timeout") == 0, "not by their deadline"
        for each in silent:
            each.close()
        eventually(lambda: sidecar.metric("handshakes_total", result="refused") == 12, "all told")


def test_parked_handshakes_go_on_when_their_turn_comes(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    with _sidecar(authority, app, tmp_path, {"handshakes": 2}, handshake_timeout="5s") as (
        sidecar,
        _,
        web,
    ):
        silent = _silent(sidecar, 1)
        context = client_context(authority, web.identity)
        (parked,) = _silent(sidecar, 1)
        silent[0].close()

        with PeerConnection(parked, TlsSocket(parked, context)) as connection:
            connection.send(GOOD)
            assert connection.read_message().startswith(b"HTTP/1.1 200 ")


def test_only_a_quarter_of_the_connections_may_be_in_handshake(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """config.md, max_connections."""
    with _sidecar(authority, app, tmp_path, max_connections=8, handshake_timeout="400ms") as (
        sidecar,
        _,
        web,
    ):
        silent = [*_silent(sidecar, 2, "127.0.0.4"), *_silent(sidecar, 2, "127.0.0.5")]

        answer = exchange(sidecar.inbound, GOOD, client_context(authority, web.identity))

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert sidecar.metric("handshakes_total", reason="timeout") >= 1, "it had to wait for one"
        for each in silent:
            each.close()


def test_the_rate_of_handshakes_is_bounded_and_nobody_is_refused(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    with _sidecar(authority, app, tmp_path, {"handshake_rate": "10/s"}) as (sidecar, _, web):
        context = client_context(authority, web.identity)
        begun = time.monotonic()

        for _ in range(15):
            assert exchange(sidecar.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")

        # Ten at once, then one every 0.1 s: a lower bound, not a speed.
        assert time.monotonic() - begun > 0.4
        assert sidecar.metric("connections_refused_total") == 0


def test_running_out_of_descriptors_is_survived(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """The accept loop pauses instead of spinning, and goes on when there are descriptors again."""
    with _sidecar(authority, app, tmp_path, handshake_timeout="3s") as (sidecar, _, web):
        context = client_context(authority, web.identity)
        assert exchange(sidecar.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")
        whole = resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{sidecar.pid}/fd").iterdir()))
        resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, (used + 2, whole[1]))
        silent = _silent(sidecar, 8)
        before = _cpu_s(sidecar)
        time.sleep(0.6)  # the time in which a loop that spins would burn a processor
        spent = _cpu_s(sidecar) - before

        resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, whole)
        for each in silent:
            each.close()

        assert exchange(sidecar.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")
        assert _refused(sidecar, "inbound", "out_of_files") >= 1
        assert spent < 0.4


def _cpu_s(sidecar: Ambassador) -> float:
    fields = Path(f"/proc/{sidecar.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_two_thousand_connections_leave_nothing(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Good ones, refused ones, silent ones, cut ones: no descriptor, no slot, no memory."""
    with _sidecar(authority, app, tmp_path, {"handshake_rate": "10000/s"}) as (sidecar, _, web):
        context, nobody = client_context(authority, web.identity), client_context(authority)
        _some(sidecar, context, nobody, 20)
        assert_idle(sidecar)
        sockets, memory = sidecar.open_sockets(), sidecar.resident_bytes()

        _some(sidecar, context, nobody, 400)

        assert_idle(sidecar)
        eventually(lambda: sidecar.open_sockets() <= sockets, f"no socket beyond {sockets}")
        assert sidecar.resident_bytes() - memory < 8 * 1024 * 1024


def _some(sidecar: Ambassador, context: object, nobody: object, rounds: int) -> None:
    for number in range(rounds):
        if number % 4 == 0:
            exchange(sidecar.inbound, GOOD, context)  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            send_raw(sidecar.inbound, GOOD, nobody)  # type: ignore[arg-type]
        connect(sidecar.inbound).close()
        connect(sidecar.inbound).reset()
        with contextlib.suppress(OSError), connect(sidecar.inbound) as garbage:
            garbage.send(b"\x16\x03\x01\x02\x00\x01" + bytes(40))
        connect(sidecar.admin).close()


def test_one_source_at_two_listeners_does_not_keep_out_another(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Threat D3: the share of a source is one of the whole process."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(
        inbound=[
            {**shop.inbound(app.port, [web]), "name": "first", "handshake_timeout": "20s"},
            {
                **shop.inbound(app.port, [web]),
                "listen": f"127.0.0.1:{reserve_port()}",
                "name": "second",
                "handshake_timeout": "20s",
            },
        ],
        limits={"handshakes": 8},
    )
    context = client_context(authority, web.identity)
    with running_ambassador(config, tmp_path) as sidecar:
        silent = []
        for name in ("first", "second"):
            for _ in range(10):
                silent += [
                    socket.create_connection(
                        sidecar.listener("inbound", name), source_address=("127.0.0.3", 0)
                    )
                ]
        sock = socket.create_connection(
            sidecar.listener("inbound", "second"), source_address=("127.0.0.2", 0)
        )
        with PeerConnection(sock, TlsSocket(sock, context)) as good:
            good.send(GOOD)
            assert good.read_message().startswith(b"HTTP/1.1 200 ")

        for each in silent:
            each.close()
        assert_idle(sidecar)
