"""Every key of `config.md`: unmarked ones work, marked ones are refused as not built yet, none is forgotten."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from ambassador.config import schema
from ambassador.config.json_schema import json_schema
from tests.unit.config.make import BASES, loaded, problems, warnings

LISTENER = {
    "max_connections": "512",
    "max_connections_per_peer": "16",
    "handshake_timeout": "1s",
    "idle_timeout": "2h",
    "write_timeout": "250ms",
    "max_connection_age": "90m",
}
HTTP_LISTENER = {
    "protocol": "http",
    "head_timeout": "1.5s",
    "body_min_rate": "1KiB/s",
    "max_head": "32KiB",
    "max_headers": "50",
    "max_uri": "8KiB",
}
SETTINGS = {
    "timeout": "0s",
    "total_timeout": "1h",
    "body_idle_timeout": "none",
    "max_body": "10MiB",
    "upgrades": "[websocket, Foo/2]",
}
INBOUND = {
    "name": "api",
    "deny": '[{name: old, spiffe: "spiffe://example.org/old/**"}, {uri: "https://a/b"}, {dns: "*.b.c"}, {cn: Me}]',
    "authorization": "enforce",
    "routes": "[{name: a, match: {host: x, path: /a, prefix: /a, method: GET, headers: {a: b}}, app: 81}]",
    "forwarded_client_cert": "append_forward",
    "forwarded_client_cert_details": "[cert, chain]",
    "client_cert_header": "chain",
    "trusted_hops": "1",
    "alpn": "[http/1.1]",
    "unsafe_plaintext": "false",
    "allow_any_verified": "false",
}
OUTBOUND = {"name": "main", "browsers": "allow", "unsafe_plaintext": "false"}
SERVICE = {
    "hosts": "[pay.example.org]",
    "plaintext": "none",
    "listen": "localhost:9001",
    "protocol": "http",
    "server_name": "pay.example.org",
    "alpn": "[http/1.1]",
    "connect_timeout": "2s",
    "balance": "{kind: round_robin}",
    "pool": "{max_idle: 0, idle_timeout: 1s, max_age: 1m, max_requests: 5}",
}
TOP = {
    "name": "web",
    "tls": "{profile: modern, min_version: TLSv1.3, groups: [P-384], session_lifetime: none}",
    "admin": '{listen: "unix:/run/a", expose: false}',
    "drain": "{delay: 0s, timeout: 1s}",
    "access_log": '{path: "-", format: envoy, sample: 12.5%, query: true}',
    "log": "{level: debug, format: console}",
    "tracing": "{formats: [w3c]}",
    "limits": "{buffers: 64MiB, handshakes: 8, handshake_rate: 600/m}",
}
LATER_ROUTE = ["per_try_timeout", "retry", "hedge_after", "rate_limit", "fault"]

GOOD = [
    *(("inbound", f"  {key}: {value}\n") for key, value in (LISTENER | HTTP_LISTENER | SETTINGS | INBOUND).items()),
    *(("outbound", f"  {key}: {value}\n") for key, value in (LISTENER | HTTP_LISTENER | SETTINGS | OUTBOUND).items()),
    *(("tcp", f"  app: 8080\n  allow: [{{dns: web}}]\n  {key}: {value}\n") for key, value in LISTENER.items()),
    ("tcp", "  app: {address: unix:/a, connect_timeout: 1s}\n  allow: [{dns: web}]\n  alpn: [h2]\n"),
    ("tcp", "  app: 8080\n  allow: [{dns: web}]\n  alpn: none\n  max_connection_age: none\n"),
    ("bare", "  app: {address: 8080, pool: {idle_timeout: 4s}}\n"
     "  allow: [{dns: web, may_forward: true, methods: [GET], paths: [/a]}]\n"),
    ("version", "identity: {directory: a}\n"
     "inbound: {listen: unix:/a, socket_mode: '0660', app: 80, allow: [{dns: a}]}\n"),
    *(("service", f"    {key}: {value}\n") for key, value in (SETTINGS | SERVICE).items() if key != "protocol"),
    ("service", "    listen: unix:/a\n    protocol: tcp\n    alpn: [h2]\n"),
    ("service", "    alpn: none\n    balance: least_request\n"),
    ("outbound", "  routes: [{match: {host: [payments, '*.payments.example']}, "
     "split: {payments: 1}, rewrite: none}]\n"),
    ("outbound", "  routes: [{name: a, service: payments, "
     "match: {prefix: /}, rewrite: {prefix: /v1, host: x.y}, timeout: 1s}]\n"),
    ("outbound", "  protocol: tcp\n  service: payments\n"),
    *(("top", f"{key}: {value}\n") for key, value in TOP.items()),
    ("top", "admin: {listen: none}\naccess_log: none\n"),
    ("top", "admin: {listen: 0.0.0.0:9901, expose: true}\n"),
    ("services", "  a: {endpoints: [{address: '[::1]:1', weight: 2, zone: a, priority: 1}], "
     "peer: [{dns: a}, {cn: b}]}\n"),
    ("services", "  a: {endpoints: [unix:/a, localhost:1], plaintext: loopback}\n"),
    ("identity", "  certificate: a\n  private_key: b\n  trust_bundle: c\n  crl: d\n  crl_grace: 1h\n"),
    ("identity", "  certificate: a\n  private_key: b\n  trust_bundle: {example.org: c}\n"
     "  crl: [d, e]\n  crl_grace: none\n"),
]  # fmt: skip

LATER = [
    *(("top", f"{key}: {{}}\n") for key in ["zone", "include", "workers", "shipper", "adapter", "offloader"]),
    *(("identity", f"  directory: a\n  {key}: x\n") for key in ["trust_max_age", "policy_file", "workload_api"]),
    ("top", "tls: {cipher_suites: [x]}\n"),
    *(("inbound", f"  {key}: x\n") for key in [*LATER_ROUTE, "proxy_protocol"]),
    *(("outbound", f"  {key}: x\n") for key in [*LATER_ROUTE, "proxy_protocol"]),
    *(("inbound", f"  routes: [{{{key}: x}}]\n") for key in LATER_ROUTE),
    *(("outbound", f"  routes: [{{service: payments, {key}: x}}]\n") for key in LATER_ROUTE),
    *(
        ("service", f"    {key}: none\n")
        for key in [*LATER_ROUTE, "discovery", "circuit_breaker", "health_check", "outlier_detection"]
    ),
    *(
        ("bare", f"  allow: [{{dns: a}}]\n  app: {{address: 1, {key}: {{}}}}\n")
        for key in ["circuit_breaker", "health", "probes"]
    ),
    *(
        ("service", f"    balance: {{{key}: x}}\n")
        for key in ["hash", "load_bound", "slow_start", "zone", "panic_threshold"]
    ),
    *(("service", f"    balance: {kind}\n") for kind in ["peak_ewma", "ring_hash"]),
    *(("top", f"admin: {{{key}: x}}\n") for key in ["socket", "socket_uids", "status_page"]),
    ("top", "drain: {outbound_quiet: 1s}\n"),
    *(("top", f"tracing: {{{key}: x}}\n") for key in ["sample", "otlp"]),
    ("top", "tracing: {formats: [w3c, b3]}\n"),
]  # fmt: skip


#: Built, and refused until all of their issue is.
UNFINISHED = [
    *(("services", f"  a: {{{places}, rate_limit: {{rate: 10/s, burst: 5, by: all}}}}\n")
      for places in ("endpoints: ['10.0.0.1:1'], peer: {dns: a}",)),
    ("inbound", "  rate_limit: {rate: 10/s, by: peer}\n"),
    ("inbound", "  routes: [{rate_limit: {rate: 600/m}}]\n"),
    ("outbound", "  routes: [{service: payments, rate_limit: {rate: 1/h}}]\n"),
    ("services", "  a: {discovery: {kind: static, endpoints: ['10.0.0.1:1']}, peer: {dns: a}}\n"),
    ("services", "  a: {discovery: {kind: dns, name: a.internal, port: 1, family: ipv4, servers: [10.0.0.1:53],\n"
     "      min_ttl: 1s, max_ttl: 5s}, peer: {dns: a}}\n"),
    ("services", "  a: {discovery: {kind: file, path: a.yaml, interval: 2s, on_empty: drop,\n"
     "      allowed_networks: [10.0.0.0/8, 'fd00::/8'], max_endpoints: 5}, peer: {dns: a}}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "text"), UNFINISHED)
def test_what_is_built_in_part_is_refused_and_works_behind_its_gate(
    base: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.md, first paragraph: a key whose issue is not done is refused."""
    (line,) = problems(BASES[base] + text)
    assert "not built yet; leave it out" in line

    monkeypatch.setattr(schema, "UNFINISHED", frozenset())
    assert problems(BASES[base] + text) == []
    jsonschema.validate(yaml.safe_load(BASES[base] + text), json_schema())


