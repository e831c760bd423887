"""Retries, hedges, ceilings, deadlines and faults of a running sidecar, seen from outside (config.md §3)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.peers import (
    App,
    PeerConnection,
    ReceivedRequest,
    ScriptedPeer,
    connect,
    exchange,
    parse_response,
    request,
    response,
    silent,
)
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

BUSY = response(b"busy", "503 Service Unavailable")


def cut(connection: PeerConnection) -> None:
    """Read a request, then reset."""
    connection.read_message()
    connection.reset()


def failing(status: str = "503 Service Unavailable", *lines: str, times: int = 1_000_000) -> App:
    """Give an app that fails so often, then answers."""
    left = [times]

    def respond(_: ReceivedRequest) -> bytes:
        left[0] -= 1
        return response(b"no", status, *lines) if left[0] >= 0 else response(b"ok")

    return App(respond)


@contextmanager
def before(
    folder: Path,
    *peers: ScriptedPeer,
    outbound: dict[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
    **service: Any,
) -> Iterator[Ambassador]:
    """Run a sidecar whose service `a` has these endpoints, round robin unless the test says otherwise."""
    config = {
        "version": 1,
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}", **(outbound or {})},
        "services": {
            "a": {
                "endpoints": [f"127.0.0.1:{peer.port}" for peer in peers],
                "plaintext": "loopback",
                "balance": "round_robin",
                "outlier_detection": "none",
                **service,
            }
        },
    }
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        yield stack.enter_context(running_ambassador(config, folder, arguments=arguments))


def ask(sidecar: Ambassador, *lines: str, **more: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    return parse_response(exchange(sidecar.outbound, request("/", *lines, host="a", **more)))


def in_parallel(*calls: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- retries


def test_a_listed_failure_is_repeated_at_another_endpoint(tmp_path: Path) -> None:
    bad, good = failing(), App()
    with before(tmp_path, bad, good, retry={"attempts": 2}) as sidecar:
        found = [ask(sidecar)[0] for _ in range(4)]

        assert found == [200] * 4
        record = sidecar.wait_for_record(attempts=2)
        assert (record["status"], record["flags"]) == (200, "-")
        assert record["endpoint"] == f"127.0.0.1:{good.port}"
        eventually(lambda: sidecar.metric("retries_total", service="a", result="ok") >= 1)
        counts = {x.value("x-envoy-attempt-count") for x in good.requests}
        assert counts == {b"1", b"2"}


@pytest.mark.parametrize(
    ("when", "status", "repeated"),
    [
        (["5xx"], "500 Internal Server Error", True),
        (["gateway_error"], "500 Internal Server Error", False),
        (["gateway_error"], "502 Bad Gateway", True),
        (["reset"], "503 Service Unavailable", False),
        ([429], "429 Too Many Requests", True),
        (["5xx"], "429 Too Many Requests", False),
        ([404], "404 Not Found", True),
    ],
)
def test_when_says_which_answers_are_repeated(
    tmp_path: Path, when: list[str | int], status: str, *, repeated: bool
) -> None:
    with before(tmp_path, failing(status, times=1), retry={"when": when}) as sidecar:
        found = ask(sidecar)[0]

    assert found == (200 if repeated else int(status[:3]))


@pytest.mark.parametrize(("when", "repeated"), [("reset", True), ("connect_failure", False)])
def test_a_reset_is_repeated_where_the_route_says_so(
    tmp_path: Path, when: str, *, repeated: bool
) -> None:
    with before(tmp_path, ScriptedPeer(cut), App(), retry={"when": [when]}) as sidecar:
        found = sorted(ask(sidecar)[0] for _ in range(2))

    assert found == ([200, 200] if repeated else [200, 503])


def test_when_the_attempts_are_used_up_the_last_answer_goes_on_and_is_flagged(
    tmp_path: Path,
) -> None:
    bad = failing()
    with before(tmp_path, bad, retry={"attempts": 3}) as sidecar:
        status, fields, body = ask(sidecar)

        assert (status, body) == (503, b"no")
        assert b"x-ambassador-flags" not in fields, "it is not ours"
        record = sidecar.wait_for_record(status=503)
        assert (record["flags"], record["attempts"]) == ("URX", 3)
        assert record["not_retried"] == "attempts_used"
        assert len(bad.requests) == 3


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({}, {"method": "POST"}, "not_idempotent"),
        ({"max_body": "1KiB"}, {"method": "PUT", "body": b"x" * 2000}, "body_too_large"),
        ({"when": ["reset"]}, {}, ""),
    ],
)
def test_what_is_not_repeated_says_why(
    tmp_path: Path, settings: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    """The issue: what was *not* retried says why in the log. An answer that `when` does not name is no failure."""
    bad = failing()
    with before(tmp_path, bad, retry=settings) as sidecar:
        status, _, body = ask(sidecar, **more)

        assert (status, body) == (503, b"no")
        assert sidecar.wait_for_record(status=503)["not_retried"] == reason
        assert len(bad.requests) == 1
        if reason:
            eventually(
                lambda: sidecar.metric("retries_skipped_total", service="a", reason=reason) == 1
            )


def test_a_post_is_repeated_when_the_route_says_so_with_its_whole_body(tmp_path: Path) -> None:
    app = failing(times=1)
    with before(tmp_path, app, retry={"unsafe_methods": ["POST"]}) as sidecar:
        status, _, _ = ask(sidecar, method="POST", body=b"x" * 5000)

    assert status == 200
    assert [one.body for one in app.requests] == [b"x" * 5000] * 2


def test_a_chunked_body_with_trailers_is_sent_again(tmp_path: Path) -> None:
    app = failing(times=1)
    raw = (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3\r\nabc\r\n3\r\ndef\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    with before(tmp_path, app, retry={}) as sidecar:
        answer = exchange(sidecar.outbound, raw)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [one.body for one in app.requests] == [b"abcdef"] * 2
    assert all(one.raw.endswith(b"0\r\nX-Sum: 7\r\n\r\n") for one in app.requests)


def test_a_failed_connect_is_repeated_for_any_method(tmp_path: Path) -> None:
    """Nothing was sent (RFC 9110 §9.2.2). Without a second endpoint another round follows."""
    late = reserve_port()
    config = {"endpoints": [f"127.0.0.1:{late}"]}
    with before(
        tmp_path,
        retry={"attempts": 20, "backoff": {"base": "100ms", "max": "100ms"}},
        **config,
    ) as sidecar:
        found: list[int] = []
        asking = threading.Thread(target=lambda: found.append(ask(sidecar, method="POST")[0]))
        asking.start()
        time.sleep(0.1)
        with App(port=late):
            asking.join()

    assert found == [200]


def test_a_server_s_pause_is_kept(tmp_path: Path) -> None:
    """RFC 9110 §10.2.3."""
    app = failing("503 Service Unavailable", "Retry-After: 1", times=1)
    with before(tmp_path, app, retry={}) as sidecar:
        status, _, _ = ask(sidecar)
        record = sidecar.wait_for_record(attempts=2)

    assert status == 200
    assert record["duration_ms"] >= 1000


def test_a_try_that_hangs_leaves_time_for_another(tmp_path: Path) -> None:
    """config.md §3, per_try_timeout: the time left by the attempts left."""
    with before(
        tmp_path, ScriptedPeer(silent), App(), timeout="2s", retry={"attempts": 2}
    ) as sidecar:
        found = [ask(sidecar)[0] for _ in range(2)]

    assert found == [200, 200]


def test_the_nearest_retry_counts_and_none_switches_it_off(tmp_path: Path) -> None:
    routes = [
        {"match": {"path": "/off"}, "service": "a", "retry": "none"},
        {"match": {"prefix": "/"}, "service": "a"},
    ]
    bad = failing()
    with before(
        tmp_path, bad, outbound={"routes": routes, "retry": {"attempts": 9}}, retry={"attempts": 3}
    ) as sidecar:
        exchange(sidecar.outbound, request("/off", host="a"))
        off = len(bad.requests)
        exchange(sidecar.outbound, request("/on", host="a"))

    assert off == 1
    assert len(bad.requests) == 4


# --- hedges


def test_a_late_answer_is_asked_for_elsewhere(tmp_path: Path) -> None:
    with before(tmp_path, ScriptedPeer(silent), App(), hedge_after="100ms") as sidecar:
        found = [ask(sidecar)[0] for _ in range(2)]

        assert found == [200, 200]
        record = sidecar.wait_for_record(attempts=2)
        assert record["status"] == 200
        eventually(lambda: sidecar.metric("upstream_connections", state="busy") == 0)


def test_a_post_is_never_hedged(tmp_path: Path) -> None:
    with before(
        tmp_path, ScriptedPeer(silent), App(), hedge_after="50ms", timeout="400ms"
    ) as sidecar:
        found = sorted(ask(sidecar, method="POST")[0] for _ in range(2))

    assert found == [200, 504]


# --- ceilings


@contextmanager
def occupied(sidecar: Ambassador, count: int) -> Iterator[list[PeerConnection]]:
    """Have so many requests under way that get no answer."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(sidecar.outbound)) for _ in range(count)]
        for client in clients:
            client.send(request(host="a"))
        yield clients


