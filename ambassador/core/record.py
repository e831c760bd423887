"""What is remembered of an exchange: filled on its walk, read once at its end.

The encoding of `ExchangeRecord` *is* the access-log line (msgspec, under a microsecond), so names and order of
its attributes are a promise to users. Text from outside enters only through `telemetry.access_log.clean`.
"""

from __future__ import annotations

import msgspec


class ExchangeRecord(msgspec.Struct, gc=False):
    """One exchange, as the access log shows it.

    Units: durations in milliseconds, bytes are body bytes as sent or received (without heads and framing).
    """

    time: str = ""  # RFC 3339, UTC, milliseconds: when the request head was complete
    direction: str = ""  # inbound | outbound
    listener: str = ""
    route: str = ""
    service: str = ""
    endpoint: str = ""
    method: str = ""
    authority: str = ""
    path: str = ""
    protocol: str = ""
    status: int = 0
    flags: str = "-"
    phase: str = ""
    detail: str = ""
    bytes_received: int = 0
    bytes_sent: int = 0
    duration_ms: float = 0.0
    upstream_duration_ms: float | None = None
    attempts: int = 0
    peer: str = ""
    peer_address: str = ""
    tls_version: str = ""
    tls_group: str = ""
    rule: str = ""
    reason: str = ""
    user_agent: str = ""
    forwarded_for: str = ""
    request_id: str = ""
    trace_id: str = ""
    instance: str = ""  # `name` of the file: which of many sidecars wrote the line
    not_retried: str = ""  # why the route's `retry` did not repeat the last failure
