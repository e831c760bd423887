"""The file's shape: every key with its type, default and meaning, as `config.md` freezes them.

Knows keys and nothing about what two of them say about each other (`rules.py`) or what they mean to the proxy
(`build.py`). Defaults are written as a file would spell them, so that one table serves the loader, `validate
--show` and the JSON Schema. `later` names the keys of issues to come: refused, never ignored.

Without `from __future__ import annotations`: pydantic would have to compile 180 strings back into types at each start.
"""

import sys
import types
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ambassador.config import checks, leaves
from ambassador.config.annotations import ByKind, Filled, Leaf, Named, OneOrMany, Or
from ambassador.config.leaves import (
    AlpnName,
    AppAddress,
    ByteRateOrNone,
    CountOrNone,
    Delay,
    Dial,
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
    Network,
    NormalPath,
    PathPattern,
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
from ambassador.policy import rate_limit as limits

#: Built, and refused until all of the issue is that they belong to (config.md, first paragraph): what works today must
#: not change tomorrow. Its tests empty this.
UNFINISHED = frozenset({"discovery", "rate_limit"})
MAX_HEAD = (
    "256KiB"  # what is buffered per direction at most, so a larger head could never be complete
)


def key(description: str, default: Any = ...) -> Any:
    """Give pydantic's declaration of a key; the default is spelled as in a file, None is "not there"."""
    return Field(default, description=description, validate_default=default is not None)


class Section(BaseModel):
    """A mapping of the file. Strict: what is not declared is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,
        arbitrary_types_allowed=True,
    )
    later: ClassVar[frozenset[str]] = frozenset()
    tag: ClassVar[str] = ""  # the `kind` that chooses it
    #: Keys that only HTTP knows; with `protocol: tcp` they are errors.
    http_only: ClassVar[frozenset[str]] = frozenset()


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


class RateLimit(Section):
    """A token bucket: beyond it requests get 429."""

    rate: Rate = key("Requests that may begin.")
    burst: Annotated[int, whole(1, 1_000_000)] | None = key(
        "As many at once; default: one second's worth.", None
    )
    by: Annotated[str, one_of("all", "peer")] = key("Counted together, or for each peer.", "all")

    @cached_property
    def limit(self) -> limits.RateLimit:
        """Give the meaning: one object for this place of the file, however many routes have it."""
        burst = self.burst or max(1, round(self.rate))
        return limits.RateLimit(self.rate, burst, by_peer=self.by == "peer")


class RouteSettings(Section):
    """May stand on route, service and listener; the nearest wins."""

    later = frozenset({"per_try_timeout", "retry", "hedge_after", "fault"})
    http_only = frozenset({
        "timeout", "total_timeout", "body_idle_timeout", "max_body", "upgrades", "rate_limit",
    })  # fmt: skip

    timeout: Timeout = key("From the last request byte to the response head, or none.", "15s")
    total_timeout: DurationOrNone = key("To the last response byte.", "none")
    body_idle_timeout: DurationOrNone = key("No byte either way, tunnels too, or none.", "5m")
    max_body: SizeOrNone = key("Largest request body; beyond it 413.", "none")
    upgrades: list[Upgrade] = key("Protocols that may take over a connection.", ["websocket"])
    rate_limit: Annotated[RateLimit | None, Or("none")] = key(
        "How many requests may begin, or none.", "none"
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

    later = RouteSettings.later | {"proxy_protocol"}
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

    later = frozenset({"circuit_breaker", "health", "probes"})

    address: AppAddress = key("Where it listens: a port means loopback.")
    connect_timeout: Duration = key("Until it accepts.", "1s")
    pool: AppPool = key("Kept connections.", {})


class Rule(Section):
    """Who may do what: exactly one of the four names, then methods and paths."""

    http_only = frozenset({"methods", "paths", "may_forward"})

    name: Name | None = key("Default allow-1 or deny-1 …", None)
    spiffe: Annotated[str, leaves.identity("spiffe")] | None = key(
        "SPIFFE ID, `*` a segment, `**` the rest.", None
    )
    uri: Annotated[str, leaves.identity("uri")] | None = key("URI name.", None)
    dns: Annotated[str, leaves.identity("dns")] | None = key("DNS name.", None)
    cn: Annotated[str, leaves.identity("cn")] | None = key(
        "Common name, of a certificate without any SAN.", None
    )
    methods: Annotated[list[Method] | None, Filled()] = key("Default: all.", None)
    paths: Annotated[list[PathPattern] | None, Filled()] = key(
        "By segments, `*` one, `**` last only; default: all.", None
    )
    may_forward: Flag = key("Its X-Forwarded-Client-Cert is believed.", False)


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
    unsafe_plaintext: Flag = key("The app may lie outside loopback.", False)


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


class Endpoint(Section):
    """One place where a service answers."""

    address: Dial = key("IP and port, or a Unix socket.")
    weight: Annotated[int, whole(1, 1_000_000)] = key("Share of the requests.", 1)
    zone: Text | None = key("Where it runs.", None)
    priority: Annotated[int, whole(0, 100)] = key("0 first, the others when none of it is left.", 0)


Endpoints = Annotated[list[Annotated[Endpoint, Named("address", {"type": "string"})]], Filled()]
#: In the order in which an error names them; the later ones are not built yet.
KINDS_OF_DISCOVERY = ("static", "file", "dns")
KINDS_LATER = ("dns_srv", "kubernetes", "consul", "etcd")


class Peer(Section):
    """Who must answer: exactly one of the four."""

    spiffe: Annotated[str, leaves.identity("spiffe")] | None = key("SPIFFE ID.", None)
    uri: Annotated[str, leaves.identity("uri")] | None = key("URI name.", None)
    dns: Annotated[str, leaves.identity("dns")] | None = key("DNS name.", None)
    cn: Annotated[str, leaves.identity("cn")] | None = key(
        "Common name, of a certificate without any SAN.", None
    )


class Balance(Section):
    """Which endpoint gets a request."""

    later = frozenset({"hash", "load_bound", "slow_start", "zone", "panic_threshold"})

    kind: Annotated[
        str, one_of("least_request", "round_robin", later=("peak_ewma", "ring_hash"))
    ] = key("least_request is the better of two random ones.", "least_request")


class Discovery(Section):
    """Where endpoints come from; TLS and who must answer never do."""

    kind: Annotated[str, one_of(*KINDS_OF_DISCOVERY, later=KINDS_LATER)] = key("How to find them.")
    on_empty: Annotated[str, one_of("keep", "drop")] = key(
        "An empty answer: keep the last endpoints, or drop them.", "keep"
    )
    allowed_networks: Annotated[list[Network] | None, Filled()] = key(
        "Endpoints elsewhere are ignored; default: all but loopback, link-local, multicast, metadata.",
        None,
    )
    max_endpoints: Annotated[int, whole(1, 1_000_000)] = key("More are a refused answer.", 10_000)


class StaticDiscovery(Discovery):
    """Endpoints from this file."""

    tag = "static"

    endpoints: Endpoints = key("Where the service answers.")


class FileDiscovery(Discovery):
    """Endpoints from a file of their own, JSON or YAML, also Prometheus' file_sd."""

    tag = "file"

    path: FilePath = key("A list of endpoints.")
    interval: Duration = key("Looked at so often.", "1s")


class DnsDiscovery(Discovery):
    """The addresses of a name, asked for again when their lifetime is over."""

    tag = "dns"

    name: HostName = key("The name.")
    port: Annotated[int, whole(1, 65535)] = key("Where they all listen.")
    family: Annotated[str, one_of("any", "ipv4", "ipv6")] = key("A, AAAA or both.", "any")
    servers: Annotated[list[Dial] | None, Filled()] = key(
        "Name servers, IP:PORT; default: the system's.", None
    )
    min_ttl: Duration = key("Not asked again sooner.", "1s")
    max_ttl: Duration = key("Asked again at the latest.", "60s")


class Service(RouteSettings):
    """A named group of endpoints that the app may call."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["endpoints"]}, {"required": ["discovery"]}]}
    )
    later = RouteSettings.later | {
        "circuit_breaker",
        "health_check",
        "outlier_detection",
    }
    http_only = RouteSettings.http_only | {"pool"}

    endpoints: Endpoints | None = key("Where it answers.", None)
    discovery: (
        Annotated[
            StaticDiscovery | FileDiscovery | DnsDiscovery,
            ByKind({one.tag: one for one in (StaticDiscovery, FileDiscovery, DnsDiscovery)}),
        ]
        | None
    ) = key("Where its endpoints come from, in place of the list.", None)
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

    later = frozenset({"zone", "include", "workers", "shipper", "adapter", "offloader"})

    version: Annotated[int, Leaf(checks.integer(1, 1), {"const": 1})] = key("Always 1.")
    name: Text | None = key("In logs and traces; default: the host's name.", None)
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