def test_a_service_that_is_full_says_so_at_once(tmp_path: Path) -> None:
    peer = ScriptedPeer(silent)
    with before(tmp_path, peer, circuit_breaker={"requests": 2}) as sidecar, occupied(sidecar, 2):
        peer.wait_for_connection(2)
        status, fields, body = ask(sidecar)

        assert (status, fields[b"x-ambassador-flags"], fields[b"retry-after"]) == (503, b"UO", b"1")
        assert fields[b"x-ambassador-detail"] == b"circuit_breaker_requests"
        assert b"see circuit_breaker.requests" in body
        assert sidecar.wait_for_record(status=503)["phase"] == "admit"
        assert sidecar.metric("circuit_breaker_open", service="a", ceiling="requests") == 1


def test_who_waits_for_a_connection_is_served_and_beyond_those_nobody(tmp_path: Path) -> None:
    go = threading.Event()

    def respond(_: ReceivedRequest) -> bytes:
        go.wait(10)
        return response(b"ok")

    app = App(respond)
    with before(tmp_path, app, circuit_breaker={"connections": 1, "pending": 1}) as sidecar:
        with occupied(sidecar, 1) as (first,):
            eventually(lambda: len(app.requests) == 1, "the first is under way")
            with occupied(sidecar, 1) as (second,):
                eventually(
                    lambda: sidecar.metric("circuit_breaker_open", ceiling="pending") == 1,
                    "the second waits",
                )
                third = ask(sidecar)
                go.set()
                answers = [client.read_message() for client in (first, second)]
        assert third[0] == 503
        assert third[1][b"x-ambassador-detail"] == b"circuit_breaker_pending"
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        assert sidecar.metric("circuit_breaker_open", ceiling="pending") == 0