def test_names_that_sound_like_unfinished_keys_are_names() -> None:
    text = "  discovery: {endpoints: ['10.0.0.1:1'], peer: {dns: a}}\n"
    text += "  rate_limit: {endpoints: ['10.0.0.1:2'], peer: {dns: a}}\n".replace("_", "-")

    assert problems(BASES["services"] + text) == []


@pytest.mark.parametrize(("base", "text"), GOOD)
def test_an_unmarked_key_works(base: str, text: str) -> None:
    """config.md §3."""
    assert problems(BASES[base] + text) == []


@pytest.mark.parametrize(("base", "text"), LATER)
def test_a_marked_key_is_refused_and_never_ignored(base: str, text: str) -> None:
    """config.md, first paragraph."""
    (line,) = problems(BASES[base] + text)

    assert "not built yet" in line


def test_no_key_of_the_schema_is_forgotten_here() -> None:
    """Whoever adds a key adds its case above."""
    tried = "".join(BASES[base] + text for base, text in [*GOOD, *LATER, *UNFINISHED])
    known: set[str] = set()
    for section in _sections(schema.Section):
        known |= set(section.model_fields) | section.later

    assert not {key for key in known if f"{key}:" not in tried}


def _sections(section: Any) -> list[Any]:
    return [section, *(one for child in section.__subclasses__() for one in _sections(child))]


