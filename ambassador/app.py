"""The composition root: builds the parts in order, starts and stops them. It decides nothing.

A decision that is found here belongs further down.
"""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

from ambassador import __version__
from ambassador.config.addresses import is_local
from ambassador.control.admin import Admin
from ambassador.control.admin_server import AdminServer
from ambassador.control.detail import describe
from ambassador.control.drain import Closing, drain
from ambassador.control.reload import CredentialReload
from ambassador.core.clock import SystemClock
from ambassador.core.errors import ConfigError, ConfigErrors
from ambassador.identity import tls as tls_library
from ambassador.identity.refusal import NOBODY
from ambassador.identity.store import IdentityStore
from ambassador.net.binding import bind, is_own_address
from ambassador.net.gate import HandshakeGate
from ambassador.net.listener import Accepted, Listener, ListenLimits
from ambassador.net.tasks import TaskGroup
from ambassador.net.transport import Budget
from ambassador.policy.headers import classify
from ambassador.proxy.doors import Commons
from ambassador.proxy.inbound import InboundDoors
from ambassador.proxy.ledger import Ledger
from ambassador.proxy.outbound import OutboundDoors
from ambassador.proxy.surroundings import Surroundings
from ambassador.telemetry.access_log import AccessLog
from ambassador.telemetry.logging import get_logger
from ambassador.telemetry.loop_lag import LoopLag
from ambassador.telemetry.metrics import Metrics
from ambassador.telemetry.refusals import RefusalLog
from ambassador.telemetry.text import clean
from ambassador.upstream.directory import Directory
from ambassador.upstream.pool import Environment
from ambassador.upstream.service import Service
from ambassador.wire.field import HeadLimits, LineCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.config.model import Config, ListenerLimits, ServiceConfig
    from ambassador.core.model import Address, Endpoint
    from ambassador.discovery.keeper import Keeper
    from ambassador.net.dialer import DialError, Dialled
    from ambassador.net.handshake import TlsServer

EXIT_DONE, EXIT_FORCED = 0, 1
#: How long the end waits for who reads the access log. Units: seconds.
FLUSH_S, FORCED_FLUSH_S = 2.0, 0.2