def test_the_app_has_a_ceiling_too_and_a_peer_hears_the_bare_status(
    authority: Authority, tmp_path: Path
) -> None:
    """config.md §3, app.circuit_breaker; §5: a remote peer gets the bare status."""
    web, client = Pod("web", authority, tmp_path), Pod("client", authority, tmp_path)
    tls = client_context(authority, client.identity)
    with ScriptedPeer(silent) as app:
        target = {"address": f"127.0.0.1:{app.port}", "circuit_breaker": {"requests": 1}}
        inbound = web.inbound(0, allow=[client]) | {"app": target}
        with (
            running_ambassador(web.config(inbound=inbound), tmp_path) as sidecar,
            connect(sidecar.inbound, tls) as first,
        ):
            first.send(request())
            app.wait_for_connection()
            answer = exchange(sidecar.inbound, request("/", "Connection: close"), tls=tls)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Ambassador" not in head
    assert body == b""


def test_a_tunnel_beyond_the_connections_is_closed_at_once(tmp_path: Path) -> None:
    """protocol: tcp; Envoy does the same."""
    own = f"127.0.0.1:{reserve_port()}"
    peer = ScriptedPeer(silent)
    more = {"listen": own, "protocol": "tcp", "circuit_breaker": {"connections": 1}}
    with before(tmp_path, peer, **more) as sidecar, connect(sidecar.service("a")) as first:
        first.send(b"a")
        peer.wait_for_connection()
        with connect(sidecar.service("a")) as second:
            assert second.read_to_end() == b""
        record = sidecar.wait_for_record(flags="UO")

    assert record["detail"] == "circuit_breaker_connections"


