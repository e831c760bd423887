"""What both front doors share: their open connections, counters, and small steps of a walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ambassador.core.errors import DownstreamProtocolError, HopsEnded, TraceRefused
from ambassador.core.model import Field, RequestHead
from ambassador.http.http1.limits import ServerLimits
from ambassador.http.http1.server import ServerConnection
from ambassador.policy.hosts import normal_host
from ambassador.policy.paths import apply_rewrite
from ambassador.wire.field import HeadLimits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ambassador.config.model import ListenerLimits
    from ambassador.core.model import PeerIdentity
    from ambassador.core.record import ExchangeRecord
    from ambassador.http.stream import Owner
    from ambassador.net.listener import Accepted
    from ambassador.policy.rate_limit import RateLimit, RateLimiter
    from ambassador.proxy.exchange import Exchange
    from ambassador.proxy.ledger import Ledger
    from ambassador.proxy.snapshot import Route
    from ambassador.proxy.surroundings import Surroundings
    from ambassador.telemetry.metrics import Metrics
    from ambassador.telemetry.refusals import RefusalLog
    from ambassador.upstream.directory import Directory
    from ambassador.wire.field import LineCache

#: More hops than any request has; `int` of a longer number would only cost time.
_MAX_HOP_DIGITS: Final = 9
#: Who has waited so long for a response is looked at, and again and again. Units: seconds.
LOOK_S: Final = 1.0


class Connection(Protocol):
    """An open downstream connection, as its doors see it."""

    def drain(self) -> None: ...

    def abort(self) -> None: ...

    def look(self, before: object) -> object: ...


class Door(Protocol):
    """What differs between the two directions; one per downstream connection.

    `record` holds what all its exchanges have in common.
    """

    record: ExchangeRecord
    peer: PeerIdentity | None  # inbound
    is_remote: bool
    response_extra: bytes
    surroundings: Surroundings

    def enter(self, exchange: Exchange, head: RequestHead) -> Route:
        """Sanitise, authorise, route, set our header lines; raises ExchangeError."""

    @property
    def exchange_ended(self) -> Callable[[Exchange], None]:
        """Give who notes the end of an exchange."""


class Commons:
    """What all doors of a process share; made once by the composition root."""

    __slots__ = (
        "audits",
        "cache",
        "clean",
        "denials",
        "directory",
        "faults",
        "ledger",
        "limiters",
        "loop",
        "metrics",
        "own_spiffe",
        "pseudonym",
        "surroundings",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        surroundings: Surroundings,
        cache: LineCache,
        directory: Directory,
        metrics: Metrics,
        ledger: Ledger,
        audits: RefusalLog,
        denials: RefusalLog,
        clean: Callable[[bytes | str], str],
        own_spiffe: Callable[[], str | None],
        pseudonym: Callable[[], bytes],
        faults: Callable[[], float] | None = None,
    ) -> None:
        self.faults = faults  # their chance; None: they are not enabled
        self.loop = loop
        self.surroundings = surroundings
        self.cache = cache
        self.directory = directory
        self.metrics = metrics
        self.ledger = ledger
        self.audits = audits
        self.denials = denials
        self.clean = clean
        self.own_spiffe = own_spiffe
        self.pseudonym = pseudonym
        self.limiters: dict[RateLimit, RateLimiter] = {}


class Doors:
    """One listener's doors: an open one per connection."""

    __slots__ = (
        "_limits",
        "_looks",
        "_stats",
        "_waited",
        "commons",
        "connections",
        "direction",
        "draining",
        "name",
        "pseudonym",
        "release",
    )

    def __init__(self, direction: str, name: str, limits: ListenerLimits, commons: Commons) -> None:
        self.direction = direction
        self.name = name
        self.commons = commons
        self.connections: set[Connection] = set()
        self.draining = False
        self._looks = False  # a look is due
        self._waited: dict[Connection, object] = {}
        self.pseudonym = commons.pseudonym()
        self.release: Callable[
            [Accepted], None
        ]  # gives the listener's slot back; set when the listener exists
        self._stats = commons.metrics.listener(direction, name)
        self._limits = ServerLimits(
            head=HeadLimits(
                max_head=limits.max_head, max_fields=limits.max_headers, max_uri=limits.max_uri
            ),
            head_timeout_s=limits.head_timeout_s,
            idle_timeout_s=limits.idle_timeout_s,
            write_timeout_s=limits.write_timeout_s,
            body_min_rate=limits.body_min_rate,
            max_age_s=limits.max_connection_age_s,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {len(self.connections)} connections)"

    def serve(self, accepted: Accepted, owner: Owner) -> None:
        """Speak HTTP/1.1 on a connection."""
        connection = ServerConnection(
            self.commons.loop,
            accepted.transport,
            owner,
            cache=self.commons.cache,
            limits=self._limits,
        )
        self.remember(connection)
        connection.start()
        if self.draining:
            connection.drain()

    def remember(self, connection: Connection) -> None:
        """A connection is served from now on, until `forget`."""
        self._stats.opened()
        self.connections.add(connection)
        if not self._looks:
            self._looks = True
            self.commons.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """See of those who have waited for one response since the last look whether they are still there.

        uvloop does not tell of a reset behind a request that was read: slot, upstream and the app's work would be
        held until there is a response (see `net.transport`).
        """
        self._looks = bool(self.connections)
        if self._looks:  # first, for a bug behind one look must not end all later ones (E8)
            self.commons.loop.call_later(LOOK_S, self._look)
        before, self._waited = self._waited, {}
        for connection in list(self.connections):
            exchange = connection.look(before.get(connection))
            if exchange is not None:
                self._waited[connection] = exchange

    def forget(self, connection: Connection, accepted: Accepted) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self._stats.closed()
        self.release(accepted)

    def drain(self) -> None:
        """Idle connections close now, busy ones after their exchange."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cut what is left."""
        for connection in list(self.connections):
            connection.abort()


