"""The meaning of a configuration file: frozen values that floors 4 to 8 obey.

`schema.py` knows how the file spells these (pydantic), `load.py` builds them; nobody above sees pydantic.
Units: seconds, bytes, fractions, bytes per second. `None` is the file's `none`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ambassador.core.model import Address, Endpoint
from ambassador.policy.authorization import PeerPattern, Rule
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.policy.health import HealthCheckSettings
from ambassador.policy.networks import Network
from ambassador.policy.outlier import OutlierSettings
from ambassador.policy.rate_limit import RateLimit
from ambassador.policy.retry import RetrySettings
from ambassador.policy.routing import Match, Rewrite


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Where the workload's credentials lie. `trust_bundles` maps trust domain to file; key "" is the unmapped one."""

    certificate: Path
    private_key: Path
    trust_bundles: dict[str, Path]
    crl: tuple[Path, ...] = ()
    crl_grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class TlsConfig:
    min_version: str = "TLSv1.2"
    groups: tuple[str, ...] = ("X25519MLKEM768", "X25519", "P-256")
    session_lifetime_s: float | None = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class FaultConfig:
    """Faults for testing apps, in effect only under `run --enable-faults`.

    `headers` are (lower-case name, value or None for present), all must hold. `allow` names the peers that may have
    them, inbound only. One object for one place of the file.
    """

    delay_s: float = 0.0
    abort: int | None = None
    percent: float = 1.0
    headers: tuple[tuple[str, str | None], ...] = ()
    allow: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """Settings of a route after "nearest wins" (route, service, listener, default) is applied."""

    timeout_s: float | None = 15.0
    total_timeout_s: float | None = None
    body_idle_timeout_s: float | None = 300.0
    max_body: int | None = None
    upgrades: tuple[str, ...] = ("websocket",)
    rate_limit: RateLimit | None = None
    per_try_timeout_s: float | None = None  # None: what is left of the timeout, divided
    retry: RetrySettings | None = None
    hedge_after_s: float | None = None
    fault: FaultConfig | None = None


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One route. `targets` are (service name, weight); inbound routes target generated app services."""

    name: str
    match: Match
    targets: tuple[tuple[str, int], ...]
    rewrite: Rewrite | None
    settings: RouteSettings
    service_settings: dict[str, RouteSettings] = field(
        default_factory=dict
    )  # outbound: per target, services win over the listener


@dataclass(frozen=True, slots=True)
class PoolConfig:
    max_idle: int = 32
    idle_timeout_s: float = 50.0
    max_age_s: float = 3600.0
    max_requests: int | None = None


@dataclass(frozen=True, slots=True)
class FileDiscovery:
    path: Path
    interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class DnsDiscovery:
    name: str
    port: int
    family: str = "any"  # or ipv4, ipv6
    servers: tuple[Address, ...] = ()  # none: the system's
    min_ttl_s: float = 1.0
    max_ttl_s: float = 60.0


@dataclass(frozen=True, slots=True)
class NamesDiscovery:
    """Static endpoints some of which are names: each is asked for as in kind dns.

    `names` are (name, port, and an endpoint whose weight, zone and priority all its addresses get).
    """

    endpoints: tuple[Endpoint, ...]
    names: tuple[tuple[str, int, Endpoint], ...]


@dataclass(frozen=True, slots=True)
class SrvDiscovery:
    name: str
    servers: tuple[Address, ...] = ()  # none: the system's
    min_ttl_s: float = 1.0
    max_ttl_s: float = 60.0


@dataclass(frozen=True, slots=True)
class KubernetesDiscovery:
    """`namespace`, `api_server` (a URL), `token_file` and `ca_file` None: the Pod's own. `port` None: the only one."""

    service: str
    namespace: str | None = None
    port: str | int | None = None
    api_server: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ConsulDiscovery:
    service: str
    address: str = "http://127.0.0.1:8500"
    datacenter: str | None = None
    tag: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EtcdDiscovery:
    urls: tuple[str, ...]
    prefix: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class PluginDiscovery:
    """A kind that another distribution brought (entry point `ambassador.discovery`), with its own settings object.

    `factory(settings, zone=str, chance=Random)` gives the backend.
    """

    settings: object = field(repr=False)  # it may hold secrets
    factory: Callable[..., object]


