"""From the file's shape to its meaning: `schema.File` -> `model.Config`.

Knows how both say it; decides nothing, refuses nothing: schema and rules have passed. "Nearest wins" happens here,
once, so that nobody looks a setting up per request.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ambassador.config import build_resilience as resilience
from ambassador.config import model, schema
from ambassador.config.addresses import NamedPlace
from ambassador.config.build_discovery import Discoveries
from ambassador.config.schema_peers import pattern, rules
from ambassador.config.schema_resilience import fields
from ambassador.core.model import Address
from ambassador.policy.authorization import PeerPattern
from ambassador.policy.routing import Match, Rewrite

_HTTP = ("http/1.1",)
TCP_IDLE_S = 3600.0  # as `schema.TCP_DEFAULTS` spells it


def build(
    file: schema.File, *, source: Path, folder: Path, warnings: tuple[str, ...]
) -> model.Config:
    """Give the meaning of a checked file; its relative paths count from `folder`.

    Units: those of `model`.
    """
    # Not resolve(): it would follow the links of a mounted volume, which are swapped on renewal.
    builder = _Builder(file, Path(os.path.abspath(folder)))
    inbound = builder.inbound()
    outbound = builder.outbound()
    return model.Config(
        name=file.name or os.uname().nodename,
        identity=builder.identity(),
        tls=_tls(file.tls),
        inbound=inbound,
        outbound=outbound,
        services=builder.services,
        admin=model.AdminConfig(listen=file.admin.listen),
        drain=model.DrainConfig(delay_s=file.drain.delay, timeout_s=file.drain.timeout),
        access_log=builder.access_log(),
        log=model.LogConfig(level=file.log.level, format=file.log.format),
        limits=model.LimitsConfig(
            buffers=file.limits.buffers,
            handshakes=file.limits.handshakes,
            handshake_rate=file.limits.handshake_rate,
        ),
        source=source,
        zone=file.zone or "",
        warnings=warnings,
    )


class _Builder:
    """Builds the parts that need the whole file; `services` fills up with the ways to the app."""

    def __init__(self, file: schema.File, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._tcp = _tcp_services(file)
        self._found = Discoveries(folder, zone=file.zone or "")
        self.services: dict[str, model.ServiceConfig] = {
            name: self._service(name, service) for name, service in file.services.items()
        }

    # --- identity and files ---

    def identity(self) -> model.IdentityConfig | None:
        given = self._file.identity
        if given is None:
            return None
        if given.directory is not None:
            certificate, private_key = given.directory / "tls.crt", given.directory / "tls.key"
            bundles = {"": given.directory / "ca.crt"}
        else:
            # The rules have seen to it that these three are there together.
            certificate, private_key = given.certificate or Path(), given.private_key or Path()
            bundles = dict(given.trust_bundle or {})
        return model.IdentityConfig(
            certificate=self._folder / certificate,
            private_key=self._folder / private_key,
            trust_bundles={domain: self._folder / path for domain, path in bundles.items()},
            crl=tuple(self._folder / path for path in given.crl or ()),
            crl_grace_s=given.crl_grace,
        )

    def access_log(self) -> model.AccessLogConfig | None:
        given = self._file.access_log
        if given is None:
            return None
        path = str(given.path)
        return model.AccessLogConfig(
            path=path if path == "-" else str(self._folder / path),
            format=given.format,
            sample=given.sample,
            query=given.query,
        )

    # --- services ---

    def _service(self, name: str, given: schema.Service) -> model.ServiceConfig:
        encrypted = given.plaintext == "none"
        alpn = given.alpn if given.alpn is not None else () if name in self._tcp else _HTTP
        peer = tuple(pattern(one) for one in given.peer or ())
        endpoints, discovery = self._found.places(given)
        return model.ServiceConfig(
            name=name,
            endpoints=endpoints,
            discovery=discovery,
            hosts=tuple(given.hosts),
            plaintext=given.plaintext,
            peer=peer or None,
            server_name=(given.server_name or _server_name(peer)) if encrypted else None,
            alpn=tuple(alpn) if encrypted else (),
            connect_timeout_s=given.connect_timeout,
            balance=resilience.balance(given.balance),
            circuit_breaker=resilience.circuit_breaker(given.circuit_breaker),
            health_check=resilience.health_check(given.health_check),
            outlier_detection=resilience.outlier_detection(given.outlier_detection),
            pool=_pool(given.pool),
        )

    def _app(self, name: str, app: schema.App, *, address: Address | NamedPlace, far: bool) -> str:
        """Add the way to the app under this name, and give the name."""
        endpoints, discovery = self._found.app(address)
        self.services[name] = model.ServiceConfig(
            name=name,
            endpoints=endpoints,
            discovery=discovery,
            plaintext="unsafe_anywhere" if far else "loopback",
            alpn=(),
            connect_timeout_s=app.connect_timeout,
            circuit_breaker=resilience.circuit_breaker(app.circuit_breaker),
            outlier_detection=None,  # nothing of the file could switch it off
            pool=_pool(app.pool),
            is_app=True,
        )
        return name

    # --- listeners ---

    def inbound(self) -> tuple[model.InboundConfig, ...]:
        given = self._file.inbound or []
        # One listener that is not in a list has no name and needs none.
        return tuple(
            self._inbound(one, "app" if one.name is None else f"app-{one.name}") for one in given
        )

    def _inbound(self, given: schema.Inbound, app: str) -> model.InboundConfig:
        self._app(app, given.app, address=given.app.address, far=given.unsafe_plaintext)
        return model.InboundConfig(
            name=given.name or "inbound",
            listen=given.listen,
            protocol=given.protocol,
            socket_mode=int(given.socket_mode, 8),
            limits=_limits(given),
            app=app,
            allow=rules(given.allow or (), "allow"),
            deny=rules(given.deny, "deny"),
            allow_any_verified=given.allow_any_verified,
            audit=given.authorization == "audit",
            routes=self._inbound_routes(given, app),
            forwarded_client_cert=given.forwarded_client_cert,
            forwarded_client_cert_details=tuple(given.forwarded_client_cert_details),
            client_cert_header=given.client_cert_header,
            trusted_hops=given.trusted_hops,
            alpn=tuple(given.alpn),
            settings=_listener_settings(given),
        )

    def _inbound_routes(self, given: schema.Inbound, app: str) -> tuple[model.RouteConfig, ...]:
        if given.routes is None:
            return (
                model.RouteConfig("default", Match(), ((app, 1),), None, _listener_settings(given)),
            )
        routes = []
        for number, route in enumerate(given.routes, 1):
            name = route.name or f"route-{number}"
            target = app
            if route.app is not None:
                target = self._app(
                    f"{app}-{name}", given.app, address=route.app, far=given.unsafe_plaintext
                )
            settings = _nearest(route, given)
            routes.append(
                model.RouteConfig(
                    name, _match(route.match), ((target, 1),), _rewrite(route.rewrite), settings
                )
            )
        return tuple(routes)

    def outbound(self) -> tuple[model.OutboundConfig, ...]:
        own = tuple(
            self._own_listener(name, service)
            for name, service in self._file.services.items()
            if service.listen is not None
        )
        return tuple(self._outbound(one) for one in self._file.outbound or []) + own

    def _outbound(self, given: schema.Outbound) -> model.OutboundConfig:
        routes = None
        if given.routes is not None:
            routes = tuple(
                self._outbound_route(route, number, given)
                for number, route in enumerate(given.routes, 1)
            )
        return model.OutboundConfig(
            name=given.name or "outbound",
            listen=given.listen,
            protocol=given.protocol,
            socket_mode=int(given.socket_mode, 8),
            limits=_limits(given),
            routes=routes,
            service=given.service,
            browsers_allowed=given.browsers == "allow",
            settings=self._settings_to(given.service, given),
            service_settings=self._service_settings(given),
        )

    def _own_listener(self, name: str, service: schema.Service) -> model.OutboundConfig:
        """Give the listener of `services.NAME.listen`: an outbound one with every default, all to the service."""
        limits = model.ListenerLimits()
        settings = _nearest(service)
        if service.protocol == "tcp":
            limits = dataclasses.replace(
                limits, idle_timeout_s=TCP_IDLE_S, max_connection_age_s=None
            )
            settings = _tcp_settings(TCP_IDLE_S)
        return model.OutboundConfig(
            name=f"service-{name}",
            listen=service.listen or Address(),
            protocol=service.protocol or "http",
            socket_mode=0o600,
            limits=limits,
            routes=None,
            service=name,
            browsers_allowed=False,
            settings=settings,
            service_settings={} if service.protocol == "tcp" else {name: settings},
        )

    def _service_settings(self, given: schema.Outbound) -> dict[str, model.RouteSettings]:
        if given.routes is not None or given.protocol == "tcp":
            return {}
        names = [given.service] if given.service else list(self._file.services)
        return {name: self._settings_to(name, given) for name in names}

    def _settings_to(self, name: str | None, listener: schema.Outbound) -> model.RouteSettings:
        if listener.protocol == "tcp" or name is None:
            return _listener_settings(listener)
        return _nearest(self._file.services[name], listener)

    def _outbound_route(
        self, route: schema.OutboundRoute, number: int, listener: schema.Outbound
    ) -> model.RouteConfig:
        targets = route.split if route.split is not None else {route.service or "": 1}
        by_service = {
            name: _nearest(route, self._file.services[name], listener) for name in targets
        }
        return model.RouteConfig(
            name=route.name or f"route-{number}",
            match=_match(route.match),
            targets=tuple(targets.items()),
            rewrite=_rewrite(route.rewrite),
            settings=by_service[next(iter(targets))],
            service_settings=by_service,
        )


# --- pieces --------------------------------------------------------------------------------------------------


def _tcp_services(file: schema.File) -> frozenset[str]:
    """Give the services behind a tcp listener: their bytes are no HTTP, so they are offered no ALPN by default."""
    listeners = {
        one.service for one in file.outbound or [] if one.protocol == "tcp" and one.service
    }
    own = {name for name, service in file.services.items() if service.protocol == "tcp"}
    return frozenset(listeners | own)


def _tls(given: schema.Tls) -> model.TlsConfig:
    profile = "TLSv1.3" if given.profile == "modern" else "TLSv1.2"
    return model.TlsConfig(
        min_version=given.min_version or profile,
        groups=tuple(given.groups),
        session_lifetime_s=given.session_lifetime,
    )


def _nearest(*places: schema.RouteSettings) -> model.RouteSettings:
    """Give the settings of a route: of each, that of the first place that has it written down."""

    def nearest(name: str) -> schema.RouteSettings:
        return next((place for place in places if name in place.model_fields_set), places[-1])

    limit = nearest("rate_limit").rate_limit
    fault = nearest("fault").fault
    return model.RouteSettings(
        timeout_s=nearest("timeout").timeout,
        total_timeout_s=nearest("total_timeout").total_timeout,
        body_idle_timeout_s=nearest("body_idle_timeout").body_idle_timeout,
        max_body=nearest("max_body").max_body,
        upgrades=tuple(nearest("upgrades").upgrades),
        rate_limit=limit.limit if limit is not None else None,
        per_try_timeout_s=nearest("per_try_timeout").per_try_timeout,
        retry=resilience.retry(nearest("retry").retry),
        hedge_after_s=nearest("hedge_after").hedge_after,
        fault=fault.fault if fault is not None else None,
    )


def _tcp_settings(idle_s: float) -> model.RouteSettings:
    """Give what is left of the settings for opaque bytes: they know no request, only silence ends them."""
    return model.RouteSettings(timeout_s=None, body_idle_timeout_s=idle_s, upgrades=())


def _listener_settings(given: schema.Listener) -> model.RouteSettings:
    if given.protocol == "tcp":
        return _tcp_settings(given.idle_timeout)
    return _nearest(given)


def _limits(given: schema.Listener) -> model.ListenerLimits:
    return model.ListenerLimits(
        max_connections=given.max_connections,
        max_connections_per_peer=given.max_connections_per_peer
        or max(1, given.max_connections // 2),
        handshake_timeout_s=given.handshake_timeout,
        head_timeout_s=given.head_timeout,
        idle_timeout_s=given.idle_timeout,
        write_timeout_s=given.write_timeout,
        body_min_rate=given.body_min_rate,
        max_connection_age_s=given.max_connection_age,
        max_head=given.max_head,
        max_headers=given.max_headers,
        max_uri=given.max_uri,
    )


def _pool(given: schema.Pool) -> model.PoolConfig:
    return model.PoolConfig(
        max_idle=given.max_idle,
        idle_timeout_s=given.idle_timeout,
        max_age_s=given.max_age,
        max_requests=given.max_requests,
    )


def _server_name(peer: tuple[PeerPattern, ...]) -> str | None:
    """Give the name to ask for: the dns peer, when it is one name."""
    names = [one.pattern for one in peer if one.kind == "dns"]
    return names[0] if len(names) == 1 and "*" not in names[0] else None


def _match(given: schema.Match) -> Match:
    return Match(
        hosts=tuple(given.host or ()),
        path=given.path,
        prefix=given.prefix,
        methods=tuple(given.method or ()),
        headers=fields(given.headers),
    )


def _rewrite(given: schema.Rewrite | None) -> Rewrite | None:
    return None if given is None else Rewrite(prefix=given.prefix, host=given.host)
