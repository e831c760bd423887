"""What a start loads: only what the configuration needs (house §10)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.process import Pod, running_ambassador

# Rich and click's prompts are for commands with a result, prometheus_client for a scrape, the rest for kinds and
# roles that nobody configured here.
UNUSED = {
    "prometheus_client",
    "rich.console",  # structlog asks for rich, and telemetry.logging sees to it that it gets none
    "rich.traceback",
    "httpx",
    "dns",
    "watchfiles",
    "lxml",
    "h11",
    "httptools",
    "urllib.request",
    "http.client",
    "http.server",
    "multiprocessing",
    "concurrent.futures.process",
    "ambassador.bench",
    "ambassador.cli.demo",
    "ambassador.cli.certs",
    "ambassador.identity.authority",
    "ambassador.roles",
}


def test_a_start_imports_nothing_that_it_does_not_use(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    web, payments = Pod("web", authority, tmp_path), Pod("payments", authority, tmp_path)
    config = web.config(
        inbound=web.inbound(8080, allow=[payments]), services={"payments": payments.endpoint()}
    )

    with running_ambassador(config, tmp_path) as sidecar:
        pass

    loaded = {
        line.rpartition("|")[2].strip() for line in sidecar.noise if line.startswith("import time:")
    }
    assert {"ambassador.app", "OpenSSL.SSL"} <= loaded
    assert not {name for name in loaded for unused in UNUSED if f"{name}.".startswith(f"{unused}.")}
