"""Microseconds of the policy's header steps, each in a loop of its own.

Run: python -m benchmarks.micro.policy_headers. Such loops flatter: between cold caches a step costs three to
five times as much (house §8), so compare versions of one step, not steps.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from random import Random

from ambassador.core.model import STAMPED, Field, RequestHead
from ambassador.policy.forwarding import ForwardingLines, ForwardingSettings, names_us
from ambassador.policy.headers import classify, sanitize
from ambassador.policy.trace_context import stamp

_LINES = (
    (b"user-agent", b"curl/8.1"), (b"accept", b"*/*"), (b"via", b"1.1 ambassador-0123456789ab"),
    (b"x-request-id", b"550e8400-e29b-41d4-a716-446655440000"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)  # fmt: skip


def _head(*, traced: bool) -> RequestHead:
    fields = [
        Field(name, value, classify(name), b"") for name, value in _LINES[: 5 if traced else 2]
    ]
    roles = 0
    for field in fields:
        roles |= field.role
    marked = [x for x in fields if x.role and not x.role & STAMPED]
    stamped = [x for x in fields if x.role & STAMPED]
    plain = [x for x in fields if not x.role & STAMPED]
    return RequestHead(b"GET", b"http", b"payments", b"/", plain, 0, roles, 11, marked, stamped)


def _report(name: str, step: Callable[[], object], count: int = 100_000) -> None:
    best = min(timeit.repeat(step, number=count, repeat=5)) / count
    sys.stdout.write(f"{name:45} {best * 1e6:7.3f} us\n")


def main() -> None:
    """Print one line per step."""
    plain, traced = _head(traced=False), _head(traced=True)
    received = traced.fields
    bits = Random(1).getrandbits
    settings = ForwardingSettings("sanitize_set", 0, lambda _: False)
    lines = ForwardingLines(settings, peer_address="10.0.0.7", element=b"By=a;Hash=b")

    def continued() -> None:
        traced.fields = received
        stamp(traced, bits)

    _report("classify, one name", lambda: classify(b"x-forwarded-client-cert"))
    _report("sanitize, clean head", lambda: sanitize(plain, drop_overrides=True))
    _report("names_us, one Via of another", lambda: names_us(received, b"ambassador-ffffffffffff"))
    _report(
        "ForwardingLines.render, same authority",
        lambda: lines.render(b"payments", (), may_forward=False),
    )
    _report("stamp, new ids", lambda: stamp(plain, bits))
    _report("stamp, both continued", continued)


if __name__ == "__main__":
    main()
