"""What a line of the access log costs: python -m benchmarks.micro.telemetry_access_log.

A loop of its own flatters (warm caches); the ratio between the ways is what it shows.
"""

from __future__ import annotations

import timeit

import msgspec

from ambassador.core.record import ExchangeRecord
from ambassador.telemetry.access_log import BATCH_RECORDS, AccessLog, envoy_line
from ambassador.telemetry.text import clean, rfc3339

ROUNDS = 300


class Settings:
    """The defaults, to nowhere."""

    path = "/dev/null"
    format = "json"
    sample = 1.0
    query = False


def record() -> ExchangeRecord:
    return ExchangeRecord(
        time="2026-01-31T12:00:00.310Z", direction="inbound", listener="inbound", route="default", service="app",
        endpoint="127.0.0.1:8080", method="GET", authority="payments", path="/v1/orders/12345", protocol="HTTP/1.1",
        status=200, phase="relay", bytes_sent=1024, duration_ms=0.512, upstream_duration_ms=0.401, attempts=1,
        peer="spiffe://example.org/shop/web", peer_address="10.0.0.7:40312", tls_version="TLSv1.3",
        tls_group="X25519MLKEM768", rule="allow-1", user_agent="curl/8.5.0",
        request_id="0123456789abcdef0123456789abcdef", trace_id="0123456789abcdef0123456789abcdef",
    )  # fmt: skip


def report(name: str, seconds: float, count: int) -> None:
    print(f"{name:40} {seconds / count * 1e6:7.3f} us")


def main() -> None:
    log = AccessLog(Settings(), call_later=lambda *_: None)
    batch = [record() for _ in range(BATCH_RECORDS)]
    encoder = msgspec.json.Encoder()

    def write_batch() -> None:
        for each in batch:
            log.write(each)

    count = ROUNDS * BATCH_RECORDS
    report(
        "write, encode, hand over (whole cost)",
        min(timeit.repeat(write_batch, number=ROUNDS, repeat=5)),
        count,
    )
    report(
        "encode one by one",
        min(timeit.repeat(lambda: [encoder.encode(r) for r in batch], number=ROUNDS)),
        count,
    )
    report(
        "encode a batch",
        min(timeit.repeat(lambda: encoder.encode_lines(batch), number=ROUNDS)),
        count,
    )
    report(
        "Envoy's format",
        min(timeit.repeat(lambda: [envoy_line(r) for r in batch], number=ROUNDS)),
        count,
    )
    log.close()
    print(f"dropped {log.dropped}")
    for name, text in [
        ("clean, str", "curl/8.5.0"),
        ("clean, bytes", b"curl/8.5.0"),
        ("clean, ESC", "a\x1b" * 20),
    ]:
        report(name, min(timeit.repeat(lambda text=text: clean(text), number=10_000)), 10_000)
    report("rfc3339", min(timeit.repeat(lambda: rfc3339(1_700_000_000.31), number=10_000)), 10_000)


if __name__ == "__main__":
    main()
