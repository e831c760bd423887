"""`ambassador certs`: words, files and exit codes."""

from __future__ import annotations

import json
import os
import stat
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from ambassador.cli.certs import group


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(group, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _serial(path: str) -> int:
    return x509.load_pem_x509_certificate(Path(path).read_bytes()).serial_number


def test_dev_makes_an_authority_and_a_folder_per_name() -> None:
    """Config §4; the folders are Kubernetes' and cert-manager's."""
    result = _run("dev", "web", "payments", "--trust-domain", "shop.test")

    assert result.exit_code == 0
    assert (
        "certs/web/tls.crt, tls.key (0600), ca.crt: made, spiffe://shop.test/web, dns web, P-256, 30 days"
        in result.stdout
    )
    for name in ("web", "payments"):
        assert sorted(os.listdir(f"certs/{name}")) == ["ca.crt", "tls.crt", "tls.key"]
    for key in ("certs/ca/ca.key", "certs/web/tls.key"):
        assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("certs/ca").stat().st_mode) == 0o700


def test_dev_keeps_what_is_good() -> None:
    """Safe at every start."""
    _run("dev", "web")
    before = _serial("certs/web/tls.crt")

    result = _run("dev", "web", "payments")

    assert _serial("certs/web/tls.crt") == before
    assert "certs/web/tls.crt, tls.key (0600), ca.crt: kept" in result.stdout
    assert "certs/payments/tls.crt, tls.key (0600), ca.crt: made" in result.stdout


@pytest.mark.parametrize(
    "damage", ["other id", "no key", "other key", "bad certificate", "bad bundle"]
)
def test_dev_renews_what_is_not_good(damage: str) -> None:
    """Config §4: good ones kept; anything else is made anew."""
    _run("dev", "web", "other")
    before = _serial("certs/web/tls.crt")
    domain = "other.test" if damage == "other id" else "example.org"
    if damage == "no key":
        Path("certs/web/tls.key").unlink()
    elif damage == "other key":
        Path("certs/web/tls.key").write_bytes(Path("certs/other/tls.key").read_bytes())
    elif damage == "bad certificate":
        Path("certs/web/tls.crt").write_bytes(b"x")
    elif damage == "bad bundle":
        Path("certs/web/ca.crt").write_bytes(b"x")

    result = _run("dev", "web", "--trust-domain", domain)

    assert "renewed" in result.stdout
    assert _serial("certs/web/tls.crt") != before


def test_dev_renews_in_the_last_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """Friction F12: an expired one is renewed without a question."""
    _run("dev", "web", "--days", "3")
    before = _serial("certs/web/tls.crt")
    from ambassador.core.clock import SystemClock

    now = SystemClock().wall()
    kept, renewed = [], []
    for days, seen in ((1.9, kept), (2.1, renewed)):
        monkeypatch.setattr(SystemClock, "wall", staticmethod(lambda days=days: now + days * 86400))
        _run("dev", "web", "--days", "3")
        seen.append(_serial("certs/web/tls.crt"))

    assert kept == [before]
    assert renewed != [before]


def test_the_path_of_the_id_can_be_chosen() -> None:
    """UX §2 (b): the IDs of Kubernetes service accounts."""
    result = _run("dev", "web", "--trust-domain", "cluster.local", "--path", "/ns/shop/sa/{name}")

    assert "spiffe://cluster.local/ns/shop/sa/web" in result.stdout


def test_the_owner_of_the_folders_can_be_chosen() -> None:
    """Friction F6: the init container is root, the sidecar is not."""
    result = _run("dev", "web", "--owner", f"{os.getuid()}:{os.getgid()}")

    assert result.exit_code == 0
    assert Path("certs/web/tls.key").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    "arguments",
    [
        ("dev",),
        ("dev", "ca"),
        ("dev", "../x"),
        ("dev", "Web"),
        ("dev", "a", "b", "--path", "/x"),
        ("dev", "a", "--owner", "root"),
        ("dev", "a", "--days", "0"),
        ("dev", "a", "--trust-domain", "Not a domain"),
        ("init", "--name", "x" * 65),
        ("issue", "--spiffe", "spiffe://a/b", "--spiffe", "spiffe://a/c"),
        ("renew", "--out", "certs"),
        ("revoke", "x"),
        ("unknown",),
    ],
)
def test_wrong_usage_is_exit_2_and_writes_nothing(folder: Path, arguments: tuple[str, ...]) -> None:
    """Config §4, Exit."""
    result = _run(*arguments)

    assert result.exit_code == 2
    assert list(folder.iterdir()) == []


def test_what_is_not_built_yet_says_so() -> None:
    """Config: keys and commands of later issues are refused, never ignored."""
    assert "not built yet" in _run("renew").stderr


def test_issue_writes_what_it_says() -> None:
    """The sample of config §4, byte for byte."""
    _run("init", "--name", "example CA")

    result = _run(
        "issue", "--spiffe", "spiffe://example.org/shop/web", "--dns", "web", "--out", "certs"
    )

    assert (
        result.stdout
        == "certs/tls.crt, tls.key (0600), ca.crt: spiffe://example.org/shop/web, dns web, P-256, 30 days\n"
    )