class Application:
    """A running sidecar."""

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, *, faults: bool = False
    ) -> None:
        self.config = config
        self.faults = faults
        self.loop = loop
        self.log = get_logger("ambassador")
        self.clock = SystemClock()
        self.metrics = Metrics(version=__version__, openssl=tls_library.versions()["OpenSSL"])
        self.tasks = TaskGroup(self._task_crashed)
        self.store = (
            IdentityStore(config.identity, config.tls, self.clock)
            if config.identity is not None
            else None
        )
        self.access_log = self._open_access_log()
        self.ledger = Ledger(self.metrics, self.access_log, call_later=loop.call_later)
        self.own_addresses: list[Address] = []  # plaintext listeners: nothing of ours dials them
        self.budget = Budget(config.limits.buffers)
        self.cache = LineCache(classify)
        self.directory = self._build_directory()
        self.doors: list[InboundDoors | OutboundDoors] = []
        self.listeners: list[Listener] = []
        self.closings: list[Closing] = []
        self.admin_listener: Listener | None = None
        self.admin_server: AdminServer | None = None
        self.refusals = self._refusal_log("handshake_refused", "handshakes_refused")
        self.audits = self._refusal_log("authorization_would_deny", "authorizations_would_deny")
        self.denials = self._refusal_log("authorization_denied", "authorizations_denied")
        self.lag = LoopLag(self.metrics.lag.observe, call_later=loop.call_later, now=loop.time)
        self.reload = self._build_reload()
        self.keepers = self._build_keepers()
        self.started = self.draining = self.forced = False
        self._stop_requests: asyncio.Queue[bool] = asyncio.Queue()
        self._connect_gauges()

    def _refusal_log(self, event: str, sum_event: str) -> RefusalLog:
        return RefusalLog(
            self.log.warning,
            event=event,
            sum_event=sum_event,
            now=self.loop.time,
            call_later=self.loop.call_later,
        )

    # ---- building ------------------------------------------------------------------------------------------

    def _open_access_log(self) -> AccessLog | None:
        if self.config.access_log is None:
            return None
        try:
            return AccessLog(self.config.access_log, call_later=self.loop.call_later)
        except OSError as error:
            problem = (error.strerror or "failed").lower()
            sentence = f"cannot write {self.config.access_log.path}: {problem}"
            raise ConfigErrors((ConfigError("access_log.path", sentence),)) from None

    def _build_reload(self) -> CredentialReload | None:
        if self.store is None:
            return None
        return CredentialReload(
            self.store, self.directory, tasks=self.tasks, metrics=self.metrics, log=self.log
        )

    def _build_directory(self) -> Directory:
        environment = Environment(
            self.loop,
            tasks=self.tasks,
            cache=self.cache,
            limits=HeadLimits(),
            events=_PoolEvents(self),
            wall=self.clock.wall,
            forbidden=lambda address: is_own_address(address, self.own_addresses),
            budget=self.budget,
        )
        chance = random.Random()  # noqa: S311  # balancing is no secret
        return Directory(
            {
                name: Service(
                    service,
                    environment,
                    tls=self._client_tls(service),
                    random=chance,
                    zone=self.config.zone,
                )
                for name, service in self.config.services.items()
            }
        )

    def _build_keepers(self) -> list[Keeper]:
        discovered = [s for s in self.config.services.values() if s.discovery is not None]
        if not discovered:
            return []
        from ambassador.discovery import keeper, kinds  # noqa: PLC0415  # only who discovers pays for it

        events, chance = _DiscoveryEvents(self), random.Random()  # noqa: S311  # jitter is no secret
        return [
            keeper.Keeper(
                service.name,
                service.discovery,
                kinds.make(service.discovery, chance),
                events=events,
                wall=self.clock.wall,
                chance=chance,
            )
            for service in discovered
            if service.discovery is not None
        ]

    def _client_tls(self, service: ServiceConfig) -> Callable[[], tls_library.ClientTls] | None:
        store = self.store
        if service.plaintext != "none" or store is None:
            return None
        return lambda: store.client(service)

    def _commons(self) -> Commons:
        chance = random.Random()  # noqa: S311  # request ids are unique, not secret
        surroundings = Surroundings(
            self.loop,
            clock=self.clock,
            chance=chance,
            crashed=self.callback_crashed,
            budget=self.budget,
        )
        return Commons(
            self.loop,
            surroundings=surroundings,
            cache=self.cache,
            directory=self.directory,
            metrics=self.metrics,
            ledger=self.ledger,
            audits=self.audits,
            denials=self.denials,
            clean=clean,
            own_spiffe=lambda: self.store.credentials.spiffe if self.store is not None else None,
            pseudonym=lambda: b"ambassador-%012x" % chance.getrandbits(48),
            faults=chance.random if self.faults else None,
        )

    def open_listeners(self) -> None:
        """Bind everything that the configuration names. Errors: ListenError; then nothing is left open."""
        commons = self._commons()
        gate = HandshakeGate(
            self.loop, ceiling=self.config.limits.handshakes, rate=self.config.limits.handshake_rate
        )
        try:
            for inbound in self.config.inbound:
                doors = InboundDoors(inbound, commons, instance=self.config.name)
                self._listen(
                    inbound.listen,
                    inbound.socket_mode,
                    doors,
                    inbound.limits,
                    gate,
                    alpn=inbound.alpn,
                )
            for outbound in self.config.outbound:
                out = OutboundDoors(
                    outbound, self.config.services, commons, instance=self.config.name
                )
                self._listen(
                    outbound.listen, outbound.socket_mode, out, outbound.limits, gate, alpn=None
                )
            self._listen_admin(gate)
        except BaseException:
            self._close_listeners()
            raise

    def _listen(
        self,
        address: Address,
        socket_mode: int,
        doors: InboundDoors | OutboundDoors,
        limits: ListenerLimits,
        gate: HandshakeGate,
        *,
        alpn: tuple[str, ...] | None,
    ) -> None:
        listener = Listener(
            self.loop,
            address,
            bind(address, socket_mode=socket_mode),
            _ListenerEvents(self, doors),
            limits=ListenLimits(
                limits.max_connections, limits.max_connections_per_peer, limits.handshake_timeout_s
            ),
            gate=gate,
            wall=self.clock.wall,
            tls=None if alpn is None else self._server_tls(doors.name, alpn),
            budget=self.budget,
        )
        doors.release = lambda accepted: listener.release(accepted.peer_address)
        self.doors.append(doors)
        self.listeners.append(listener)
        self.closings.append(Closing(listener.close, doors))  # type: ignore[arg-type]  # sets of narrower items
        if alpn is None:
            self.own_addresses.extend(listener.addresses)

    def _server_tls(self, name: str, alpn: tuple[str, ...]) -> Callable[[], TlsServer]:
        store = self.store
        assert store is not None  # noqa: S101  # the configuration demands identity for inbound
        return lambda: store.server(name, alpn)

    def _listen_admin(self, gate: HandshakeGate) -> None:
        address = self.config.admin.listen
        if address is None:
            return
        admin = Admin(readiness=self.readiness, scrape=self._scrape, detail=self._detail)
        server = AdminServer(self.loop, admin, tasks=self.tasks, classify=classify)
        listener = Listener(
            self.loop,
            address,
            bind(address),
            _ListenerEvents(self, server),
            limits=ListenLimits(max_connections=64, max_connections_per_peer=64),
            gate=gate,
            wall=self.clock.wall,
            tls=None,
            budget=self.budget,
        )
        server.release = lambda accepted: listener.release(accepted.peer_address)
        self.admin_server, self.admin_listener = server, listener
        self.own_addresses.extend(listener.addresses)

    def _detail(self) -> list[str]:
        listen = self.config.admin.listen
        return describe(
            self.directory,
            self.keepers,
            mono_now=self.loop.time(),
            wall_now=self.clock.wall(),
            names_addresses=listen is not None and is_local(listen),
        )

    def _scrape(self) -> Callable[[], bytes]:
        self.ledger.flush()
        return self.metrics.scrape()

    def _connect_gauges(self) -> None:
        gauges = self.metrics.gauges
        gauges.ready = lambda: not self.readiness()
        gauges.draining = lambda: self.draining
        gauges.endpoints = lambda: [
            (service.name, state, count)
            for service in self.directory
            for state, count in service.states(self.loop.time()).items()
        ]
        gauges.upstream_connections = lambda: [
            (service.name, state, count)
            for service in self.directory
            for state, count in service.connections().items()
        ]
        gauges.open_ceilings = lambda: [
            (service.name, ceiling, is_open)
            for service in self.directory
            for ceiling, is_open in service.open_ceilings().items()
        ]
        gauges.discoveries = lambda: [
            (keeper.service, keeper.kind, keeper.last_success) for keeper in self.keepers
        ]
        if self.store is not None:
            store = self.store
            gauges.certificates = lambda: [("identity", store.credentials.not_after)]
        if self.access_log is not None:
            access_log = self.access_log
            gauges.access_log_dropped = lambda: access_log.dropped

    # ---- running -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept on everything that is bound."""
        for listener in (
            *self.listeners,
            *([self.admin_listener] if self.admin_listener is not None else []),
        ):
            listener.start()
        for service in self.directory:
            service.start_checks()
        for keeper in self.keepers:
            self.tasks.start(keeper.run(), name=f"discovery {keeper.service}")
        self.lag.start()
        self.started = True

    def readiness(self) -> list[str]:
        """Give the reason codes why we are not ready; empty when we are."""
        reasons = []
        if not self.started:
            reasons.append("starting")
        if self.draining:
            reasons.append("draining")
        if self.store is not None and self.store.credentials.not_after <= self.clock.wall():
            reasons.append("certificate_expired")
        reasons += [f"discovery_pending:{one.service}" for one in self.keepers if one.is_pending]
        return reasons

    def watch_signals(self) -> None:
        """TERM drains, INT drains without delay, a second one ends at once, HUP reads the credentials anew."""
        self.loop.add_signal_handler(signal.SIGTERM, self._stop_requests.put_nowait, True)
        self.loop.add_signal_handler(signal.SIGINT, self._stop_requests.put_nowait, False)
        self.loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def serve_until_stopped(self) -> int:
        """Wait for a signal, then drain; gives the exit code."""
        with_delay = await self._stop_requests.get()
        self.draining = self.forced = True  # until the drain says otherwise
        settings = self.config.drain
        self.log.info(
            "drain_started",
            delay_s=settings.delay_s if with_delay else 0.0,
            timeout_s=settings.timeout_s,
        )
        ends = (
            self.tasks.start(self._drain(with_delay=with_delay), name="drain"),
            self.tasks.start(self._second_stop(), name="second stop"),
        )
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.forced:
            self.log.warning(
                "drain_forced", open=sum(len(doors.connections) for doors in self.doors)
            )
        return EXIT_FORCED if self.forced else EXIT_DONE

    async def _drain(self, *, with_delay: bool) -> None:
        settings = self.config.drain
        delay_s = settings.delay_s if with_delay else 0.0
        self.forced = not await drain(self.closings, delay_s=delay_s, timeout_s=settings.timeout_s)

    async def _second_stop(self) -> None:
        await self._stop_requests.get()

    async def close(self) -> None:
        """End what is left, in the order of dependence; nothing of ours survives it."""
        self._close_listeners()
        for doors in self.doors:
            doors.abort()
        if self.admin_server is not None:
            self.admin_server.close()
        await self.tasks.close()  # dials first: what they would still bring is closed below
        self.directory.abort()
        self.lag.stop()
        self.refusals.flush()
        self.audits.flush()
        self.denials.flush()
        self.ledger.flush()
        if self.access_log is not None:
            self.access_log.close(FORCED_FLUSH_S if self.forced else FLUSH_S)

    def _close_listeners(self) -> None:
        for listener in (
            *self.listeners,
            *([self.admin_listener] if self.admin_listener is not None else []),
        ):
            listener.close()
            listener.abort_handshakes()

    def _reload(self) -> None:
        if self.reload is not None and not self.draining:
            self.reload.request()

    # ---- what the parts report -----------------------------------------------------------------------------

    def callback_crashed(self, error: BaseException) -> None:
        """A bug: its traceback is the most useful thing to keep."""
        self.log.error("callback_crashed", exc_info=error)

    def _task_crashed(self, name: str, error: BaseException) -> None:
        self.log.error("task_crashed", task=name, exc_info=error)


