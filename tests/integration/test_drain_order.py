"""The end: readiness off, delay, listeners stop, exchanges end, exit code; and the ways to shorten it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import Authority, client_context
from tests.support.peers import (
    App,
    PeerConnection,
    ScriptedPeer,
    connect,
    exchange,
    parse_response,
    request,
    response,
)
from tests.support.ports import reserve_port
from tests.support.process import Config, Pod, running_ambassador
from tests.support.waiting import eventually


class SlowApp(App):
    """Answers when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        super().__init__(self._wait)

    def _wait(self, _: object) -> bytes:
        assert self.go.wait(10)
        return response(b"late")


def _plain(port: int, **drain: str) -> Config:
    return {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"app": {"endpoints": [f"127.0.0.1:{port}"], "plaintext": "loopback"}},
        "drain": {"delay": "0s", "timeout": "10s", **drain},
    }


def _is_listening(address: object) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0  # type: ignore[arg-type]


def test_in_the_delay_it_is_not_ready_and_serves(app: App, tmp_path: Path, loop_name: str) -> None:
    """config.md, drain.delay: not ready, still accepting."""
    with running_ambassador(_plain(app.port, delay="1s"), tmp_path, loop_name) as sidecar:
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_for_event("drain_started")

        assert sidecar.get("/ready") == (503, "draining\n")
        assert sidecar.get("/live")[0] == 200
        assert sidecar.metric("draining") == 1
        assert sidecar.metric("ready") == 0
        assert exchange(sidecar.outbound, request("/", host="app")).startswith(b"HTTP/1.1 200 ")
        assert sidecar.wait() == 0


def test_a_running_exchange_ends_and_says_connection_close(
    authority: Authority, tmp_path: Path, loop_name: str
) -> None:
    with SlowApp() as app:
        shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
        config = shop.config(inbound=shop.inbound(app.port, [web]))
        with running_ambassador(config, tmp_path, loop_name) as sidecar:
            with connect(sidecar.inbound, client_context(authority, web.identity)) as connection:
                connection.send(request("/"))
                eventually(lambda: app.requests, "the request at the app")
                sidecar.signal(signal.SIGTERM)
                eventually(lambda: not _is_listening(sidecar.inbound), "listener closed")
                app.go.set()

                status, fields, body = parse_response(connection.read_message())
                assert (status, body) == (200, b"late")
                assert fields[b"connection"] == b"close"
                assert connection.is_ended()
            assert sidecar.wait() == 0


def test_idle_connections_are_closed_at_once_and_in_order(app: App, tmp_path: Path) -> None:
    with running_ambassador(_plain(app.port), tmp_path) as sidecar:
        with connect(sidecar.outbound) as fresh, connect(sidecar.outbound) as used:
            used.send(request("/", host="app"))
            used.read_message()
            eventually(lambda: sidecar.metric("connections") == 2, "both")

            sidecar.signal(signal.SIGTERM)

            assert fresh.read_to_end() == b""
            assert used.read_to_end() == b""
        assert sidecar.wait() == 0


def test_a_request_that_is_on_its_way_when_the_drain_begins_is_served(
    app: App, tmp_path: Path
) -> None:
    """Bytes that have arrived are a request, not an idle connection (RFC 9112 §9.6)."""
    with running_ambassador(_plain(app.port), tmp_path) as sidecar:
        with connect(sidecar.outbound) as connection:
            connection.send(request("/", host="app"))
            connection.read_message()
            with sidecar.stopped():
                connection.send(request("/", host="app"))
                sidecar.signal(signal.SIGTERM)

            assert connection.read_message().startswith(b"HTTP/1.1 200 ")
            assert connection.is_ended()
        assert sidecar.wait() == 0


def test_a_second_sigterm_ends_at_once_with_1(tmp_path: Path, loop_name: str) -> None:
    with (
        SlowApp() as app,
        running_ambassador(
            _plain(app.port, timeout="60s"), tmp_path, loop_name, exit_code=None
        ) as sidecar,
    ):
        with connect(sidecar.outbound) as connection:
            connection.send(request("/", host="app"))
            eventually(lambda: app.requests, "the request at the app")
            sidecar.signal(signal.SIGTERM)
            sidecar.wait_for_event("drain_started")

            sidecar.signal(signal.SIGTERM)

            assert sidecar.wait() == 1
            assert sidecar.wait_for_event("drain_forced")["open"] == 1
            app.go.set()
        assert sidecar.wait_for_record(flags="DC")


def test_the_timeout_ends_with_1(tmp_path: Path) -> None:
    with (
        SlowApp() as app,
        running_ambassador(_plain(app.port, timeout="300ms"), tmp_path, exit_code=None) as sidecar,
        connect(sidecar.outbound) as connection,
    ):
        connection.send(request("/", host="app"))
        eventually(lambda: app.requests, "the request at the app")

        sidecar.signal(signal.SIGTERM)

        assert sidecar.wait() == 1
        app.go.set()


def test_another_signal_ends_the_delay_with_1(app: App, tmp_path: Path) -> None:
    config = _plain(app.port, delay="30s", timeout="40s")
    with running_ambassador(config, tmp_path, exit_code=None) as sidecar:
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_for_event("drain_started")
        sidecar.signal(signal.SIGINT)

        assert sidecar.wait() == 1


