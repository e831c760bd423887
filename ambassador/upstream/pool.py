"""The connections to one endpoint: idle ones kept warm, new ones dialled.

Knows how many may wait, how long and how old; must not know exchanges beyond "somebody wants a connection". The
newest idle connection is taken first, so that the others can age and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ambassador.config.addresses import is_local
from ambassador.core.errors import ConnectFailed, ExchangeError, InternalError
from ambassador.http.http1.client import ClientConnection
from ambassador.http.raw import RawConnection
from ambassador.net.alarm import NEVER, Alarm
from ambassador.net.dialer import DialError, Dialled, TlsClient, dial
from ambassador.net.transport import Budget, TlsConnection, Transport
from ambassador.telemetry.text import clean

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from ambassador.config.model import ServiceConfig
    from ambassador.core.model import Address, Endpoint
    from ambassador.net.tasks import TaskGroup
    from ambassador.upstream.admission import Admission
    from ambassador.wire.field import HeadLimits, LineCache


class SessionTls(TlsClient, Protocol):
    """The client side of TLS with its memory of sessions."""

    def remember(self, session_key: object, connection: TlsConnection, mono_now: float) -> None: ...


class PoolEvents(Protocol):
    """What pools and services report. Units: seconds."""

    def dialled(self, service: str, dialled: Dialled) -> None: ...

    def dial_failed(self, service: str, address: Address, error: DialError) -> None: ...

    def endpoint_ejected(
        self, service: str, address: str, reason: str, *, seconds: float
    ) -> None: ...

    def endpoint_returned(self, service: str, address: str) -> None: ...

    def health_checked(self, service: str, result: str) -> None: ...

    def health_changed(self, service: str, address: str, *, healthy: bool, reason: str) -> None: ...

    def panic_changed(self, service: str, *, panicking: bool) -> None: ...

    def callback_crashed(self, error: BaseException) -> None: ...


class Waiter(Protocol):
    """Who asked for a connection."""

    def connection_ready(self, connection: ClientConnection) -> None: ...

    def connection_failed(self, error: ExchangeError) -> None: ...


class RawWaiter(Protocol):
    """Who asked for a connection that carries a tunnel."""

    def raw_connection_ready(self, connection: RawConnection) -> None: ...

    def connection_failed(self, error: ExchangeError) -> None: ...


class Environment:
    """What every pool of a process shares."""

    __slots__ = ("budget", "cache", "events", "forbidden", "limits", "loop", "tasks", "wall")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        tasks: TaskGroup,
        cache: LineCache,
        limits: HeadLimits,
        events: PoolEvents,
        wall: Callable[[], float],
        forbidden: Callable[[Address], bool],
        budget: Budget,
    ) -> None:
        self.budget = budget
        self.loop = loop
        self.tasks = tasks
        self.cache = cache
        self.limits = limits
        self.events = events
        self.wall = wall
        self.forbidden = forbidden


class Dial:
    """A connection being made for somebody who may lose interest; `is_made`: it is one of the pool's."""

    __slots__ = ("is_made", "waiter")

    def __init__(self, waiter: Waiter | RawWaiter) -> None:
        self.waiter: Waiter | RawWaiter | None = waiter
        self.is_made = False

    def cancel(self) -> None:
        """Lose interest: the connection, when it comes, is kept for others or closed."""
        self.waiter = None


