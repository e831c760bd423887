"""What becomes of an exchange when it is over: counters and lines, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ambassador.core.errors import NoRoute
from ambassador.core.model import USER_AGENT, Field
from ambassador.core.record import ExchangeRecord
from ambassador.policy.authorization import Decision
from ambassador.proxy.exchange import Exchange
from ambassador.proxy.ledger import BATCH, BEGIN_OF_BUSY, BUSY_S, END_OF_BUSY, QUIET_S, Ledger
from ambassador.telemetry.metrics import Metrics
from tests.unit.proxy.make import Scene, answer


class Log:
    """Keeps records."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def write(self, *records: ExchangeRecord) -> None:
        self.records += records


class Books:
    """A ledger with what it writes to."""

    def __init__(self, *, logged: bool = True) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.metrics = Metrics(version="1", openssl="1")
        self.log = Log()
        log: Any = self.log if logged else None
        self.ledger = Ledger(self.metrics, log, call_later=lambda *timer: self.timers.append(timer))

    def stats(self) -> Any:
        """Counters of what found no route."""
        return self.metrics.requests("outbound", "main", route="", service="")


def ended(*, status: int = 200) -> Exchange:
    scene = Scene()
    scene.send()
    scene.clock.advance(0.5)
    scene.exchange.response_head(answer(status, length=0), True)
    return scene.exchange


def unrouted() -> Exchange:
    scene = Scene()
    scene.door.refusal = NoRoute("no_route", "?")
    scene.send()
    return scene.exchange


def test_an_exchange_is_counted_and_logged_a_moment_later() -> None:
    books = Books()

    books.ledger.exchange_ended(unrouted())
    books.ledger.exchange_ended(unrouted())
    assert books.log.records == []
    assert repr(books.ledger) == "Ledger(2 exchanges)"
    [(after_s, passed)] = books.timers
    passed()

    assert after_s == QUIET_S
    assert len(books.log.records) == 2
    assert books.stats().flagged == {(4, "NR"): 2}


def test_the_timer_is_set_again_after_it_has_passed() -> None:
    books = Books()
    books.ledger.exchange_ended(unrouted())
    books.timers[0][1]()

    books.ledger.exchange_ended(unrouted())

    assert len(books.timers) == 2


def test_busy_times_have_longer_periods_until_they_end() -> None:
    """A large batch is cheap, and a pause for whoever comes next: not while there is little to do."""
    books = Books()
    exchange = unrouted()

    for count in (1, BEGIN_OF_BUSY, END_OF_BUSY, BATCH + 1, END_OF_BUSY - 1, 1):
        for _ in range(count):
            books.ledger.exchange_ended(exchange)
        books.timers[-1][1]()

    assert [after_s for after_s, _ in books.timers] == [
        QUIET_S, QUIET_S, BUSY_S, BUSY_S, BUSY_S, QUIET_S,
    ]  # fmt: skip


def test_a_full_batch_does_not_wait() -> None:
    books = Books()
    exchange = unrouted()

    for _ in range(BATCH + 1):
        books.ledger.exchange_ended(exchange)

    assert len(books.log.records) == BATCH


def test_nothing_is_written_when_nothing_has_ended() -> None:
    books = Books()

    books.ledger.flush()

    assert books.log.records == []


def test_without_a_log_there_are_counters_only() -> None:
    books = Books(logged=False)
    books.ledger.exchange_ended(unrouted())

    books.ledger.flush()

    assert books.log.records == []
    assert books.stats().flagged == {(4, "NR"): 1}


def record_of(exchange: Exchange) -> ExchangeRecord:
    books = Books()
    if exchange.target is not None:
        exchange.target.stats = books.stats()
    books.ledger.exchange_ended(exchange)
    books.ledger.flush()
    return books.log.records[0]


def test_a_record_says_who_whom_what_and_how_long() -> None:
    exchange = ended()
    agent = Field(b"user-agent", b"curl\x1b[2J", USER_AGENT, b"")
    other = Field(b"x", b"", 1, b"")
    exchange.head.roles |= USER_AGENT
    exchange.head.marked = [other, agent]
    exchange.head.version = 10
    exchange.decision = Decision(True, "web", "allow_rule")  # noqa: FBT003

    record = record_of(exchange)

    assert record.time == "2027-01-15T08:00:00.000Z"
    assert (record.direction, record.listener) == ("outbound", "main")
    assert (record.route, record.service, record.endpoint) == ("pay", "payments", "10.0.0.7:8443")
    assert (record.method, record.authority, record.path) == ("GET", "payments", "/")
    assert (record.protocol, record.status, record.flags) == ("HTTP/1.0", 200, "-")
    assert (record.duration_ms, record.upstream_duration_ms) == (500.0, 500.0)
    assert (record.attempts, record.rule, record.reason) == (1, "web", "allow_rule")
    assert record.peer == "spiffe://example.org/payments"
    assert (record.tls_version, record.tls_group) == ("TLSv1.3", "X25519")
    assert record.user_agent == "curl\\x1b[2J"


def test_a_record_says_how_it_ended() -> None:
    record = record_of(unrouted())

    assert (record.status, record.flags, record.detail) == (404, "NR", "no_route")
    assert (record.phase, record.route, record.endpoint) == ("route", "", "")
    assert record.upstream_duration_ms is None


def test_a_marked_head_without_the_agent_s_field_has_none() -> None:
    exchange = ended()
    exchange.head.roles |= USER_AGENT

    assert record_of(exchange).user_agent == ""


def test_the_template_of_the_connection_stays_as_it_is() -> None:
    exchange = ended()

    record_of(exchange)

    assert exchange.door.record.status == 0
