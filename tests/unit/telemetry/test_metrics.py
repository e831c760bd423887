"""Every metric family, from plain integers to Prometheus' text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ambassador.core.errors import ResponseFlag
from ambassador.telemetry.metrics import (
    LAG_BOUNDS_S,
    LATENCY_BOUNDS_S,
    REASONS,
    Histogram,
    Metrics,
    Tally,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.0.0", openssl="3.5.1", reasons={"wrong_weather"})


def scraped(metrics: Metrics) -> Samples:
    """Render and read back by prometheus-client's own parser."""
    return {
        (sample.name.removeprefix("ambassador_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def fill(metrics: Metrics) -> None:
    """Give every family a sample."""
    stats = metrics.requests("inbound", "api", route="rest", service="app")
    stats.exchange_ended(200, "-", 0.003, 0.002, 10, 20)
    stats.exchange_ended(503, "UF", 1.0, None, 0, 0)
    listener = metrics.listener("inbound", "api")
    listener.opened()
    listener.refused("max_connections")
    metrics.authorization("api", "allow-1", decision="allowed", mode="enforce").value += 1
    metrics.handshake_ended("inbound", "refused", listener="api", reason="expired")
    metrics.session_started("inbound", version="TLSv1.3", group="X25519MLKEM768", resumed=False)
    metrics.reload_ended("credentials", "kept")
    metrics.lag.observe(0.002)
    metrics.gauges.ready = lambda: True
    metrics.gauges.draining = lambda: False
    metrics.gauges.endpoints = lambda: [("payments", "eligible", 2)]
    metrics.gauges.upstream_connections = lambda: [
        ("payments", "idle", 3),
        ("payments", "active", 1),
    ]
    metrics.gauges.certificates = lambda: [("identity", 1_800_000_000.0)]
    metrics.gauges.access_log_dropped = lambda: 4


# --- exchanges ---


def test_an_exchange_counts_under_its_class_and_flag(metrics: Metrics) -> None:
    stats = metrics.requests("outbound", "main", route="pay", service="payments")
    for status, flags in [
        (200, "-"),
        (204, "-"),
        (404, "-"),
        (503, "UF"),
        (503, "UF,URX"),
        (0, "DC"),
    ]:
        stats.exchange_ended(status, flags, 0.001, None, 0, 0)

    samples = scraped(metrics)
    names = {"direction": "outbound", "listener": "main", "route": "pay", "service": "payments"}
    assert value(samples, "requests_total", code_class="2xx", flag="-", **names) == 2
    assert value(samples, "requests_total", code_class="4xx", flag="-", **names) == 1
    assert value(samples, "requests_total", code_class="5xx", flag="UF", **names) == 1
    assert value(samples, "requests_total", code_class="5xx", flag="UF,URX", **names) == 1
    assert value(samples, "requests_total", code_class="none", flag="DC", **names) == 1


@given(
    st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=999),
            st.sampled_from(["-", *ResponseFlag, "UF,URX"]),
            st.floats(min_value=0, max_value=100),
            st.none() | st.floats(min_value=0, max_value=100),
        )
    )
)
def test_nothing_is_lost_between_counting_and_scraping(
    exchanges: list[tuple[int, str, float, float | None]],
) -> None:
    metrics = Metrics(version="1", openssl="3")
    stats = metrics.requests("inbound", "api", route="rest", service="app")
    for status, flags, duration_s, upstream_s in exchanges:
        stats.exchange_ended(status, flags, duration_s, upstream_s, 3, 5)

    samples = scraped(metrics)
    names = {"direction": "inbound", "listener": "api", "route": "rest", "service": "app"}
    counted = sum(number for (name, _), number in samples.items() if name == "requests_total")
    waited = [upstream_s for *_, upstream_s in exchanges if upstream_s is not None]
    assert counted == len(exchanges)
    assert value(samples, "request_duration_seconds_count", **names) == len(exchanges)
    assert value(samples, "request_duration_seconds_sum", **names) == pytest.approx(
        sum(duration_s for _, _, duration_s, _ in exchanges)
    )
    assert value(samples, "upstream_duration_seconds_count", service="app") == len(waited)
    assert value(samples, "upstream_duration_seconds_sum", service="app") == pytest.approx(
        sum(waited)
    )


def test_bytes_are_counted_without_the_route(metrics: Metrics) -> None:
    for route in ("rest", "admin"):
        stats = metrics.requests("inbound", "api", route=route, service="app")
        stats.exchange_ended(200, "-", 0.001, 0.001, 100, 7)

    samples = scraped(metrics)
    names = {"direction": "inbound", "listener": "api", "service": "app"}
    assert value(samples, "request_bytes_total", **names) == 200
    assert value(samples, "response_bytes_total", **names) == 14


