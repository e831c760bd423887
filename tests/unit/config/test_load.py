"""Finding and reading a file, `validate --show`, files on disk, the examples, the JSON Schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ambassador.config import load as loading
from ambassador.config.json_schema import json_schema
from ambassador.config.load import effective, find_config, load
from ambassador.core.errors import ConfigErrors, CredentialError
from ambassador.identity import credentials
from tests.unit.config.make import BASES
from tests.unit.config.test_keys import GOOD

EXAMPLES = sorted((Path(__file__).parents[3] / "config").rglob("*.yaml"))


def _refusal(path: Path, *, check_files: bool = False) -> str:
    with pytest.raises(ConfigErrors) as raised:
        load(path, {}, check_files=check_files)
    return str(raised.value)


def _file(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- finding and reading ---


def test_the_option_comes_before_the_variable_before_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md §4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "PLACES", ("ambassador.yaml", str(tmp_path / "etc.yaml")))
    (tmp_path / "etc.yaml").touch()

    assert find_config("x", {"AMBASSADOR_CONFIG": "y"}) == Path("x")
    assert find_config(None, {"AMBASSADOR_CONFIG": "y"}) == Path("y")
    assert find_config(None, {}) == tmp_path / "etc.yaml"

    (tmp_path / "ambassador.yaml").touch()
    assert find_config(None, {"AMBASSADOR_CONFIG": ""}) == Path("ambassador.yaml")


def test_without_a_file_the_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ux.md §1; traefik/traefik#2927: a missing file never means defaults."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "PLACES", ("ambassador.yaml", "/nonexistent/a.yaml"))

    with pytest.raises(
        ConfigErrors,
        match=r"looked at .AMBASSADOR_CONFIG, ./ambassador\.yaml, /nonexistent/a\.yaml",
    ):
        find_config(None, {})


def test_an_absent_or_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "x").endswith("x: No such file or directory")
    assert _refusal(tmp_path).endswith(
        "expected a file, or a pipe that is written to, got a folder"
    )


def test_an_error_begins_with_the_file_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md §4: an editor can go there."""
    monkeypatch.chdir(tmp_path)
    _file(tmp_path, BASES["inbound"] + "  alow: []\n")

    assert _refusal(Path("a.yaml")) == "a.yaml:7:3 inbound.alow: unknown key; did you mean allow?"


# --- the effective file ---


def test_every_setting_in_force_has_value_and_origin(tmp_path: Path) -> None:
    """config.md §4, `validate --show`."""
    path = _file(
        tmp_path, BASES["service"] + "    timeout: 3s\n    balance: round_robin\n    hosts: []\n"
    )

    shown = {key: (value, origin) for key, value, origin in effective(path, {})}

    assert shown["outbound.listen"] == ("127.0.0.1:9000", f"{path}:4")
    assert shown["outbound.timeout"] == ("15s", "default")
    assert shown["services.payments.timeout"] == ("3s", f"{path}:9")
    assert shown["services.payments.endpoints[0]"] == ("10.0.0.7:8443", f"{path}:7")
    assert shown["services.payments.balance.kind"] == ("round_robin", f"{path}:10")
    assert shown["services.payments.peer.spiffe"] == ("spiffe://example.org/payments", f"{path}:8")
    assert shown["services.payments.pool.idle_timeout"] == ("50s", "default")
    assert shown["admin.expose"] == ("false", "default")
    assert "services.payments.max_body" not in shown  # the listener's is in force


def test_lists_and_mappings_have_their_own_lines(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        BASES["version"]
        + "identity: {certificate: a, private_key: b, trust_bundle: {x.org: '${P}'}}\n"
        + "inbound:\n  - {name: a, listen: 0.0.0.0:1, protocol: tcp, app: 80, allow: [{dns: a}]}\n"
        + "outbound: {listen: unix:/a, routes: [{match: {host: [a, b]}, split: {s: 1}}]}\n"
        + "services: {s: {endpoints: [{address: 'unix:/b'}], peer: any_verified}}\n",
    )

    shown = {key: (value, origin) for key, value, origin in effective(path, {"P": "x"})}

    assert shown["inbound[0].idle_timeout"] == ("1h", "default")
    assert shown["inbound[0].allow[0].dns"] == ("a", f"{path}:4")
    assert "inbound[0].head_timeout" not in shown  # tcp has none
    assert shown["outbound.routes[0].match.host"] == ("[a, b]", f"{path}:5")
    assert shown["outbound.routes[0].split"] == ("{s: 1}", f"{path}:5")
    assert shown["services.s.endpoints[0].weight"] == ("1", "default")
    assert shown["services.s.peer"] == ("any_verified", f"{path}:6")
    assert shown["identity.trust_bundle"] == ("{x.org: ***}", f"{path}:2 ${{P}}")


