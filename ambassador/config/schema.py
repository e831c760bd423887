"""The file's shape: every key with its type, default and meaning, as `config.md` freezes them.

Knows keys and nothing about what two of them say about each other (`rules.py`) or what they mean to the proxy
(`build.py`). Defaults are written as a file would spell them, so that one table serves the loader, `validate
--show` and the JSON Schema. `later` names the keys of issues to come: refused, never ignored. Peers, discovery and
resilience have modules of their own, whose names are found here too.

Without `from __future__ import annotations`: pydantic would have to compile 180 strings back into types at each start.
"""

import sys
import types
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, model_validator

from ambassador.config import checks
from ambassador.config.annotations import Filled, Leaf, Named, OneOrMany, Or
from ambassador.config.leaves import (
    AlpnName,
    AppAddress,
    ByteRateOrNone,
    CountOrNone,
    Delay,
    Duration,
    DurationOrNone,
    FilePath,
    Flag,
    Group,
    HeaderName,
    HeaderValue,
    HostName,
    HostPattern,
    Listen,
    ListenOrNone,
    Method,
    Name,
    NormalPath,
    Percent,
    Protocol,
    Rate,
    ServerName,
    SizeOrNone,
    SocketMode,
    Text,
    Timeout,
    TrustDomain,
    Upgrade,
    lasting,
    one_of,
    sized,
    whole,
)
from ambassador.config.schema_base import Section, key
from ambassador.config.schema_discovery import (
    AnyDiscovery,
    ConsulDiscovery,
    Discovery,
    DnsDiscovery,
    Endpoint,
    Endpoints,
    EtcdDiscovery,
    FileDiscovery,
    KubernetesDiscovery,
    PluginDiscovery,
    SrvDiscovery,
    StaticDiscovery,
)
from ambassador.config.schema_peers import Peer, Rule
from ambassador.config.schema_resilience import (
    Balance,
    CircuitBreaker,
    Fault,
    HealthCheck,
    OutlierDetection,
    RateLimit,
    Retry,
)

__all__ = [
    "AnyDiscovery",
    "ConsulDiscovery",
    "Discovery",
    "DnsDiscovery",
    "Endpoint",
    "EtcdDiscovery",
    "File",
    "FileDiscovery",
    "HealthCheck",
    "KubernetesDiscovery",
    "Peer",
    "PluginDiscovery",
    "Rule",
    "Section",
    "SrvDiscovery",
    "StaticDiscovery",
    "build_validator",
]

MAX_HEAD = (
    "256KiB"  # what is buffered per direction at most, so a larger head could never be complete
)


# --- identity and TLS ----------------------------------------------------------------------------------------


class Identity(Section):
    """Where this workload's certificate, key and trust lie; read again on SIGHUP."""

    later = frozenset({"trust_max_age", "policy_file", "workload_api"})

    directory: FilePath | None = key(
        "Folder with tls.crt, tls.key and ca.crt, in place of the next three.", None
    )
    certificate: FilePath | None = key("PEM file, leaf first.", None)
    private_key: FilePath | None = key("PEM file, unencrypted, not writable by others.", None)
    trust_bundle: Annotated[
        dict[TrustDomain, FilePath] | None,
        Filled(),
        Named(checks.UNMAPPED, {"type": "string", "minLength": 1}),
    ] = key("PEM file, or one for each trust domain; nothing else is trusted.", None)
    crl: Annotated[list[FilePath] | None, OneOrMany(), Filled()] = key(
        "Revocation lists; then every issuer of a chain needs a current one.", None
    )
    crl_grace: DurationOrNone = key("How long an expired CRL still counts.", "none")


class Tls(Section):
    """Versions and key exchange, for listeners and services alike."""

    later = frozenset({"cipher_suites"})

    profile: Annotated[str, one_of("intermediate", "modern")] = key(
        "Mozilla's: TLS 1.2 with ECDHE and AEAD and TLS 1.3, or TLS 1.3 only.", "intermediate"
    )
    min_version: Annotated[str, one_of("TLSv1.2", "TLSv1.3")] | None = key(
        "Overrides the profile's.", None
    )
    groups: Annotated[list[Group], Filled()] = key(
        "Key exchange, best first.", ["X25519MLKEM768", "X25519", "P-256"]
    )
    session_lifetime: Annotated[float | None, lasting("10m")] = key(
        "How long sessions are resumed, 10m at most, or none.", "10m"
    )


# --- routes --------------------------------------------------------------------------------------------------


