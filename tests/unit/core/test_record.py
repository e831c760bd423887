from __future__ import annotations

import msgspec

from ambassador.core.record import ExchangeRecord

# A promise to users: log pipelines are built on these names. Order is kept; new names go to the end.
NAMES = [
    "time",
    "direction",
    "listener",
    "route",
    "service",
    "endpoint",
    "method",
    "authority",
    "path",
    "protocol",
    "status",
    "flags",
    "phase",
    "detail",
    "bytes_received",
    "bytes_sent",
    "duration_ms",
    "upstream_duration_ms",
    "attempts",
    "peer",
    "peer_address",
    "tls_version",
    "tls_group",
    "rule",
    "reason",
    "user_agent",
    "forwarded_for",
    "request_id",
    "trace_id",
    "instance",
    "not_retried",
]


def test_the_encoding_is_the_access_log_line_with_these_names_in_this_order() -> None:
    line = msgspec.json.encode(ExchangeRecord())

    assert list(msgspec.json.decode(line)) == NAMES


def test_what_did_not_happen_is_told_from_what_took_no_time() -> None:
    line = msgspec.json.decode(msgspec.json.encode(ExchangeRecord()))

    assert line["upstream_duration_ms"] is None
    assert line["flags"] == "-"
