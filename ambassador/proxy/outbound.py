"""The outbound door: app -> peer. Which service is meant, and what the peer is told.

Order, and why: sanitise first (A2); browsers before routes, so that a web page learns no service's name (H7); then
the authority, absolute form over Host (RFC 9112 §3.2.2), selects a service and nothing else: it is never dialled (H1).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ambassador.core.errors import AccessDenied, DownstreamProtocolError, LoopDetected, NoRoute
from ambassador.core.model import ATTEMPT_COUNT, BROWSER, IDENTITY, OVERRIDE, VIA
from ambassador.core.record import ExchangeRecord
from ambassador.http.http1.server import ServerConnection
from ambassador.http.raw import RawDownstream
from ambassador.policy.browser import is_foreign_page
from ambassador.policy.forwarding import names_us, via_line
from ambassador.policy.headers import sanitize
from ambassador.policy.hosts import can_be_rebound, split_authority
from ambassador.policy.paths import is_normal_path
from ambassador.policy.routing import suggest
from ambassador.policy.trace_context import stamp
from ambassador.proxy.doors import (
    Doors,
    count_hop,
    keep_upgrade,
    normal_authority,
    rewrite,
    tunnel_head,
)
from ambassador.proxy.exchange import Exchange
from ambassador.proxy.snapshot import Route, RouteCompiler

if TYPE_CHECKING:
    from ambassador.config.model import OutboundConfig, ServiceConfig
    from ambassador.core.model import PeerIdentity, RequestHead
    from ambassador.net.listener import Accepted
    from ambassador.proxy.doors import Commons

_SUSPECT: Final = IDENTITY | OVERRIDE
_CONNECT: Final = b"CONNECT"
_USUAL: Final = 4  # no longer are GET, HEAD, POST and PUT


class OutboundDoors(Doors):
    """The compiled view of one outbound listener, and its open connections."""

    __slots__ = (
        "config",
        "drops_overrides",
        "fixed",
        "instance",
        "known",
        "own_names",
        "own_suffixes",
        "services",
        "table",
        "via",
    )

    def __init__(
        self,
        config: OutboundConfig,
        services: dict[str, ServiceConfig],
        commons: Commons,
        *,
        instance: str,
    ) -> None:
        super().__init__("outbound", config.name, config.limits, commons)
        self.config = config
        self.instance = commons.clean(instance)
        self.services = {name: service for name, service in services.items() if not service.is_app}
        compiler = RouteCompiler(
            "outbound",
            config.name,
            commons.directory,
            commons.metrics,
            limiters=commons.limiters,
            faults=commons.faults,
        )
        self.fixed: Route | None = None
        if config.service is not None:
            self.fixed = compiler.single(config.service, config.settings)
        if config.routes is not None:
            self.table = compiler.table(config.routes)
        else:
            self.table = compiler.by_name(
                (name, service.hosts, config.service_settings.get(name, config.settings))
                for name, service in self.services.items()
            )
        self.drops_overrides = self.table.names_paths or self.table.names_methods
        self.known = sorted(
            {
                *self.services,
                *(host for service in self.services.values() for host in service.hosts),
            }
        )
        named = [host for route in config.routes or () for host in route.match.hosts]
        self.own_names = frozenset(name.encode() for name in [*self.known, *named])
        self.own_suffixes = tuple(name[1:].encode() for name in named if name.startswith("*."))
        self.via = {version: via_line(self.pseudonym, version=version) for version in (10, 11)}

    def open(self, accepted: Accepted) -> None:
        """Serve the app's connection."""
        door = _OutboundDoor(self, accepted)
        if self.config.protocol == "http":
            self.serve(accepted, door)
            return
        downstream = RawDownstream(
            self.commons.loop,
            accepted.transport,
            write_timeout_s=self._limits.write_timeout_s,
            closed=door.connection_closed,
        )
        self.remember(downstream)
        exchange = Exchange(door, downstream)
        downstream.begin(exchange)
        exchange.head_received(tunnel_head(), False)