class RouteSettings(Section):
    """May stand on route, service and listener; the nearest wins."""

    http_only = frozenset({
        "timeout", "total_timeout", "per_try_timeout", "body_idle_timeout", "max_body", "upgrades", "retry",
        "hedge_after", "rate_limit", "fault",
    })  # fmt: skip

    timeout: Timeout = key("From the last request byte to the response head, or none.", "15s")
    total_timeout: DurationOrNone = key("To the last response byte.", "none")
    per_try_timeout: DurationOrNone = key(
        "Of each attempt to the response head; none: the time left by the attempts left.", "none"
    )
    body_idle_timeout: DurationOrNone = key("No byte either way, tunnels too, or none.", "5m")
    max_body: SizeOrNone = key("Largest request body; beyond it 413.", "none")
    upgrades: list[Upgrade] = key("Protocols that may take over a connection.", ["websocket"])
    retry: Annotated[Retry | None, Or("none")] = key(
        "When a failed request is repeated, or none.", "none"
    )
    hedge_after: DurationOrNone = key(
        "No response head by then: a second attempt beside it, of idempotent requests.", "none"
    )
    rate_limit: Annotated[RateLimit | None, Or("none")] = key(
        "How many requests may begin, or none.", "none"
    )
    fault: Annotated[Fault | None, Or("none")] = key(
        "Failures on purpose, with `run --enable-faults` only, or none.", "none"
    )


class Match(Section):
    """All that is given must hold; nothing given matches everything."""

    host: Annotated[list[HostPattern] | None, OneOrMany(), Filled()] = key(
        "Host names, `*.` may stand in front.", None
    )
    path: NormalPath | None = key("Exactly this path.", None)
    prefix: NormalPath | None = key("This path and everything below, by segments.", None)
    method: Annotated[list[Method] | None, OneOrMany(), Filled()] = key(
        "One of these methods.", None
    )
    headers: Annotated[dict[HeaderName, HeaderValue] | None, Filled()] = key(
        "Exact value, or `present`.", None
    )


class Rewrite(Section):
    """What the receiver sees instead."""

    prefix: NormalPath | None = key("Replaces the matched prefix.", None)
    host: HostName | None = key("Replaces the host.", None)


class InboundRoute(RouteSettings):
    """Which of the app's addresses gets a request; the first match wins."""

    name: Name | None = key("Default route-1, route-2 …", None)
    match: Match = key("All must hold; absent: everything.", {})
    app: AppAddress | None = key("Default: the listener's.", None)
    rewrite: Annotated[Rewrite | None, Or("none")] = key(
        "Another prefix or host for the app.", "none"
    )


class OutboundRoute(RouteSettings):
    """Which service gets a request; the first match wins."""

    name: Name | None = key("Default route-1, route-2 …", None)
    match: Match = key("All must hold; absent: everything.", {})
    service: Name | None = key("The service.", None)
    split: Annotated[dict[Name, Annotated[int, whole(1, 1_000_000)]] | None, Filled()] = key(
        "Services by weight.", None
    )
    rewrite: Annotated[Rewrite | None, Or("none")] = key(
        "Another prefix or host for the peer.", "none"
    )


# --- listeners -----------------------------------------------------------------------------------------------

#: Defaults that differ with `protocol: tcp`.
TCP_DEFAULTS: dict[str, Any] = {"idle_timeout": "1h", "max_connection_age": "none"}


