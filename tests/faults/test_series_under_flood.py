"""Ten thousand hosts, paths and refusals: not one more series, and few lines (threat I7)."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, connect, request
from tests.support.process import Pod, running_ambassador
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

COUNT = 10_000
MAX_LINES = 100


def series(side: Side) -> set[str]:
    """Give the names and labels of all samples; the values are what may change."""
    text = side.sidecar.get("/metrics")[1]
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and line[0] != "#"}


def ask(side: Side, requests: list[bytes]) -> int:
    """Pipeline `requests`; give the number of answers."""
    client = side.connect()
    thread = threading.Thread(target=client.send, args=(b"".join(requests),), daemon=True)
    thread.start()
    for _ in requests:
        client.read_message()
    thread.join(10)
    return len(requests)


def refusals(first: int, count: int) -> list[bytes]:
    """Give requests to hosts and paths that differ all, with methods and identities that do too."""
    return [
        b"M%d /path/%d?q=%d HTTP/1.1\r\nHost: host-%d.example\r\nX-Request-Id: id-%d\r\n"
        b"User-Agent: agent-%d\r\nOrigin: http://origin-%d.example\r\n\r\n" % ((number,) * 7)
        for number in range(first, first + count)
    ]


def test_ten_thousand_hosts_make_no_series(outbound: Side) -> None:
    """Linkerd CVE-2025-43915: labels are names of the file and words of ours."""
    ask(outbound, refusals(0, 10))
    before, counted = series(outbound), outbound.sidecar.metric("requests_total")

    for first in range(0, COUNT, 500):
        ask(outbound, refusals(1_000_000 + first, 500))

    assert outbound.sidecar.metric("requests_total") == counted + COUNT
    assert series(outbound) == before
    assert len(outbound.sidecar.events) < MAX_LINES


def test_refused_handshakes_of_everybody_make_no_series(inbound: Side) -> None:
    """aiohttp CVE-2025-69230: server names and sources are no labels, and ten lines a second are enough."""
    context = client_context(inbound.stage.web.identity.certificate_pem)

    def refuse(number: int) -> None:
        with (
            contextlib.suppress(OSError),
            connect(inbound.sidecar.inbound, context, f"name-{number}.example") as client,
        ):
            client.read_to_end()

    refuse(0)
    eventually(
        lambda: inbound.sidecar.metric("handshakes_total", result="refused") == 1, "the first"
    )
    before, lines = series(inbound), len(inbound.sidecar.events)

    for number in range(1, 301):
        refuse(number)

    eventually(
        lambda: inbound.sidecar.metric("handshakes_total", result="refused") == 301, "the last"
    )
    assert series(inbound) == before
    assert len(inbound.sidecar.events) - lines < MAX_LINES


def test_what_an_audit_would_deny_is_served_and_logged_ten_times_a_second(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Each is in the counter and in the access log; the events are there to be noticed."""
    shop, web, ops = (Pod(name, authority, tmp_path) for name in ("shop", "web", "ops"))
    inbound = shop.inbound(app.port, [ops], authorization="audit")
    with running_ambassador(shop.config(inbound=inbound), tmp_path) as sidecar:
        with connect(sidecar.inbound, client_context(authority, web.identity)) as client:
            for _ in range(300):
                client.send(request("/"))
                assert client.read_message().startswith(b"HTTP/1.1 200 ")

        def named(event: str) -> list[dict[str, Any]]:
            return [each for each in sidecar.events if each["event"] == event]

        eventually(
            lambda: (
                len(named("authorization_would_deny"))
                + sum(each["suppressed"] for each in named("authorizations_would_deny"))
                == 300
            ),
            "all are told of",
        )
        first = named("authorization_would_deny")[0]
        assert (first["peer"], first["reason"]) == (web.spiffe, "no_rule_for_peer")
        assert len(sidecar.events) < MAX_LINES
        assert len(app.requests) == 300