class _ListenerEvents:
    """Joins a listener to its doors, counters and log."""

    __slots__ = ("_app", "_doors")

    def __init__(self, app: Application, doors: InboundDoors | OutboundDoors | AdminServer) -> None:
        self._app = app
        self._doors = doors

    def connection_accepted(self, accepted: Accepted) -> None:
        doors = self._doors
        if accepted.tls is not None and not isinstance(doors, AdminServer):
            metrics, session = self._app.metrics, accepted.tls
            metrics.handshake_ended("inbound", "ok", listener=doors.name)
            metrics.session_started(
                "inbound", version=session.version, group=session.group, resumed=session.resumed
            )
        doors.open(accepted)

    def connection_refused(self, reason: str, peer_address: str) -> None:
        doors = self._doors
        if not isinstance(doors, AdminServer):
            self._app.metrics.listener(doors.direction, doors.name).refused(reason)
            self._app.log.debug(
                "connection_refused", listener=doors.name, reason=reason, peer_address=peer_address
            )

    def handshake_refused(self, error: Exception, peer_address: str) -> None:
        if isinstance(self._doors, AdminServer):
            return
        name = self._doors.name
        reason = getattr(error, "reason", "handshake_failed")
        self._app.metrics.handshake_ended("inbound", "refused", listener=name, reason=reason)
        presented = getattr(error, "presented", NOBODY)
        self._app.refusals.refused(
            reason,
            listener=name,
            peer_address=peer_address,
            detail=getattr(error, "detail", ""),
            sni=presented.sni,
            subject=presented.subject,
            sans=presented.sans,
            issuer=presented.issuer,
            not_after=presented.not_after,
        )

    def callback_crashed(self, error: BaseException) -> None:
        self._app.callback_crashed(error)