def test_sigint_drains_without_the_delay(app: App, tmp_path: Path, loop_name: str) -> None:
    config = _plain(app.port, delay="30s", timeout="40s")
    with running_ambassador(config, tmp_path, loop_name) as sidecar:
        sidecar.signal(signal.SIGINT)

        assert sidecar.wait() == 0
        assert sidecar.wait_for_event("drain_started")["delay_s"] == 0


def test_sighup_in_the_drain_is_ignored(authority: Authority, app: App, tmp_path: Path) -> None:
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    config = shop.config(
        inbound=shop.inbound(app.port, [web]), drain={"delay": "500ms", "timeout": "5s"}
    )
    with running_ambassador(config, tmp_path) as sidecar:
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_for_event("drain_started")
        sidecar.reload()

        assert sidecar.wait() == 0
        assert not [event for event in sidecar.events if event["event"].startswith("credentials")]


def test_inbound_ends_before_outbound_closes(authority: Authority, tmp_path: Path) -> None:
    """The app's last answers may need what the outbound listener leads to."""
    with App() as other:
        address = ("127.0.0.1", reserve_port())

        def respond(_: object) -> bytes:
            eventually(draining.is_set, "drain")
            return response(exchange(address, request("/", "Connection: close", host="other"))[:12])

        draining = threading.Event()
        with App(respond) as app:
            shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
            config = shop.config(
                inbound=shop.inbound(app.port, [web]),
                outbound={"listen": f"127.0.0.1:{address[1]}"},
                services={
                    "other": {"endpoints": [f"127.0.0.1:{other.port}"], "plaintext": "loopback"}
                },
            )
            with running_ambassador(config, tmp_path) as sidecar:
                with connect(sidecar.inbound, client_context(authority, web.identity)) as peer:
                    peer.send(request("/"))
                    eventually(lambda: app.requests, "the request at the app")
                    sidecar.signal(signal.SIGTERM)
                    eventually(lambda: not _is_listening(sidecar.inbound), "inbound closed")
                    draining.set()

                    assert parse_response(peer.read_message())[2] == b"HTTP/1.1 200"
                assert sidecar.wait() == 0


def test_a_tunnel_is_cut_by_the_timeout(tmp_path: Path) -> None:
    def echo(connection: PeerConnection) -> None:
        connection.send(connection.read_exactly(4))
        connection.read_to_end()

    with ScriptedPeer(echo) as peer:
        config = _plain(peer.port, timeout="400ms")
        config["outbound"] |= {"protocol": "tcp", "service": "app"}
        with (
            running_ambassador(config, tmp_path, exit_code=None) as sidecar,
            connect(sidecar.outbound) as connection,
        ):
            connection.send(b"ping")
            assert connection.read_exactly(4) == b"ping"
            sidecar.signal(signal.SIGTERM)

            assert sidecar.wait() == 1
            assert connection.is_ended()


def test_keep_alive_load_through_a_drain_loses_no_request(app: App, tmp_path: Path) -> None:
    """Every request that was sent whole on a connection that we still held is answered."""
    failures: list[str] = []
    config = _plain(app.port, delay="300ms", timeout="10s")
    with running_ambassador(config, tmp_path) as sidecar:
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    connection = connect(sidecar.outbound)
                except ConnectionRefusedError:
                    return  # the listener is closed: this client goes elsewhere
                with connection:
                    for _ in range(50):
                        try:
                            connection.send(request("/", host="app"))
                            answer = connection.read_message()
                        except (EOFError, OSError):
                            return  # closed while idle: the client may repeat (RFC 9112 §9.3.1)
                        if not answer.startswith(b"HTTP/1.1 200 "):
                            failures.append(repr(answer))
                        if b"close" in parse_response(answer)[1].get(b"connection", b""):
                            break

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(app.requests) > 40, "load")
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
        stop.set()
        for thread in threads:
            thread.join(10)

    assert failures == []
    assert {record["status"] for record in sidecar.records} <= {200}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_of_the_start_ends_it_quietly(
    authority: Authority, app: App, tmp_path: Path, number: signal.Signals
) -> None:
    """Threat K5: exit 0, or 130 or death by that very signal as long as Python and we are imported; no traceback."""
    shop = Pod("shop", authority, tmp_path)
    config = shop.config(inbound=shop.inbound(app.port), drain={"delay": "0s", "timeout": "5s"})
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**config, "admin": {"listen": "none"}}))
    outcomes = []
    for step in range(7):
        process = subprocess.Popen(
            [sys.executable, "-m", "ambassador", "run", "-c", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        time.sleep(0.1 * step)  # the moments under test
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        outcomes.append((process.returncode, b"Traceback" in errors and step > 3))

    assert {code for code, _ in outcomes} <= {
        0,
        -number,
        *((1, 130) if number == signal.SIGINT else ()),
    }
    assert (0, False) in outcomes
    assert not any(traceback for _, traceback in outcomes), outcomes


def test_sighup_at_the_start_does_not_kill(authority: Authority, app: App, tmp_path: Path) -> None:
    shop = Pod("shop", authority, tmp_path)
    with running_ambassador(shop.config(inbound=shop.inbound(app.port)), tmp_path) as sidecar:
        for _ in range(20):
            sidecar.reload()

        sidecar.wait_for_event("credentials_reloaded")
        assert sidecar.process.poll() is None
