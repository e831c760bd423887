"""Every number that we count, as plain integers; samples are made from them when somebody scrapes.

Knows what is counted and by which labels; must not know Prometheus' text (`exposition.py`, imported at the first
scrape: 40 ms). Owners of numbers that change by themselves hand in a callable, which is read at the scrape.

Rules: a label value is a name from the configuration, a class, a flag or a word of `REASONS`; never a path, a host
header, an address or an identity (threats I7). Text from outside cannot become a series: it would be called "other".
An absent name is "-", which no configured name can be; an empty label would be no label to Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeVar

from ambassador.core.errors import ResponseFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OTHER: Final = "other"
NONE: Final = "-"

#: Upper bounds of latency, 0.5 ms to 10 s.
LATENCY_BOUNDS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
LAG_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

#: Why a connection or handshake was refused; an owner of more words hands them to `Metrics(reasons=...)`.
REASONS: Final = frozenset({
    # ceilings and the drain
    "accept_failed", "draining", "handshake_rate", "handshakes", "max_connections", "max_connections_per_peer",
    "out_of_files", "shutdown",
    # the way there
    "closed", "connect_failed", "connect_refused", "connect_reset", "connect_timeout", "host_unreachable",
    "network_unreachable", "own_listener", "reset", "socket_forbidden", "socket_missing",
    # the handshake
    "handshake_timeout", "internal_error", "malformed", "no_application_protocol", "no_shared_cipher",
    "no_shared_group", "not_tls", "peer_refused_us", "protocol_version", "timeout", "tls_failed",
    # the certificate
    "bad_certificate", "bad_issuer", "bad_purpose", "bad_san_bytes", "bad_signature", "bad_spiffe_id",
    "chain_too_large", "chain_too_long", "crl_expired", "crl_invalid", "crl_missing", "crl_not_yet_valid", "expired",
    "name_constraint", "no_certificate", "not_judgeable", "not_yet_valid", "revoked", "several_uri_sans",
    "svid_may_sign", "svid_without_digital_signature", "too_many_sans", "unknown_issuer", "weak_key", "wrong_peer",
    "wrong_trust_domain",
})  # fmt: skip

_Key = TypeVar("_Key")
_CLASSES: Final = 10
_FLAGS: Final = frozenset(flag.value for flag in ResponseFlag)
_MAX_NEGOTIATED: Final = 64


class Tally:
    """One counter: `tally.value += 1` where something happens."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def __repr__(self) -> str:
        return f"Tally({self.value})"


class Histogram:
    """Counts per bucket, the last one for what is above every bound.

    Units: seconds.
    """

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation; a bound belongs to its bucket, as Prometheus' `le` has it."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds


