"""What a file means: defaults, nearest wins, generated services and listeners."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from ambassador.config import model
from ambassador.config.load import load
from ambassador.config.model import Config, RouteSettings
from ambassador.core.model import Address, Endpoint
from ambassador.policy.authorization import PeerPattern, Rule
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.policy.health import HealthCheckSettings
from ambassador.policy.networks import is_allowed
from ambassador.policy.outlier import OutlierSettings
from ambassador.policy.retry import RetrySettings
from ambassador.policy.routing import Match, Rewrite
from tests.unit.config.make import BASES, loaded


def test_the_smallest_file_means_every_default_of_the_model() -> None:
    """One default, two places: the schema spells it, the model has it for tests."""
    config = loaded(BASES["top"] + "outbound: {listen: 127.0.0.1:9000}\nservices: {}\n")
    inbound, outbound = config.inbound[0], config.outbound[0]

    assert inbound.limits == outbound.limits == model.ListenerLimits()
    assert inbound.settings == outbound.settings == RouteSettings()
    assert config.tls == model.TlsConfig()
    assert config.admin == model.AdminConfig()
    assert config.drain == model.DrainConfig()
    assert config.access_log == model.AccessLogConfig()
    assert config.log == model.LogConfig()
    assert config.limits == model.LimitsConfig()


def test_a_service_has_the_models_defaults() -> None:
    service = loaded(BASES["service"]).services["payments"]

    assert service == model.ServiceConfig(
        name="payments",
        endpoints=(Endpoint(Address("10.0.0.7", 8443)),),
        peer=(PeerPattern("spiffe", "spiffe://example.org/payments"),),
    )


def test_the_model_has_no_unused_setting() -> None:
    """A field of the limits that no key fills would be ignored silently."""
    text = (
        BASES["inbound"]
        + "  max_connections: 10\n  max_connections_per_peer: 9\n  handshake_timeout: 1s\n  head_timeout: 2s\n"
        "  idle_timeout: 3s\n  write_timeout: 4s\n  body_min_rate: none\n  max_connection_age: 6s\n"
        "  max_head: 7KiB\n  max_headers: 8\n  max_uri: 1KiB\n"
    )
    limits = loaded(text).inbound[0].limits
    default = model.ListenerLimits()

    same = [
        one.name
        for one in fields(limits)
        if getattr(limits, one.name) == getattr(default, one.name)
    ]
    assert same == []


def test_half_of_the_connections_may_be_one_peers() -> None:
    """config.md §3; never none."""
    assert (
        loaded(BASES["inbound"] + "  max_connections: 11\n")
        .inbound[0]
        .limits.max_connections_per_peer
        == 5
    )
    assert (
        loaded(BASES["inbound"] + "  max_connections: 1\n")
        .inbound[0]
        .limits.max_connections_per_peer
        == 1
    )


def test_tcp_has_its_own_defaults() -> None:
    """config.md §3: idle 1h, no age, no ALPN; only silence ends it."""
    inbound = loaded(BASES["tcp"] + "  app: unix:/a\n  allow: [{dns: web}]\n").inbound[0]

    assert inbound.limits.idle_timeout_s == 3600
    assert inbound.limits.max_connection_age_s is None
    assert inbound.alpn == ()
    assert inbound.settings == RouteSettings(
        timeout_s=None, body_idle_timeout_s=3600.0, upgrades=()
    )


def test_a_services_own_listener_has_the_defaults_of_any_other() -> None:
    """Its limits are not in the file, so they are written twice in our code."""
    text = """\
version: 1
identity: {directory: a}
outbound:
  - {name: http, listen: "127.0.0.1:1", service: a}
  - {name: tcp, listen: "127.0.0.1:2", protocol: tcp, service: b}
services:
  a: {endpoints: ["1.1.1.1:1"], peer: {dns: a}, listen: "localhost:3"}
  b: {endpoints: ["1.1.1.1:1"], peer: {dns: b}, listen: "localhost:4", protocol: tcp}
