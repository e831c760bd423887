"""One try at one endpoint.

Knows its endpoint, its connection and whether a body byte has left; must not know what the exchange does with a
failure. A fresh object per try: only facts survive it (house §7). After `abandon` it is deaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import PeerRefusedUs
from ambassador.policy.retry import IDEMPOTENT, AttemptFacts

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError
    from ambassador.core.model import Field, ResponseHead
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
        self.connection: ClientConnection | RawConnection | None = None
        self._dial: Dial | None = None
        self.body_sent = False
        self.reused = False

    def __repr__(self) -> str:
        return f"Attempt({self.state.address_text}, {self.connection!r})"

    def start(self, method: bytes, *, has_body: bool, fresh: bool) -> None:
        """Take an idle connection or dial one."""
        self.state.outstanding += 1
        pool = self.state.pool
        if not fresh:
            # A request that can be sent twice needs no look at the socket (2 µs): `policy.retry` mends the race.
            repeatable = method in IDEMPOTENT and not has_body
            connection = pool.take(checked=not repeatable)
            if connection is not None:
                self.reused = True
                self._begin(connection)
                return
        self._dial = pool.dial(self)

    def start_tunnel(self) -> None:
        """Dial a connection that carries nothing but this tunnel."""
        self.state.outstanding += 1
        self._dial = self.state.pool.dial_raw(self)

    def abandon(self) -> None:
        """The exchange needs this try no more."""
        if self._end() and self.connection is not None:
            self.connection.abandon()

    def release(self) -> None:
        """The response is whole: the connection may serve others."""
        if self._end() and self.connection is not None:
            self.connection.release()

    def facts(self, error: ExchangeError, method: bytes, *, untried: int, repeated_fresh: bool) -> AttemptFacts:
        """Say what `policy.retry` needs to know."""
        return AttemptFacts(
            method=method,
            repeatable=error.repeatable,
            untried=untried,
            reused=self.reused,
            body_sent=self.body_sent,
            response_started=error.detail == "response_head_truncated",
            tls_refused=isinstance(error, PeerRefusedUs) or error.detail.startswith("tls_"),
            repeated_fresh=repeated_fresh,
        )

    def _end(self) -> bool:
        """Count the try out, once."""
        if self._exchange is None:
            return False
        self._exchange = None
        self.state.outstanding -= 1
        if self._dial is not None:
            self._dial.cancel()
        return True

    def _begin(self, connection: ClientConnection) -> None:
        self.connection = connection
        connection.open(self)
        if self._exchange is not None:
            self._exchange.upstream_ready(connection)

    # ---- from the pool -------------------------------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        self._dial = None
        self.state.connected()
        self._begin(connection)

    def connection_failed(self, error: ExchangeError) -> None:
        self._dial = None
        exchange = self._exchange
        if exchange is not None:
            self.state.connect_failed(exchange.now())
            exchange.attempt_failed(error)

    def raw_connection_ready(self, connection: RawConnection) -> None:
        self._dial = None
        self.state.connected()
        self.connection = connection
        connection.start(self)
        if self._exchange is not None:
            self._exchange.tunnel_ready(connection)

    # ---- from the connection -------------------------------------------------------------------------------

    def head_received(self, head: ResponseHead, end: bool) -> None:  # noqa: FBT001
        if self._exchange is not None:
            self._exchange.response_head(head, end)

    def interim_received(self, head: ResponseHead) -> None:
        if self._exchange is not None:
            self._exchange.response_interim(head)

    def body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        if self._exchange is not None:
            self._exchange.response_body(chunk, end)

    def trailers_received(self, fields: list[Field]) -> None:
        if self._exchange is not None:
            self._exchange.response_trailers(fields)

    def stream_reset(self, error: ExchangeError) -> None:
        if self._exchange is not None:
            self._exchange.attempt_failed(error)

    def read_finished(self) -> None:
        if self._exchange is not None:
            self._exchange.response_burst_over()

    def writable(self) -> None:
        if self._exchange is not None:
            self._exchange.upstream_writable()