def test_upstream_duration_is_one_series_a_service(metrics: Metrics) -> None:
    metrics.requests("outbound", "main", route="a", service="db").exchange_ended(
        200, "-", 1, 0.5, 0, 0
    )
    metrics.requests("outbound", "main", route="b", service="db").exchange_ended(
        200, "-", 1, 0.5, 0, 0
    )

    assert value(scraped(metrics), "upstream_duration_seconds_count", service="db") == 2


def test_an_exchange_without_route_or_service_has_dashes(metrics: Metrics) -> None:
    """An empty label would be none to Prometheus, and no name in the file can be a dash."""
    metrics.requests("outbound", "main", route="", service="").exchange_ended(
        404, "NR", 0.001, None, 0, 0
    )

    samples = scraped(metrics)
    assert value(
        samples, "requests_total",
        direction="outbound", listener="main", route="-", service="-", code_class="4xx", flag="NR",
    ) == 1  # fmt: skip
    assert not [name for name, _ in samples if name.startswith("upstream_duration")]


@pytest.mark.parametrize("bounds", [LATENCY_BOUNDS_S, LAG_BOUNDS_S])
def test_a_bound_belongs_to_its_bucket(bounds: tuple[float, ...]) -> None:
    """Prometheus: `le` is inclusive."""
    histogram = Histogram(bounds)
    for bound in bounds:
        histogram.observe(bound)
    histogram.observe(bounds[-1] + 1)

    assert histogram.counts == [1] * (len(bounds) + 1)


def test_buckets_are_cumulative(metrics: Metrics) -> None:
    stats = metrics.requests("inbound", "api", route="rest", service="app")
    for duration_s in (0.0005, 0.0006, 0.3, 99.0):
        stats.exchange_ended(200, "-", duration_s, None, 0, 0)

    samples = scraped(metrics)
    names = {"direction": "inbound", "listener": "api", "route": "rest", "service": "app"}
    buckets = [
        value(samples, "request_duration_seconds_bucket", le=le, **names)
        for le in ("0.0005", "0.001", "0.25", "0.5", "10.0", "+Inf")
    ]
    assert buckets == [1, 2, 2, 3, 3, 4]


def test_the_same_names_give_the_same_counters(metrics: Metrics) -> None:
    """A reload binds anew and goes on counting."""
    assert metrics.requests("inbound", "api", route="r", service="s") is metrics.requests(
        "inbound", "api", route="r", service="s"
    )
    assert metrics.listener("inbound", "api") is metrics.listener("inbound", "api")
    assert metrics.authorization(
        "api", "a", decision="denied", mode="audit"
    ) is metrics.authorization("api", "a", decision="denied", mode="audit")


# --- connections, TLS, the rest ---


def test_connections_are_counted_and_come_back_to_zero(metrics: Metrics) -> None:
    listener = metrics.listener("inbound", "api")
    listener.opened()
    listener.opened()
    listener.closed()
    assert value(scraped(metrics), "connections", direction="inbound", listener="api") == 1
    listener.closed()

    samples = scraped(metrics)
    assert value(samples, "connections", direction="inbound", listener="api") == 0
    assert value(samples, "connections_total", direction="inbound", listener="api") == 2


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("max_connections", "max_connections"),
        ("wrong_weather", "wrong_weather"),
        ("from a peer", "other"),
    ],
)
def test_a_refused_connection_has_a_known_word(metrics: Metrics, reason: str, word: str) -> None:
    metrics.listener("inbound", "api").refused(reason)

    assert value(scraped(metrics), "connections_refused_total", listener="api", reason=word) == 1


@pytest.mark.parametrize(
    ("reason", "word"),
    [("expired", "expired"), ("wrong_weather", "wrong_weather"), ("CN=evil", "other")],
)
def test_a_refused_handshake_has_a_known_word(metrics: Metrics, reason: str, word: str) -> None:
    metrics.handshake_ended("inbound", "refused", listener="api", reason=reason)

    assert value(
        scraped(metrics), "handshakes_total",
        direction="inbound", listener="api", service="-", result="refused", reason=word,
    ) == 1  # fmt: skip


def test_a_good_handshake_has_no_reason(metrics: Metrics) -> None:
    metrics.handshake_ended("outbound", "ok", service="payments")

    assert value(
        scraped(metrics), "handshakes_total",
        direction="outbound", listener="-", service="payments", result="ok", reason="-",
    ) == 1  # fmt: skip


def test_sessions_are_counted_by_what_was_negotiated(metrics: Metrics) -> None:
    metrics.session_started("inbound", version="TLSv1.3", group="X25519MLKEM768", resumed=False)
    metrics.session_started("inbound", version="TLSv1.3", group="", resumed=True)

    samples = scraped(metrics)
    full = {
        "direction": "inbound",
        "version": "TLSv1.3",
        "group": "X25519MLKEM768",
        "resumed": "false",
    }
    assert value(samples, "tls_sessions_total", **full) == 1
    assert value(samples, "tls_sessions_total", **full | {"group": "-", "resumed": "true"}) == 1