"""
    http, tcp, own_http, own_tcp = loaded(text).outbound

    assert replace(own_http, name="http", listen=http.listen) == http
    assert replace(own_tcp, name="tcp", listen=tcp.listen) == tcp


def test_a_tcp_default_can_be_overridden() -> None:
    text = (
        BASES["tcp"] + "  app: unix:/a\n  allow: [{dns: web}]\n  idle_timeout: 5m\n  alpn: [h2]\n"
    )

    inbound = loaded(text).inbound[0]

    assert inbound.limits.idle_timeout_s == 300
    assert inbound.alpn == ("h2",)


def test_the_app_is_a_service_on_loopback() -> None:
    config = loaded(
        BASES["bare"] + "  app: {address: 8080, connect_timeout: 2s}\n  allow: [{dns: web}]\n"
    )

    app = config.services["app"]
    assert config.inbound[0].app == "app"
    assert app.is_app
    assert app.endpoints == (Endpoint(Address("localhost", 8080)),)
    assert (app.plaintext, app.alpn, app.peer) == ("loopback", (), None)
    assert (app.connect_timeout_s, app.pool.idle_timeout_s) == (2.0, 4.0)
    assert config.inbound[0].routes[0].targets == (("app", 1),)


def test_an_app_elsewhere_is_typed_and_known() -> None:
    text = BASES["bare"] + "  app: 10.0.0.1:80\n  unsafe_plaintext: true\n  allow: [{dns: web}]\n"

    assert loaded(text).services["app"].plaintext == "unsafe_anywhere"


def test_routes_to_other_ports_of_the_app_are_services_too() -> None:
    text = (
        BASES["inbound"]
        + "  name: api\n  timeout: 1s\n  routes:\n    - {name: files, match: {prefix: /f}, app: 81, timeout: none,"
        " rewrite: {prefix: /}}\n    - {app: 82, max_body: 1KiB}\n    - {name: rest}\n"
    )

    config = loaded(text)

    files, second, rest = config.inbound[0].routes
    assert [route.targets[0][0] for route in (files, second, rest)] == [
        "app-api-files",
        "app-api-route-2",
        "app-api",
    ]
    assert config.services["app-api-files"].endpoints[0].address.port == 81
    assert files.settings.timeout_s is None
    assert files.rewrite == Rewrite(prefix="/")
    assert (second.settings.timeout_s, second.settings.max_body) == (1.0, 1024)
    assert rest.match == Match()


def test_the_nearest_setting_wins() -> None:
    """config.md §3: route, service, listener."""
    text = """\
version: 1
identity: {directory: a}
outbound:
  - name: routes
    listen: 127.0.0.1:1
    timeout: 1s
    max_body: 1B
    body_idle_timeout: 1s
    routes:
      - {name: split, split: {a: 9, b: 1}, timeout: 3s}
      - {name: plain, service: a}
  - {name: by-name, listen: "127.0.0.1:2", timeout: 4s}
  - {name: one, listen: "127.0.0.1:3", service: a}
services:
  a: {endpoints: ["1.1.1.1:1"], peer: {dns: a}, timeout: 2s, max_body: 2B}
  b: {endpoints: ["1.1.1.1:1"], peer: {dns: b}, listen: "localhost:4"}
"""
    routes, by_name, one, own = loaded(text).outbound
    assert routes.routes is not None

    split, plain = routes.routes
    assert split.targets == (("a", 9), ("b", 1))
    assert {name: (s.timeout_s, s.max_body) for name, s in split.service_settings.items()} == {
        "a": (3.0, 2),
        "b": (3.0, 1),
    }
    assert split.settings == split.service_settings["a"]
    assert (plain.settings.timeout_s, plain.settings.body_idle_timeout_s) == (2.0, 1.0)
    assert {name: s.timeout_s for name, s in by_name.service_settings.items()} == {
        "a": 2.0,
        "b": 4.0,
    }
    assert by_name.service is None
    assert by_name.routes is None
    assert one.service == "a"
    assert one.settings.timeout_s == 2.0
    assert (own.name, own.listen, own.service) == ("service-b", Address("localhost", 4), "b")
    assert own.settings.timeout_s == 15.0


def test_a_service_behind_a_tcp_listener_is_offered_no_alpn() -> None:
    """config.md §3: `alpn` [http/1.1], tcp none."""
    text = """\