# --- deadlines


@pytest.mark.parametrize(("sent", "told"), [("250", 250), ("60000", 15000), ("0", 15000)])
def test_an_app_s_time_can_only_shorten_ours_and_goes_on(
    app: App, tmp_path: Path, sent: str, told: int
) -> None:
    with before(tmp_path, app) as sidecar:
        ask(
            sidecar,
            f"X-Envoy-Expected-Rq-Timeout-Ms: {sent}",
            "X-Envoy-Attempt-Count: 7",
            "X_Envoy_Attempt_Count: 8",
        )

    assert app.requests[0].value("x-envoy-expected-rq-timeout-ms") == b"%d" % told
    assert app.requests[0].value("x-envoy-attempt-count") == b"1"
    assert not app.requests[0].values("x_envoy_attempt_count"), "CGI would see two values of one"


def test_a_peer_s_time_ends_its_request(authority: Authority, tmp_path: Path) -> None:
    """Threats H6; the app hears how long somebody will listen."""
    web, client = Pod("web", authority, tmp_path), Pod("client", authority, tmp_path)
    tls = client_context(authority, client.identity)
    got = []

    def script(connection: PeerConnection) -> None:
        got.append(connection.read_until(b"\r\n\r\n"))
        connection.read_to_end()

    with ScriptedPeer(script) as app:
        inbound = web.inbound(app.port, allow=[client])
        with running_ambassador(web.config(inbound=inbound), tmp_path) as sidecar:
            lines = ("X-Envoy-Expected-Rq-Timeout-Ms: 200", "X-Envoy-Attempt-Count: 2")
            answer = exchange(sidecar.inbound, request("/", *lines), tls=tls)
            record = sidecar.wait_for_record(status=504)

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert record["duration_ms"] < 5000
    assert b"\r\nX-Envoy-Expected-Rq-Timeout-Ms: 200\r\n" in got[0]
    assert got[0].lower().count(b"x-envoy-expected-rq-timeout-ms") == 1
    assert b"\r\nX-Envoy-Attempt-Count: 2\r\n" in got[0], "a peer's own count is a fact for the app"


# --- faults


FAULT = {"delay": "100ms", "abort": 418, "headers": {"x-fault": "1"}}


def test_faults_happen_only_when_they_are_enabled(app: App, tmp_path: Path) -> None:
    with before(tmp_path, app, fault=FAULT) as sidecar:
        found = ask(sidecar, "X-Fault: 1")[0]
        sidecar.wait_for_event("configuration_warning")

    assert found == 200


def test_enabled_faults_meet_the_requests_that_they_name(app: App, tmp_path: Path) -> None:
    with before(tmp_path, app, arguments=("--enable-faults",), fault=FAULT) as sidecar:
        met, fields, _ = ask(sidecar, "X-Fault: 1")
        spared = ask(sidecar)[0]

        assert (met, spared) == (418, 200)
        assert fields[b"x-ambassador-flags"] == b"FI,DI"
        record = sidecar.wait_for_record(status=418)
        assert record["flags"] == "FI,DI"
        assert record["duration_ms"] >= 100
        for kind in ("delay", "abort"):
            assert sidecar.metric("faults_total", route="a", kind=kind) == 1
    assert len(app.requests) == 1


def test_inbound_only_peers_that_the_fault_names_meet_it(
    app: App, authority: Authority, tmp_path: Path
) -> None:
    """Threats H6."""
    web, tester, other = (Pod(name, authority, tmp_path) for name in ("web", "tester", "other"))
    inbound = web.inbound(
        app.port, allow=[tester, other], fault={"abort": 503, "allow": [{"spiffe": tester.spiffe}]}
    )
    config = web.config(inbound=inbound)
    with running_ambassador(config, tmp_path, arguments=("--enable-faults",)) as sidecar:
        found = [
            exchange(sidecar.inbound, request(), tls=client_context(authority, pod.identity))[9:12]
            for pod in (tester, other)
        ]

    assert found == [b"503", b"200"]