class RequestStats:
    """Counts the exchanges of one (direction, listener, route, service); bound once, kept by the snapshot."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "direction",
        "duration",
        "flagged",
        "listener",
        "plain",
        "route",
        "service",
        "upstream",
    )

    def __init__(  # noqa: PLR0917  # made by `Metrics.requests` alone
        self, direction: str, listener: str, route: str, service: str, upstream: Histogram
    ) -> None:
        self.direction = direction
        self.listener = listener
        self.route = route
        self.service = service
        self.upstream = upstream  # shared by all of the service
        self.duration = Histogram(LATENCY_BOUNDS_S)
        self.plain = [0] * _CLASSES  # exchanges without flags, by the first digit of their status
        self.flagged: dict[tuple[int, str], int] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    def __repr__(self) -> str:
        return f"RequestStats({self.direction}, {self.listener}, {self.route}, {self.service})"

    def exchange_ended(  # noqa: PLR0917  # hot path: positional, once per exchange, 0.6 us
        self,
        status: int,
        flags: str,
        duration_s: float,
        upstream_s: float | None,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count an exchange.

        Units: seconds, bytes of bodies. Status 0: nobody was left to answer.
        """
        if flags == "-":
            self.plain[status // 100] += 1
        else:
            self._count_flagged(status, flags)
        # Histogram.observe, inlined: two calls are a third of this function.
        duration = self.duration
        duration.counts[bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
        duration.total_s += duration_s
        if upstream_s is not None:
            upstream = self.upstream
            upstream.counts[bisect_left(LATENCY_BOUNDS_S, upstream_s)] += 1
            upstream.total_s += upstream_s
        # End of the inlined copies.
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def _count_flagged(self, status: int, flags: str) -> None:
        key = (status // 100, flags)
        if key not in self.flagged and not _FLAGS.issuperset(flags.split(",")):
            key = (status // 100, OTHER)
        self.flagged[key] = self.flagged.get(key, 0) + 1


class RetryStats:
    """What became of retries and hedges of one service, and why there was none."""

    __slots__ = ("results", "skipped")

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.skipped: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"RetryStats({self.results}, skipped {self.skipped})"

    def count(self, result: str, number: int) -> None:
        """Count those of one exchange; `result` is ok or failed, as the exchange ended."""
        self.results[result] = self.results.get(result, 0) + number

    def skip(self, reason: str) -> None:
        """Count a failure that was not repeated; `reason` is a word of `policy.retry.Skipped`."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class FaultTally:
    """Faults on purpose."""

    __slots__ = ("aborts", "delays")

    def __init__(self) -> None:
        self.aborts = self.delays = 0

    def __repr__(self) -> str:
        return f"FaultTally({self.aborts} aborts, {self.delays} delays)"


class ListenerStats:
    """The connections of one listener: `opened()` and `closed()` are called in pairs."""

    __slots__ = ("_words", "direction", "listener", "open", "refusals", "total")

    def __init__(self, direction: str, listener: str, words: frozenset[str]) -> None:
        self._words = words
        self.direction = direction
        self.listener = listener
        self.open = 0
        self.total = 0
        self.refusals: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"ListenerStats({self.direction}, {self.listener}, open={self.open})"

    def opened(self) -> None:
        """Count a connection that is served now."""
        self.open += 1
        self.total += 1

    def closed(self) -> None:
        """Count the end of a connection that was `opened`."""
        self.open -= 1

    def refused(self, reason: str) -> None:
        """Count a connection that a ceiling or the drain turned away."""
        word = reason if reason in self._words else OTHER
        self.refusals[word] = self.refusals.get(word, 0) + 1


class Gauges:
    """Where the numbers come from that are read at a scrape: owners put their callables here, all are optional.

    `endpoints` and `upstream_connections` give (service, state, count), `certificates` (name, Unix time of expiry),
    `discoveries` (service, kind, Unix time of the last success), `access_log_dropped` a count that never falls.
    """

    __slots__ = (
        "access_log_dropped",
        "certificates",
        "discoveries",
        "draining",
        "endpoints",
        "open_ceilings",
        "ready",
        "upstream_connections",
    )

    def __init__(self) -> None:
        self.ready: Callable[[], bool] = bool
        self.draining: Callable[[], bool] = bool
        self.endpoints: Callable[[], Iterable[tuple[str, str, int]]] = tuple
        self.upstream_connections: Callable[[], Iterable[tuple[str, str, int]]] = tuple
        self.certificates: Callable[[], Iterable[tuple[str, float]]] = tuple
        self.discoveries: Callable[[], Iterable[tuple[str, str, float]]] = tuple
        self.open_ceilings: Callable[[], Iterable[tuple[str, str, int]]] = tuple
        self.access_log_dropped: Callable[[], int] = int


class Metrics:
    """All families of the process; objects for the hot path are bound once per name and found again by it.

    Counters of names that a reload took away stay until the process ends: a counter that vanishes reads as a reset.
    """

    def __init__(self, *, version: str, openssl: str, reasons: Iterable[str] = ()) -> None:
        self.version = version
        self.openssl = openssl
        self.gauges = Gauges()
        self.lag = Histogram(LAG_BOUNDS_S)
        self.request_stats: dict[tuple[str, str, str, str], RequestStats] = {}
        self.upstream: dict[str, Histogram] = {}
        self.listeners: dict[tuple[str, str], ListenerStats] = {}
        self.handshakes: dict[tuple[str, str, str, str, str], Tally] = {}
        self.tls_sessions: dict[tuple[str, str, str, str], Tally] = {}
        self.authorizations: dict[tuple[str, str, str, str], Tally] = {}
        self.rate_limits: dict[tuple[str, str], Tally] = {}
        self.retry_stats: dict[str, RetryStats] = {}
        self.fault_tallies: dict[tuple[str, str], FaultTally] = {}
        self.ejections: dict[tuple[str, str], Tally] = {}
        self.health_checks: dict[tuple[str, str], Tally] = {}
        self.reloads: dict[tuple[str, str], Tally] = {}
        self._reasons = REASONS.union(reasons)

    def __repr__(self) -> str:
        return f"Metrics({len(self.request_stats)} request series, {len(self.listeners)} listeners)"

    # --- bound once, used on the hot path ---

    def requests(self, direction: str, listener: str, *, route: str, service: str) -> RequestStats:
        """Give the counters of these names, the same object for the same names; "" where there is none."""
        key = (direction, listener, route or NONE, service or NONE)
        found = self.request_stats.get(key)
        if found is None:
            upstream = self.upstream.get(key[3])
            if upstream is None:
                upstream = self.upstream[key[3]] = Histogram(LATENCY_BOUNDS_S)
            found = self.request_stats[key] = RequestStats(*key, upstream)
        return found

    def listener(self, direction: str, listener: str) -> ListenerStats:
        """Give the connection counters of this listener, the same object for the same name."""
        key = (direction, listener)
        found = self.listeners.get(key)
        if found is None:
            found = self.listeners[key] = ListenerStats(direction, listener, self._reasons)
        return found

    def authorization(self, listener: str, rule: str, *, decision: str, mode: str) -> Tally:
        """Give the counter of these decisions; `rule` "" means that none matched.

        `decision` is allowed or denied, `mode` enforce or audit.
        """
        return _tally(self.authorizations, (listener, rule or NONE, decision, mode))

    def rate_limit(self, listener: str, route: str) -> Tally:
        """Give the counter of requests that came too often."""
        return _tally(self.rate_limits, (listener, route))

    def retries(self, service: str) -> RetryStats:
        """Give the counters of repeated attempts, the same object for the same service."""
        return self.retry_stats.setdefault(service, RetryStats())

    def faults(self, listener: str, route: str) -> FaultTally:
        """Give the counters of faults on purpose."""
        return self.fault_tallies.setdefault((listener, route), FaultTally())

    # --- once per connection or rarer ---

    def handshake_ended(
        self,
        direction: str,
        result: str,
        *,
        listener: str = "",
        service: str = "",
        reason: str = "",
    ) -> None:
        """Count a TLS handshake; `result` is ok or refused, inbound has a listener, outbound a service."""
        word = reason if reason in self._reasons else OTHER if reason else NONE
        key = (direction, listener or NONE, service or NONE, result, word)
        _tally(self.handshakes, key).value += 1

    def session_started(self, direction: str, *, version: str, group: str, resumed: bool) -> None:
        """Count what a good handshake negotiated; `group` "" when no key was exchanged."""
        key = (direction, version, group or NONE, "true" if resumed else "false")
        # OpenSSL's names, not the peer's; the ceiling is for a mistake.
        if len(self.tls_sessions) >= _MAX_NEGOTIATED and key not in self.tls_sessions:
            key = (direction, OTHER, OTHER, key[3])
        _tally(self.tls_sessions, key).value += 1

    def ejected(self, service: str, reason: str) -> None:
        """Count an ejection; `reason` is a word of `policy.outlier`."""
        _tally(self.ejections, (service, reason)).value += 1

    def health_checked(self, service: str, result: str) -> None:
        """Count an active check; `result` is ok or failed."""
        _tally(self.health_checks, (service, result)).value += 1

    def reload_ended(self, what: str, result: str) -> None:
        """Count a reload; `what` is credentials or config, `result` ok or kept."""
        _tally(self.reloads, (what, result)).value += 1

    # --- scrape ---

    def scrape(self) -> Callable[[], bytes]:
        """Read every gauge now and give the function that makes the text, which may run in another thread.

        The first call imports prometheus-client: 40 ms that nobody should spend on the event loop.
        """
        readings = Readings(self.gauges)

        def render() -> bytes:
            from ambassador.telemetry import exposition  # noqa: PLC0415  # slow, see above

            return exposition.render(self, readings)

        return render

    def render(self) -> bytes:
        """Give all samples in Prometheus' text format 0.0.4, at once."""
        return self.scrape()()


class Readings:
    """The gauges as they were at one moment."""

    __slots__ = (
        "access_log_dropped",
        "certificates",
        "discoveries",
        "draining",
        "endpoints",
        "open_ceilings",
        "ready",
        "upstream_connections",
    )

    def __init__(self, gauges: Gauges) -> None:
        self.ready = gauges.ready()
        self.draining = gauges.draining()
        self.endpoints = tuple(gauges.endpoints())
        self.upstream_connections = tuple(gauges.upstream_connections())
        self.certificates = tuple(gauges.certificates())
        self.discoveries = tuple(gauges.discoveries())
        self.open_ceilings = tuple(gauges.open_ceilings())
        self.access_log_dropped = gauges.access_log_dropped()


def _tally(tallies: dict[_Key, Tally], key: _Key) -> Tally:
    found = tallies.get(key)
    if found is None:
        found = tallies[key] = Tally()
    return found
