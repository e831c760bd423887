"""One line of the access log for every way in which an exchange can end (house §4, issue 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.stage import Side, Stage
from tests.support.stage_fixtures import inbound, outbound, side, stage
from tests.support.waiting import eventually

__all__ = ["inbound", "outbound", "side", "stage"]

CONFIG = {
    "inbound": {
        "trusted_hops": 1,
        "deny": [{"name": "no-delete", "spiffe": "spiffe://example.org/*", "methods": ["DELETE"]}],
        "routes": [{"name": "slow", "match": {"prefix": "/"}, "timeout": "300ms"}],
    },
    "outbound": {"timeout": "300ms"},
    "services": {
        "down": {"endpoints": ["127.0.0.1:9"], "peer": {"spiffe": "spiffe://example.org/payments"}},
        "wrong": {
            "endpoints": ["127.0.0.1:9"],
            "peer": {"spiffe": "spiffe://example.org/payments"},
        },
    },
}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(
    path: str, method: str = "GET", *lines: str, body: bytes = b"", host: str = "payments"
) -> bytes:
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def whole(side: Side, path: str) -> None:
    side.exchange(request(path, "POST", "Content-Length: 3", "User-Agent: me\x22", body=b"abc"), OK)


def silent_upstream(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    side.upstream().read_message()
    client.read_message()


def closing_upstream(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    up = side.upstream()
    up.read_message()
    up.close()
    client.read_message()


def resetting_upstream(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    up = side.upstream()
    up.read_message()
    up.reset()
    client.read_message()


def malformed_upstream(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/9.9 hello\r\n\r\n")
    client.read_message()


def truncating_upstream(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    client.read_until(b"ab")
    up.close()
    assert client.is_ended()


def departing_client(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    side.upstream().read_message()
    client.reset()


def departing_client_in_response(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path))
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    client.read_until(b"ab")
    client.reset()
    assert up.is_ended()


def departing_client_in_body(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path, "POST", "Content-Length: 9", body=b"abc"))
    side.upstream().read_until(b"abc")
    client.reset()


def malformed_body(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path, "POST", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"))
    side.upstream().read_until(b"ab\r\n")
    client.send(b"zz\r\n")
    client.read_to_end()


def tunnel(side: Side, path: str) -> None:
    client = side.connect()
    client.send(request(path, "GET", "Connection: upgrade", "Upgrade: websocket"))
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
    )
    client.read_until(b"hello")
    client.send(b"abc")
    up.read_exactly(3)
    client.half_close()
    up.read_to_end()
    up.close()
    client.read_to_end()


def _end(status: int, flags: str, phase: str, **others: object) -> dict[str, Any]:
    return {"status": status, "flags": flags, "phase": phase, **others}


ENDS: dict[str, tuple[Callable[[Side, str], None], dict[str, Any]]] = {
    "whole": (whole, _end(200, "-", "relay", detail="", bytes_received=3, bytes_sent=2)),
    "tunnel": (tunnel, _end(101, "-", "relay", bytes_received=3, bytes_sent=5)),
    "silent": (silent_upstream, _end(504, "UT", "wait", detail="response_timeout")),
    "closing": (closing_upstream, _end(503, "UC", "wait", detail="closed_before_response")),
    "resetting": (resetting_upstream, _end(503, "UR", "wait", detail="reset_before_response")),
    "malformed": (malformed_upstream, _end(502, "UPE", "wait", detail="bad_status_line")),
    "truncating": (
        truncating_upstream,
        _end(200, "UC", "relay", detail="response_truncated", bytes_sent=2),
    ),
    "departing": (departing_client, _end(0, "DC", "wait", detail="downstream_reset")),
    "departing in response": (departing_client_in_response, _end(200, "DC", "relay", bytes_sent=2)),
    "departing in body": (departing_client_in_body, _end(0, "DC", "send", bytes_received=3)),
    "malformed body": (malformed_body, {"status": 400, "flags": "DPE", "detail": "bad_chunk_size"}),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_exchange_leaves_one_record(side: Side, name: str) -> None:
    """Who (flag), where (phase), what (detail); exactly once."""
    play, expected = ENDS[name]
    path = f"/{name.replace(' ', '-')}-{side.direction}"

    play(side, path)

    record = side.sidecar.wait_for_record(path=path)
    assert {key: record[key] for key in expected} == expected
    assert record["direction"] == side.direction
    assert record["service"] == ("payments" if side.direction == "outbound" else "app")
    assert record["attempts"] == 1
    if record["phase"] != "connect":
        assert (record["peer"], record["tls_version"]) == (
            "spiffe://example.org/payments",
            "TLSv1.3",
        )
    assert [other["path"] for other in side.sidecar.records].count(path) == 1


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            request("/nr", host="nobody"),
            {"status": 404, "flags": "NR", "phase": "route", "detail": "no_route"},
        ),
        (
            request("/uf", host="down"),
            {
                "status": 503,
                "flags": "UF",
                "phase": "connect",
                "detail": "connect_refused",
                "service": "down",
            },
        ),
        (
            request("/ad", "GET", "Origin: http://evil"),
            {"status": 403, "flags": "AD", "phase": "admit", "detail": "foreign_origin"},
        ),
    ],
)
def test_a_local_reply_leaves_one_record(
    outbound: Side, sent: bytes, expected: dict[str, Any]
) -> None:
    """House §4."""
    client = outbound.connect()
    client.send(sent)
    answer = client.read_message()

    path = sent.split(b" ")[1].decode()
    record = outbound.sidecar.wait_for_record(path=path)
    assert {key: record[key] for key in expected} == expected
    assert (
        f"X-Ambassador-Flags: {expected['flags']}\r\nX-Ambassador-Detail: {expected['detail']}\r\n".encode()
        in answer
    )
    assert b"Connection: close" not in answer


def test_a_denied_peer_gets_a_bare_403(inbound: Side) -> None:
    """Issue: principal, rule and reason are in the log."""
    client = inbound.connect()
    client.send(request("/denied", "DELETE"))
    answer = client.read_message()

    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"mbassador" not in answer
    record = inbound.sidecar.wait_for_record(path="/denied")
    assert (record["flags"], record["phase"], record["rule"], record["peer"]) == (
        "AD", "admit", "no-delete", "spiffe://example.org/payments",
    )  # fmt: skip


def test_a_refused_head_leaves_one_record(side: Side) -> None:
    """Phase head; nothing of the request is known."""
    before = side.sidecar.metric("requests_total", direction=side.direction, flag="DPE")

    side.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n")

    record = side.sidecar.wait_for_record(direction=side.direction, detail="bad_field_name")
    assert (record["status"], record["flags"], record["phase"], record["method"]) == (
        400,
        "DPE",
        "head",
        "",
    )
    eventually(
        lambda: (
            side.sidecar.metric("requests_total", direction=side.direction, flag="DPE")
            == before + 1
        )
    )


def test_a_line_cannot_be_broken(side: Side) -> None:
    """Threats I5: quotes and obs-text of others."""
    path = f"/quote%22-{side.direction}"
    side.exchange(request(path, "GET", 'User-Agent: a"b\\c\td'), OK)

    assert side.sidecar.wait_for_record(path=path)["user_agent"].startswith('a"b\\c')


def test_forwarded_for_is_what_the_app_got(inbound: Side) -> None:
    """Envoy's `%REQ(X-FORWARDED-FOR)%`: hops that are trusted and the peer, never what somebody merely claims."""
    client = inbound.connect()
    hops = request("/hops", "GET", "X-Forwarded-For: 6.6.6.6, 10.0.0.9")
    client.send(hops + request("/no-hops"))
    up = inbound.upstream()
    for _ in range(2):
        up.read_message()
        up.send(OK)
        client.read_message()

    record = inbound.sidecar.wait_for_record(path="/hops")
    assert record["forwarded_for"] == "10.0.0.9, 127.0.0.1"
    assert inbound.sidecar.wait_for_record(path="/no-hops")["forwarded_for"] == "127.0.0.1"


