"""The upstream side of HTTP/1.1 between recorders (RFC 9112)."""

from __future__ import annotations

from typing import Any

import pytest

from ambassador.core.model import Field, RequestHead
from ambassador.http.http1.client import MAX_INTERIM
from ambassador.net.failures import TlsFailure, Truncated, WriteRefused
from tests.support.transcripts import splits
from tests.unit.http.make import Client

ALERT = b"\x17\x03\x03\x00\x13" + bytes(19)


def ask(client: Client, method: bytes = b"GET", *, upgrade: bytes = b"") -> None:
    head = RequestHead(method, b"http", b"a", b"/", [], 0, upgrade=upgrade)
    events: Any = client.receiver
    client.connection.send_head(events, head, b"", True)


def upload(client: Client, *, length: int | None = None) -> None:
    head = RequestHead(b"POST", b"http", b"a", b"/", [], length)
    events: Any = client.receiver
    client.connection.send_head(events, head, b"", False)


# --- responses


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_a_response_means_the_same_however_it_is_split(received: bytes, body: bytes) -> None:
    for pieces in splits(received):
        client = Client()
        ask(client)

        for piece in pieces:
            client.receive(piece)
        client.connection.release()

        events = [event for event in client.receiver.events if event[0] != "interim"]
        assert events[0][0] == "head"
        assert events[-1][-1] is True
        assert b"".join(event[1] for event in events if event[0] == "body") == body
        assert client.pool_calls == ["free"]


def test_trailers_come_with_the_end() -> None:
    client = Client()
    ask(client)

    client.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n")

    assert client.receiver.events[-1] == ("trailers", [(b"x-sum", b"1")])


def test_a_body_may_end_with_the_connection_in_order_only() -> None:
    """RFC 9112 §6.3."""
    whole, cut = Client(), Client()
    for client in (whole, cut):
        ask(client)
        client.receive(b"HTTP/1.1 200 OK\r\n\r\nab")

    whole.connection.eof_received()
    cut.transport.break_(Truncated())

    assert whole.receiver.events[-1] == ("body", b"", True)
    assert cut.receiver.events[-1] == ("failed", "UC", "response_truncated")
    assert whole.pool_calls == cut.pool_calls == ["closed"]


@pytest.mark.parametrize(
    ("received", "detail"),
    [
        (b"nonsense\r\n\r\n", "bad_status_line"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1100, "response_head_too_large"),
        (
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            "unasked_upgrade",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1), "too_many_interim_responses"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "bad_chunk_size",
        ),
    ],
)
def test_what_could_be_read_differently_is_a_failure_and_a_cut(
    received: bytes, detail: str
) -> None:
    client = Client()
    ask(client)

    client.receive(received)

    assert client.receiver.events[-1] == ("failed", "UPE", detail)
    assert client.transport.ends == ["abort"]


def test_what_comes_unasked_ends_the_connection() -> None:
    """Threat G3."""
    idle, behind = Client(), Client()
    idle.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    ask(behind)
    behind.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1")
    behind.connection.release()

    assert idle.transport.ends == behind.transport.ends == ["close"]
    assert "free" not in behind.pool_calls


def test_a_response_to_nobody_is_not_read() -> None:
    client = Client()
    ask(client)
    client.transport.close = lambda: None  # type: ignore[method-assign]
    client.connection.abandon()

    client.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert client.receiver.events == []


# --- requests


@pytest.mark.parametrize("length", [3, None])
def test_an_upload_is_framed_by_length_or_chunks(length: int | None) -> None:
    client = Client()
    upload(client, length=length)
    client.connection.write_body(b"abc", False)
    assert client.transport.sent == b""
    client.connection.flush()
    client.connection.write_body(b"", True)

    end = b"\r\n\r\nabc" if length else b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert client.transport.sent.endswith(end)


def test_trailers_of_a_request_go_out_in_chunks() -> None:
    client = Client()
    upload(client)

    client.connection.write_trailers([Field(b"x-sum", b"1", 0, b"X-Sum: 1")])

    assert client.transport.sent.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


