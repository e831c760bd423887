"""A second try beside the first, for a request whose answer is late.

Knows its own attempt; must not know what the exchange has done so far. It listens until a response head comes, then
hands its attempt over, and from there on the connection speaks to the exchange itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.errors import ExchangeError, Repeatable
from ambassador.proxy.attempt import Attempt

if TYPE_CHECKING:
    from ambassador.core.model import Field, ResponseHead
    from ambassador.http.http1.client import ClientConnection
    from ambassador.http.raw import RawConnection
    from ambassador.proxy.exchange import Exchange
    from ambassador.proxy.repeats import Repeats
    from ambassador.upstream.endpoint import EndpointState


_SERVER_ERROR: Final = 500


class Hedge:
    """See the module."""

    __slots__ = ("_exchange", "_number", "_repeats", "attempt", "started")

    def __init__(self, exchange: Exchange, repeats: Repeats, state: EndpointState) -> None:
        self._exchange = exchange
        self._repeats = repeats
        exchange.attempts += 1
        self._number = exchange.attempts
        self.started = 0.0  # when it was sent, in seconds of the monotonic clock
        self.attempt = Attempt(self, state)

    def __repr__(self) -> str:
        return f"Hedge({self.attempt!r})"

    def begin(self) -> None:
        """Send the request once more."""
        attempt = self.attempt
        connection = attempt.state.pool.take(checked=True)
        if connection is not None:
            attempt.connection = connection
            attempt.reused = True
            self.upstream_ready(connection)
            return
        try:
            attempt.connect(tunnel=False)
        except ExchangeError:  # the service is full: the first one goes on alone
            self._end()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self.attempt.abandon()

    def _end(self) -> None:
        self.attempt.abandon()
        self._repeats.hedge_failed()

    # ---- of its attempt ------------------------------------------------------------------------------------

    def connected(self) -> None:
        """Its time begins when it is sent."""

    def upstream_ready(self, connection: ClientConnection) -> None:
        exchange = self._exchange
        self.started = exchange.door.surroundings.monotonic()
        connection.send_head(self, exchange.head, self._repeats.lines(self._number), True)

    def tunnel_ready(self, connection: RawConnection) -> None:
        """A tunnel is never hedged."""
        connection.abandon()

    def attempt_failed(self, error: ExchangeError) -> None:
        attempt = self.attempt
        if attempt.connection is not None and not (
            attempt.reused and error.repeatable is Repeatable.IDEMPOTENT
        ):
            attempt.failed(error)  # a stale connection is no fault of its endpoint
        self._end()

    # ---- of its connection ---------------------------------------------------------------------------------

    def response_head(self, head: ResponseHead, end: bool) -> None:  # noqa: FBT001
        if not self._is_worse(head, whole=end):
            self._repeats.hedge_won(self)
            self._exchange.response_head(head, end)

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        if not self._is_worse(head, whole=True):
            self._repeats.hedge_won(self)
            self._exchange.response_whole(head, body)

    def _is_worse(self, head: ResponseHead, *, whole: bool) -> bool:
        """Let go of a failure as long as the first one may still answer: who fails quickly must not win."""
        exchange, attempt = self._exchange, self.attempt
        if head.status < _SERVER_ERROR or exchange.attempt is None:
            return False
        waited_s = exchange.door.surroundings.monotonic() - self.started
        attempt.state.service.answered(attempt.state, head, waited_s)
        if whole:
            attempt.release()
        self._end()
        return True

    def response_interim(self, head: ResponseHead) -> None:
        """Whoever is first with the final one is heard."""

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        """Never before the head, and then the exchange listens itself."""

    def response_trailers(self, fields: list[Field]) -> None:
        """As `response_body`."""

    def response_burst_over(self) -> None:
        """Nothing has been relayed."""

    def upstream_writable(self) -> None:
        """There is no body."""
