"""Health checks, outlier detection and balancing of a running sidecar, seen from outside (config.md §3)."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_resilience import ask, before, failing
from tests.support.certificates import Authority, server_context
from tests.support.peers import App, PeerConnection, ReceivedRequest, request, response
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

CHECK = {"path": "/healthz", "interval": "100ms", "unhealthy_interval": "50ms", "timeout": "500ms"}


class Named(App):
    """Answers with its name; `well` says what its health check gets, `status` what others get."""

    def __init__(self, name: bytes) -> None:
        self.well, self.status = "200 OK", "200 OK"
        super().__init__(lambda got: self._answer(got, name))

    def _answer(self, got: ReceivedRequest, name: bytes) -> bytes:
        return response(name, self.well if got.target == b"/healthz" else self.status)


def who(sidecar: Ambassador, times: int = 12, *lines: str) -> Counter[bytes]:
    return Counter(ask(sidecar, *lines)[2] for _ in range(times))


def state(sidecar: Ambassador, word: str) -> float:
    return sidecar.metric("endpoints", service="a", state=word)


def test_an_unhealthy_endpoint_gets_no_request_until_it_is_well(tmp_path: Path) -> None:
    """rise and fall; the reason in event and `/ready?detail`."""
    one, two = Named(b"1"), Named(b"2")
    with before(tmp_path, one, two, health_check={**CHECK, "fall": 2, "rise": 2}) as sidecar:
        eventually(lambda: sidecar.metric("health_checks_total", result="ok") >= 2, "checks")
        one.well = "500 Internal Server Error"
        event = sidecar.wait_for_event("endpoint_unhealthy")
        unhealthy = who(sidecar)
        detail = sidecar.get("/ready?detail")[1]
        counts = state(sidecar, "unhealthy"), state(sidecar, "healthy")
        one.well = "200 OK"
        sidecar.wait_for_event("endpoint_healthy", endpoint=event["endpoint"])
        well = who(sidecar)

        assert (event["endpoint"], event["reason"]) == (f"127.0.0.1:{one.port}", "status_500")
        assert unhealthy == {b"2": 12}
        assert f"endpoint:a 127.0.0.1:{one.port} unhealthy status_500\n" in detail
        assert counts == (1, 1)
        assert set(well) == {b"1", b"2"}
        assert sidecar.metric("health_checks_total", service="a", result="failed") >= 2
    checks = [got for got in one.requests if got.target == b"/healthz"]
    assert {got.value("host") for got in checks} == {b"a"}
    assert {got.value("user-agent") for got in checks} == {b"ambassador"}


def test_a_check_has_its_own_host_and_expected_statuses(tmp_path: Path) -> None:
    one = Named(b"1")
    one.well = "202 Accepted"
    check = {**CHECK, "host": "health.test", "expect": ["201-204"]}
    with before(tmp_path, one, health_check=check) as sidecar:
        eventually(lambda: sidecar.metric("health_checks_total", result="ok") >= 2, "checks")

        assert sidecar.metric("health_checks_total", result="failed") == 0
    assert one.requests[0].value("host") == b"health.test"


def test_a_check_by_connection_alone(tmp_path: Path) -> None:
    one, two = Named(b"1"), Named(b"2")
    with before(
        tmp_path, one, two, health_check={"kind": "tcp", "interval": "100ms", "fall": 1}
    ) as sidecar:
        eventually(lambda: sidecar.metric("health_checks_total", result="ok") >= 2, "checks")
        one.close()
        event = sidecar.wait_for_event("endpoint_unhealthy")
        found = who(sidecar)

    assert event["reason"] == "connect_refused"
    assert found == {b"2": 12}


def test_a_check_asks_who_answers(authority: Authority, tmp_path: Path) -> None:
    """Through the same mutual TLS: another identity is no healthy endpoint."""
    pod = Pod("web", authority, tmp_path)
    wrong = server_context(authority, authority.issue(spiffe="spiffe://example.org/other"))
    right = server_context(authority, authority.issue(spiffe="spiffe://example.org/payments"))
    with App(tls=wrong) as bad, App(tls=right) as good:
        service: dict[str, Any] = {
            "endpoints": [f"127.0.0.1:{bad.port}", f"127.0.0.1:{good.port}"],
            "peer": {"spiffe": "spiffe://example.org/payments"},
            "health_check": CHECK,
        }
        with running_ambassador(pod.config(services={"a": service}), tmp_path) as sidecar:
            event = sidecar.wait_for_event("endpoint_unhealthy")
            found = [ask(sidecar)[0] for _ in range(6)]

    assert event["reason"] == "wrong_peer"
    assert found == [200] * 6


def test_failures_eject_an_endpoint_and_one_request_brings_it_back(tmp_path: Path) -> None:
    """consecutive, ejection, the probing request; event with reason, metric, `/ready?detail`."""
    one, two = Named(b"1"), Named(b"2")
    one.status = "500 Internal Server Error"
    detection = {"consecutive": 3, "ejection": "700ms", "interval": "500ms"}
    with before(tmp_path, one, two, outlier_detection=detection) as sidecar:
        who(sidecar, 6)
        event = sidecar.wait_for_event("endpoint_ejected")
        ejected = who(sidecar, 6)
        detail = sidecar.get("/ready?detail")[1]
        one.status = "200 OK"

        def is_back() -> bool:
            who(sidecar, 2)
            return any(one["event"] == "endpoint_returned" for one in sidecar.events)

        eventually(is_back, "it returns")
        found = who(sidecar)

        assert (event["endpoint"], event["reason"]) == (f"127.0.0.1:{one.port}", "status_500")
        assert event["seconds"] == pytest.approx(0.7)
        assert ejected == {b"2": 6}
        assert f"endpoint:a 127.0.0.1:{one.port} ejected status_500" in detail
        assert set(found) == {b"1", b"2"}
        assert sidecar.metric("outlier_ejections_total", service="a", reason="status_500") == 1


def test_the_last_endpoint_is_never_ejected(tmp_path: Path) -> None:
    with before(tmp_path, failing(), outlier_detection={"consecutive": 1}) as sidecar:
        found = [ask(sidecar) for _ in range(5)]

        assert {(status, body) for status, _, body in found} == {(503, b"no")}
        assert not [one for one in sidecar.events if one["event"] == "endpoint_ejected"]


def test_in_a_panic_all_are_asked_and_it_is_flagged(tmp_path: Path) -> None:
    one, two = Named(b"1"), Named(b"2")
    one.well = two.well = "503 Service Unavailable"
    with before(tmp_path, one, two, health_check={**CHECK, "fall": 1}) as sidecar:
        eventually(lambda: state(sidecar, "unhealthy") == 2, "both are unhealthy")
        found = who(sidecar)

        assert set(found) == {b"1", b"2"}
        sidecar.wait_for_event("panic_started", service="a")
        assert sidecar.wait_for_record(status=200)["flags"] == "HP"
        assert "panic:a\n" in sidecar.get("/ready?detail")[1]


def test_without_panic_nobody_is_asked(tmp_path: Path) -> None:
    one, two = Named(b"1"), Named(b"2")
    one.well = two.well = "503 Service Unavailable"
    balance = {"panic_threshold": "0%"}
    with before(tmp_path, one, two, health_check={**CHECK, "fall": 1}, balance=balance) as sidecar:
        eventually(lambda: state(sidecar, "unhealthy") == 2, "both are unhealthy")
        status, fields, _ = ask(sidecar)

    assert (status, fields[b"x-ambassador-flags"]) == (503, b"UH")
    assert fields[b"x-ambassador-detail"] == b"no_healthy_endpoint"


@pytest.mark.parametrize(
    ("by", "line"),
    [({"header": "x-user"}, "X-User: {}"), ({"cookie": "sid"}, "Cookie: a=1; sid={}; b=2")],
)
def test_the_same_key_goes_to_the_same_endpoint(
    tmp_path: Path, by: dict[str, str], line: str
) -> None:
    """ring_hash; many keys reach everybody."""
    peers = [Named(b"%d" % number) for number in range(3)]
    balance = {"kind": "ring_hash", "hash": by}
    with before(tmp_path, *peers, balance=balance) as sidecar:
        owners = [set(who(sidecar, 3, line.format(number))) for number in range(20)]

    assert all(len(owner) == 1 for owner in owners)
    assert set.union(*owners) == {b"0", b"1", b"2"}


def test_a_client_goes_to_the_same_endpoint(tmp_path: Path) -> None:
    """`hash: peer`: an app has no certificate, so its address says who it is."""
    peers = [Named(b"%d" % number) for number in range(3)]
    owners = []
    with before(tmp_path, *peers, balance={"kind": "ring_hash", "hash": "peer"}) as sidecar:
        for number in range(2, 22):
            found = set()
            for _ in range(3):
                with socket.create_connection(
                    sidecar.outbound, source_address=(f"127.0.0.{number}", 0)
                ) as sock:
                    sock.sendall(request(host="a"))
                    found.add(PeerConnection(sock).read_message()[-1:])
            owners.append(found)

    assert all(len(found) == 1 for found in owners)
    assert set.union(*owners) == {b"0", b"1", b"2"}


def test_weights_zones_and_tiers_of_the_file(tmp_path: Path) -> None:
    """Our own zone first; of another tier nobody as long as enough of the first are there."""
    near, far, reserve = Named(b"near"), Named(b"far"), Named(b"reserve")
    with near, far, reserve:
        endpoints = [
            {"address": f"127.0.0.1:{near.port}", "zone": "a"},
            {"address": f"127.0.0.1:{far.port}", "zone": "b", "weight": 3},
            {"address": f"127.0.0.1:{reserve.port}", "priority": 1},
        ]
        config = {
            "version": 1,
            "zone": "a",
            "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
            "services": {"a": {"endpoints": endpoints, "plaintext": "loopback"}},
        }
        with running_ambassador(config, tmp_path) as sidecar:
            preferred = who(sidecar)
            near.close()
            helped = who(sidecar)
            far.close()
            last = who(sidecar)

    assert preferred == {b"near": 12}
    assert helped == {b"far": 12}
    assert last == {b"reserve": 12}


def test_weights_are_shares(tmp_path: Path) -> None:
    one, two = Named(b"1"), Named(b"2")
    with one, two:
        endpoints = [
            {"address": f"127.0.0.1:{one.port}", "weight": 3},
            {"address": f"127.0.0.1:{two.port}"},
        ]
        with before(tmp_path, endpoints=endpoints) as sidecar:
            found = who(sidecar, 16)

    assert found == {b"1": 12, b"2": 4}


def test_a_newcomer_of_discovery_warms_up(tmp_path: Path) -> None:
    """slow_start, with endpoints from a file."""
    one, two = Named(b"1"), Named(b"2")
    file = tmp_path / "eps.json"
    with one, two:
        file.write_text(json.dumps([f"127.0.0.1:{one.port}"]), encoding="ascii")
        service = {
            "discovery": {
                "kind": "file",
                "path": str(file),
                "interval": "50ms",
                "allowed_networks": ["127.0.0.0/8"],
            },
            "plaintext": "loopback",
            "balance": {"kind": "round_robin", "slow_start": "1h"},
        }
        config = {
            "version": 1,
            "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
            "services": {"a": service},
        }
        with running_ambassador(config, tmp_path) as sidecar:
            eventually(lambda: state(sidecar, "healthy") == 1, "the first")
            file.write_text(
                json.dumps([f"127.0.0.1:{peer.port}" for peer in (one, two)]), encoding="ascii"
            )
            eventually(lambda: state(sidecar, "healthy") == 2, "the second")
            found = who(sidecar, 22)

    assert found == {b"1": 20, b"2": 2}
