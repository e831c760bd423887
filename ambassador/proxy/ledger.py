"""What becomes of an exchange when it is over: counters and a line in the access log, a batch at a time.

Knows where the facts of an exchange stand; must not know how they are written. Between two system calls every step
runs from cold caches and costs three to five times what it costs in a loop (house, intro), so an exchange only notes
its facts, and the books are kept for up to 128 of them at once, at most 20 ms later. While there is little to do they
are kept every 5 ms: a large batch would be a pause then for whoever comes next (128 take 0.6 ms, at most 1.9; kept
every 100 ms at 1000 requests/s they were the 99th percentile).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.model import FORWARDED_FOR, USER_AGENT
from ambassador.core.record import ExchangeRecord
from ambassador.telemetry.text import MAX_FIELD_BYTES, clean, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.proxy.exchange import Exchange
    from ambassador.telemetry.access_log import AccessLog
    from ambassador.telemetry.metrics import Metrics

BATCH: Final = 128
_MAX_AGENTS: Final = 256
#: How long an ended exchange may wait for its line, in quiet and in busy times. Units: seconds.
QUIET_S: Final = 0.005
BUSY_S: Final = 0.02
#: Exchanges in one period that end a quiet time, or a busy one: about 4000 and 2000 a second.
BEGIN_OF_BUSY: Final = 20
END_OF_BUSY: Final = 40


class Ledger:
    """Takes ended exchanges."""

    __slots__ = (
        "_access_log",
        "_armed",
        "_call_later",
        "_ended",
        "_metrics",
        "_pause_s",
        "_was_full",
    )

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog | None,
        *,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._call_later = call_later
        self._ended: list[Exchange] = []
        self._pause_s = QUIET_S
        self._armed = self._was_full = False

    def __repr__(self) -> str:
        return f"Ledger({len(self._ended)} exchanges)"

    def exchange_ended(self, exchange: Exchange) -> None:
        """Note an exchange, once, at its end; it must not change any more."""
        ended = self._ended
        ended.append(exchange)
        if not self._armed:
            self._armed = True
            self._call_later(self._pause_s, self._time_passed)
        elif len(ended) >= BATCH:
            self._was_full = True
            self.flush()

    def flush(self) -> None:
        """Count and log what has been noted: before a scrape, at the end, and by itself."""
        ended, self._ended = self._ended, []
        log = self._access_log
        for exchange in ended:
            self._count(exchange)
        if log is not None:
            log.write(*map(_record, ended))

    def _time_passed(self) -> None:
        self._armed = False
        count = len(self._ended)
        if self._pause_s == QUIET_S and count >= BEGIN_OF_BUSY:
            self._pause_s = BUSY_S
        elif self._pause_s == BUSY_S and not self._was_full and count < END_OF_BUSY:
            self._pause_s = QUIET_S
        self._was_full = False
        self.flush()

    def _count(self, exchange: Exchange) -> None:
        target = exchange.target
        if target is not None:
            stats = target.stats
        else:
            template = exchange.door.record
            stats = self._metrics.requests(
                template.direction, template.listener, route="", service=""
            )
        error = exchange.error
        stats.exchange_ended(
            exchange.status,
            ("-" if error is None else error.flag.value) if not exchange.mark else _flags(exchange),
            exchange.duration_s,
            exchange.upstream_s,
            exchange.bytes_received,
            exchange.bytes_sent,
        )


class _Agents(dict[bytes, str]):
    """User-Agents as the log shows them; bounded, for a stranger can make up many."""

    __slots__ = ()

    def __missing__(self, value: bytes) -> str:
        shown = clean(value)
        if len(value) <= MAX_FIELD_BYTES:
            if len(self) >= _MAX_AGENTS:
                self.clear()
            self[value] = shown
        return shown


_agents: Final = _Agents()


def _record(exchange: Exchange) -> ExchangeRecord:
    """Join what the connection knew from its start with what became of the exchange.

    By position, in the order of `ExchangeRecord`: 0.2 us, where a copy that is filled takes 0.5.
    """
    of = exchange.door.record
    head = exchange.head
    target, error, decision, peer = (
        exchange.target, exchange.error, exchange.decision, exchange.upstream_peer,
    )  # fmt: skip
    routed = exchange.route is not None and target is not None
    tried = exchange.tried
    upstream_s = exchange.upstream_s
    user_agent = ""
    if head.roles & USER_AGENT:
        for field in head.marked:
            if field.role & USER_AGENT:
                user_agent = _agents[field.value]
                break
    return ExchangeRecord(
        rfc3339(exchange.started_at),
        of.direction,
        of.listener,
        exchange.route.name if routed else "",  # type: ignore[union-attr]  # looked at above
        target.service.name if routed else "",  # type: ignore[union-attr]
        tried[-1].address_text if tried else "",
        # `wire` has let through nothing but ASCII in these; whatever else there is, the log looks at each batch.
        head.method.decode("latin-1"),
        head.authority.decode("latin-1"),
        head.path.decode("latin-1"),
        of.protocol if head.version != 10 else "HTTP/1.0",  # noqa: PLR2004
        exchange.status,
        ("-" if error is None else error.flag.value) if not exchange.mark else _flags(exchange),
        exchange.phase,
        "" if error is None else error.detail,
        exchange.bytes_received,
        exchange.bytes_sent,
        # Milliseconds in three places: what `round` gives, in a third of its time.
        int(exchange.duration_s * 1e6 + 0.5) / 1000,
        None if upstream_s is None else int(upstream_s * 1e6 + 0.5) / 1000,
        exchange.attempts if tried else 0,
        of.peer if peer is None else peer[0],
        of.peer_address,
        of.tls_version if peer is None else peer[1],
        of.tls_group if peer is None else peer[2],
        of.rule if decision is None else decision.rule,
        of.reason if decision is None else decision.reason,
        user_agent,
        of.forwarded_for if not head.roles & FORWARDED_FOR else _forwarded_for(exchange),
        exchange.request_id.decode("latin-1"),
        exchange.trace_id.decode("latin-1"),
        of.instance,
        exchange.not_retried,
    )


def _flags(exchange: Exchange) -> str:
    """Give the flags of an exchange that has another one than its error's, or one without an error."""
    error = exchange.error
    return exchange.mark if error is None else f"{error.flag.value},{exchange.mark}"


def _forwarded_for(exchange: Exchange) -> str:
    """Give the X-Forwarded-For that the app got, of a request that brought one; not what a peer claimed."""
    name, _, value = exchange.extra.partition(b"\r\n")[0].partition(b": ")
    if name.lower() == b"x-forwarded-for":
        return value.decode("latin-1")
    return exchange.door.record.forwarded_for
