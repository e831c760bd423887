"""One check of one endpoint after the other, over connections of its pool.

Knows how to ask, and what an answer is worth; must not know when to ask or what follows from it. The pool makes the
connection, so that a check passes the same handshake and the same check of the peer as a request does.

A check that runs out of time leaves its dial to the pool, which ends it by `connect_timeout`: the next check waits for
that one instead of beginning a second, and a connection that nobody waits for is kept for others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ambassador.core.errors import UpstreamClosed
from ambassador.core.model import RequestHead

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError
    from ambassador.core.model import Field, ResponseHead
    from ambassador.http.http1.client import ClientConnection
    from ambassador.policy.health import HealthCheckSettings
    from ambassador.upstream.pool import Pool

#: Of the answer's body so much is read, for the connection's sake; a longer one costs the connection.
MAX_BODY: Final = 64 * 1024
_EXTRA: Final = b"User-Agent: ambassador\r\n"


class Probe:
    """Checks one endpoint, one check at a time; it is the pool's `Waiter` and hears the response."""

    __slots__ = (
        "_answer", "_connection", "_head", "_is_dialling", "_is_reused", "_left", "_loop", "_pool",
        "_settings", "_verdict",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        settings: HealthCheckSettings,
        *,
        host: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._loop = loop
        self._head = RequestHead(b"GET", b"http", host.encode(), settings.path.encode(), [], 0)
        self._answer: asyncio.Future[str] | None = None  # of the running check
        self._connection: ClientConnection | None = None  # that carries its request
        self._is_dialling = self._is_reused = False
        self._verdict: str | None = None  # by the head, once it has come
        self._left = 0  # of MAX_BODY

    def __repr__(self) -> str:
        running = "idle" if self._answer is None else "running"
        return f"Probe({self._pool!r}, {running})"

    async def check(self) -> str:
        """Check once: give "" when the endpoint is fine, else a word that says why not.

        `status_NNN`, `timeout`, `closed`, or the detail of the error that an exchange would have had.
        """
        answer: asyncio.Future[str] = self._loop.create_future()
        self._answer = answer
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                self._begin()
                return await answer
        except TimeoutError:
            return "timeout"
        finally:
            self._end()

    def _begin(self) -> None:
        # A handshake is all that a check of kind tcp is, so it always dials.
        is_http = self._settings.kind == "http"
        connection = self._pool.take(checked=True) if is_http else None
        if connection is None:
            self._dial()
        else:
            self._send(connection, reused=True)

    def _dial(self) -> None:
        if not self._is_dialling:
            self._is_dialling = True
            self._pool.dial(self)

    def _send(self, connection: ClientConnection, *, reused: bool) -> None:
        self._connection = connection
        self._is_reused = reused
        self._verdict = None
        self._left = MAX_BODY
        connection.send_head(self, self._head, _EXTRA, True)

    def _answered(self) -> None:
        """The response is whole: the connection may serve others."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        self._say(self._verdict or "")

    def _say(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reason)

    def _end(self) -> None:
        self._answer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _judge(self, head: ResponseHead) -> None:
        expected = any(low <= head.status <= high for low, high in self._settings.expect)
        self._verdict = "" if expected else f"status_{head.status}"

    # ---- from the pool -------------------------------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        self._is_dialling = False
        if self._settings.kind == "tcp":
            # Not a raw connection, which can only be cut: a reset would be an alarm in the endpoint's log.
            connection.close()
            self._say("")
        elif self._answer is None or self._connection is not None:
            self._pool.connection_free(connection)  # the check that asked for it is over
        else:
            self._send(connection, reused=False)

    def connection_failed(self, error: ExchangeError) -> None:
        self._is_dialling = False
        if self._connection is None:
            self._say(_reason(error))

    # ---- from the connection -------------------------------------------------------------------------------

    def response_head(self, head: ResponseHead, end: bool) -> None:  # noqa: FBT001
        self._judge(head)
        if end:
            self._answered()

    def response_whole(
        self, head: ResponseHead, body: bytes
    ) -> None:  # what it says is of no interest
        self._judge(head)
        self._answered()

    def response_interim(self, head: ResponseHead) -> None:
        """Not the answer yet."""

    def response_body(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        self._left -= len(chunk)
        if end:
            self._answered()
        elif self._left < 0:
            self._say(self._verdict or "")  # `check` then abandons the connection

    def response_trailers(self, fields: list[Field]) -> None:
        self._answered()

    def attempt_failed(self, error: ExchangeError) -> None:
        connection, self._connection = self._connection, None
        spoke = self._verdict is not None or (connection is not None and connection.has_spoken)
        if self._is_reused and not spoke:
            # It may have ended by idleness this very moment, which says nothing about the endpoint.
            self._dial()
        else:
            self._say(_reason(error))

    def response_burst_over(self) -> None:
        """Nothing is corked."""

    def upstream_writable(self) -> None:
        """There is no body to send."""


def _reason(error: ExchangeError) -> str:
    return "closed" if isinstance(error, UpstreamClosed) else error.detail
