"""`authorization: audit` lets through what would be denied, but no path that can be read in two ways (F1)."""

from __future__ import annotations

import pytest

from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, side, stage

__all__ = ["inbound", "side", "stage"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONFIG = {
    "inbound": {
        "authorization": "audit",
        "allow": [{"spiffe": "spiffe://example.org/nobody", "methods": ["GET"], "paths": ["/a/*"]}],
    }
}


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: payments\r\n\r\n" % path


@pytest.mark.parametrize("path", [b"/a/../b", b"/a//b", b"/a/%2e%2e/b", b"/a;x/b", b"/a%2Fb"])
def test_a_path_with_two_readings_is_refused_whoever_asks(inbound: Side, path: bytes) -> None:
    client = inbound.connect()
    client.send(get(path))

    assert client.read_message().startswith(b"HTTP/1.1 400 ")
    assert inbound.no_upstream()


def test_a_normal_path_of_whom_no_rule_names_goes_through(inbound: Side) -> None:
    received, _ = inbound.exchange(get(b"/b"), OK)

    assert received.startswith(b"GET /b HTTP/1.1\r\n")
