"""`discovery: {kind: dns}` with a real dnsmasq: changes, outages, lies; traffic goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.support.discovering import discovering
from tests.support.naming import HOST, Dnsmasq
from tests.support.peers import exchange, request
from tests.support.ports import reserve_port
from tests.support.process import running_ambassador
from tests.support.traffic import app, ready, traffic, who_answers
from tests.support.waiting import eventually

NAME = "pay.test"


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Dnsmasq]:
    server = Dnsmasq(tmp_path)
    yield server
    server.program.stop()


def say(names: Dnsmasq, *addresses: str) -> None:
    """Let the name have these addresses from now on."""
    names.say({NAME: addresses})


def config(port: int, server: int, **discovery: Any) -> dict[str, Any]:
    allowed = ["127.0.0.0/8", "::1/128"]
    servers = [f"{HOST}:{server}"]
    return discovering(
        kind="dns", name=NAME, port=port, servers=servers, max_ttl="1s", allowed_networks=allowed, **discovery
    )  # fmt: skip


def test_addresses_come_and_go_and_no_request_is_lost(tmp_path: Path, names: Dnsmasq) -> None:
    port = reserve_port()
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        say(names, "127.0.0.1")
        with ready(tmp_path, config(port, names.port)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            say(names, "127.0.0.1", "127.0.0.2")
            eventually(lambda: b"2" in answers, "the second")
            say(names, "127.0.0.2")
            eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_a_name_server_that_is_down_takes_nothing_away(tmp_path: Path, names: Dnsmasq) -> None:
    """Killed and started again while traffic runs: no failed request."""
    port = reserve_port()
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        say(names, "127.0.0.1")
        with ready(tmp_path, config(port, names.port)) as sidecar, traffic(sidecar) as answers:
            names.program.kill()
            sidecar.wait_for_event("endpoints_kept", service="a")
            before = len(answers)
            eventually(lambda: len(answers) > before + 50, "traffic goes on")
            say(names, "127.0.0.2")
            names.program.restart()
            eventually(lambda: answers.endswith(b"2" * 50), "the second", patience_s=45)
        assert set(answers) == set(b"12")


def test_a_name_that_is_gone_takes_nothing_away(tmp_path: Path, names: Dnsmasq) -> None:
    """An empty zone by mistake is no reason to stop."""
    port = reserve_port()
    with app(b"1", "127.0.0.1", port):
        say(names, "127.0.0.1")
        with ready(tmp_path, config(port, names.port)) as sidecar:
            say(names)
            sidecar.wait_for_event("endpoints_kept", service="a", reason="dns_no_such_name")

            assert who_answers(sidecar) == b"1"


def test_a_name_that_never_was_is_pending(tmp_path: Path, names: Dnsmasq) -> None:
    with running_ambassador(config(1, names.port), tmp_path) as sidecar:
        event = sidecar.wait_for_event("endpoints_kept", reason="dns_no_such_name")
        answer = exchange(sidecar.outbound, request(host="a"))

        assert NAME in event["detail"]
        assert b"X-Ambassador-Flags: DF" in answer
        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")


@pytest.mark.parametrize(("family", "answers"), [("any", b"46"), ("ipv4", b"4"), ("ipv6", b"6")])
def test_the_family_decides_which_records_count(
    tmp_path: Path, names: Dnsmasq, family: str, answers: bytes
) -> None:
    port = reserve_port()
    with app(b"4", "127.0.0.1", port), app(b"6", "::1", port):
        say(names, "127.0.0.1", "::1")
        with ready(tmp_path, config(port, names.port, family=family)) as sidecar:
            found = {exchange(sidecar.outbound, request(host="a"))[-1] for _ in range(60)}

    assert found == set(answers)


def test_a_server_that_fails_for_one_family_hides_nothing_of_the_other(tmp_path: Path) -> None:
    """Load balancers are known that answer AAAA with SERVFAIL (RFC 4074 §4.2)."""
    port, closing = reserve_port(), threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(0.1)

        def serve() -> None:
            while not closing.is_set():
                try:
                    data, peer = server.recvfrom(4096)
                except TimeoutError:
                    continue
                reply = dns.message.make_response(dns.message.from_wire(data))
                question = reply.question[0]
                if question.rdtype == 1:
                    reply.answer.append(
                        dns.rrset.from_text(question.name, 1, "IN", "A", "127.0.0.1")
                    )
                else:
                    reply.set_rcode(dns.rcode.SERVFAIL)
                server.sendto(reply.to_wire(), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        settings = config(port, server.getsockname()[1])
        with app(b"1", "127.0.0.1", port), ready(tmp_path, settings) as sidecar:
            assert who_answers(sidecar) == b"1"
            assert not [event for event in sidecar.events if event["event"] == "endpoints_kept"]
        closing.set()
        thread.join(10)
