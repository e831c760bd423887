"""`name` of the file says in every event and record which of many sidecars wrote it (config.md §3)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.peers import App, send_raw
from tests.support.process import Pod, running_ambassador

REQUEST = b"GET / HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("given", ["web-7", "${POD}", None])
def test_the_name_is_in_every_event_and_record(
    given: str | None,
    authority: Authority,
    app: App,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Default: the host's name. One from a variable is shown: it is there to be seen."""
    monkeypatch.setenv("POD", "web-8")
    expected = {"web-7": "web-7", "${POD}": "web-8", None: os.uname().nodename}[given]
    web = Pod("web", authority, tmp_path)
    named = {} if given is None else {"name": given}
    config = web.config(
        inbound=web.inbound(app.port), services={"payments": web.endpoint()}, **named
    )

    with running_ambassador(config, tmp_path) as sidecar:
        answer = send_raw(sidecar.outbound, REQUEST)  # through both doors
        malformed = send_raw(sidecar.outbound, b"GET\r\n\r\n")
        records = sidecar.wait_for_records(3)
        sidecar.reload()
        sidecar.wait_for_event("credentials_reloaded")
    events = sidecar.events

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert malformed.startswith(b"HTTP/1.1 400 ")
    assert {record["direction"] for record in records} == {"inbound", "outbound"}
    assert [record["instance"] for record in records] == [expected] * 3
    assert {event["instance"] for event in events} == {expected}
    assert {"proxy_ready", "drain_started"} <= {event["event"] for event in events}