def test_defaults_that_follow_from_other_settings_are_shown(tmp_path: Path) -> None:
    """config.md §3: those of name, min_version, max_connections_per_peer, server_name, alpn, and beside a bare app."""
    path = _file(
        tmp_path,
        BASES["version"]
        + "identity: {directory: certs}\ntls: {profile: modern}\n"
        + "inbound: {listen: 0.0.0.0:1, app: 8080, max_connections: 9, allow: [{dns: a}, {dns: b}]}\n"
        + "outbound: [{name: q, listen: unix:/a, protocol: tcp, service: db}]\n"
        + "services:\n"
        + "  db: {endpoints: ['10.0.0.1:1'], peer: {spiffe: 'spiffe://a.b/c'}}\n"
        + "  web: {endpoints: ['10.0.0.1:1'], peer: [{dns: a.b}], listen: 'localhost:2'}\n"
        + "  plain: {endpoints: ['127.0.0.1:1'], plaintext: loopback, listen: 'localhost:3'}\n",
    )

    shown = {key: (value, origin) for key, value, origin in effective(path, {})}

    derived = {
        "name": os.uname().nodename,
        "tls.min_version": "TLSv1.3",
        "inbound.name": "inbound",
        "inbound.max_connections_per_peer": "4",
        "inbound.app.connect_timeout": "1s",
        "inbound.app.pool.idle_timeout": "4s",
        "inbound.allow[1].name": "allow-2",
        "outbound[0].max_connections_per_peer": "512",
        "services.db.server_name": "none",
        "services.db.alpn": "none",
        "services.web.server_name": "a.b",
        "services.web.alpn": "[http/1.1]",
        "services.web.protocol": "http",
    }
    assert {key: shown[key] for key in derived} == {
        key: (value, "default") for key, value in derived.items()
    }
    assert shown["inbound.app.address"] == ("8080", f"{path}:4")
    assert shown["outbound[0].name"] == ("q", f"{path}:5")
    assert not {"services.plain.server_name", "services.plain.alpn"} & set(shown)


def test_what_follows_from_a_replaced_value_is_masked_as_that_is(tmp_path: Path) -> None:
    """Threats I3: half of a number is the number."""
    path = _file(
        tmp_path,
        BASES["version"]
        + "identity: {directory: certs}\ntls: {profile: '${P}'}\n"
        + "inbound: {listen: 0.0.0.0:1, app: '${A}', max_connections: '${N}', allow: [{dns: a}]}\n"
        + "services: {s: {endpoints: ['10.0.0.1:1'], peer: {dns: '${D}'}, listen: 'localhost:2'}}\n",
    )

    shown = effective(path, {"P": "modern", "A": "127.0.0.1:4711", "N": "8642", "D": "hunter2.org"})

    text = str(shown)
    masked = {key: origin for key, value, origin in shown if value == "***"}
    assert not [one for one in ("TLSv1.3", "4711", "8642", "4321", "hunter2") if one in text]
    assert masked == {
        "tls.profile": f"{path}:3 ${{P}}",
        "tls.min_version": "default",
        "inbound.app.address": f"{path}:4 ${{A}}",
        "inbound.max_connections": f"{path}:4 ${{N}}",
        "inbound.max_connections_per_peer": "default",
        "services.s.peer.dns": f"{path}:5 ${{D}}",
        "services.s.server_name": "default",
    }


