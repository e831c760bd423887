"""What counting an exchange and a scrape cost: python -m benchmarks.micro.telemetry_metrics."""

from __future__ import annotations

import timeit

from ambassador.telemetry.metrics import Metrics

COUNT = 50_000
SCRAPES = 20


def main() -> None:
    metrics = Metrics(version="1.0.0", openssl="3.5.1")
    stats = [
        metrics.requests("outbound", "main", route=f"route-{n}", service=f"service-{n}")
        for n in range(20)
    ]
    ended = stats[0].exchange_ended
    for name, call in [
        ("exchange_ended", lambda: ended(200, "-", 0.0031, 0.0021, 100, 1000)),
        ("exchange_ended with flag", lambda: ended(503, "UF", 0.0031, None, 100, 1000)),
    ]:
        print(f"{name:30} {min(timeit.repeat(call, number=COUNT)) / COUNT * 1e6:9.3f} us")
    for each in stats:
        each.exchange_ended(200, "-", 0.001, 0.001, 0, 0)
    first = timeit.timeit(metrics.render, number=1)
    print(f"{'first scrape, with import':30} {first * 1e6:9.0f} us")
    later = min(timeit.repeat(metrics.render, number=SCRAPES, repeat=3)) / SCRAPES
    print(f"{f'scrape, {metrics.render().count(chr(10).encode())} lines':30} {later * 1e6:9.0f} us")
    gauges = min(timeit.repeat(metrics.scrape, number=COUNT)) / COUNT
    print(f"{'of it on the loop':30} {gauges * 1e6:9.3f} us")


if __name__ == "__main__":
    main()
