"""`max_connection_age`: an old connection ends between exchanges, and the response says so before (RFC 9112 §9.6)."""

from __future__ import annotations

import pytest

from tests.support.peers import PeerConnection
from tests.support.stage import Side
from tests.support.stage_fixtures import side, stage

__all__ = ["side", "stage"]

AGE_S = 0.4
CONFIG = {"settings": {"max_connection_age": f"{int(AGE_S * 1000)}ms", "idle_timeout": "60s"}}
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def served(side: Side) -> tuple[Side, PeerConnection, PeerConnection]:
    """A connection on which one exchange is over, young."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    assert b"Connection: close" not in client.read_message()
    return side, client, up


def test_an_idle_connection_ends_at_its_age(
    served: tuple[Side, PeerConnection, PeerConnection],
) -> None:
    _, client, _ = served

    assert client.read_to_end() == b""


def test_an_exchange_that_outlives_the_age_is_finished(
    served: tuple[Side, PeerConnection, PeerConnection],
) -> None:
    """Its response may have left already, so the next one carries the word, or the connection ends idle."""
    side, client, up = served
    client.send(GET)
    up.read_message()
    assert side.connect().read_to_end() == b"", "as old as it may become; ours is older"

    up.send(OK)

    assert client.read_message().endswith(b"ok")
    assert client.read_to_end() == b""
