"""Microseconds per head of ten lines: parsed through a warm line cache, and written anew.

Run: python -m benchmarks.micro.head. A loop of its own flatters caches: these numbers say what the code costs at
least, a run of the proxy says what it costs.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from ambassador.core import model
from ambassador.wire.head import HeadLimits, LineCache, parse_request_head, parse_response_head
from ambassador.wire.render import render_request_head, render_response_head

ROLES = {
    b"host": model.HOST,
    b"content-length": model.CONTENT_LENGTH,
    b"connection": model.CONNECTION,
    b"user-agent": model.USER_AGENT,
    b"x-request-id": model.REQUEST_ID,
}
COMMON = (
    b"User-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\n"
    b"X-Tenant: a\r\nX-Region: b\r\nX-Stage: c\r\nContent-Type: application/json"
)
GET = b"GET /v1/things?id=1 HTTP/1.1\r\nHost: payments:9000\r\n" + COMMON + b"\r\nX-Team: d"
POST = b"POST /v1/things HTTP/1.1\r\nHost: payments:9000\r\n" + COMMON + b"\r\nContent-Length: 512"
KEPT = (
    b"GET /v1/things?id=1 HTTP/1.1\r\nHost: payments:9000\r\n"
    + COMMON
    + b"\r\nConnection: keep-alive"
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n" + COMMON + b"\r\nX-Team: d"
UNIQUE = b"GET / HTTP/1.1\r\nHost: payments:9000\r\n" + COMMON + b"\r\nX-Request-Id: 0b7f"


def microseconds(run: Callable[[], object], number: int = 20_000) -> float:
    """Best of seven rounds: what the code costs when nobody disturbs it."""
    return min(timeit.repeat(run, number=number, repeat=7)) / number * 1e6


def main() -> None:
    cache = LineCache(lambda name: ROLES.get(name, 0))
    limits = HeadLimits()
    for name, block in (
        ("GET", GET),
        ("GET, Connection: keep-alive", KEPT),
        ("POST", POST),
        ("GET, one line not kept", UNIQUE),
    ):
        head, framing, _ = parse_request_head(block, cache, limits)
        parse = microseconds(lambda: parse_request_head(block, cache, limits))  # noqa: B023
        write = microseconds(lambda: render_request_head(head, framing=framing))  # noqa: B023
        print(f"{name:30} parse {parse:5.2f} µs   render {write:5.2f} µs")
    answer, framing, _ = parse_response_head(ANSWER, cache, limits, b"GET")
    parse = microseconds(lambda: parse_response_head(ANSWER, cache, limits, b"GET"))
    write = microseconds(lambda: render_response_head(answer, framing=framing))
    print(f"{'200':30} parse {parse:5.2f} µs   render {write:5.2f} µs")


if __name__ == "__main__":
    main()
