"""One try at one endpoint: its facts, and its place in the endpoint's count.

Knows its endpoint, its connection and whether a body byte has left; must not know what the exchange does with a
failure. A fresh object per try: only facts survive it (house §7). The connection calls the exchange itself: an
object in between cost two frames per event and could only ask what the connection knows, whether it was abandoned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import PeerRefusedUs
from ambassador.policy.retry import AttemptFacts

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.proxy.exchange import Exchange
    from ambassador.upstream.pool import Dial
    from ambassador.upstream.service import EndpointState


class Attempt:
    """Carries one exchange to one endpoint."""

    __slots__ = ("_dial", "_exchange", "body_sent", "connection", "reused", "state")

    def __init__(self, exchange: Exchange, state: EndpointState) -> None:
        self._exchange: Exchange | None = exchange
        self.state = state
        self._dial: Dial | None = None
        self.body_sent = self.reused = False
        self.connection: ClientConnection | RawConnection | None = None
        state.outstanding += 1

    def __repr__(self) -> str:
        return f"Attempt({self.state.address_text}, {self.connection!r})"

    def dial(self, *, tunnel: bool) -> None:
        """Make a connection; `upstream_ready`, `tunnel_ready` or `attempt_failed` follows."""
        pool = self.state.pool
        self._dial = pool.dial_raw(self) if tunnel else pool.dial(self)

    def abandon(self) -> None:
        """The exchange needs this try no more."""
        if self._exchange is not None:
            self._end()
            if self.connection is not None:
                self.connection.abandon()

    def release(self) -> None:
        """The response is whole: the connection may serve others."""
        if self._exchange is not None:
            self._exchange = None
            self.state.outstanding -= 1
            if self.connection is not None:
                self.connection.release()

    def facts(
        self, error: ExchangeError, method: bytes, *, untried: int, repeated_fresh: bool
    ) -> AttemptFacts:
        """Say what `policy.retry` needs to know."""
        connection = self.connection
        return AttemptFacts(
            method=method,
            repeatable=error.repeatable,
            untried=untried,
            reused=self.reused,
            body_sent=self.body_sent,
            response_started=connection is not None and connection.has_spoken,
            tls_refused=isinstance(error, PeerRefusedUs) or error.detail.startswith("tls_"),
            repeated_fresh=repeated_fresh,
        )

    def _end(self) -> None:
        self._exchange = None
        self.state.outstanding -= 1
        if self._dial is not None:
            self._dial.cancel()

    # ---- from the pool -------------------------------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        self._dial = None
        self.state.connected()
        self.connection = connection
        if self._exchange is not None:
            self._exchange.connected()
            self._exchange.upstream_ready(connection)

    def raw_connection_ready(self, connection: RawConnection) -> None:
        self._dial = None
        self.state.connected()
        self.connection = connection
        if self._exchange is not None:
            connection.start(self._exchange)
            self._exchange.connected()
            self._exchange.tunnel_ready(connection)

    def connection_failed(self, error: ExchangeError) -> None:
        self._dial = None
        exchange = self._exchange
        if exchange is not None:
            exchange.connect_failed(self.state)
            exchange.attempt_failed(error)