def test_a_query_is_not_logged(side: Side) -> None:
    """access_log.query = false."""
    path = f"/query-{side.direction}"
    side.exchange(request(path + "?token=secret"), OK)

    record = side.sidecar.wait_for_record(path=path)
    assert "secret" not in str(record)


def test_many_exchanges_of_one_connection_leave_a_record_each(side: Side, stage: Stage) -> None:
    """Pipelined ones too."""
    client = side.connect()
    client.send(b"".join(request(f"/n{n}-{side.direction}") for n in range(20)))
    up = side.upstream()
    for _ in range(20):
        up.read_message()
        up.send(OK)
        client.read_message()

    for number in range(20):
        side.sidecar.wait_for_record(path=f"/n{number}-{side.direction}", status=200)


def test_a_refused_request_has_its_ids_in_the_line(side: Side) -> None:
    """By them the lines of two proxies are joined; what is not well formed is replaced."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    client = side.connect()
    lines = ("X-Request-Id: mine-7", f"traceparent: 00-{trace}-b7ad6b7169203331-01")
    path, host, method = "/refused", "payments", "DELETE"
    if side.direction == "outbound":
        host, method = "nobody", "GET"
    client.send(request(path, method, *lines, host=host))
    client.read_message()

    record = side.sidecar.wait_for_record(path=path, request_id="mine-7")
    assert record["trace_id"] == trace
    assert record["status"] in {403, 404}