def test_every_family_is_rendered(metrics: Metrics) -> None:
    """config.md §5, what is not marked for later."""
    fill(metrics)

    samples = scraped(metrics)
    assert value(samples, "build_info", version="1.0.0", openssl="3.5.1") == 1
    assert value(samples, "ready") == 1
    assert value(samples, "draining") == 0
    assert value(samples, "authorization_total",
                 listener="api", rule="allow-1", decision="allowed", mode="enforce") == 1  # fmt: skip
    assert value(samples, "endpoints", service="payments", state="eligible") == 2
    assert value(samples, "upstream_connections", service="payments", state="idle") == 3
    assert value(samples, "certificate_expiry_timestamp_seconds", name="identity") == 1_800_000_000
    assert value(samples, "reloads_total", what="credentials", result="kept") == 1
    assert value(samples, "event_loop_lag_seconds_bucket", le="0.0025") == 1
    assert value(samples, "event_loop_lag_seconds_count") == 1
    assert value(samples, "access_log_dropped_total") == 4
    assert value(samples, "process_resident_memory_bytes") > 0
    assert value(samples, "process_start_time_seconds") > 0


def test_nothing_registered_is_not_ready_and_empty(metrics: Metrics) -> None:
    samples = scraped(metrics)

    assert value(samples, "ready") == 0
    assert value(samples, "access_log_dropped_total") == 0
    assert not [name for name, _ in samples if name in {"endpoints", "upstream_connections"}]


def test_gauges_are_read_when_asked_not_when_rendered(metrics: Metrics) -> None:
    """Rendering may run in a thread; what belongs to the loop is read on the loop."""
    state = [True]
    metrics.gauges.ready = lambda: state[0]
    render = metrics.scrape()
    state[0] = False

    assert b"ambassador_ready 1.0" in render()


# --- what must not happen ---


def test_no_flood_makes_a_new_series(metrics: Metrics) -> None:
    """Threats I7: 10^5 hosts and refusals, series constant."""
    fill(metrics)
    metrics.listener("inbound", "api").refused("not a word")
    metrics.handshake_ended("inbound", "refused", listener="api", reason="not a word")
    stats = metrics.requests("inbound", "api", route="rest", service="app")
    stats.exchange_ended(500, "not a flag", 0.001, None, 0, 0)
    before = set(scraped(metrics))
    for number in range(100_000):
        metrics.listener("inbound", "api").refused(f"host-{number}.example")
        metrics.handshake_ended("inbound", "refused", listener="api", reason=f"CN=peer-{number}")
        stats.exchange_ended(500, f"X{number}", 0.001, None, 0, 0)

    assert set(scraped(metrics)) == before


def test_negotiated_names_are_bounded(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.session_started(
            "inbound", version="TLSv1.3", group=f"group-{number}", resumed=False
        )
    metrics.session_started("inbound", version="TLSv1.3", group="group-1", resumed=False)

    samples = scraped(metrics)
    series = [labels for name, labels in samples if name == "tls_sessions_total"]
    other = {"direction": "inbound", "version": "other", "group": "other", "resumed": "false"}
    assert len(series) == 65
    assert value(samples, "tls_sessions_total", **other) == 1000 - 64
    assert (
        value(samples, "tls_sessions_total", **other | {"version": "TLSv1.3", "group": "group-1"})
        == 2
    )


def test_reason_words_are_words() -> None:
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", word) for word in REASONS)


def test_the_words_of_a_failed_verification_are_known() -> None:
    """What `identity` calls a refusal must not be counted as "other"."""
    from ambassador.identity import refusal

    assert set(refusal.VERIFY_REASONS.values()) <= REASONS
    assert {refusal.classify([reason])[0] for reason in refusal._REASONS} <= REASONS


def test_the_library_is_imported_with_the_first_scrape() -> None:
    """`ambassador run` imports nothing that it does not use (house §10)."""
    program = (
        "import sys\n"
        "from ambassador.telemetry.metrics import Metrics\n"
        "metrics = Metrics(version='1', openssl='3')\n"
        "render = metrics.scrape()\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "render()\n"
        "assert 'prometheus_client' in sys.modules\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about(metrics: Metrics) -> None:
    """Issue 3."""
    fill(metrics)

    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render(), capture_output=True, check=False
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_counters_say_who_they_are(metrics: Metrics) -> None:
    tally = Tally()
    tally.value += 2

    assert repr(tally) == "Tally(2)"
    assert (
        repr(metrics.requests("inbound", "api", route="r", service=""))
        == "RequestStats(inbound, api, r, -)"
    )
    assert repr(metrics.listener("inbound", "api")) == "ListenerStats(inbound, api, open=0)"
    assert repr(metrics) == "Metrics(1 request series, 1 listeners)"