DiscoverySettings = (
    FileDiscovery
    | DnsDiscovery
    | NamesDiscovery
    | SrvDiscovery
    | KubernetesDiscovery
    | ConsulDiscovery
    | EtcdDiscovery
    | PluginDiscovery
)


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Where the endpoints of a service come from; `allowed_networks` None: see `policy.networks`.

    `zone` is where we run, for backends whose answers depend on it.
    """

    kind: str
    settings: DiscoverySettings
    zone: str = ""
    on_empty: str = "keep"  # or drop
    allowed_networks: tuple[Network, ...] | None = None
    max_endpoints: int = 10_000


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """A named group of endpoints. The way to the app is one too (`name` "app", `is_app`), in the clear, no peer."""

    name: str
    endpoints: tuple[Endpoint, ...]
    hosts: tuple[str, ...] = ()
    plaintext: str = "none"  # none | loopback | unsafe_anywhere; `loopback` for the app
    peer: tuple[PeerPattern, ...] | None = None  # None: any_verified, or plaintext
    server_name: str | None = None
    alpn: tuple[str, ...] = ("http/1.1",)
    connect_timeout_s: float = 1.0
    balance: BalanceSettings = field(default_factory=BalanceSettings)
    circuit_breaker: CircuitBreakerSettings = field(default_factory=CircuitBreakerSettings)
    health_check: HealthCheckSettings | None = None
    outlier_detection: OutlierSettings | None = field(default_factory=OutlierSettings)
    pool: PoolConfig = field(default_factory=PoolConfig)
    discovery: DiscoveryConfig | None = None  # then `endpoints` is empty
    is_app: bool = False


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    max_connections: int = 1024
    max_connections_per_peer: int = 512
    handshake_timeout_s: float = 5.0
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    body_min_rate: float | None = 500.0  # bytes/s, measured over 20 s
    max_connection_age_s: float | None = 3600.0
    max_head: int = 60 * 1024
    max_headers: int = 100
    max_uri: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class InboundConfig:
    name: str
    listen: Address
    protocol: str  # http | tcp
    socket_mode: int
    limits: ListenerLimits
    app: str  # name of the app's service in Config.services
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    allow_any_verified: bool
    audit: bool
    routes: tuple[
        RouteConfig, ...
    ]  # always ends in a concrete list; without `routes` one route "default"
    forwarded_client_cert: str
    forwarded_client_cert_details: tuple[str, ...]
    client_cert_header: str  # none | leaf | chain
    trusted_hops: int
    alpn: tuple[str, ...]  # empty: tcp without ALPN
    settings: RouteSettings  # of the listener, for tcp


@dataclass(frozen=True, slots=True)
class OutboundConfig:
    """`routes` None: by name (host NAME, NAME.localhost, one of `hosts`); `service`: everything to this one."""

    name: str
    listen: Address
    protocol: str
    socket_mode: int
    limits: ListenerLimits
    routes: tuple[RouteConfig, ...] | None
    service: str | None
    browsers_allowed: bool
    settings: RouteSettings
    service_settings: dict[str, RouteSettings] = field(
        default_factory=dict
    )  # by-name routing: service -> its settings


@dataclass(frozen=True, slots=True)
class AdminConfig:
    listen: Address | None = field(default_factory=lambda: Address("127.0.0.1", 9901))


@dataclass(frozen=True, slots=True)
class DrainConfig:
    delay_s: float = 5.0
    timeout_s: float = 25.0


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    path: str = "-"
    format: str = "json"  # json | envoy
    sample: float = 1.0
    query: bool = False


@dataclass(frozen=True, slots=True)
class LogConfig:
    level: str = "info"
    format: str = "auto"


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    buffers: int = 128 * 1024 * 1024
    handshakes: int = 64
    handshake_rate: float = 400.0


@dataclass(frozen=True, slots=True)
class Config:
    """A whole valid file. `warnings` are sentences with place for every unsafe key in use and every likely mistake."""

    name: str
    identity: IdentityConfig | None  # None only when nothing needs TLS
    tls: TlsConfig
    inbound: tuple[InboundConfig, ...]
    outbound: tuple[OutboundConfig, ...]  # `services.NAME.listen` included, named service-NAME
    services: dict[
        str, ServiceConfig
    ]  # the app's services included: "app" (or "app-LISTENER", "app-LISTENER-ROUTE")
    admin: AdminConfig
    drain: DrainConfig
    access_log: AccessLogConfig | None
    log: LogConfig
    limits: LimitsConfig
    source: Path
    zone: str = ""  # where we run
    warnings: tuple[str, ...] = ()