version: 1
identity: {directory: a}
outbound: {listen: "127.0.0.1:1", protocol: tcp, service: a}
services:
  a: {endpoints: ["1.1.1.1:1"], peer: {dns: a}}
  b: {endpoints: ["1.1.1.1:1"], peer: {dns: b}, listen: "localhost:4", protocol: tcp}
  c: {endpoints: ["1.1.1.1:1"], peer: {dns: b}, listen: "localhost:5"}
  d: {endpoints: ["1.1.1.1:1"], peer: {dns: b}, listen: "localhost:6", alpn: none}
"""
    config = loaded(text)

    assert {name: service.alpn for name, service in config.services.items()} == {
        "a": (),
        "b": (),
        "c": ("http/1.1",),
        "d": (),
    }
    assert config.outbound[0].service_settings == {}
    assert config.outbound[0].settings.body_idle_timeout_s == 3600.0


def test_the_name_to_ask_for_is_the_dns_peer() -> None:
    """config.md §3, `server_name`: when there is one name."""

    def asked(peer: str) -> str | None:
        return (
            loaded(BASES["services"] + f"  a: {{endpoints: ['1.1.1.1:1'], {peer}}}\n")
            .services["a"]
            .server_name
        )

    assert asked("peer: {dns: a.b}") == "a.b"
    assert asked("peer: [{spiffe: 'spiffe://x/a'}, {dns: a.b}]") == "a.b"
    assert asked("peer: [{dns: a.b}, {dns: c.d}]") is None
    assert asked("peer: {dns: '*.b'}") is None
    assert asked("peer: {dns: a.b}, server_name: x") == "x"
    assert asked("peer: any_verified") is None
    assert asked("plaintext: unsafe_anywhere") is None


def test_any_verified_and_plaintext_have_no_peer() -> None:
    text = BASES["services"] + (
        "  a: {endpoints: ['1.1.1.1:1'], peer: any_verified}\n"
        "  b: {endpoints: ['127.0.0.1:1'], plaintext: loopback}\n"
    )

    services = loaded(text).services

    assert (services["a"].peer, services["a"].plaintext, services["a"].alpn) == (
        None,
        "none",
        ("http/1.1",),
    )
    assert (services["b"].peer, services["b"].plaintext, services["b"].alpn) == (
        None,
        "loopback",
        (),
    )


def test_rules_keep_their_order_and_get_names() -> None:
    text = BASES["bare"] + (
        "  app: 80\n  allow: [{dns: a, methods: [GET], paths: [/a/**], may_forward: true}, {name: x, cn: B}]\n"
        "  deny: [{uri: 'https://a/b'}]\n"
    )

    inbound = loaded(text).inbound[0]

    assert inbound.allow == (
        Rule("allow-1", "dns", "a", frozenset({b"GET"}), ("/a/**",), may_forward=True),
        Rule("x", "cn", "B"),
    )
    assert inbound.deny == (Rule("deny-1", "uri", "https://a/b"),)


def test_a_match_knows_present_from_a_value() -> None:
    text = BASES["outbound"] + (
        "  routes: [{match: {host: [A, '*.B'], path: /p, prefix: /q, method: [GET, PUT],"
        " headers: {X-A: present, x-b: '1'}}, service: payments}]\n"
    )

    routes = loaded(text).outbound[0].routes

    assert routes is not None
    assert routes[0].match == Match(
        hosts=("a", "*.b"),
        path="/p",
        prefix="/q",
        methods=("GET", "PUT"),
        headers=(("x-a", None), ("x-b", "1")),
    )


def _identity(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "a.yaml"
    path.write_text(BASES["identity"] + text, encoding="utf-8")
    return load(path, {})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """config.md §1, PATH."""
    config = _identity(
        tmp_path,
        "  certificate: c/a\n  private_key: /b\n  trust_bundle: c\n  crl: d\n  crl_grace: 1h\n"
        "access_log: {path: log}\n",
    )

    assert config.identity == model.IdentityConfig(
        certificate=tmp_path / "c/a",
        private_key=Path("/b"),
        trust_bundles={"": tmp_path / "c"},
        crl=(tmp_path / "d",),
        crl_grace_s=3600.0,
    )
    assert config.access_log is not None
    assert config.access_log.path == f"{tmp_path}/log"


def test_a_folder_stands_for_three_files(tmp_path: Path) -> None:
    """config.md §3, `identity.directory`; links are not followed, they are swapped on renewal."""
    (tmp_path / "link").symlink_to(tmp_path)

    config = _identity(tmp_path, "  directory: link\n")

    assert config.identity == model.IdentityConfig(
        certificate=tmp_path / "link/tls.crt",
        private_key=tmp_path / "link/tls.key",
        trust_bundles={"": tmp_path / "link/ca.crt"},
    )


def test_bundles_have_their_trust_domains(tmp_path: Path) -> None:
    config = _identity(
        tmp_path,
        "  certificate: a\n  private_key: b\n  trust_bundle: {example.org: c, b.example: d}\n",
    )

    assert config.identity is not None
    assert config.identity.trust_bundles == {
        "example.org": tmp_path / "c",
        "b.example": tmp_path / "d",
    }


def test_plaintext_alone_needs_no_identity() -> None:
    text = "version: 1\noutbound: {listen: 127.0.0.1:1}\nservices: {a: {endpoints: ['[::1]:1'], plaintext: loopback}}\n"

    assert loaded(text).identity is None


def test_the_profile_sets_the_version_and_a_key_narrows_it() -> None:
    assert loaded(BASES["top"] + "tls: {profile: modern}\n").tls.min_version == "TLSv1.3"
    assert loaded(BASES["top"] + "tls: {min_version: TLSv1.3}\n").tls.min_version == "TLSv1.3"
    assert loaded(BASES["top"] + "tls: {session_lifetime: none}\n").tls.session_lifetime_s is None


def test_what_can_be_switched_off_is_none() -> None:
    config = loaded(
        BASES["inbound"] + "  body_min_rate: none\naccess_log: none\nadmin: {listen: none}\n"
    )

    assert config.inbound[0].limits.body_min_rate is None
    assert config.access_log is None
    assert config.admin.listen is None


def test_a_name_is_the_hosts_unless_given() -> None:
    assert loaded(BASES["top"]).name
    assert loaded(BASES["top"] + "name: web\n").name == "web"
    assert loaded(BASES["top"] + "name: $${web}\n").name == "${web}"


def test_a_unix_listener_has_its_mode() -> None:
    text = (
        BASES["version"]
        + "identity: {directory: a}\noutbound: {listen: unix:/a, socket_mode: '0660'}\n"
    )

    assert loaded(text).outbound[0].socket_mode == 0o660


# --- what keeps a failure small ---


def _service(text: str) -> model.ServiceConfig:
    """Give a service `a`; without endpoints of its own it has one."""
    place = "" if "endpoints:" in text or "discovery:" in text else "endpoints: ['1.1.1.1:1'], "
    return loaded(BASES["services"] + f"  a: {{{place}peer: {{dns: a}}, {text}}}\n").services["a"]


def test_empty_mappings_mean_the_defaults_of_policy() -> None:
    """One default, two places: the schema spells it, `policy` has it."""
    service = _service(
        "retry: {}, health_check: {}, outlier_detection: {}, circuit_breaker: {}, balance: {}, listen: 'localhost:1'"
    )
    settings = loaded(BASES["outbound"] + "  retry: {}\n").outbound[0].settings

    assert settings.retry == RetrySettings()
    assert service.health_check == HealthCheckSettings()
    assert service.outlier_detection == OutlierSettings()
    assert service.circuit_breaker == CircuitBreakerSettings()
    assert service.balance == BalanceSettings()


def test_a_retry_knows_words_from_statuses() -> None:
    """config.md §3, retry."""
    settings = loaded(
        BASES["inbound"] + "  retry: {attempts: 4, when: [5xx, 429, reset], max_body: 1KiB, retry_after: false,"
        " backoff: {base: 1s, max: 2s}, unsafe_methods: [POST]}\n"
    ).inbound[0].settings  # fmt: skip

    assert settings.retry == RetrySettings(
        attempts=4,
        conditions=frozenset({"5xx", "reset"}),
        statuses=frozenset({429}),
        max_body=1024,
        backoff_base_s=1.0,
        backoff_max_s=2.0,
        retry_after=False,
        unsafe_methods=frozenset({b"POST"}),
    )


def test_the_nearest_retry_fault_and_time_win_and_none_is_a_word_too() -> None:
    """config.md §3: route, service, listener; `none` switches off what stands further away."""
    text = """\
