"""Turns the plain integers of `Metrics` into Prometheus samples, through a custom collector.

Knows names, help texts and prometheus-client; must not change a number. May run in a thread beside the event loop:
dictionaries are copied (one step under the GIL) before they are walked, and numbers of one scrape may be some
microseconds apart.
Known ugliness: `connections` and `connections_total` differ only by the suffix, which OpenMetrics forbids; so the
text format 0.0.4 is the only one offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

from ambassador.telemetry.metrics import NONE, Histogram, Metrics, Readings, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import Metric

_Key = TypeVar("_Key", bound="tuple[str, ...]")
_process = ProcessCollector(registry=None)


def render(metrics: Metrics, readings: Readings) -> bytes:
    """Give all samples in the text format 0.0.4."""
    return generate_latest(_Collector(metrics, readings))


class _Collector:
    """What prometheus-client asks for the families of one scrape."""

    def __init__(self, metrics: Metrics, readings: Readings) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        yield from _state(self._metrics, self._readings)
        yield from _requests(self._metrics)
        yield from _connections(self._metrics, self._readings)
        yield from _resilience(self._metrics)
        yield from _tls(self._metrics, self._readings)
        yield from _process.collect()


def _state(metrics: Metrics, readings: Readings) -> Iterator[Metric]:
    build = _gauge("build_info", "What runs: always 1.", ("version", "openssl"))
    build.add_metric((metrics.version, metrics.openssl), 1)
    yield build
    yield _single("ready", "Whether /ready says 200.", readings.ready)
    yield _single("draining", "Whether the drain has begun.", readings.draining)
    yield _tallied("reloads", "Reloads by what was read.", ("what", "result"), metrics.reloads)
    lag = HistogramMetricFamily(
        "ambassador_event_loop_lag_seconds", "How late the event loop ran a timer, twice a second."
    )
    lag.add_metric((), _buckets(metrics.lag), metrics.lag.total_s)
    yield lag
    dropped = _counter("access_log_dropped", "Access log lines that were lost.", ())
    dropped.add_metric((), readings.access_log_dropped)
    yield dropped


def _requests(metrics: Metrics) -> Iterator[Metric]:
    names = ("direction", "listener", "route", "service")
    totals = _counter("requests", "Exchanges that ended.", (*names, "code_class", "flag"))
    durations = HistogramMetricFamily(
        "ambassador_request_duration_seconds",
        "From the request head to the end of the exchange.",
        labels=names,
    )
    received: dict[tuple[str, str, str], int] = {}
    sent: dict[tuple[str, str, str], int] = {}
    for key, stats in list(metrics.request_stats.items()):
        for status_class, count in enumerate(stats.plain):
            if count:
                totals.add_metric((*key, _class(status_class), "-"), count)
        for (status_class, flags), count in list(stats.flagged.items()):
            totals.add_metric((*key, _class(status_class), flags), count)
        durations.add_metric(key, _buckets(stats.duration), stats.duration.total_s)
        short = (stats.direction, stats.listener, stats.service)
        received[short] = received.get(short, 0) + stats.bytes_in
        sent[short] = sent.get(short, 0) + stats.bytes_out
    yield totals
    yield durations
    yield _upstream(metrics)
    short_names = ("direction", "listener", "service")
    yield _counted(
        "request_bytes", "Bytes of request bodies received.", short_names, received.items()
    )
    yield _counted("response_bytes", "Bytes of response bodies sent.", short_names, sent.items())


def _upstream(metrics: Metrics) -> Metric:
    family = HistogramMetricFamily(
        "ambassador_upstream_duration_seconds",
        "From the attempt's begin to its response head.",
        labels=("service",),
    )
    for service, histogram in list(metrics.upstream.items()):
        if service != NONE:  # who never reached a service has no upstream duration
            family.add_metric((service,), _buckets(histogram), histogram.total_s)
    return family


def _connections(metrics: Metrics, readings: Readings) -> Iterator[Metric]:
    names = ("direction", "listener")
    current = _gauge("connections", "Connections being served.", names)
    total = _counter("connections", "Connections that were served.", names)
    refused = _counter("connections_refused", "Connections turned away.", ("listener", "reason"))
    for key, stats in list(metrics.listeners.items()):
        current.add_metric(key, stats.open)
        total.add_metric(key, stats.total)
        for reason, count in list(stats.refusals.items()):
            refused.add_metric((stats.listener, reason), count)
    yield current
    yield total
    yield refused
    states = ("service", "state")
    yield _stated(
        "upstream_connections", "Connections to services.", states, readings.upstream_connections
    )
    yield _stated("endpoints", "Endpoints of services.", states, readings.endpoints)
    success = _gauge(
        "discovery_last_success_timestamp_seconds",
        "When the source of a service's endpoints last answered; 0 before.",
        ("service", "kind"),
    )
    for service, kind, last_success in readings.discoveries:
        success.add_metric((service, kind), last_success)
    yield success
    yield _stated(
        "circuit_breaker_open",
        "Whether a ceiling of a service turns requests away now.",
        ("service", "ceiling"),
        readings.open_ceilings,
    )


def _resilience(metrics: Metrics) -> Iterator[Metric]:
    retries = _counter("retries", "Retries and hedges, by how it ended.", ("service", "result"))
    skipped = _counter("retries_skipped", "Failures that were not repeated.", ("service", "reason"))
    for service, stats in list(metrics.retry_stats.items()):
        for result, count in list(stats.results.items()):
            retries.add_metric((service, result), count)
        for reason, count in list(stats.skipped.items()):
            skipped.add_metric((service, reason), count)
    yield retries
    yield skipped
    yield _tallied(
        "outlier_ejections",
        "Endpoints ejected for their answers.",
        ("service", "reason"),
        metrics.ejections,
    )
    yield _tallied(
        "health_checks", "Active checks that ended.", ("service", "result"), metrics.health_checks
    )
    faults = _counter("faults", "Faults on purpose.", ("listener", "route", "kind"))
    for (listener, route), tally in list(metrics.fault_tallies.items()):
        faults.add_metric((listener, route, "delay"), tally.delays)
        faults.add_metric((listener, route, "abort"), tally.aborts)
    yield faults


def _tls(metrics: Metrics, readings: Readings) -> Iterator[Metric]:
    yield _tallied(
        "handshakes",
        "TLS handshakes that ended.",
        ("direction", "listener", "service", "result", "reason"),
        metrics.handshakes,
    )
    yield _tallied(
        "tls_sessions",
        "TLS sessions by what was negotiated.",
        ("direction", "version", "group", "resumed"),
        metrics.tls_sessions,
    )
    yield _tallied(
        "authorization",
        "Decisions on requests and connections of peers.",
        ("listener", "rule", "decision", "mode"),
        metrics.authorizations,
    )
    yield _tallied(
        "rate_limited", "Requests that came too often.", ("listener", "route"), metrics.rate_limits
    )
    expiry = _gauge(
        "certificate_expiry_timestamp_seconds", "When a certificate in use expires.", ("name",)
    )
    for name, not_after in readings.certificates:
        expiry.add_metric((name,), not_after)
    yield expiry


# --- families ----------------------------------------------------------------------------------------------------


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ambassador_{name}", text, labels=labels)


def _counter(name: str, text: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(f"ambassador_{name}", text, labels=labels)  # adds _total itself


def _single(name: str, text: str, value: float) -> Metric:
    family = _gauge(name, text, ())
    family.add_metric((), value)
    return family


def _stated(
    name: str, text: str, labels: tuple[str, str], readings: tuple[tuple[str, str, int], ...]
) -> Metric:
    family = _gauge(name, text, labels)
    for service, state, count in readings:
        family.add_metric((service, state), count)
    return family


def _counted(
    name: str, text: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]
) -> Metric:
    family = _counter(name, text, labels)
    for key, count in counts:
        family.add_metric(key, count)
    return family


def _tallied(
    name: str, text: str, labels: tuple[str, ...], tallies: Mapping[_Key, Tally]
) -> Metric:
    return _counted(
        name, text, labels, [(key, tally.value) for key, tally in list(tallies.items())]
    )


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Give the cumulative counts that Prometheus wants, from ours per bucket."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), below))
    return buckets


def _class(first_digit: int) -> str:
    return f"{first_digit}xx" if first_digit else "none"
