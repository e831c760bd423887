"""The next endpoint after a connect that failed: nothing was sent yet, so any request goes there, whole and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peers import App, exchange
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, running_ambassador

HEAD = b"POST / HTTP/1.1\r\nHost: payments\r\n"
BODY = bytes(range(256)) * 4096


@pytest.fixture
def app() -> Iterator[App]:
    with App() as app:
        yield app


def config(*ports: int) -> Config:
    """Give a sidecar whose one service has endpoints at these ports, asked in turn."""
    return {
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {
            "payments": {
                "endpoints": [f"127.0.0.1:{port}" for port in ports],
                "plaintext": "loopback",
                "balance": "round_robin",
            }
        },
    }


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 30_000] for at in range(0, len(body), 30_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ask(sidecar: Ambassador, body: bytes, *, with_length: bool) -> bytes:
    if with_length:
        return exchange(sidecar.outbound, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return exchange(sidecar.outbound, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body))


@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("size", [0, 1, 70_000, len(BODY)])
def test_a_body_reaches_the_living_endpoint_whole_and_once(
    app: App, tmp_path: Path, size: int, with_length: bool
) -> None:
    """House §7: what has arrived of the body is held until a connection is there."""
    body = BODY[:size]
    with running_ambassador(config(reserve_port(), reserve_port(), app.port), tmp_path) as sidecar:
        for _ in range(3):  # the turn begins at each of them
            assert ask(sidecar, body, with_length=with_length).startswith(b"HTTP/1.1 200 ")

        records = sidecar.wait_for_records(3)

    assert [request.body for request in app.requests] == [body] * 3
    assert max(record["attempts"] for record in records) > 1


def test_no_endpoint_that_answers_is_a_failed_connect_after_one_try_each(tmp_path: Path) -> None:
    """A second round would only double a long outage."""
    with running_ambassador(config(reserve_port(), reserve_port()), tmp_path) as sidecar:
        answer = ask(sidecar, BODY, with_length=True)
        record = sidecar.wait_for_record()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert (record["flags"], record["attempts"]) == ("UF", 2)
