"""`discovery: {kind: dns_srv}` with a real dnsmasq: ports, tiers, weights, outages; traffic goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovering import discovering
from tests.support.naming import HOST, Dnsmasq
from tests.support.peers import exchange, request
from tests.support.ports import reserve_port
from tests.support.process import running_ambassador
from tests.support.traffic import app, ready, traffic, who_answers
from tests.support.waiting import eventually

NAME = "_mtls._tcp.payments.test"
ONE, TWO = "one.payments.test", "two.payments.test"
BOTH = {ONE: ["127.0.0.1"], TWO: ["127.0.0.2"]}


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Dnsmasq]:
    server = Dnsmasq(tmp_path)
    yield server
    server.program.stop()


def config(names: Dnsmasq, **discovery: Any) -> dict[str, Any]:
    given = {
        "servers": [f"{HOST}:{names.port}"],
        "max_ttl": "1s",
        "allowed_networks": ["127.0.0.0/8"],
    }
    return discovering(kind="dns_srv", name=NAME, **{**given, **discovery})


def record(target: str, port: int, *, priority: int = 0, weight: int = 1) -> str:
    return f"{NAME},{target},{port},{priority},{weight}"


def test_targets_ports_and_addresses_change_and_no_request_is_lost(
    tmp_path: Path, names: Dnsmasq
) -> None:
    """The name server is killed and started anew, with other records, while traffic runs."""
    first, second = reserve_port(), reserve_port("127.0.0.2")
    names.say(BOTH)
    names.restart(record(ONE, first))
    with app(b"1", "127.0.0.1", first), app(b"2", "127.0.0.2", second):
        with ready(tmp_path, config(names)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            names.restart(record(ONE, first), record(TWO, second))
            eventually(lambda: b"2" in answers, "the second, on another port")
            names.restart(record(TWO, second))
            eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_the_addresses_of_a_target_change_and_no_request_is_lost(
    tmp_path: Path, names: Dnsmasq
) -> None:
    port = reserve_port()
    names.say({ONE: ["127.0.0.1"]})
    names.restart(record(ONE, port))
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, config(names)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            names.say({ONE: ["127.0.0.2"]})
            eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_a_name_server_that_is_down_takes_nothing_away(tmp_path: Path, names: Dnsmasq) -> None:
    port = reserve_port()
    names.say(BOTH)
    names.restart(record(ONE, port))
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, config(names)) as sidecar, traffic(sidecar) as answers:
            names.program.kill()
            sidecar.wait_for_event("endpoints_kept", service="a")
            before = len(answers)
            eventually(lambda: len(answers) > before + 50, "traffic goes on")
            names.restart(record(TWO, port))
            eventually(lambda: answers.endswith(b"2" * 50), "the second", patience_s=45)
        assert set(answers) == set(b"12")


def test_the_better_priority_gets_everything(tmp_path: Path, names: Dnsmasq) -> None:
    """RFC 2782: a client must try the target with the lowest priority that it can reach."""
    port = reserve_port()
    names.say(BOTH)
    names.restart(record(ONE, port, priority=20), record(TWO, port, priority=10))
    with (
        app(b"1", "127.0.0.1", port),
        app(b"2", "127.0.0.2", port),
        ready(tmp_path, config(names)) as sidecar,
    ):
        found = {who_answers(sidecar) for _ in range(40)}

    assert found == {b"2"}


def test_weights_share_out_the_requests(tmp_path: Path, names: Dnsmasq) -> None:
    """RFC 2782: larger weights are chosen more often, 0 hardly ever."""
    port = reserve_port()
    names.say(BOTH)
    names.restart(record(ONE, port, weight=0), record(TWO, port, weight=1000))
    with (
        app(b"1", "127.0.0.1", port),
        app(b"2", "127.0.0.2", port),
        ready(tmp_path, config(names)) as sidecar,
    ):
        found = [who_answers(sidecar) for _ in range(40)]

    assert found.count(b"2") >= 35


def test_an_answer_that_is_too_long_for_udp_is_taken_whole(tmp_path: Path, names: Dnsmasq) -> None:
    """RFC 7766 §5: dnsmasq cuts it off, and TCP has all of it."""
    targets = {f"target-number-{n}.payments.test": [f"127.0.1.{n}"] for n in range(1, 41)}
    names.say(targets)
    names.restart(*(record(target, 1000 + n) for n, target in enumerate(targets)))
    with ready(tmp_path, config(names)) as sidecar:
        event = sidecar.wait_for_event("endpoints_changed", service="a")

    assert event["endpoints"] == 40


@pytest.mark.parametrize(("on_empty", "answers"), [("keep", b"1"), ("drop", b"UH")])
def test_a_service_that_is_decidedly_not_available_is_believed_on_request(
    tmp_path: Path, names: Dnsmasq, on_empty: str, answers: bytes
) -> None:
    """RFC 2782: the target `.`."""
    port = reserve_port()
    names.say(BOTH)
    names.restart(record(ONE, port))
    settings = config(names, on_empty=on_empty)
    with app(b"1", "127.0.0.1", port), ready(tmp_path, settings) as sidecar:
        names.restart(NAME)
        if on_empty == "keep":
            sidecar.wait_for_event("endpoints_kept", reason="empty")
        else:
            sidecar.wait_for_event("endpoints_changed", endpoints=0)

        assert answers in exchange(sidecar.outbound, request(host="a"))


def test_targets_on_loopback_are_no_endpoints_unless_the_file_says_so(
    tmp_path: Path, names: Dnsmasq
) -> None:
    """Threats H2: a name must not lead to what listens here."""
    names.say(BOTH)
    names.restart(record(ONE, 80))
    with running_ambassador(config(names, allowed_networks=["10.0.0.0/8"]), tmp_path) as sidecar:
        event = sidecar.wait_for_event("endpoints_ignored", service="a")

    assert event["addresses"] == ["127.0.0.1:80"]


def test_a_name_that_never_was_is_pending(tmp_path: Path, names: Dnsmasq) -> None:
    with running_ambassador(config(names), tmp_path) as sidecar:
        event = sidecar.wait_for_event("endpoints_kept", reason="dns_no_such_name")

        assert NAME in event["detail"]
        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
