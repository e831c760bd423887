"""What was replaced is never shown: not in errors, warnings, dumps (threats I3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambassador.config.load import effective, load
from tests.unit.config.make import BASES, IDENTITY, VERSION, problems, warnings

CANARY = "hunter2 *;{ü"
ENVIRON = {"S": CANARY}

EVERYWHERE = """\
version: "${S}"
name: ["${S}"]
identity: {directory: {a: "${S}"}, crl_grace: "${S}"}
tls: {profile: "${S}", groups: ["${S}"], session_lifetime: "${S}"}
zone: ["${S}"]
inbound:
  retry: {attempts: "${S}", when: ["${S}"], max_body: "${S}", unsafe_methods: ["${S}"], backoff: {base: "${S}"}}
  fault: {abort: "${S}", percent: "${S}", headers: {x-a: "${S}"}, allow: [{dns: "${S}", name: "${S}"}]}
  hedge_after: "${S}"
  listen: "${S}"
  app: "${S}"
  protocol: "${S}"
  socket_mode: "${S}"
  max_connections: "${S}"
  handshake_timeout: "${S}"
  body_min_rate: "${S}"
  max_head: "${S}"
  upgrades: ["${S}"]
  alpn: ["\\u00e4${S}"]
  allow: [{spiffe: "${S}"}, {dns: "${S}"}, {uri: "${S}"}, {cn: "*${S}"}, {dns: a, methods: ["${S}"], paths: ["${S}"], may_forward: "${S}"}]
  routes: [{name: "${S}", match: {host: "${S}", path: "${S}", prefix: "${S}", method: "${S}", headers: {x-a: "${S}"}}, app: "${S}", rewrite: {prefix: "${S}", host: "*${S}"}}]
outbound: {listen: "${S}", service: "${S}", browsers: "${S}"}
services:
  a: {endpoints: ["${S}"], peer: {spiffe: "${S}"}, balance: "${S}", hosts: ["${S}"], server_name: "${S}", plaintext: "${S}"}
  c: {discovery: {kind: "${S}", x: "${S}"}, health_check: "${S}", outlier_detection: "${S}", circuit_breaker: "${S}"}
  d: {discovery: {kind: dns_srv, name: "${S}", servers: ["${S}"]}, health_check: {expect: ["${S}"], path: "${S}"}}
  e: {discovery: {kind: kubernetes, service: "${S}", port: "${S}", api_server: "${S}"}, balance: {hash: "${S}"}}
  f: {discovery: {kind: consul, service: ["${S}"], address: "${S}", token: "${S}"}, balance: {hash: {cookie: "${S}"}}}
  g: {discovery: {kind: etcd, urls: "${S}", password: "${S}"}, balance: {zone: "${S}", load_bound: "${S}"}}
  b: {endpoints: "${S}", peer: "${S}", plaintext: loopback}
admin: "${S}"
drain: {delay: "${S}"}
access_log: {sample: "${S}", query: "${S}"}
limits: {handshake_rate: "${S}"}
log: {level: "${S}"}
"""  # noqa: E501  # one line for each section


def test_no_error_shows_what_was_replaced() -> None:
    """Threats I3: pydantic prints inputs; ours never do."""
    lines = problems(EVERYWHERE, ENVIRON)

    assert len(lines) > 80
    assert not [line for line in lines if "hunter2" in line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("outbound: {listen: 127.0.0.1:1, service: '${S}'}\n"
         "services: {secrets: {endpoints: ['1.1.1.1:1'], peer: {dns: a}}}\n",
         "3:42 outbound.service: expected the name of a service, got ***; there are: secrets"),
        ("outbound: {listen: '${A}'}\n",
         "3:20 outbound.listen: expected an address on loopback, got ***; "
          "write 127.0.0.1:PORT, or unsafe_plaintext: true"),
        ("inbound: {listen: 0.0.0.0:1, app: 80, allow: [{spiffe: 'spiffe://a/b'}, {spiffe: '${I}'}]}\n",
         "3:82 inbound.allow[1].spiffe: one trust bundle vouches for one trust domain, *** is a second one;"
         " write identity.trust_bundle: {DOMAIN: PATH, …}"),
        ("inbound: {listen: 0.0.0.0:1, app: 80, allow: [{dns: a, name: x}, {dns: a, name: '${X}'}]}\n",
         "3:75 inbound.allow[1].name: expected a name of its own, got *** as in line 3"),
    ],
)  # fmt: skip
def test_rules_between_keys_mask_too(text: str, line: str) -> None:
    """Threats I3: these sentences are not the schema's."""
    environ = {"S": "secret", "A": "10.9.8.7:654", "I": "spiffe://hunter2/b", "X": "x"}

    assert problems(VERSION + IDENTITY + text, environ) == [line]


def test_warnings_show_keys_only() -> None:
    """Threats I3."""
    text = BASES["inbound"] + "  authorization: ${S}\n"

    (line,) = warnings(text, {"S": "audit"})

    assert line.startswith("7:3 inbound.authorization: unsafe")


def test_the_effective_file_masks_value_and_default(tmp_path: Path) -> None:
    """`validate --show` names the variable, never the value, nor the default beside it."""
    path = tmp_path / "a.yaml"
    path.write_text(BASES["top"] + 'name: "${S}"\nlog: {level: "${L:-debug}"}\n', encoding="utf-8")

    shown = effective(path, {"S": "hunter2"})

    assert ("name", "***", f"{path}:7 ${{S}}") in shown
    assert ("log.level", "***", f"{path}:8 ${{L}}") in shown


def test_a_replaced_value_stays_text() -> None:
    """Threats I4: line ends and colons in a value make no keys."""
    lines = problems(BASES["top"] + "name: ${S}\n", {"S": "x\nadmin: {listen: none}"})

    assert lines == ["7:7 name: expected 1 to 255 printable characters, got ***"]


def test_a_secret_is_masked_although_it_was_written_down(tmp_path: Path) -> None:
    """config.md §1, SECRET: masked everywhere; nobody has to replace it for that."""
    path = tmp_path / "a.yaml"
    path.write_text(
        BASES["services"]
        + "  a: {discovery: {kind: consul, service: a, token: hunter2}, peer: {dns: a}}\n"
        + "  b: {discovery: {kind: etcd, urls: ['https://b'], prefix: b, username: u, password: hunter2},"
        " peer: {dns: a}}\n",
        encoding="utf-8",
    )

    shown = effective(path, {})

    assert ("services.a.discovery.token", "***", f"{path}:6") in shown
    assert ("services.b.discovery.password", "***", f"{path}:7") in shown
    assert "hunter2" not in str(shown)
    assert "hunter2" not in repr(load(path, {}))


def test_a_secret_that_yaml_misreads_is_not_quoted() -> None:
    """Threats I3: the traps of YAML quote what stands there."""
    for value in ("*hunter2", "&hunter2 a", "!hunter2 a", "'${hunter2-}'", "*hunter2!"):
        text = (
            f"  a: {{discovery: {{kind: consul, service: a, token: {value}}}, peer: {{dns: a}}}}\n"
        )

        lines = problems(BASES["services"] + text)

        assert lines
        assert not [line for line in lines if "hunter2" in line]


def test_unsafe_methods_from_a_variable_are_not_shown() -> None:
    """Threats I3."""
    (line,) = warnings(
        BASES["inbound"] + '  retry: {unsafe_methods: ["${S}", PUT]}\n', {"S": "POST"}
    )

    assert line.endswith("unsafe: ***, PUT may be sent twice")
