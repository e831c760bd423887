"""What becomes of an exchange when it is over: counters and a line in the access log, a batch at a time.

Knows where the facts of an exchange stand; must not know how they are written. Between two system calls every step
runs from cold caches and costs three to five times what it costs in a loop (house, intro), so an exchange only notes
its facts, and the books are kept for up to 128 of them at once, at most 20 ms later. While there is little to do they
are kept every 2 ms: a large batch would be a pause then for whoever comes next (128 take 0.6 ms, at most 1.9; kept
every 100 ms at 1000 requests/s they were the 99th percentile).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.core.model import USER_AGENT
from ambassador.core.record import ExchangeRecord
from ambassador.telemetry.text import clean, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.proxy.exchange import Exchange
    from ambassador.telemetry.access_log import AccessLog
    from ambassador.telemetry.metrics import Metrics

BATCH: Final = 128
#: How long an ended exchange may wait for its line, in quiet and in busy times. Units: seconds.
QUIET_S: Final = 0.002
BUSY_S: Final = 0.02
#: Exchanges in one period that end a quiet time, or a busy one: about 4000 and 2000 a second.
BEGIN_OF_BUSY: Final = 8
END_OF_BUSY: Final = 40

#: What `copy.copy` would look for each time.
_copy: Callable[[ExchangeRecord], ExchangeRecord] = ExchangeRecord.__copy__  # type: ignore[attr-defined]


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
                log.write(_record(exchange))

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
            "-" if error is None else error.flag.value,
            exchange.duration_s,
            exchange.upstream_s,
            exchange.bytes_received,
            exchange.bytes_sent,
        )


def _record(exchange: Exchange) -> ExchangeRecord:
    """Fill the record that the connection has begun."""
    record = _copy(exchange.door.record)
    head = exchange.head
    record.time = rfc3339(exchange.started_at)
    # `wire` has let through nothing but ASCII in these; whatever else there is, the log looks at each batch.
    record.method = head.method.decode("latin-1")
    record.path = head.path.decode("latin-1")
    record.authority = head.authority.decode("latin-1")
    if head.version == 10:  # noqa: PLR2004
        record.protocol = "HTTP/1.0"
    record.status = exchange.status
    record.phase = exchange.phase
    record.bytes_received = exchange.bytes_received
    record.bytes_sent = exchange.bytes_sent
    record.duration_ms = round(exchange.duration_s * 1000, 3)
    record.request_id = exchange.request_id.decode("latin-1")
    record.trace_id = exchange.trace_id.decode("latin-1")
    if exchange.upstream_s is not None:
        record.upstream_duration_ms = round(exchange.upstream_s * 1000, 3)
    if exchange.route is not None and exchange.target is not None:
        record.route = exchange.route.name
        record.service = exchange.target.service.name
    if exchange.tried:
        record.endpoint = exchange.tried[-1].address_text
        record.attempts = exchange.attempts
    error = exchange.error
    if error is not None:
        record.flags = error.flag.value
        record.detail = error.detail
    decision = exchange.decision
    if decision is not None:
        record.rule = decision.rule
        record.reason = decision.reason
    peer = exchange.upstream_peer
    if peer is not None:
        record.peer, record.tls_version, record.tls_group = peer
    if head.roles & USER_AGENT:
        for field in head.marked:
            if field.role & USER_AGENT:
                record.user_agent = clean(field.value)
                break
    return record