@pytest.mark.parametrize(
    ("base", "text", "warning"),
    [
        ("bare", "  app: 80\n  allow_any_verified: true\n",
         "6:3 inbound.allow_any_verified: unsafe: whoever the trust bundle vouches for may call the app"),
        ("inbound", "  authorization: audit\n",
         "7:3 inbound.authorization: unsafe: what the rules deny is logged, and let in"),
        ("inbound", "  unsafe_plaintext: true\n",
         "7:3 inbound.unsafe_plaintext: unsafe: requests may go to the app in the clear, beyond loopback"),
        ("outbound", "  unsafe_plaintext: true\n",
         "9:3 outbound.unsafe_plaintext: unsafe: whoever reaches this listener uses our identity"),
        ("services", "  a: {endpoints: ['1.1.1.1:1'], peer: any_verified}\n",
         "6:33 services.a.peer: unsafe: whoever the trust bundle vouches for may answer"),
        ("services", "  a: {endpoints: ['1.1.1.1:1'], plaintext: unsafe_anywhere}\n",
         "6:33 services.a.plaintext: unsafe: requests go out in the clear, and nobody knows who answers"),
        ("services", "  {}\n", "3:1 outbound: there are no services, so every request gets 404"),
        ("top", "services: {a: {endpoints: ['1.1.1.1:1'], peer: {dns: a}}}\n",
         '7:12 services.a: no listener leads to this service; '
          'write outbound: {listen: "127.0.0.1:9000"}, or listen in it'),
    ],
)  # fmt: skip
def test_what_is_unsafe_or_useless_is_a_warning(base: str, text: str, warning: str) -> None:
    """config.md §1, "Unsafe is spelled out"; fail-closed rule 10."""
    assert warnings(BASES[base] + text) == [warning]


@pytest.mark.parametrize("base", ["top", "outbound", "service"])
def test_a_sound_file_has_no_warning(base: str) -> None:
    """config.md §1: a fresh, sound installation has none."""
    assert loaded(BASES[base]).warnings == ()


def test_a_deny_of_a_domain_without_a_bundle_is_a_warning() -> None:
    """Threats B6: with a bundle per domain nobody else is let in, so it is a typing error."""
    identity = "identity: {certificate: c, private_key: k, trust_bundle: {example.org: ca}}\n"
    rule = "  deny: [{spiffe: 'spiffe://exmaple.org/old/**'}]\n"
    base = BASES["inbound"].replace("identity: {directory: certs}\n", identity)

    assert warnings(base + rule) == [
        "7:11 inbound.deny[0].spiffe: no peer of exmaple.org is ever let in, so this refuses nobody; is it misspelt?"
    ]
    assert warnings(base + rule.replace("exmaple", "example")) == []


def test_a_foreign_variable_is_a_warning_with_a_suggestion() -> None:
    """config.md §5, Environment; Kubernetes makes some of its own."""
    environ = {
        "AMBASSADOR_LOGLEVEL": "debug",
        "AMBASSADOR_XYZZY": "1",
        "AMBASSADOR_LOOP": "asyncio",
        "AMBASSADOR_SERVICE_HOST": "10.0.0.1",
        "AMBASSADOR_PORT_8443_TCP": "tcp://10.0.0.1:8443",
        "PATH": "/bin",
    }

    assert warnings(BASES["top"], environ) == [
        "environment variable AMBASSADOR_LOGLEVEL: it has no effect; did you mean AMBASSADOR_LOG_LEVEL?",
        "environment variable AMBASSADOR_XYZZY: it has no effect; known are AMBASSADOR_CONFIG,"
        " AMBASSADOR_SOCKET, AMBASSADOR_LOG_LEVEL, AMBASSADOR_LOOP",
    ]