def test_what_keeps_a_failure_small_is_shown_with_its_defaults(tmp_path: Path) -> None:
    """config.md §4, `validate --show`: a word stands for a mapping, `none` for nothing; tcp asks for no path."""
    text = (
        "  a: {endpoints: [{address: 'web:80', zone: a}], peer: {dns: a}, health_check: tcp,\n"
        "    outlier_detection: none, retry: {attempts: 3}, balance: {kind: ring_hash, hash: peer}}\n"
        "  b: {discovery: {kind: consul, service: b}, peer: {dns: b}, health_check: http, retry: none}\n"
    )

    shown = {
        key.removeprefix("services."): value
        for key, value, _ in effective(_file(tmp_path, BASES["services"] + text), {})
    }

    assert shown["a.endpoints[0].address"] == "web:80"
    assert (shown["a.health_check.kind"], shown["a.health_check.interval"]) == ("tcp", "5s")
    assert (shown["b.health_check.kind"], shown["b.health_check.expect"]) == ("http", "[200]")
    assert not {"a.health_check.path", "a.health_check.expect"} & set(shown)
    assert (shown["a.outlier_detection"], shown["b.outlier_detection.consecutive"]) == ("none", "5")
    assert (shown["a.retry.attempts"], shown["a.retry.backoff.base"]) == ("3", "25ms")
    assert (shown["b.retry"], shown["outbound.retry"]) == ("none", "none")
    assert (shown["a.balance.hash"], shown["a.balance.load_bound"]) == ("peer", "125%")
    assert shown["b.discovery.address"] == "http://127.0.0.1:8500"
    assert shown["b.circuit_breaker.pending"] == "256"


def test_a_wrong_file_has_no_effective_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors):
        effective(_file(tmp_path, BASES["top"] + "x: 1\n"), {})


# --- files ---


def test_credentials_that_cannot_be_used_are_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md §4: `validate` checks certificates too."""

    def refuse(_: object) -> None:
        raise CredentialError("expired", "the certificate expired yesterday")

    monkeypatch.setattr(credentials, "load", refuse)
    path = _file(tmp_path, BASES["top"] + "access_log: {path: nowhere/log}\n")

    assert _refusal(path, check_files=True).splitlines() == [
        f"{path}:2:1 identity: the certificate expired yesterday",
        f"{path}:7:20 access_log.path: expected a path in a folder that can be written to, {tmp_path}/nowhere is none",
    ]
    assert load(path, {}).warnings == ()


def test_warnings_of_the_credentials_are_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loaded:
        warnings = ("others may read the key",)

    monkeypatch.setattr(credentials, "load", lambda _: Loaded())
    path = _file(tmp_path, BASES["top"] + "access_log: {path: log}\n")

    assert load(path, {}, check_files=True).warnings == (
        f"{path}:2:1 identity: others may read the key",
    )


def test_without_identity_there_is_nothing_to_check(tmp_path: Path) -> None:
    text = "version: 1\noutbound: {listen: 127.0.0.1:1}\nservices: {a: {endpoints: ['[::1]:1'], plaintext: loopback}}\n"

    assert load(_file(tmp_path, text), {}, check_files=True).identity is None


# --- examples and JSON Schema ---


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid_and_sound(path: Path) -> None:
    """house §10: `config/` holds examples that a test loads."""
    assert load(path, {}).warnings == ()


def test_there_are_examples() -> None:
    names = {path.name for path in EXAMPLES}

    assert {
        "smallest.yaml", "pod.yaml", "full.yaml", "tcp.yaml", "routes.yaml", "services.yaml",
    } <= names  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_editor_accepts_the_examples(path: Path, validator: Any) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(("base", "text"), GOOD)
def test_an_editor_accepts_what_we_accept(base: str, text: str, validator: Any) -> None:
    document = yaml.safe_load(BASES[base] + text)

    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    "text",
    ["nonsense: 1\n", "drain: {delay: 5}\n", "limits: {buffers: 1MB}\n", "tls: {groups: []}\n", "log: {level: loud}\n",
     "services: {Foo: {endpoints: ['1.1.1.1:1']}}\n", "services: {a: {}}\n", "identity: {crl: []}\n"],
)  # fmt: skip
def test_an_editor_marks_what_we_refuse(text: str, validator: Any) -> None:
    document = yaml.safe_load("version: 1\n" + text)

    assert list(validator.iter_errors(document))


def test_every_key_has_its_description() -> None:
    """An editor shows it on hover."""
    missing = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for name, inner in (node.get("properties") or {}).items():
                if not isinstance(inner, dict):
                    continue
                if "description" not in inner and "$ref" not in inner:
                    missing.append(name)
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(json_schema())

    assert missing == []


def test_the_schema_says_which_dialect_it_is() -> None:
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_loading_reads_the_environment_it_is_given(tmp_path: Path) -> None:
    """Not the process's: a reload with another one must not differ by accident."""
    assert "AMBASSADOR_TEST_NAME" not in os.environ

    config = load(
        _file(tmp_path, BASES["top"] + "name: ${AMBASSADOR_TEST_NAME}\n"),
        {"AMBASSADOR_TEST_NAME": "x"},
    )

    assert config.name == "x"