version: 1
identity: {directory: a}
outbound:
  listen: 127.0.0.1:1
  retry: {attempts: 9}
  hedge_after: 1s
  per_try_timeout: 1s
  fault: {delay: 1s}
  rate_limit: {rate: 1/s}
  routes:
    - {name: without, service: a, retry: none, hedge_after: none, per_try_timeout: none, fault: none, rate_limit: none}
    - {name: own, service: a, retry: {attempts: 3}, hedge_after: 3s, per_try_timeout: 3s, fault: {abort: 503}}
    - {name: of-service, service: a}
    - {name: of-listener, service: b}
services:
  a: {endpoints: ["1.1.1.1:1"], peer: {dns: a}, retry: {attempts: 2}, hedge_after: 2s, per_try_timeout: 2s,
      fault: {delay: 2s}, rate_limit: {rate: 2/s}}
  b: {endpoints: ["1.1.1.1:1"], peer: {dns: b}}
"""
    routes = loaded(text).outbound[0].routes
    assert routes is not None
    off, own, of_service, of_listener = (route.settings for route in routes)

    assert off == RouteSettings()
    assert [
        (one.retry.attempts, one.hedge_after_s, one.per_try_timeout_s)
        for one in (own, of_service, of_listener)
        if one.retry is not None
    ] == [(3, 3.0, 3.0), (2, 2.0, 2.0), (9, 1.0, 1.0)]
    assert [
        (one.fault.delay_s, one.fault.abort)
        for one in (own, of_service, of_listener)
        if one.fault is not None
    ] == [(0.0, 503), (2.0, None), (1.0, None)]


def test_one_place_of_the_file_is_one_limit_and_one_fault() -> None:
    """Two routes that inherit them share their bucket; two places that say the same do not."""
    text = (
        "  rate_limit: {rate: 1/s}\n  fault: {delay: 1s, allow: [{dns: a}]}\n"
        "  routes: [{match: {prefix: /a}}, {}, {fault: {delay: 1s, allow: [{dns: a}]}, rate_limit: {rate: 1/s}}]\n"
    )

    one, two, other = (
        route.settings for route in loaded(BASES["inbound"] + text).inbound[0].routes
    )

    assert one.fault is two.fault is not other.fault
    assert one.rate_limit is two.rate_limit is not other.rate_limit


def test_a_fault_has_its_headers_and_rules() -> None:
    """config.md §3, fault."""
    text = (
        "  fault: {delay: 1s, abort: 503, percent: 5%, headers: {X-Fault: present, x-b: '1'},\n"
        "    allow: [{dns: a, methods: [GET]}, {name: t, cn: B}]}\n"
    )
    fault = loaded(BASES["inbound"] + text).inbound[0].settings.fault

    assert fault is not None
    assert (fault.delay_s, fault.abort, fault.percent) == (1.0, 503, 0.05)
    assert fault.headers == (("x-fault", None), ("x-b", "1"))
    assert fault.allow == (
        Rule("allow-1", "dns", "a", frozenset({b"GET"})),
        Rule("t", "cn", "B"),
    )


def test_a_circuit_breaker_has_every_ceiling() -> None:
    settings = "{connections: 1, pending: 0, requests: 2, retry_budget: 50%, min_retries: 0}"
    expected = CircuitBreakerSettings(
        connections=1, pending=0, requests=2, retry_budget=0.5, min_retries=0
    )
    app = f"  app: {{address: 1, circuit_breaker: {settings}}}\n  allow: [{{dns: a}}]\n"

    assert _service(f"circuit_breaker: {settings}").circuit_breaker == expected
    assert loaded(BASES["bare"] + app).services["app"].circuit_breaker == expected


def test_a_health_check_may_be_a_word() -> None:
    """config.md §3, health_check = none."""
    assert _service("hosts: []").health_check is None
    assert _service("health_check: none").health_check is None
    assert _service("health_check: http").health_check == HealthCheckSettings()
    assert _service("health_check: tcp").health_check == HealthCheckSettings(kind="tcp")


def test_a_health_check_has_every_setting() -> None:
    given = _service(
        "health_check: {path: /h, host: h.b, expect: [200, 204, 300-399], interval: 1s, unhealthy_interval: 2s,"
        " no_traffic_interval: 3s, timeout: 4s, rise: 5, fall: 6, jitter: 7%}"
    ).health_check

    assert given == HealthCheckSettings(
        kind="http",
        path="/h",
        host="h.b",
        expect=((200, 200), (204, 204), (300, 399)),
        interval_s=1.0,
        unhealthy_interval_s=2.0,
        no_traffic_interval_s=3.0,
        timeout_s=4.0,
        rise=5,
        fall=6,
        jitter=0.07,
    )


def test_outlier_detection_is_on_unless_it_is_none() -> None:
    """config.md §3: on, or none; the app has no such key, and mostly one endpoint."""
    assert _service("hosts: []").outlier_detection == OutlierSettings()
    assert _service("outlier_detection: none").outlier_detection is None
    assert loaded(BASES["inbound"]).services["app"].outlier_detection is None
    assert _service(
        "outlier_detection: {consecutive: 1, interval: 2s, ejection: 3s, max_ejection: 4s, max_ejected: 5%,"
        " success_rate: 80%, min_requests: 6}"
    ).outlier_detection == OutlierSettings(
        consecutive=1,
        interval_s=2.0,
        ejection_s=3.0,
        max_ejection_s=4.0,
        max_ejected=0.05,
        success_rate=0.8,
        min_requests=6,
    )


def test_a_hash_is_of_a_header_a_cookie_or_the_peer() -> None:
    """config.md §3, balance."""
    ring = BalanceSettings(kind="ring_hash")

    def balance(text: str) -> BalanceSettings:
        return _service(f"balance: {{kind: ring_hash, hash: {text}}}").balance

    assert balance("{header: X-User}") == replace(ring, hash_header=b"x-user")
    assert balance("{cookie: Sid}") == replace(ring, hash_cookie=b"Sid")
    assert balance("peer, load_bound: 200%, slow_start: 1s, zone: ignore, panic_threshold: 0%") == (
        replace(
            ring,
            hash_peer=True,
            load_bound=2.0,
            slow_start_s=1.0,
            prefers_zone=False,
            panic_threshold=0.0,
        )
    )


# --- where endpoints come from ---


def test_a_list_with_a_name_in_it_is_discovery() -> None:
    """config.md §3: a name is asked for again, as in kind dns; what stands beside it keeps its place."""
    text = (
        "endpoints: ['Web.internal.:80', '1.1.1.1:1', {address: 'b:2', weight: 2, zone: z, priority: 1},"
        " 'localhost:3']"
    )
    service = _service(text)

    assert service.endpoints == ()
    assert service.discovery == model.DiscoveryConfig(
        kind="dns",
        settings=model.NamesDiscovery(
            endpoints=(Endpoint(Address("1.1.1.1", 1)), Endpoint(Address("localhost", 3))),
            names=(
                ("web.internal", 80, Endpoint(Address("web.internal", 80))),
                ("b", 2, Endpoint(Address("b", 2), 2, "z", 1)),
            ),
        ),
    )


def test_a_static_list_with_a_name_keeps_what_was_said_beside_it() -> None:
    discovery = _service(
        "discovery: {kind: static, endpoints: ['web:80'], on_empty: drop, allowed_networks: [10.0.0.0/8],"
        " max_endpoints: 5}"
    ).discovery

    assert discovery is not None
    assert isinstance(discovery.settings, model.NamesDiscovery)
    assert (discovery.kind, discovery.on_empty, discovery.max_endpoints) == ("dns", "drop", 5)
    assert not is_allowed("192.168.0.1", discovery.allowed_networks)


def test_a_static_list_of_addresses_is_no_discovery() -> None:
    service = _service("discovery: {kind: static, endpoints: ['1.1.1.1:1']}")

    assert (service.endpoints, service.discovery) == ((Endpoint(Address("1.1.1.1", 1)),), None)


def test_an_app_by_name_may_be_anywhere() -> None:
    """config.md §3, unsafe_plaintext: who typed both the name and the key means also loopback."""
    text = (
        "  app: web:8080\n  unsafe_plaintext: true\n  allow: [{dns: a}]\n"
        "  routes: [{name: files, match: {prefix: /f}, app: 'files:81'}, {}]\n"
    )
    services = loaded(BASES["bare"] + text + "zone: z\n").services
    discovery = services["app"].discovery

    assert discovery is not None
    assert (services["app"].endpoints, services["app"].plaintext) == ((), "unsafe_anywhere")
    assert discovery.settings == model.NamesDiscovery(
        (), (("web", 8080, Endpoint(Address("web", 8080))),)
    )
    assert (discovery.kind, discovery.zone) == ("dns", "z")
    assert all(
        is_allowed(host, discovery.allowed_networks) for host in ("127.0.0.1", "10.0.0.1", "::1")
    )
    assert services["app-files"].discovery is not None


def _discovered(tmp_path: Path, discovery: str) -> model.DiscoveryConfig | None:
    path = tmp_path / "a.yaml"
    path.write_text(
        BASES["services"] + f"  a: {{discovery: {discovery}, peer: {{dns: a}}}}\nzone: eu\n",
        encoding="utf-8",
    )
    return load(path, {}).services["a"].discovery


def test_srv_records_have_the_lifetimes_of_dns(tmp_path: Path) -> None:
    """config.md §3, dns_srv."""
    text = "{kind: dns_srv, name: _m._tcp.a, servers: ['10.0.0.1:53'], min_ttl: 2s, max_ttl: 3s}"

    assert _discovered(tmp_path, text) == model.DiscoveryConfig(
        kind="dns_srv",
        settings=model.SrvDiscovery("_m._tcp.a", (Address("10.0.0.1", 53),), 2.0, 3.0),
        zone="eu",
    )


def test_a_file_and_a_name_have_their_settings(tmp_path: Path) -> None:
    file = _discovered(tmp_path, "{kind: file, path: eps.yaml, interval: 2s}")
    dns = _discovered(tmp_path, "{kind: dns, name: a.b, port: 1, family: ipv6}")

    assert file is not None
    assert dns is not None
    assert file.settings == model.FileDiscovery(tmp_path / "eps.yaml", 2.0)
    assert dns.settings == model.DnsDiscovery("a.b", 1, "ipv6")


def test_a_kubernetes_service_has_the_pods_own_unless_told(tmp_path: Path) -> None:
    """config.md §3, kubernetes; paths count from the file."""
    short = _discovered(tmp_path, "{kind: kubernetes, service: pay}")
    long = _discovered(
        tmp_path,
        "{kind: kubernetes, service: pay, namespace: shop, port: 8443, api_server: 'https://kube:6443/',"
        " token_file: t, ca_file: /c}",
    )

    assert short is not None
    assert long is not None
    assert short.settings == model.KubernetesDiscovery("pay")
    assert long.settings == model.KubernetesDiscovery(
        "pay", "shop", 8443, "https://kube:6443", tmp_path / "t", Path("/c")
    )


def test_consul_is_on_this_machine_unless_told(tmp_path: Path) -> None:
    """config.md §3, consul."""
    short = _discovered(tmp_path, "{kind: consul, service: pay}")
    long = _discovered(
        tmp_path,
        "{kind: consul, service: pay, address: 'https://c:8501', datacenter: eu, tag: v1, token: t}",
    )

    assert short is not None
    assert long is not None
    assert short.settings == model.ConsulDiscovery("pay")
    assert long.settings == model.ConsulDiscovery("pay", "https://c:8501", "eu", "v1", "t")


def test_etcd_has_members_and_a_prefix(tmp_path: Path) -> None:
    """config.md §3, etcd."""
    found = _discovered(
        tmp_path,
        "{kind: etcd, urls: ['https://a:2379', 'https://b:2379/'], prefix: /pay/, username: u, password: p,"
        " ca_file: c}",
    )

    assert found is not None
    assert found.settings == model.EtcdDiscovery(
        ("https://a:2379", "https://b:2379"), "/pay/", "u", "p", tmp_path / "c"
    )


def test_where_we_run_is_nowhere_unless_told() -> None:
    assert loaded(BASES["top"]).zone == ""
    assert loaded(BASES["top"] + "zone: eu\n").zone == "eu"