class _OutboundDoor:
    """One connection of the app."""

    __slots__ = (
        "_accepted",
        "_authority",
        "_doors",
        "_host",
        "exchange_ended",
        "is_remote",
        "new_exchange",
        "peer",
        "record",
        "response_extra",
        "surroundings",
    )

    def __init__(self, doors: OutboundDoors, accepted: Accepted) -> None:
        self._doors = doors
        self._accepted = accepted
        self._authority = b""
        self._host = b""
        self.surroundings = doors.commons.surroundings
        self.exchange_ended = doors.commons.ledger.exchange_ended
        self.new_exchange = partial(Exchange, self)  # a frame less per request than a method
        self.is_remote = False
        self.peer: PeerIdentity | None = None
        # RFC 9110 §7.6.3: towards the app we are a proxy, and a proxy names itself in every message it forwards.
        self.response_extra = doors.via[11]
        self.record = ExchangeRecord(
            direction="outbound",
            listener=doors.name,
            protocol="HTTP/1.1" if doors.config.protocol == "http" else "tcp",
            peer_address=accepted.peer_address,
            instance=doors.instance,
        )

    def connection_closed(self, connection: ServerConnection | RawDownstream) -> None:
        del self.new_exchange  # the cycle through it would wait for the rare collector
        self._doors.forget(connection, self._accepted)

    def enter(self, exchange: Exchange, head: RequestHead) -> Route:
        """Walk the steps of this direction; the first that refuses raises."""
        doors = self._doors
        if doors.config.protocol == "tcp":
            return doors.fixed  # type: ignore[return-value]  # the configuration demands `service` with tcp
        if head.roles & _SUSPECT:
            sanitize(head, drop_overrides=doors.drops_overrides)
        if head.roles & ATTEMPT_COUNT:  # ours to count
            head.fields = [field for field in head.fields if not field.role & ATTEMPT_COUNT]
        if head.roles & BROWSER and not doors.config.browsers_allowed and is_foreign_page(head):
            raise AccessDenied(
                "foreign_origin", "Web pages may not call services through this port."
            )
        # The line cache gives the same object for the same Host.
        if head.authority is not self._authority:
            self._host = normal_authority(head)
            self._authority = head.authority
        if head.scheme != b"http":
            raise DownstreamProtocolError(
                "https_target",
                "Ask for http:// here: Ambassador adds the TLS, with the workload's identity.",
            )
        if head.roles & VIA and names_us(head.marked, doors.pseudonym):
            raise LoopDetected(
                "loop_detected", "This request has passed through this listener before."
            )
        route = self._route(self._host, head)
        if len(head.method) > _USUAL:
            count_hop(head)
        if head.method == _CONNECT:
            self._check_port(route, head)
        elif route.rewrites:
            rewrite(route, head)
        if not head.authority:
            head.authority = route.targets[
                0
            ].service.name.encode()  # HTTP/1.0 without Host, as `inbound`
        if head.upgrade:
            keep_upgrade(head, route.upgrades)
        exchange.request_id, exchange.trace_id, lines = stamp(head, self.surroundings.random_bits)
        exchange.extra = lines + doors.via[head.version]
        return route

    def _route(self, host: bytes, head: RequestHead) -> Route:
        doors = self._doors
        table = doors.table
        everything = doors.fixed or table.constant
        if everything is not None:
            if host:  # without Host it is no browser (RFC 9112 §3.2 is older than any of them)
                self._check_host(host)
            return everything
        if table.names_paths and head.path.startswith(b"/") and not is_normal_path(head.path):
            raise DownstreamProtocolError("path_not_normal", "The path is not in normal form.")
        route = table.find(host, head.method, head.path, [*head.fields, *head.stamped])
        if route is None:
            raise NoRoute("no_route", self._not_found(host, head))
        # Every host that fulfils the rest leads here (H7); one label is no name that the public DNS gives.
        if not route.names_host and b"." in host:
            self._check_host(host)
        return route

    def _check_host(self, host: bytes) -> None:
        """Refuse a name that a stranger's DNS may have brought here (H7)."""
        doors = self._doors
        is_named = host.endswith(doors.own_suffixes)  # by another route: the user's as well
        if not (is_named or doors.config.browsers_allowed) and can_be_rebound(
            host, doors.own_names
        ):
            raise AccessDenied(
                "foreign_host", "This Host is not one of the service's names; see `hosts`."
            )

    def _not_found(self, host: bytes, head: RequestHead) -> str:
        """Word what could be meant, never to a web page."""
        if head.roles & BROWSER:
            return ""
        known = self._doors.known
        name = host.decode("ascii").removesuffix(".localhost")
        near = suggest(name, known)
        if near:
            return f'No service "{name}" here; did you mean {" or ".join(near)}?'
        if not known:
            return f'No service "{name}" here; none is configured.'
        return f'No service "{name}" here; there is {", ".join(known[:20])}.'

    def _check_port(self, route: Route, head: RequestHead) -> None:
        """CONNECT reaches configured ports only (H1)."""
        _, port = split_authority(head.authority)
        ports = {
            state.pool.endpoint.address.port
            for target in route.targets
            for state in target.service.endpoints
        }
        if port not in ports:
            raise AccessDenied(
                "connect_port", "CONNECT may only name a port that the service's endpoints have."
            )