def test_issue_refuses_to_overwrite_without_force() -> None:
    """Config §4; exit 1 says that it failed."""
    _run("init")
    _run("issue", "--dns", "web")
    before = _serial("certs/tls.crt")

    refused = _run("issue", "--dns", "web")
    kept = _serial("certs/tls.crt")
    forced = _run("issue", "--dns", "web", "--force")

    assert (refused.exit_code, forced.exit_code) == (1, 0)
    assert "--force" in refused.stderr
    assert kept == before
    assert _serial("certs/tls.crt") != before


def test_init_never_replaces_an_authority_by_itself() -> None:
    """Whoever loses a CA's key issues everything anew."""
    _run("init")
    before = Path("certs/ca/ca.key").read_bytes()

    assert _run("init").exit_code == 1
    assert Path("certs/ca/ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("issue", "--dns", "a", "--ca", "nowhere"), "nowhere/ca.crt: there is no such file"),
        (("inspect", "nowhere.pem"), "neither a file nor HOST:PORT"),
        (("inspect", ""), '"": neither a file nor HOST:PORT'),
        (("inspect", "text"), "text: neither a file nor HOST:PORT"),
        (("inspect", "127.0.0.1:"), "neither a file nor HOST:PORT"),
        (("inspect", "127.0.0.1:-1"), "neither a file nor HOST:PORT"),
        (("inspect", "127.0.0.1:http"), "neither a file nor HOST:PORT"),
        (("inspect", "x" * 5000), "neither a file nor HOST:PORT"),
        (("inspect", "a\0b"), "neither a file nor HOST:PORT"),
        (("inspect", "127.0.0.1:0"), "127.0.0.1:0: a port is 1 to 65535"),
        (("inspect", "127.0.0.1:65536"), "a port is 1 to 65535"),
        (("inspect", "127.0.0.1:99999"), "a port is 1 to 65535"),
        (("inspect", "certs/ca"), "is no regular file"),
        (("inspect", "certs/ca/ca.key"), "holds no certificate"),
    ],
)
def test_bad_credentials_are_exit_3_and_one_sentence(
    arguments: tuple[str, ...], sentence: str
) -> None:
    """Config §4, Exit: never a traceback."""
    _run("init")

    result = _run(*arguments)

    assert result.exit_code == 3
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--spiffe", "payments"), '"payments" is no SPIFFE ID'),
        ((), "needs a name"),
        (("--dns", "a b"), '"a b" is no DNS name or URI'),
        (("--dns", "é"), '"é" is no DNS name or URI'),
        (("--ip", "10.0.0.256"), '"10.0.0.256" is no IP address'),
        (("--cn", "x" * 65), "a common name has 1 to 64 characters"),
    ],
)
def test_a_name_that_is_none_is_wrong_usage(arguments: tuple[str, ...], sentence: str) -> None:
    """Config §4, Exit: nothing is wrong with configuration or credentials; nothing is made."""
    _run("init")

    result = _run("issue", *arguments)

    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("certs/tls.crt").exists()


def test_json_is_one_document_and_keeps_the_exit_code() -> None:
    """UX §1: -o json is one document."""
    made = json.loads(_run("dev", "web", "-o", "json").stdout)
    shown = json.loads(_run("inspect", "certs/web/tls.crt", "-o", "json").stdout)

    assert made["certificates"][0]["names"] == ["spiffe://example.org/web", "web"]
    assert made["certificates"][0]["action"] == "made"
    assert shown["spiffe"] == "spiffe://example.org/web"
    assert shown["not_after"] == made["certificates"][0]["not_after"]
    assert datetime.fromisoformat(shown["not_after"]).tzinfo is not None
    assert _run("issue", "--spiffe", "x", "-o", "json").exit_code == 2


CONFIG = """\
version: 1
identity: {directory: certs/web}
inbound: {listen: "0.0.0.0:8443", app: "127.0.0.1:8080", allow: [{spiffe: "spiffe://example.org/payments"}]}
outbound: {listen: "127.0.0.1:9000"}
services: {other: {endpoints: ["127.0.0.1:1"], peer: {spiffe: "spiffe://example.org/other"}}}
"""


def test_inspect_says_whether_a_configuration_would_take_a_file() -> None:
    """Config §4, `certs inspect -c`."""
    _run("dev", "web", "payments")
    Path("ambassador.yaml").write_text(CONFIG)

    taken = _run("inspect", "certs/payments/tls.crt", "-c", "ambassador.yaml")
    refused = _run("inspect", "certs/web/tls.crt", "-c", "ambassador.yaml")

    assert taken.exit_code == 0
    assert "✓ inbound takes it: rule allow-1" in taken.stdout
    assert (
        "✗ service other refuses it: wrong_peer, expected spiffe://example.org/other"
        in taken.stdout
    )
    assert refused.exit_code == 1
    assert "✗ inbound refuses it" in refused.stdout


def test_inspect_of_a_server_that_is_not_there_is_exit_1() -> None:
    """It failed; nothing is wrong with the configuration."""
    result = _run("inspect", "127.0.0.1:1")

    assert result.exit_code == 1
    assert result.stdout.startswith("✗ 127.0.0.1:1 ")