def test_an_early_response_ends_the_connection() -> None:
    """The rest of the upload will not be sent."""
    client = Client()
    upload(client)
    client.receive(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")

    client.connection.release()

    assert client.transport.ends == ["close"]


def test_a_request_that_upstream_has_not_taken_ends_the_connection() -> None:
    """Its rest would stand in front of the next request."""
    client = Client()
    upload(client)
    client.connection.write_body(b"rest", True)
    client.receive(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    client.transport.stalled = True

    client.connection.release()

    assert client.transport.ends == ["abort"]


def test_an_abandoned_exchange_ends_the_connection() -> None:
    """Threat G2."""
    taken, stalled = Client(), Client()
    for client in (taken, stalled):
        ask(client)
    stalled.transport.stalled = True

    for client in (taken, stalled):
        client.connection.abandon()

    assert (taken.transport.ends, stalled.transport.ends) == (["close"], ["abort"])
    assert taken.receiver.events == stalled.receiver.events == []


def test_connection_close_is_obeyed() -> None:
    client = Client()
    ask(client)
    client.receive(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    client.connection.release()

    assert client.pool_calls == ["closed"]


def test_release_before_the_end_changes_nothing() -> None:
    client = Client()
    ask(client)

    client.connection.release()

    assert client.pool_calls == []
    assert client.transport.ends == []


def test_space_is_told_to_who_waits_for_it() -> None:
    client = Client()
    client.connection.writable()
    upload(client)
    client.transport.stall()
    assert not client.connection.write_body(b"x", False)
    assert not client.connection.flush()

    client.transport.drain()

    assert client.receiver.events == [("writable",)]


# --- how it ends


@pytest.mark.parametrize(
    ("begin", "error", "flag", "detail"),
    [
        (b"", None, "UC", "closed_before_response"),
        (b"HTTP/1.1 2", None, "UPE", "response_head_truncated"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", None, "UC", "response_truncated"),
        (b"", OSError(), "UR", "reset_before_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", OSError(), "UR", "reset_in_response"),
        (b"", TlsFailure("peer_refused_us", "no"), "UF", "peer_refused_us"),
        (b"", TlsFailure("bad_record", "no"), "UR", "tls_bad_record"),
        (b"", WriteRefused(ALERT), "UF", "peer_refused_us"),
        (b"", WriteRefused(b""), "UR", "reset_before_response"),
        (b"HTTP/1.1 2", WriteRefused(ALERT), "UR", "reset_before_response"),
    ],
)
def test_the_end_is_worded_by_where_it_hit_the_exchange(
    begin: bytes, error: BaseException | None, flag: str, detail: str
) -> None:
    client = Client()
    ask(client)
    if begin:
        client.receive(begin)

    client.transport.break_(error)

    assert client.receiver.events[-1] == ("failed", flag, detail)
    assert client.pool_calls == ["closed"]
    assert not client.connection.is_open()


def test_the_orderly_end_before_a_response_is_a_failure_too() -> None:
    client = Client()
    ask(client)

    client.connection.eof_received()

    assert client.receiver.events == [("failed", "UC", "closed_before_response")]


def test_an_idle_connection_may_end_in_silence() -> None:
    client = Client()
    assert client.connection.is_alive()
    assert client.connection.is_open()
    assert client.connection.tls is None

    client.connection.eof_received()

    assert client.pool_calls == ["closed"]
    assert client.receiver.events == []
    assert "0 requests" in repr(client.connection)


# --- tunnels

SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("peer_first", [False, True])
def test_a_tunnel_ends_when_both_directions_have(peer_first: bool) -> None:  # noqa: FBT001
    client = Client()
    ask(client, upgrade=b"websocket")
    client.receive(SWITCH + b"down")
    client.connection.write_body(b"up", False)

    if peer_first:
        client.connection.eof_received()
        client.connection.release()
        assert client.transport.ends == []
        client.connection.write_body(b"", True)
    else:
        client.connection.write_body(b"", True)
        assert client.transport.ends == ["shutdown"]
        client.connection.eof_received()

    assert client.receiver.events[:3] == [
        ("head", 101, False),
        ("body", b"down", False),
        ("body", b"", True),
    ]
    assert client.transport.sent.endswith(b"\r\n\r\nup")
    assert client.transport.ends == ["shutdown", "close"]


def test_an_abandoned_tunnel_is_cut() -> None:
    client = Client()
    ask(client, upgrade=b"websocket")
    client.receive(SWITCH)

    client.connection.abandon()

    assert client.transport.ends == ["abort"]


def test_a_switch_before_the_request_has_ended_is_refused() -> None:
    """RFC 9110 §7.8."""
    client = Client()
    events: Any = client.receiver
    head = RequestHead(b"POST", b"http", b"a", b"/", [], None, upgrade=b"websocket")
    client.connection.send_head(events, head, b"", False)

    client.receive(SWITCH)

    assert client.receiver.events == [("failed", "UPE", "early_upgrade")]


def test_an_exchange_that_has_left_hears_nothing() -> None:
    bodies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        SWITCH,
    ]
    rests = [b"ok", b"0\r\nX-Sum: 1\r\n\r\n", b"", b""]
    for begin, rest in zip(bodies, rests, strict=True):
        client = Client()
        ask(client, upgrade=b"websocket")
        client.receive(begin)
        client.receiver.events.clear()
        client.connection._events = None

        client.receive(rest or b"x")
        client.connection.eof_received()

        assert client.receiver.events == []


def test_the_end_of_the_process_cuts_it() -> None:
    client = Client()
    ask(client)

    client.connection.abort()

    assert client.transport.ends == ["abort"]
    client.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.receiver.events == [("failed", "UC", "closed_before_response")]