def tunnel_head() -> RequestHead:
    """Give the head that stands for a connection without a protocol."""
    return RequestHead(b"CONNECT", b"", b"", b"", [], None)


def normal_authority(head: RequestHead) -> bytes:
    """Give the one host of a request, for routes, rules and logs (F3); empty for HTTP/1.0 without Host."""
    if not head.authority:
        return b""
    try:
        return normal_host(head.authority)
    except ValueError as error:
        raise DownstreamProtocolError("bad_authority", f"Host: {error}.") from None


def keep_upgrade(head: RequestHead, allowed: frozenset[bytes]) -> None:
    """Let only listed protocols be asked for (F5); others are dropped with their field."""
    tokens = [token.strip() for token in head.upgrade.split(b",")]
    head.upgrade = b", ".join(token for token in tokens if token.lower() in allowed)


def count_hop(head: RequestHead) -> None:
    """Count `Max-Forwards` of OPTIONS and TRACE down; at zero the request ends here (RFC 9110 §7.6.2)."""
    if head.method not in {b"OPTIONS", b"TRACE"}:
        return
    for at, field in enumerate(head.fields):
        if field.name == b"max-forwards":
            if not 0 < len(field.value) <= _MAX_HOP_DIGITS or not field.value.isdigit():
                raise DownstreamProtocolError("bad_max_forwards", "Max-Forwards is not a number.")
            hops = int(field.value)  # ASCII digits: `bytes.isdigit` knows no others
            if hops == 0 and head.method == b"TRACE":
                raise TraceRefused("max_forwards", "TRACE is not echoed here.")
            if hops == 0:
                raise HopsEnded("max_forwards", "Max-Forwards ended here.")
            value = b"%d" % (hops - 1)
            head.fields[at] = Field(field.name, value, field.role, b"Max-Forwards: " + value)


def rewrite(route: Route, head: RequestHead) -> None:
    """Apply a route's rewrite; what comes out must be in normal form again (F2)."""
    if route.rewrite_prefix is not None:
        try:
            head.path = apply_rewrite(head.path, route.matched_prefix, route.rewrite_prefix)
        except ValueError as error:
            raise DownstreamProtocolError("rewrite_refused", str(error)) from None
    if route.rewrite_host is not None:
        head.authority = route.rewrite_host
