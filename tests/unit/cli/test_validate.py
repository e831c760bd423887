"""`ambassador validate`: results on stdout, exit 3 on errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.run import run
from tests.unit.config.make import BASES


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, and no configuration from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("AMBASSADOR_CONFIG", "NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _write(text: str) -> None:
    Path("ambassador.yaml").write_text(text, encoding="utf-8")


def test_every_error_has_its_line_and_they_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """config.md §4, the sample."""
    _write(BASES["service"].replace("spiffe://example.org/payments", "payments") + "    alow: 1\n")

    ran = run(capsys, "validate")

    assert ran.code == 3
    assert ran.err == ""
    assert ran.out.splitlines() == [
        'ambassador.yaml:8:20 services.payments.peer.spiffe: expected a SPIFFE ID, got "payments";'
        " did you mean dns: payments?",
        "ambassador.yaml:9:5 services.payments.alow: unknown key; known here: "
        "alpn, balance, body_idle_timeout, circuit_breaker, connect_timeout, discovery, endpoints, fault, health_check,"
        " hedge_after, hosts, listen, max_body, outlier_detection, peer, per_try_timeout, plaintext, pool, protocol,"
        " rate_limit, retry, server_name, timeout, total_timeout, upgrades",
        "2 errors",
    ]


def test_the_sample_of_the_reference_is_what_we_print(capsys: pytest.CaptureFixture[str]) -> None:
    """config.md §4."""
    _write(
        "version: 1\n"
        "identity: {directory: certs}\n"
        "inbound:\n"
        "  listen: 0.0.0.0:8443\n"
        "  alow: [{dns: web}]\n"
        "  app: 8080\n"
        "outbound:\n"
        "  listen: 127.0.0.1:9000\n"
        "services:\n"
        "  payments:\n"
        "    endpoints:\n"
        "      - 10.0.0.7:8443\n"
        "    peer: {spiffe:\n"
        "        payments}\n"
    )

    ran = run(capsys, "validate")

    assert ran.code == 3
    assert ran.out.splitlines() == [
        "ambassador.yaml:5:3 inbound.alow: unknown key; did you mean allow?",
        'ambassador.yaml:14:9 services.payments.peer.spiffe: expected a SPIFFE ID, got "payments";'
        " did you mean dns: payments?",
        "2 errors",
    ]


def test_one_error_is_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    _write(BASES["top"] + "nam: x\n")

    assert run(capsys, "validate").out.splitlines()[-1] == "1 error"


def test_a_valid_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """istio/istio#17440: success says something."""
    _write(BASES["service"])

    ran = run(capsys, "validate", "--no-files")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "ambassador.yaml is valid: 0 inbound, 1 outbound, 1 service, 0 warnings\n"


def test_warnings_are_shown_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    _write(BASES["inbound"] + "  authorization: audit\n")

    ran = run(capsys, "validate", "--no-files")

    assert ran.code == 0
    assert ran.out.splitlines() == [
        "warning: ambassador.yaml:7:3 inbound.authorization: unsafe: what the rules deny is logged, and let in",
        "ambassador.yaml is valid: 1 inbound, 0 outbound, 0 services, 1 warning",
    ]


def test_absent_certificates_are_an_error_unless_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """config.md §4: `--no-files` is for CI without secrets."""
    _write(BASES["top"])

    ran = run(capsys, "validate")

    assert ran.code == 3
    assert ran.out.startswith("ambassador.yaml:2:1 identity: ")
    assert run(capsys, "validate", "--no-files").code == 0


def test_every_absent_file_is_said_at_its_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """config.md: all errors at once, certificates too."""
    _write(
        "version: 1\n"
        "identity: {certificate: a.crt, private_key: a.key, trust_bundle: ca.crt}\n"
        "outbound: {listen: 127.0.0.1:9000}\n"
    )

    ran = run(capsys, "validate")

    assert [line.partition(": ")[0] for line in ran.out.splitlines()] == [
        "ambassador.yaml:2:12 identity.certificate",
        "ambassador.yaml:2:32 identity.private_key",
        "ambassador.yaml:2:52 identity.trust_bundle",
        "3 errors",
    ]


def test_the_option_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text(BASES["top"], encoding="utf-8")

    ran = run(capsys, "validate", "--no-files", "-c", "other.yaml")

    assert ran.out.startswith("other.yaml is valid")


def test_no_file_names_the_places(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ambassador.config.load.PLACES", ("ambassador.yaml",))

    ran = run(capsys, "validate")

    assert ran.code == 3
    assert ran.out.startswith(
        "no configuration found; looked at $AMBASSADOR_CONFIG, ./ambassador.yaml"
    )


def test_the_effective_file_masks_what_was_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threats I3."""
    monkeypatch.setenv("NAME", "hunter2")
    _write(BASES["top"] + "name: ${NAME}\n")

    ran = run(capsys, "validate", "--no-files", "--show")

    assert "name: ***  # ambassador.yaml:7 ${NAME}" in ran.out.splitlines()
    assert "drain.delay: 5s  # default" in ran.out.splitlines()
    assert "hunter2" not in ran.out


@pytest.mark.parametrize("show", [[], ["--show"]])
def test_json_is_one_document(show: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """istio/istio#35054, linkerd/linkerd2#7960."""
    _write(BASES["inbound"] + "  authorization: audit\n")

    ran = run(capsys, "validate", "--no-files", "-o", "json", *show)

    report = json.loads(ran.out)
    assert ran.code == 0
    assert report["valid"] is True
    assert len(report["warnings"]) == 1
    assert ("settings" in report) is bool(show)


def test_json_keeps_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """ux.md §1: `-o json` never changes the exit code."""
    _write(BASES["top"] + "nam: x\n")

    ran = run(capsys, "validate", "-o", "json")

    assert ran.code == 3
    assert json.loads(ran.out)["errors"] == [
        {
            "file": "ambassador.yaml",
            "line": 7,
            "column": 1,
            "key": "nam",
            "problem": "unknown key; did you mean name?",
            "text": "ambassador.yaml:7:1 nam: unknown key; did you mean name?",
        }
    ]


def test_a_wrong_variable_is_an_error_beside_those_of_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md §1: all at once; `run` would end with 3."""
    monkeypatch.setenv("AMBASSADOR_LOOP", "trio")
    monkeypatch.setenv("AMBASSADOR_LOG_LEVEL", "loud")
    _write(BASES["top"] + "nam: x\n")

    ran = run(capsys, "validate", "--no-files")

    assert ran.code == 3
    assert ran.out.splitlines() == [
        'AMBASSADOR_LOG_LEVEL: expected one of debug, info, warning, error, got "loud"',
        'AMBASSADOR_LOOP: expected one of uvloop, asyncio, got "trio"',
        "ambassador.yaml:7:1 nam: unknown key; did you mean name?",
        "3 errors",
    ]
