"""`discovery: {kind: consul}` with a fake of Consul's health API: changes and outages; traffic goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovering import discovering
from tests.support.fake_consul import FakeConsul, instance
from tests.support.peers import App, exchange, request
from tests.support.process import running_ambassador
from tests.support.traffic import app, goes_on, only, ready, traffic
from tests.support.waiting import eventually

TOKEN = "0b1c-secret"


@pytest.fixture
def fake() -> Iterator[FakeConsul]:
    with FakeConsul(token=TOKEN) as server:
        yield server


def config(fake: FakeConsul, **discovery: Any) -> dict[str, Any]:
    given = {"token": TOKEN, "allowed_networks": ["127.0.0.0/8"], **discovery}
    return discovering(kind="consul", service="payments", address=fake.address, **given)


def register(fake: FakeConsul, *apps: App) -> None:
    fake.register("payments", *(instance("127.0.0.1", each.port) for each in apps))


def test_instances_of_a_fake_consul_come_and_go_and_no_request_is_lost(
    tmp_path: Path, fake: FakeConsul
) -> None:
    with app(b"1") as one, app(b"2") as two:
        register(fake, one)
        with ready(tmp_path, config(fake)) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            register(fake, one, two)
            eventually(lambda: b"2" in answers, "the second")
            register(fake, two)
            only(answers, b"2")
        assert set(answers) == set(b"12")


def test_a_fake_consul_that_is_killed_and_restarted_takes_nothing_away(
    tmp_path: Path, fake: FakeConsul
) -> None:
    """Under traffic: no failed request."""
    with app(b"1") as one, app(b"2") as two:
        register(fake, one)
        with ready(tmp_path, config(fake)) as sidecar, traffic(sidecar) as answers:
            fake.kill()
            event = sidecar.wait_for_event("endpoints_kept", reason="consul_unreachable")
            goes_on(answers)
            register(fake, two)
            fake.start()
            only(answers, b"2", patience_s=45)
        assert event["service"] == "a"
        assert set(answers) == set(b"12")


def test_a_fake_consul_that_forgets_the_service_takes_nothing_away(
    tmp_path: Path, fake: FakeConsul
) -> None:
    with app(b"1") as one:
        register(fake, one)
        with ready(tmp_path, config(fake)) as sidecar:
            register(fake)
            sidecar.wait_for_event("endpoints_kept", service="a", reason="empty")

            assert exchange(sidecar.outbound, request(host="a"))[-1:] == b"1"


def test_a_token_that_a_fake_consul_does_not_know_is_pending_and_not_printed(
    tmp_path: Path, fake: FakeConsul
) -> None:
    with running_ambassador(config(fake, token="guessed-1"), tmp_path) as sidecar:
        event = sidecar.wait_for_event("endpoints_kept", reason="consul_forbidden")

        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
        assert "guessed-1" not in str(event)
