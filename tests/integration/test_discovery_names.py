"""`endpoints: [NAME:PORT]` with a real dnsmasq as the system's name server; traffic goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovering import discovering
from tests.support.naming import HOST, Dnsmasq
from tests.support.ports import reserve_port
from tests.support.process import running_ambassador
from tests.support.sabotage import sabotage
from tests.support.traffic import app, ready, traffic
from tests.support.waiting import eventually

ONE, TWO = "one.payments.test", "two.payments.test"


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Dnsmasq]:
    """Be the name server of the system: no key of the file says which one answers for such names."""
    server = Dnsmasq(tmp_path)
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {HOST}\nsearch payments.test\n", encoding="ascii")
    constants = {
        "ambassador.discovery.resolving:_SYSTEM": str(resolv),
        "ambassador.discovery.resolving:_PORT": server.port,
    }
    with sabotage(tmp_path / "system", constants=constants):
        yield server
    server.program.stop()


def config(*endpoints: Any) -> dict[str, Any]:
    settings = discovering(kind="static", allowed_networks=["127.0.0.0/8", "::1/128"])
    service = settings["services"]["a"]
    service["discovery"]["endpoints"] = list(endpoints)
    service["plaintext"] = "unsafe_anywhere"  # a name in the list may lead anywhere
    return settings


def test_the_addresses_of_a_name_come_and_go_and_no_request_is_lost(
    tmp_path: Path, names: Dnsmasq
) -> None:
    port = reserve_port()
    names.say({ONE: ["127.0.0.1"]})
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, config(f"{ONE}:{port}")) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            names.say({ONE: ["127.0.0.1", "127.0.0.2"]})
            eventually(lambda: b"2" in answers, "the second")
            names.say({ONE: ["127.0.0.2"]})
            eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_names_and_addresses_stand_side_by_side_in_both_families(
    tmp_path: Path, names: Dnsmasq
) -> None:
    """A short name is searched for as the system says."""
    port = reserve_port()
    names.say({ONE: ["127.0.0.1", "::1"]})
    entries = f"127.0.0.3:{port}", {"address": f"one:{port}", "weight": 2}
    apps = (b"4", "127.0.0.1"), (b"6", "::1"), (b"3", "127.0.0.3")
    with (
        app(*apps[0], port),
        app(*apps[1], port),
        app(*apps[2], port),
        ready(tmp_path, config(*entries)) as sidecar,
        traffic(sidecar) as answers,
    ):
        eventually(lambda: set(answers) == set(b"463"), "all three")


def test_a_name_server_that_is_down_takes_nothing_away(tmp_path: Path, names: Dnsmasq) -> None:
    """Killed and started again while traffic runs: no failed request."""
    port = reserve_port()
    names.say({ONE: ["127.0.0.1"]})
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, config(f"{ONE}:{port}")) as sidecar, traffic(sidecar) as answers:
            names.program.kill()
            sidecar.wait_for_event("endpoints_kept", service="a")
            before = len(answers)
            eventually(lambda: len(answers) > before + 50, "traffic goes on")
            names.say({ONE: ["127.0.0.2"]})
            names.restart()
            eventually(lambda: answers.endswith(b"2" * 50), "the second", patience_s=45)
        assert set(answers) == set(b"12")


def test_a_name_that_is_unknown_leaves_the_others_in_peace(tmp_path: Path, names: Dnsmasq) -> None:
    port = reserve_port()
    names.say({ONE: ["127.0.0.1"]})
    entries = f"{ONE}:{port}", f"{TWO}:{port}"
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, config(*entries)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: len(answers) > 50, "the first")
            names.say({ONE: ["127.0.0.1"], TWO: ["127.0.0.2"]})
            eventually(lambda: b"2" in answers, "the second")
        assert set(answers) == set(b"12")


def test_addresses_are_served_though_the_name_beside_them_is_unknown(
    tmp_path: Path, names: Dnsmasq
) -> None:
    port = reserve_port()
    settings = config(f"127.0.0.1:{port}", f"{TWO}:{port}")
    with app(b"1", "127.0.0.1", port), ready(tmp_path, settings) as sidecar:
        event = sidecar.wait_for_event("endpoints_kept", service="a", reason="dns_no_such_name")
        with traffic(sidecar) as answers:
            eventually(lambda: len(answers) > 50, "the first")

    assert TWO in event["detail"]
    assert set(answers) == set(b"1")


def test_a_list_of_unknown_names_is_pending(tmp_path: Path, names: Dnsmasq) -> None:
    with running_ambassador(config(f"{ONE}:1", f"{TWO}:1"), tmp_path) as sidecar:
        sidecar.wait_for_event("endpoints_kept", reason="dns_no_such_name")

        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
