"""One try at one endpoint: its facts, and its place in the counts of endpoint and service.

Knows its endpoint, its connection and whether a body byte has left; must not know what the exchange does with a
failure. A fresh object per try: only facts survive it (house §7). The connection calls the exchange itself: an
object in between cost two frames per event and could only ask what the connection knows, whether it was abandoned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ambassador.core.errors import PeerRefusedUs, UpstreamTimeout
from ambassador.http.stream import ResponseEvents
from ambassador.policy.retry import AttemptFacts

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError, Repeatable
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.upstream.endpoint import EndpointState
    from ambassador.upstream.pool import Dial


class Carried(ResponseEvents, Protocol):
    """Whom an attempt carries: an exchange, or its hedge."""

    def connected(self) -> None: ...

    def upstream_ready(self, connection: ClientConnection) -> None: ...

    def tunnel_ready(self, connection: RawConnection) -> None: ...


class Attempt:
    """Carries one exchange to one endpoint."""

    __slots__ = ("_dial", "_is_tunnel", "body_sent", "carried", "connection", "reused", "state")

    def __init__(self, carried: Carried, state: EndpointState) -> None:
        self.carried: Carried | None = carried
        self.state = state
        self._dial: Dial | None = None
        self.body_sent = self.reused = self._is_tunnel = False
        self.connection: ClientConnection | RawConnection | None = None
        state.outstanding += 1
        breaker = state.breaker
        breaker.requests += 1
        breaker.served += 1

    def __repr__(self) -> str:
        return f"Attempt({self.state.address_text}, {self.connection!r})"

    def connect(self, *, tunnel: bool) -> None:
        """Have a connection made, now or when one may be; `upstream_ready`, `tunnel_ready` or `attempt_failed` follows.

        Errors: Overflow when there is no place for a tunnel, or too many wait for one already.
        """
        self._is_tunnel = tunnel
        self.state.service.admission.ask(self, may_wait=not tunnel)

    def redirect(self, carried: Carried) -> None:
        """What comes from now on is another's: a hedge has become the attempt."""
        self.carried = carried
        if self.connection is not None:
            self.connection.redirect(carried)

    def abandon(self) -> None:
        """The exchange needs this try no more."""
        if self.carried is not None:
            self._end()
            if self.connection is not None:
                self.connection.abandon()

    def release(self) -> None:
        """The response is whole: the connection may serve others."""
        if self.carried is not None:
            self.carried = None
            state = self.state
            state.outstanding -= 1
            state.breaker.requests -= 1
            if self.connection is not None:
                self.connection.release()

    def failed(self, error: ExchangeError) -> None:
        """Tell the service: the endpoint was connected, and gave no response."""
        self.state.service.failed(self.state, error.detail)

    def facts(
        self,
        error: ExchangeError,
        method: bytes,
        *,
        untried: int,
        repeated_fresh: bool,
    ) -> AttemptFacts:
        """Say what `policy.retry` needs to know of a failure."""
        connection = self.connection
        return AttemptFacts(
            method=method,
            repeatable=error.repeatable,
            untried=untried,
            # Silence is no sign of a stale connection.
            reused=self.reused and not isinstance(error, UpstreamTimeout),
            body_sent=self.body_sent,
            response_started=connection is not None and connection.has_spoken,
            tls_refused=isinstance(error, PeerRefusedUs) or error.detail.startswith("tls_"),
            repeated_fresh=repeated_fresh,
        )

    def facts_of_response(self, method: bytes, repeatable: Repeatable) -> AttemptFacts:
        """Say what `policy.retry` needs to know of a response that is as good as a failure."""
        return AttemptFacts(method, repeatable, 0, self.reused, self.body_sent, True)

    def _end(self) -> None:
        self.carried = None
        state = self.state
        state.outstanding -= 1
        state.breaker.requests -= 1
        if self._dial is not None:
            self._dial.cancel()
        elif self.connection is None:
            state.service.admission.forget(self)

    # ---- from the admission --------------------------------------------------------------------------------

    def has_idle(self) -> bool:
        return not self._is_tunnel and bool(self.state.pool.idle)

    def connection_allowed(self) -> None:
        pool = self.state.pool
        if self._is_tunnel:
            self._dial = pool.dial_raw(self)
            return
        # Who has waited may find one that came back meanwhile; it was looked at last when it did.
        connection = pool.take(checked=True) if pool.idle else None
        if connection is None:
            self._dial = pool.dial(self)
            return
        self.reused = True
        self._use(connection)

    # ---- from the pool -------------------------------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        self._dial = None
        self.state.connected()
        self._use(connection)

    def _use(self, connection: ClientConnection) -> None:
        self.connection = connection
        if self.carried is not None:
            self.carried.connected()
            self.carried.upstream_ready(connection)

    def raw_connection_ready(self, connection: RawConnection) -> None:
        self._dial = None
        self.state.connected()
        self.connection = connection
        if self.carried is not None:
            connection.start(self.carried)
            self.carried.connected()
            self.carried.tunnel_ready(connection)

    def connection_failed(self, error: ExchangeError) -> None:
        self._dial = None
        carried = self.carried
        if carried is not None:
            self.state.service.connect_failed(self.state, error.detail)
            carried.attempt_failed(error)
