"""The inbound door: peer -> app. Who may, where to, which lines tell the app who it is.

Order, and why: sanitise first, so that nothing a peer claims is ever read (A2); authorise before routing, so that a
refused peer learns nothing of our routes; set ours last, so that nothing received can displace it (A3).
What does not change within a connection is decided when it opens.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Final

from ambassador.core.errors import AccessDenied, DownstreamProtocolError, LoopDetected, NoRoute
from ambassador.core.model import IDENTITY, OVERRIDE, VIA
from ambassador.core.record import ExchangeRecord
from ambassador.http.http1.server import ServerConnection
from ambassador.http.raw import RawDownstream
from ambassador.policy.authorization import Authorizer, Decision
from ambassador.policy.forwarding import (
    ForwardingLines,
    ForwardingSettings,
    client_cert_lines,
    names_us,
    via_line,
)
from ambassador.policy.headers import sanitize
from ambassador.policy.paths import is_normal_path
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
from ambassador.telemetry.metrics import Tally
from ambassador.wire import xfcc

if TYPE_CHECKING:
    from ambassador.config.model import InboundConfig
    from ambassador.core.model import PeerIdentity, RequestHead, TlsSession
    from ambassador.net.listener import Accepted
    from ambassador.proxy.doors import Commons

_MAX_JUDGED: Final = 1024
#: Whoever sends more beside his certificate is judged anew each time: 1024 of 64 KiB would be 64 MiB (E6).
_MAX_KEPT_CHAIN: Final = 8 * 1024
_SUSPECT: Final = IDENTITY | OVERRIDE
_CONNECT: Final = b"CONNECT"
_USUAL: Final = 4  # no longer are GET, HEAD, POST and PUT


class InboundDoors(Doors):
    """The compiled view of one inbound listener, and its open connections."""

    __slots__ = (
        "_judged",
        "authorizer",
        "by",
        "config",
        "details",
        "drops_overrides",
        "forwarding",
        "instance",
        "needs_normal_paths",
        "own_authority",
        "route",
        "table",
        "via",
    )

    def __init__(self, config: InboundConfig, commons: Commons, *, instance: str) -> None:
        super().__init__("inbound", config.name, config.limits, commons)
        self.config = config
        self.instance = commons.clean(instance)
        compiler = RouteCompiler(
            "inbound",
            config.name,
            commons.directory,
            commons.metrics,
            limiters=commons.limiters,
            faults=commons.faults,
        )
        self.table = compiler.table(config.routes)
        self.route = compiler.single(config.app, config.settings)  # of tcp connections
        self.authorizer = Authorizer(config.deny, config.allow, config.allow_any_verified)
        self.drops_overrides = (
            self.authorizer.names_paths
            or self.authorizer.names_methods
            or self.table.names_paths
            or self.table.names_methods
        )
        self.needs_normal_paths = self.authorizer.names_paths or self.table.names_paths
        # For HTTP/1.0 without Host: an empty one is legal (RFC 9112 §3.2), and many apps answer it with 400.
        app = commons.directory[config.app].config
        self.own_authority = (
            b"localhost"  # also of an app whose address is a name, or a Unix socket
        )
        if app.endpoints and not app.endpoints[0].address.path:
            self.own_authority = str(app.endpoints[0]).encode()
        self.via = {version: via_line(self.pseudonym, version=version) for version in (10, 11)}
        self.forwarding = ForwardingSettings(
            config.forwarded_client_cert, config.trusted_hops, xfcc.valid
        )
        self.details = frozenset(config.forwarded_client_cert_details)
        self._judged: dict[tuple[str, tuple[bytes, ...], str | None], _JudgedPeer] = {}

    def open(self, accepted: Accepted) -> None:
        """Serve a connection whose handshake is complete."""
        peer, session = accepted.peer, accepted.tls
        if peer is None or session is None:
            # An inbound listener without TLS does not exist; whoever wires one gets a closed door.
            accepted.transport.detach()
            self.release(accepted)
            return
        door = _InboundDoor(self, accepted, peer, session)
        if self.config.protocol == "tcp":
            self._open_tunnel(door, accepted)
        else:
            self.serve(accepted, door)

    def _open_tunnel(self, door: _InboundDoor, accepted: Accepted) -> None:
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

    def judge(self, peer: PeerIdentity) -> _JudgedPeer:
        """Give what is decided by the certificate alone, once for all connections that show it.

        The rules of this view never change and the certificate's bytes are the key, so nothing can become stale; dates
        and revocation are judged by every handshake before.
        """
        own_spiffe = self.commons.own_spiffe()
        key = (peer.fingerprint, peer.chain, own_spiffe)
        judged = self._judged.get(key)
        if judged is None:
            judged = _JudgedPeer(self, peer, own_spiffe)
            if sum(map(len, peer.chain)) <= _MAX_KEPT_CHAIN:
                if len(self._judged) >= _MAX_JUDGED:
                    self._judged.clear()
                self._judged[key] = judged
        return judged

    def count(self, decision: Decision) -> Tally:
        """Give the counter of a decision, bound by whoever meets it often."""
        return self.commons.metrics.authorization(
            self.name,
            decision.rule,
            decision="allowed" if decision.allowed else "denied",
            mode="audit" if self.config.audit else "enforce",
        )


class _JudgedPeer:
    """What the rules and settings of a listener make of one certificate; the same for all its connections."""

    __slots__ = (
        "always",
        "authorization",
        "constant_lines",
        "element",
        "record",
        "waved_through",
    )

    def __init__(self, doors: InboundDoors, peer: PeerIdentity, own_spiffe: str | None) -> None:
        self.authorization = doors.authorizer.for_peer(peer)
        self.element = xfcc.render(own_spiffe, peer, doors.details)
        self.constant_lines = client_cert_lines(doors.config.client_cert_header, peer)
        #: The decision on every request, when there is nothing to look at but the peer, and its counter.
        self.always: Decision | None = None
        constant = self.authorization.constant
        self.waved_through = doors.count(constant) if constant is not None else Tally()
        #: What the records of all its connections begin with.
        self.record = ExchangeRecord(
            direction="inbound",
            listener=doors.name,
            protocol="HTTP/1.1" if doors.config.protocol == "http" else "tcp",
            peer=doors.commons.clean(peer.principal),
            instance=doors.instance,
        )
        if constant is not None and constant.allowed and not doors.needs_normal_paths:
            self.always = constant
            self.record.rule, self.record.reason = constant.rule, constant.reason


class _InboundDoor:
    """One inbound connection's door: the peer is known, so most is decided already."""

    __slots__ = (
        "_accepted",
        "_always",
        "_authority",
        "_authorization",
        "_doors",
        "_host",
        "_lines",
        "_tallies",
        "_waved_through",
        "exchange_ended",
        "is_remote",
        "new_exchange",
        "peer",
        "record",
        "response_extra",
        "surroundings",
    )

    def __init__(
        self, doors: InboundDoors, accepted: Accepted, peer: PeerIdentity, session: TlsSession
    ) -> None:
        self._doors = doors
        self._accepted = accepted
        judged = doors.judge(peer)
        self._authorization = judged.authorization
        self._tallies: dict[Decision, Tally] = {}
        self._authority = b""
        self._host = b""
        self.surroundings = doors.commons.surroundings
        self.exchange_ended = doors.commons.ledger.exchange_ended
        self.new_exchange = partial(Exchange, self)  # a frame less per request than a method
        self.is_remote = True
        self.peer: PeerIdentity | None = peer
        self.response_extra = b""
        self.record = record = copy(judged.record)
        record.peer_address = accepted.peer_address
        record.tls_version = session.version
        record.tls_group = session.group
        # What every request of this peer gets, whatever it asks for, is in the record and counter from the start.
        self._always = judged.always
        self._waved_through = judged.waved_through
        host = "" if accepted.peer_address.startswith("unix:") else accepted.peer_address
        host = host.rpartition(":")[0].strip("[]")
        record.forwarded_for = host
        self._lines = ForwardingLines(
            doors.forwarding,
            peer_address=host,
            element=judged.element,
            constant=judged.constant_lines,
        )

    def connection_closed(self, connection: ServerConnection | RawDownstream) -> None:
        del self.new_exchange  # the cycle through it would wait for the rare collector
        self._doors.forget(connection, self._accepted)

    def enter(self, exchange: Exchange, head: RequestHead) -> Route:
        """Walk the steps of this direction; the first that refuses raises."""
        doors = self._doors
        dropped = (
            sanitize(head, drop_overrides=doors.drops_overrides) if head.roles & _SUSPECT else ()
        )
        # The line cache gives the same object for the same Host.
        if head.authority is not self._authority:
            self._host = normal_authority(head)
            self._authority = head.authority
        decision = self._always
        if decision is not None:
            self._waved_through.value += 1
        else:
            decision = self._decide(exchange, head)
        if doors.config.protocol == "tcp":
            return doors.route
        if len(head.method) > _USUAL:
            count_hop(head)
        if head.method == _CONNECT:
            # A gateway is no proxy for its peers (RFC 9110 §9.3.6; F4).
            raise DownstreamProtocolError("connect_refused", status=501)
        if head.roles & VIA and names_us(head.marked, doors.pseudonym):
            raise LoopDetected("loop_detected")
        route = doors.table.constant or doors.table.find(
            self._host, head.method, head.path, [*head.fields, *head.stamped]
        )
        if route is None:
            raise NoRoute("no_route")
        received_authority = head.authority
        if route.rewrites:
            rewrite(route, head)
        if not head.authority:
            head.authority = doors.own_authority
        if head.upgrade:
            keep_upgrade(head, route.upgrades)
        exchange.request_id, exchange.trace_id, lines = stamp(head, self.surroundings.random_bits)
        forwarded = self._lines.render(
            received_authority, dropped, may_forward=decision.may_forward
        )
        exchange.extra = forwarded + lines + doors.via[head.version]
        return route

    def _decide(self, exchange: Exchange, head: RequestHead) -> Decision:
        """Authorise; a path that two readers could read differently is refused before a rule looks at it (F1)."""
        doors = self._doors
        constant = self._authorization.constant
        is_denied = constant is not None and not constant.allowed
        if doors.needs_normal_paths and (not is_denied or doors.config.audit):
            path = head.path
            if path.startswith(b"/") and not is_normal_path(path):
                raise DownstreamProtocolError("path_not_normal")
        decision = constant or self._authorization.decide(head.method, head.path)
        tally = self._tallies.get(decision)
        if tally is None:
            tally = self._tallies[decision] = doors.count(decision)
        tally.value += 1
        exchange.decision = decision
        if not decision.allowed:
            commons = doors.commons
            if not doors.config.audit:
                if doors.config.protocol == "tcp":  # else the access log is where people look
                    commons.denials.refused(
                        decision.reason,
                        listener=doors.name,
                        peer=self.record.peer,
                        rule=decision.rule,
                    )
                raise AccessDenied(decision.reason)
            commons.audits.refused(
                decision.reason, listener=doors.name, peer=self.record.peer, rule=decision.rule
            )
        return decision