class Listener(RouteSettings):
    """What both directions share."""

    later = frozenset({"proxy_protocol"})
    http_only = RouteSettings.http_only | {
        "head_timeout", "body_min_rate", "max_head", "max_headers", "max_uri", "routes",
    }  # fmt: skip
    tcp_defaults: ClassVar[dict[str, Any]] = TCP_DEFAULTS

    name: Name | None = key("Default inbound or outbound; required in a list.", None)
    listen: Listen = key("Address to accept connections on.")
    protocol: Protocol = key("http, or tcp for opaque bytes.", "http")
    socket_mode: SocketMode = key("Of a Unix listener, in quotes.", "0600")
    max_connections: Annotated[int, whole(1, 1_000_000)] = key(
        "A quarter may be in handshake.", 1024
    )
    max_connections_per_peer: Annotated[int, whole(1, 1_000_000)] | None = key(
        "Default: half of all.", None
    )
    handshake_timeout: Duration = key("Until the handshake is done.", "5s")
    head_timeout: Duration = key("Until a request head is whole.", "10s")
    idle_timeout: Duration = key("No exchange, no bytes; 1h with tcp.", "75s")
    write_timeout: Duration = key("The peer takes nothing.", "30s")
    body_min_rate: ByteRateOrNone = key("Of request bodies, over 20 s, or none.", "500B/s")
    max_connection_age: DurationOrNone = key(
        "Closed between exchanges after it; none with tcp.", "1h"
    )
    max_head: Annotated[int, sized("1KiB", MAX_HEAD)] = key("Bytes of a head.", "60KiB")
    max_headers: Annotated[int, whole(1, 10_000)] = key("Fields of a head.", 100)
    max_uri: Annotated[int, sized("64B", MAX_HEAD)] = key("Bytes of a request target.", "16KiB")

    @model_validator(mode="before")
    @classmethod
    def _protocol_decides(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("protocol") == "tcp":
            return {**cls.tcp_defaults, **value}
        return value


class Pool(Section):
    """Kept connections, per endpoint."""

    max_idle: Annotated[int, whole(0, 100_000)] = key("Idle connections kept.", 32)
    idle_timeout: Duration = key("Kept so long without an exchange; below the peer's own.", "50s")
    max_age: Duration = key("Not used again after it.", "1h")
    max_requests: CountOrNone = key("Requests on one connection.", "none")


class AppPool(Pool):
    """Kept connections to the app."""

    idle_timeout: Duration = key("Below the 5 s of Node and uvicorn.", "4s")


class App(Section):
    """The app behind the sidecar."""

    later = frozenset({"health", "probes"})

    address: AppAddress = key(
        "Where it listens: a port means loopback; a name only with unsafe_plaintext."
    )
    connect_timeout: Duration = key("Until it accepts.", "1s")
    pool: AppPool = key("Kept connections.", {})
    circuit_breaker: CircuitBreaker = key("How much it may be asked at once.", {})


class Inbound(Listener):
    """From peers to the app, always mutual TLS."""

    http_only = Listener.http_only | {
        "forwarded_client_cert", "forwarded_client_cert_details", "client_cert_header", "trusted_hops",
    }  # fmt: skip
    tcp_defaults: ClassVar[dict[str, Any]] = {**TCP_DEFAULTS, "alpn": "none"}

    app: Annotated[App, Named("address", {"type": ["string", "integer"]})] = key(
        "The app's address, or a mapping."
    )
    allow: list[Rule] | None = key("Who may; nobody else may.", None)
    deny: list[Rule] = key("Who may not, judged first.", [])
    allow_any_verified: Flag = key(
        "Everybody whom the trust bundle vouches for, in place of allow.", False
    )
    authorization: Annotated[str, one_of("enforce", "audit")] = key(
        "audit only logs what it would refuse.", "enforce"
    )
    routes: Annotated[list[InboundRoute] | None, Filled()] = key(
        "Default: everything to the app.", None
    )
    forwarded_client_cert: Annotated[
        str, one_of("sanitize", "sanitize_set", "forward_only", "append_forward")
    ] = key("What becomes of X-Forwarded-Client-Cert.", "sanitize_set")
    forwarded_client_cert_details: list[
        Annotated[str, one_of("subject", "uri", "dns", "cert", "chain")]
    ] = key("What it tells beside By and Hash.", ["subject", "uri", "dns"])
    client_cert_header: Annotated[str, one_of("none", "leaf", "chain")] = key(
        "RFC 9440 Client-Cert.", "none"
    )
    trusted_hops: Annotated[int, whole(0, 100)] = key(
        "X-Forwarded-For entries kept, from the right.", 0
    )
    alpn: Annotated[list[AlpnName], Filled(), Or("none", [])] = key(
        "Protocols offered in TLS; none with tcp.", ["http/1.1"]
    )
    unsafe_plaintext: Flag = key("The app may lie outside loopback, and be a name.", False)


class Outbound(Listener):
    """From the app to peers: plaintext on loopback in, mutual TLS out."""

    http_only = Listener.http_only | {"browsers"}

    service: Name | None = key("Everything to this one; required with tcp.", None)
    routes: Annotated[list[OutboundRoute] | None, Filled()] = key(
        "Default: by name of the service.", None
    )
    browsers: Annotated[str, one_of("refuse", "allow")] = key(
        "Pages of a foreign origin.", "refuse"
    )
    unsafe_plaintext: Flag = key("May listen outside loopback.", False)


# --- services ------------------------------------------------------------------------------------------------


class Service(RouteSettings):
    """A named group of endpoints that the app may call."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["endpoints"]}, {"required": ["discovery"]}]}
    )
    http_only = RouteSettings.http_only | {"pool"}

    endpoints: Endpoints | None = key("Where it answers.", None)
    discovery: AnyDiscovery | None = key(
        "Where its endpoints come from, in place of the list.", None
    )
    hosts: list[HostName] = key("Other names it is called by.", [])
    plaintext: Annotated[str, one_of("none", "loopback", "unsafe_anywhere")] = key(
        "Where it may be called without TLS.", "none"
    )
    peer: Annotated[list[Peer] | None, OneOrMany(), Filled(), Or("any_verified")] = key(
        "Who must answer: one, a list, or any_verified.", None
    )
    listen: Listen | None = key("An outbound listener of its own, on loopback.", None)
    protocol: Protocol | None = key("Of `listen`.", None)
    server_name: ServerName | None = key("SNI; default: the dns peer.", None)
    alpn: Annotated[list[AlpnName] | None, Filled(), Or("none", [])] = key(
        "Default http/1.1, none behind a tcp listener.", None
    )
    connect_timeout: Duration = key("With the handshake.", "1s")
    balance: Annotated[Balance, Named("kind", {"type": "string"})] = key("Kind, or a mapping.", {})
    pool: Pool = key("Kept connections, per endpoint.", {})
    circuit_breaker: CircuitBreaker = key("How much it may be asked at once.", {})
    health_check: Annotated[
        HealthCheck | None, Named("kind", {"enum": ["http", "tcp"]}), Or("none")
    ] = key("Whether each endpoint is well: kind, mapping or none.", "none")
    outlier_detection: Annotated[OutlierDetection | None, Or("none")] = key(
        "Endpoints that answer badly are left out for a while, or none.", {}
    )


# --- the rest ------------------------------------------------------------------------------------------------


class Admin(Section):
    """Probes and metrics."""

    later = frozenset({"socket", "socket_uids", "status_page"})

    listen: ListenOrNone = key("/live /ready /startup /metrics, or none.", "127.0.0.1:9901")
    expose: Flag = key("May listen outside loopback.", False)


class Drain(Section):
    """How the proxy ends."""

    later = frozenset({"outbound_quiet"})

    delay: Delay = key("Not ready, still accepting.", "5s")
    timeout: Duration = key("The whole, delay included.", "25s")


class AccessLog(Section):
    """One line for each exchange."""

    path: FilePath = key('"-" is stdout.', "-")
    format: Annotated[str, one_of("json", "envoy")] = key("JSON, or Envoy's text.", "json")
    sample: Percent = key("Share of the exchanges without failure.", "100%")
    query: Flag = key("Log the query string.", False)


class Log(Section):
    """Events on stderr."""

    level: Annotated[str, one_of("debug", "info", "warning", "error")] = key("Least level.", "info")
    format: Annotated[str, one_of("json", "console", "auto")] = key(
        "auto: console on a terminal.", "auto"
    )


class Tracing(Section):
    """Trace context."""

    later = frozenset({"sample", "otlp"})

    formats: Annotated[list[Annotated[str, one_of("w3c", later=("b3",))]], Filled()] = key(
        "Headers that are understood.", ["w3c"]
    )


class Limits(Section):
    """Ceilings of the process."""

    buffers: Annotated[int, sized("1MiB", "1024GiB")] = key(
        "Bodies in flight; above it 503 OM.", "128MiB"
    )
    handshakes: Annotated[int, whole(1, 100_000)] = key("In flight.", 64)
    handshake_rate: Rate = key("Of all listeners.", "400/s")


class File(Section):
    """Configuration of Ambassador, version 1."""

    later = frozenset({"include", "workers", "shipper", "adapter", "offloader"})

    version: Annotated[int, Leaf(checks.integer(1, 1), {"const": 1})] = key("Always 1.")
    name: Text | None = key("In logs and traces; default: the host's name.", None)
    zone: Text | None = key("Where we run, for balance.zone.", None)
    identity: Identity | None = key("Certificate, key and trust of this workload.", None)
    tls: Tls = key("Versions and key exchange.", {})
    inbound: Annotated[list[Inbound] | None, OneOrMany(), Filled()] = key(
        "From peers to the app: one listener or a list.", None
    )
    outbound: Annotated[list[Outbound] | None, OneOrMany(), Filled()] = key(
        "From the app to peers: one listener or a list.", None
    )
    services: dict[Name, Service] = key("What the app may call, by name.", {})
    admin: Admin = key("Probes and metrics.", {})
    drain: Drain = key("How the proxy ends.", {})
    access_log: Annotated[AccessLog | None, Or("none")] = key(
        "One line for each exchange, or none.", {}
    )
    log: Log = key("Events on stderr.", {})
    tracing: Tracing = key("Trace context.", {})
    limits: Limits = key("Ceilings of the process.", {})


def build_validator() -> None:
    """Let pydantic build its validator now, without plugins.

    It would look for them in the metadata of every installed distribution: a quarter of our start, and foreign code
    that sees the configuration (threats K6: plugins only by name in the file). A pydantic that finds them
    elsewhere than 2.14 is not stopped, only slower.
    """
    name = "pydantic.plugin._loader"
    before = sys.modules.get(name)
    stub = types.ModuleType(name)
    stub.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules[name] = stub
    try:
        File.model_rebuild()
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
