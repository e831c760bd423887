"""`discovery: {kind: etcd}` with a real etcd: changes, outages, lost history; traffic goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovering import discovering
from tests.support.etcd import Etcd
from tests.support.peers import App, exchange, request
from tests.support.process import running_ambassador
from tests.support.traffic import app, goes_on, only, ready, traffic
from tests.support.waiting import eventually

PREFIX = "/services/payments/"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as server:
        yield server


def config(*urls: str, **discovery: Any) -> dict[str, Any]:
    allowed = {"allowed_networks": ["127.0.0.0/8"], **discovery}
    return discovering(kind="etcd", urls=list(urls), prefix=PREFIX, **allowed)


def register(etcd: Etcd, peer: App) -> str:
    """Write the endpoint of an application; give its key."""
    key = f"{PREFIX}{peer.port}"
    etcd.put(key, f'{{"address": "127.0.0.1:{peer.port}"}}')
    return key


def test_endpoints_in_etcd_come_and_go_and_no_request_is_lost(tmp_path: Path, etcd: Etcd) -> None:
    with app(b"1") as one, app(b"2") as two:
        first = register(etcd, one)
        with ready(tmp_path, config(etcd.url)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            register(etcd, two)
            eventually(lambda: b"2" in answers, "the second")
            etcd.delete(first)
            only(answers, b"2")
        assert set(answers) == set(b"12")


def test_an_etcd_that_is_killed_and_restarted_takes_nothing_away(
    tmp_path: Path, etcd: Etcd
) -> None:
    """Under traffic, and its history is compacted away before we are back: no failed request."""
    with app(b"1") as one, app(b"2") as two:
        first = register(etcd, one)
        with ready(tmp_path, config(etcd.url)) as sidecar, traffic(sidecar) as answers:
            etcd.program.kill()
            event = sidecar.wait_for_event("endpoints_kept", reason="etcd_unreachable")
            goes_on(answers)
            etcd.restart()
            register(etcd, two)
            etcd.compact(etcd.delete(first))
            only(answers, b"2", patience_s=45)
        assert event["service"] == "a"
        assert set(answers) == set(b"12")


def test_an_etcd_that_is_emptied_takes_nothing_away(tmp_path: Path, etcd: Etcd) -> None:
    """All leases that ran out at once are rather an outage than the end of a service."""
    with app(b"1") as one:
        key = register(etcd, one)
        with ready(tmp_path, config(etcd.url)) as sidecar:
            etcd.delete(key)
            sidecar.wait_for_event("endpoints_kept", service="a", reason="empty")

            assert exchange(sidecar.outbound, request(host="a"))[-1:] == b"1"


def test_a_user_reads_etcd_and_a_wrong_password_is_pending_and_not_printed(
    tmp_path: Path, etcd: Etcd
) -> None:
    with app(b"1") as one:
        register(etcd, one)
        etcd.demand_users("reader", "pa55-secret", prefix=PREFIX, end="/services/payments0")
        known = config(etcd.url, username="reader", password="pa55-secret")
        with ready(tmp_path, known) as sidecar:
            answer = exchange(sidecar.outbound, request(host="a"))
        guessed = config(etcd.url, username="reader", password="guessed-1")
        with running_ambassador(guessed, tmp_path) as sidecar:
            event = sidecar.wait_for_event("endpoints_kept", reason="etcd_forbidden")

            assert answer.endswith(b"1")
            assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
            assert "guessed-1" not in str(event)