class _PoolEvents:
    """Joins the pools to counters and log."""

    __slots__ = ("_app",)

    def __init__(self, app: Application) -> None:
        self._app = app

    def dialled(self, service: str, dialled: Dialled) -> None:
        session = dialled.session
        if session is not None:
            metrics = self._app.metrics
            metrics.handshake_ended("outbound", "ok", service=service)
            metrics.session_started(
                "outbound", version=session.version, group=session.group, resumed=session.resumed
            )

    def dial_failed(self, service: str, address: Address, error: DialError) -> None:
        if error.cause is not None or error.reason == "handshake_timeout":
            self._app.metrics.handshake_ended(
                "outbound", "refused", service=service, reason=error.reason
            )
        self._app.log.debug(
            "dial_failed", service=service, endpoint=str(address), reason=error.reason
        )

    def endpoint_ejected(self, service: str, address: str, reason: str, *, seconds: float) -> None:
        self._app.metrics.ejected(service, reason)
        self._app.log.warning(
            "endpoint_ejected", service=service, endpoint=address, reason=reason, seconds=seconds
        )

    def endpoint_returned(self, service: str, address: str) -> None:
        self._app.log.info("endpoint_returned", service=service, endpoint=address)

    def health_checked(self, service: str, result: str) -> None:
        self._app.metrics.health_checked(service, result)

    def health_changed(self, service: str, address: str, *, healthy: bool, reason: str) -> None:
        if healthy:
            self._app.log.info("endpoint_healthy", service=service, endpoint=address)
        else:
            self._app.log.warning(
                "endpoint_unhealthy", service=service, endpoint=address, reason=reason
            )

    def panic_changed(self, service: str, *, panicking: bool) -> None:
        event = "panic_started" if panicking else "panic_ended"
        self._app.log.warning(event, service=service)

    def callback_crashed(self, error: BaseException) -> None:
        self._app.callback_crashed(error)


