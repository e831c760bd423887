"""The next endpoint after a connect that failed: nothing was sent yet, so any request goes there, whole and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peers import App, exchange
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, running_ambassador
from tests.support.waiting import eventually

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


def test_a_higher_priority_number_is_asked_only_when_none_of_the_lower_is_left(
    tmp_path: Path,
) -> None:
    """config.md: `priority` 0 first, the others when none of it is left; and back when it is there again."""
    ports = [reserve_port() for _ in range(3)]
    settings = config()
    settings["services"]["payments"]["endpoints"] = [
        {"address": f"127.0.0.1:{ports[0]}", "priority": 5},
        {"address": f"127.0.0.1:{ports[1]}"},
        {"address": f"127.0.0.1:{ports[2]}", "weight": 3},
    ]

    def answering(name: bytes, port: int) -> App:
        return App(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name, port=port)

    with answering(b"l", ports[0]), running_ambassador(settings, tmp_path) as sidecar:

        def asked(count: int) -> str:
            request = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
            return b"".join(exchange(sidecar.outbound, request)[-1:] for _ in range(count)).decode()

        with answering(b"a", ports[1]):
            with answering(b"b", ports[2]):
                assert sorted(asked(8)) == sorted("aabbbbbb")
            assert set(asked(8)) == {"a"}, "one of the first tier is left"
        assert set(asked(8)) == {"l"}
        with answering(b"a", ports[1]), answering(b"b", ports[2]):
            eventually(lambda: set(asked(8)) == {"a", "b"}, "they are tried again", patience_s=30)
