"""Every key of `config.md`: unmarked ones work, marked ones are refused as not built yet, none is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from ambassador.config import schema
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
#: May stand wherever route settings may.
RESILIENCE = {
    "per_try_timeout": "2s",
    "retry": "{attempts: 3, when: [connect_failure, reset, gateway_error, refused_stream, 5xx, 429], max_body: 1MiB, "
    "backoff: {base: 1s, max: 1s}, retry_after: false, unsafe_methods: [POST]}",
    "hedge_after": "50ms",
    "rate_limit": "{rate: 10/s, burst: 5, by: all}",
    "fault": "{delay: 1s, abort: 503, percent: 1%, headers: {x-fault: present}ALLOW}",
}
OFF = dict.fromkeys(RESILIENCE, "none")
INBOUND_RESILIENCE = RESILIENCE | {
    "rate_limit": "{rate: 600/m, by: peer}",
    "fault": RESILIENCE["fault"].replace(
        "ALLOW", ", allow: [{name: t, dns: a, methods: [GET], paths: [/a]}]"
    ),
}
RESILIENCE["fault"] = RESILIENCE["fault"].replace("ALLOW", "")
PLACES = [
    ("endpoints", "[{address: 'a.internal:1', weight: 2, zone: a, priority: 1}, 'b:2', '1.1.1.1:1', unix:/a]"),
    ("discovery", "{kind: static, endpoints: ['10.0.0.1:1', 'a:2']}"),
    ("discovery", "{kind: dns, name: a.internal, port: 1, family: ipv4, servers: [10.0.0.1:53],"
     " min_ttl: 1s, max_ttl: 5s}"),
    ("discovery", "{kind: file, path: a.yaml, interval: 2s, on_empty: drop,"
     " allowed_networks: [10.0.0.0/8, 'fd00::/8'], max_endpoints: 5}"),
    ("discovery", "{kind: dns_srv, name: _mtls._tcp.a.internal, servers: ['[::1]:53'], min_ttl: 1m, max_ttl: 2m}"),
    ("discovery", "{kind: kubernetes, service: a}"),
    ("discovery", "{kind: kubernetes, service: a, namespace: b, port: 8443, api_server: 'https://kube:6443',"
     " token_file: t, ca_file: c}"),
    ("discovery", "{kind: kubernetes, service: a, port: mtls}"),
    ("discovery", "{kind: consul, service: a b, address: 'http://[::1]:8500/x/', datacenter: eu, tag: v1, token: t}"),
    ("discovery", "{kind: etcd, urls: ['https://a:2379', 'https://10.0.0.1'], prefix: /a/, username: u, password: p,"
     " ca_file: c}"),
]  # fmt: skip
RING = [
    "{kind: ring_hash, hash: {header: x-user}, load_bound: 1000%, slow_start: 30s, zone: ignore, panic_threshold: 0%}",
    "{kind: ring_hash, hash: {cookie: sid}, load_bound: 100%, slow_start: none}",
    "{kind: ring_hash, hash: peer}",
    "peak_ewma",
]
OUTLIER = (
    "{consecutive: 1, interval: 1s, ejection: 1s, max_ejection: 1m, max_ejected: 100%, success_rate: 80%,"
    " min_requests: 1}"
)
HEALTH = [
    "{kind: http, path: /healthz, host: a.b, expect: [200, 204, 300-399], interval: 1s, unhealthy_interval: 1s,"
    " no_traffic_interval: 1m, timeout: 1s, rise: 1, fall: 1, jitter: 0%}",
    "{kind: tcp, rise: 1}", "http", "tcp", "none", "{}",
]  # fmt: skip
BREAKER = "{connections: 1, pending: 0, requests: 1, retry_budget: 0%, min_retries: 0}"
SERVICES_ISSUE = [
    *(("inbound", f"  {key}: {value}\n") for key, value in [*INBOUND_RESILIENCE.items(), *OFF.items()]),
    *(("inbound", f"  routes: [{{{key}: {value}}}]\n") for key, value in [*INBOUND_RESILIENCE.items(), *OFF.items()]),
    *(("outbound", f"  {key}: {value}\n") for key, value in [*RESILIENCE.items(), *OFF.items()]),
    *(("outbound", f"  routes: [{{service: payments, {key}: {value}}}]\n")
      for key, value in [*RESILIENCE.items(), *OFF.items()]),
    *(("service", f"    {key}: {value}\n") for key, value in [*RESILIENCE.items(), *OFF.items()]),
    *(("services", f"  a: {{{key}: {value}, peer: {{dns: a}}}}\n") for key, value in PLACES),
    *(("service", f"    balance: {value}\n") for value in RING),
    *(("service", f"    health_check: {value}\n") for value in HEALTH),
    *(("service", f"    outlier_detection: {value}\n") for value in (OUTLIER, "none", "{}")),
    ("service", f"    circuit_breaker: {BREAKER}\n"),
    ("bare", f"  app: {{address: 1, circuit_breaker: {BREAKER}}}\n  allow: [{{dns: web}}]\n"),
    ("bare", "  app: 'web:8080'\n  unsafe_plaintext: true\n  allow: [{dns: a}]\n"
     "  routes: [{app: 'files:80'}]\n"),
    ("bare", "  app: {address: 'web.shop:8080'}\n  unsafe_plaintext: true\n  allow: [{dns: a}]\n"),
    ("services", "  a: {endpoints: ['1.1.1.1:1'], peer: {dns: a}, listen: 'localhost:1', protocol: tcp,\n"
     f"    health_check: tcp, outlier_detection: {OUTLIER}, circuit_breaker: {BREAKER},\n"
     "    balance: {kind: ring_hash, hash: peer}}\n"),
    ("top", "zone: eu-1a\n"),
]  # fmt: skip

GOOD = [
    *SERVICES_ISSUE,
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
    *(("top", f"{key}: {{}}\n") for key in ["include", "workers", "shipper", "adapter", "offloader"]),
    *(("identity", f"  directory: a\n  {key}: x\n") for key in ["trust_max_age", "policy_file", "workload_api"]),
    ("top", "tls: {cipher_suites: [x]}\n"),
    *(("inbound", f"  {key}: x\n") for key in ["proxy_protocol"]),
    *(("outbound", f"  {key}: x\n") for key in ["proxy_protocol"]),
    *(
        ("bare", f"  allow: [{{dns: a}}]\n  app: {{address: 1, {key}: {{}}}}\n")
        for key in ["health", "probes"]
    ),
    *(("top", f"admin: {{{key}: x}}\n") for key in ["socket", "socket_uids", "status_page"]),
    ("top", "drain: {outbound_quiet: 1s}\n"),
    *(("top", f"tracing: {{{key}: x}}\n") for key in ["sample", "otlp"]),
    ("top", "tracing: {formats: [w3c, b3]}\n"),
]  # fmt: skip


def test_names_that_sound_like_keys_are_names() -> None:
    text = "  discovery: {endpoints: ['10.0.0.1:1'], peer: {dns: a}}\n"
    text += "  retry: {endpoints: ['10.0.0.1:2'], peer: {dns: a}}\n"

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
    tried = "".join(BASES[base] + text for base, text in [*GOOD, *LATER])
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
        ("inbound", "  retry: {unsafe_methods: [POST, PATCH]}\n",
         "7:11 inbound.retry.unsafe_methods: unsafe: POST, PATCH may be sent twice"),
        ("inbound", "  routes: [{retry: {unsafe_methods: [POST]}}]\n",
         "7:21 inbound.routes[0].retry.unsafe_methods: unsafe: POST may be sent twice"),
        ("service", "    fault: {delay: 1s}\n",
         "9:5 services.payments.fault: in effect only with run --enable-faults"),
        ("inbound", "  routes: [{fault: {abort: 503, allow: [{dns: a}]}}]\n",
         "7:13 inbound.routes[0].fault: in effect only with run --enable-faults"),
        ("services", "  a: {discovery: {kind: consul, service: a, address: 'http://consul:8500', token: hunter2},"
         " peer: {dns: a}}\n",
         '6:76 services.a.discovery.token: unsafe: the token goes in the clear to "http://consul:8500"'),
        ("services", "  a: {discovery: {kind: etcd, urls: ['https://b', 'http://10.0.0.1'], prefix: a, username: u,"
         " password: p}, peer: {dns: a}}\n",
         '6:95 services.a.discovery.password: unsafe: the password goes in the clear to "http://10.0.0.1"'),
        ("services", "  a: {discovery: {kind: kubernetes, service: a, api_server: 'http://kube'}, peer: {dns: a}}\n",
         '6:49 services.a.discovery.api_server: unsafe: the Pod\'s token goes in the clear to "http://kube"'),
        ("services", "  {}\n", "3:1 outbound: there are no services, so every request gets 404"),
        ("top", "services: {a: {endpoints: ['1.1.1.1:1'], peer: {dns: a}}}\n",
         '7:12 services.a: no listener leads to this service; '
          'write outbound: {listen: "127.0.0.1:9000"}, or listen in it'),
    ],
)  # fmt: skip
def test_what_is_unsafe_or_useless_is_a_warning(base: str, text: str, warning: str) -> None:
    """config.md §1, "Unsafe is spelled out"; fail-closed rule 10."""
    assert warnings(BASES[base] + text) == [warning]


@pytest.mark.parametrize(
    "discovery",
    ["{kind: consul, service: a, address: 'http://localhost:8500', token: a}",
     "{kind: consul, service: a, address: 'http://127.0.0.9:8500', token: a}",
     "{kind: consul, service: a, address: 'http://consul:8500'}",
     "{kind: consul, service: a, address: 'https://consul:8500', token: a}",
     "{kind: etcd, urls: ['http://etcd'], prefix: a}"],
)  # fmt: skip
def test_no_secret_in_the_clear_is_no_warning(discovery: str) -> None:
    """Threats I3: on this machine, behind TLS, or without a secret."""
    assert (
        warnings(BASES["services"] + f"  a: {{discovery: {discovery}, peer: {{dns: a}}}}\n") == []
    )


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