class _DiscoveryEvents:
    """Joins the keepers to the services and the log."""

    __slots__ = ("_app",)

    def __init__(self, app: Application) -> None:
        self._app = app

    def endpoints_changed(self, service: str, endpoints: tuple[Endpoint, ...]) -> None:
        self._app.directory[service].update(endpoints)
        self._app.log.info("endpoints_changed", service=service, endpoints=len(endpoints))

    def endpoints_kept(self, service: str, reason: str, detail: str) -> None:
        self._app.log.warning("endpoints_kept", service=service, reason=reason, detail=detail)

    def watch_crashed(self, error: Exception) -> None:
        self._app.callback_crashed(error)

    def endpoints_ignored(self, service: str, addresses: list[str], count: int) -> None:
        self._app.log.warning(
            "endpoints_ignored", service=service, reason="network", addresses=addresses, count=count
        )


async def serve(
    config: Config, *, ready: Callable[[Application, float], None], faults: bool = False
) -> int:
    """Run a sidecar until a signal ends it; gives the exit code. `faults`: those of the file are in effect.

    Errors: ConfigErrors, CredentialError, ListenError.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    app = Application(config, loop, faults=faults)
    app.watch_signals()
    try:
        app.open_listeners()
        app.start()
        ready(app, loop.time() - begun)
        return await app.serve_until_stopped()
    finally:
        await app.close()