class Pool:
    """Idle and busy connections to one endpoint."""

    __slots__ = (
        "_admission",
        "_alarm",
        "_config",
        "_dialling",
        "_environment",
        "_idle_timeout_s",
        "_max_age_s",
        "_max_idle",
        "_max_requests",
        "_now",
        "_tls",
        "busy",
        "endpoint",
        "idle",
        "tunnels",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        config: ServiceConfig,
        environment: Environment,
        tls: Callable[[], SessionTls] | None,
        admission: Admission,
    ) -> None:
        self.endpoint = endpoint
        self._admission = admission  # counts `idle`, `busy`, `tunnels` and what is being dialled
        self._config = config
        self._environment = environment
        self._tls = tls
        self._alarm = Alarm(environment.loop, self._retire_idle, self._crashed)
        self.idle: list[ClientConnection] = []
        self.busy: set[ClientConnection] = set()
        self.tunnels: set[RawConnection] = set()
        self._dialling = 0
        settings = config.pool
        self._max_idle: float = settings.max_idle
        self._max_age_s = settings.max_age_s
        self._max_requests: float = (
            NEVER if settings.max_requests is None else settings.max_requests
        )
        self._idle_timeout_s = settings.idle_timeout_s
        self._now = environment.loop.time

    def __repr__(self) -> str:
        return f"Pool({self.endpoint}, {len(self.idle)} idle, {len(self.busy)} busy)"

    def take(self, *, checked: bool) -> ClientConnection | None:
        """Give the newest idle connection, or None: dial then.

        `checked` looks at the socket first, which costs a system call: asked for when the request could not be
        repeated if the connection turned out to have died this very moment.
        """
        idle = self.idle
        if not idle:
            return None
        now = self._now()
        while idle:
            connection = idle.pop()
            # The socket is looked at last, for reading it may close it.
            if (
                now - connection.idle_since < self._idle_timeout_s
                and now - connection.born_at < self._max_age_s
                and (not checked or connection.is_alive())
            ):
                self.busy.add(connection)
                return connection
            self._admission.freed()
            connection.close()
        return None

    def dial(self, waiter: Waiter) -> Dial:
        """Make a connection; the waiter hears of it, or of the failure, once."""
        return self._begin(self._dial, waiter)

    def dial_raw(self, waiter: RawWaiter) -> Dial:
        """Make a connection for a tunnel, which the waiter owns."""
        return self._begin(self._dial_raw, waiter)

    def is_empty(self) -> bool:
        """Say whether no connection is open or being made."""
        return not (self.idle or self.busy or self.tunnels or self._dialling)

    def close(self) -> None:
        """Close what is idle; busy connections close when they come back."""
        self._max_idle = 0
        self._alarm.cancel()
        self._close_idle()

    def abort(self) -> None:
        """Cut what is left, at the end of the process."""
        self.close()
        for connection in list(self.busy):
            connection.abort()
        for tunnel in list(self.tunnels):
            tunnel.abort()

    def retire(self) -> None:
        """Close idle connections and take no busy one back: they carry an identity that has been replaced."""
        self._close_idle()
        for connection in self.busy:
            connection.born_at = -NEVER

    # ---- from connections ----------------------------------------------------------------------------------

    def connection_free(self, connection: ClientConnection) -> None:
        """Keep a connection whose exchange has ended."""
        self.busy.discard(connection)  # it is there: whoever has one has it from `take` or `_dial`
        connection.idle_since = now = self._now()
        idle = self.idle
        if (
            len(idle) >= self._max_idle
            or now - connection.born_at >= self._max_age_s
            or connection.requests >= self._max_requests
        ):
            self._admission.freed()
            connection.close()
            return
        idle.append(connection)
        if self._admission.waiting:
            self._admission.wake()
        if self._alarm.at == NEVER:
            self._alarm.set(now + self._idle_timeout_s)

    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection; its TLS session may serve the next one."""
        if connection in self.busy:
            self.busy.discard(connection)
            self._admission.freed()
        elif connection in self.idle:
            self.idle.remove(connection)
            self._admission.freed()
        self._remember(connection)

    def _tunnel_closed(self, connection: RawConnection) -> None:
        if connection in self.tunnels:
            self.tunnels.discard(connection)
            self._admission.freed()
        self._remember(connection)

    def evict(self) -> bool:
        """Close the oldest idle connection, for one to another endpoint; False when there is none."""
        if not self.idle:
            return False
        self._admission.freed()
        self.idle.pop(0).close()
        return True

    def _remember(self, connection: ClientConnection | RawConnection) -> None:
        if self._tls is not None and connection.tls is not None:
            self._tls().remember(self._session_key(), connection.tls, self._environment.loop.time())

    def _retire_idle(self) -> None:
        limit = self._now() - self._idle_timeout_s
        idle = self.idle
        while idle and idle[0].idle_since <= limit:
            self._admission.freed()
            idle.pop(0).close()
        if self.idle:
            self._alarm.set(self.idle[0].idle_since + self._idle_timeout_s)

    def _close_idle(self) -> None:
        while self.idle:  # taken out first: closing may take its time
            self._admission.freed()
            self.idle.pop().close()

    def _crashed(self, error: BaseException) -> None:
        self._environment.events.callback_crashed(error)

    # ---- dialling ------------------------------------------------------------------------------------------

    def _session_key(self) -> object:
        return self.endpoint.address

    def _begin(
        self, dialling: Callable[[Dial], Coroutine[Any, Any, None]], waiter: Waiter | RawWaiter
    ) -> Dial:
        attempt = Dial(waiter)
        self._dialling += 1
        self._admission.taken()
        name = f"dial {self.endpoint}"
        self._environment.tasks.start(self._guarded(dialling, attempt), name=name)
        return attempt

    async def _guarded(
        self, dialling: Callable[[Dial], Coroutine[Any, Any, None]], attempt: Dial
    ) -> None:
        try:
            await dialling(attempt)
        except Exception as error:  # the guard of this task (E8)
            self._crashed(error)
            if attempt.waiter is not None:
                attempt.waiter.connection_failed(
                    InternalError("internal_error", "Ambassador failed; see its log.")
                )
        finally:
            self._dialling -= 1
            if not attempt.is_made:
                self._admission.freed()

    async def _dial(self, attempt: Dial) -> None:
        tls = self._tls() if self._tls is not None else None
        dialled = await self._connect(attempt, tls)
        if dialled is None:
            return
        environment = self._environment
        connection = ClientConnection(
            environment.loop,
            self._transport(dialled),
            self,
            cache=environment.cache,
            limits=environment.limits,
            peer_text=_shown(dialled.peer_text),
        )
        if tls is not None and self._tls is not None and self._tls() is not tls:
            connection.born_at = (
                -NEVER
            )  # the credentials were replaced while it was dialled: one exchange, no more
        connection.start()
        waiter = attempt.waiter
        attempt.is_made = True
        self.busy.add(connection)
        if waiter is None:
            self.connection_free(connection)
            return
        waiter.connection_ready(connection)  # type: ignore[union-attr]  # `dial` took a Waiter

    async def _dial_raw(self, attempt: Dial) -> None:
        tls = self._tls() if self._tls is not None else None
        dialled = await self._connect(attempt, tls)
        if dialled is None:
            return
        waiter = attempt.waiter
        if waiter is None:
            dialled.socket.close()
            return
        connection = RawConnection(
            self._transport(dialled),
            _shown(dialled.peer_text),
            closed=self._tunnel_closed,
        )
        attempt.is_made = True
        self.tunnels.add(connection)
        waiter.raw_connection_ready(connection)  # type: ignore[union-attr]  # `dial_raw` took a RawWaiter

    async def _connect(self, attempt: Dial, tls: SessionTls | None) -> Dialled | None:
        environment = self._environment
        try:
            self._refuse_far()
            dialled = await dial(
                self.endpoint.address,
                tls=tls,
                session_key=self._session_key(),
                timeout_s=self._config.connect_timeout_s,
                wall=environment.wall,
                forbidden=environment.forbidden,
            )
        except DialError as error:
            environment.events.dial_failed(self._config.name, self.endpoint.address, error)
            if attempt.waiter is not None:
                attempt.waiter.connection_failed(ConnectFailed(error.reason, error.message))
            return None
        environment.events.dialled(self._config.name, dialled)
        return dialled

    def _refuse_far(self) -> None:
        """In the clear only where the file says: an address that discovery brought may lie anywhere (threats H2)."""
        if self._config.plaintext == "loopback" and not is_local(self.endpoint.address):
            raise DialError(
                "not_loopback",
                f"{self.endpoint} is not on loopback, and this service has plaintext: loopback.",
            )

    def _transport(self, dialled: Dialled) -> Transport:
        environment = self._environment
        return Transport(
            environment.loop,
            dialled.socket,
            tls=dialled.connection,
            io=dialled.io,
            budget=environment.budget,
            crashed=environment.events.callback_crashed,
        )


def _shown(peer_text: tuple[str, str, str] | None) -> tuple[str, str, str] | None:
    """Bound and escape a peer's name for the log, once per connection (threats I5)."""
    if peer_text is None:
        return None
    principal, version, group = peer_text
    return clean(principal), version, group
