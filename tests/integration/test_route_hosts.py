"""Routes that name no host, and DNS names that a stranger controls (threats H7)."""

from __future__ import annotations

import pytest

from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, stage

__all__ = ["inbound", "outbound", "stage"]

CONFIG = {
    "service": {"hosts": ["pay.example.org"]},
    "outbound": {
        "routes": [
            {"match": {"host": "*.shop.example"}, "service": "payments"},
            {
                "match": {"host": ["api.example", "*.api.example"], "path": "/v2"},
                "service": "payments",
            },
            {"match": {"path": "/one"}, "service": "payments"},
            {"match": {"method": "POST"}, "service": "payments"},
            {"match": {"headers": {"x-canary": "1"}}, "service": "payments"},
            {"match": {"prefix": "/"}, "service": "payments"},
        ]
    },
}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STARTS = [b"GET /one", b"POST /two", b"GET /two"]


def _request(start: bytes, host: bytes) -> bytes:
    length = b"Content-Length: 0\r\n" if start.startswith(b"POST") else b""
    return start + b" HTTP/1.1\r\nHost: " + host + b"\r\nX-Canary: 1\r\n" + length + b"\r\n"


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("host", [b"evil.example:9000", b"payments.evil.example", b"shop.example"])
def test_a_stranger_s_name_leads_nowhere_where_every_host_does(
    outbound: Side, start: bytes, host: bytes
) -> None:
    """A page whose name now points to 127.0.0.1 sends no Origin with a GET."""
    answer = outbound.refused(
        _request(start, host).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )

    assert answer.startswith(b"HTTP/1.1 403 ")
    record = outbound.sidecar.wait_for_record(detail="foreign_host", authority=host.decode())
    assert record["service"] == ""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "host",
    [
        b"localhost:9000",
        b"127.0.0.1",
        b"payments",
        b"pay.example.org",
        b"a.shop.example",
        b"api",
        b"api.example",
        b"x.api.example",
    ],
)
def test_names_that_are_ours_or_that_a_route_names_go_through(
    outbound: Side, start: bytes, host: bytes
) -> None:
    received, answer = outbound.exchange(_request(start, host), OK)

    assert b"\r\nHost: " + host + b"\r\n" in received
    assert answer.endswith(b"ok")
