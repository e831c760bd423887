"""The downstream side of HTTP/1.1 between recorders (RFC 9112)."""

from __future__ import annotations

import gc
import sys
from types import MethodType
from typing import Any

import pytest

from ambassador.core.model import Field, ResponseHead
from ambassador.http.http1.limits import AGED_IDLE_S, LINGER_BYTES, LINGER_S, PIPELINE_BYTES
from tests.support.transcripts import splits
from tests.unit.http.make import Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def head(status: int = 200, length: int | None = 2) -> ResponseHead:
    return ResponseHead(status, b"OK", [], length)


def answer(server: Server, body: bytes = b"ok") -> None:
    server.connection.write_whole(head(length=len(body)), b"", body)


# --- requests


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (GET, b""),
        (POST + b"abc", b"abc"),
        (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"\r\n" + GET, b""),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_a_request_means_the_same_however_it_is_split(received: bytes, body: bytes) -> None:
    for pieces in splits(received):
        server = Server()

        for piece in pieces:
            server.receive(piece)

        assert server.exchange.body == body
        assert server.exchange.ended
        assert len(server.exchanges) == 1


def test_trailers_come_with_the_end() -> None:
    server = Server()

    server.receive(CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")

    assert server.exchange.names == ["head_received", "body_received", "trailers_received"]


def test_a_body_that_cannot_be_understood_is_refused_and_the_rest_thrown_away() -> None:
    server = Server()
    server.receive(CHUNKED + b"x\r\n")
    assert server.exchange.error.detail == "bad_chunk_size"

    server.connection.write_head(head(400, 0), b"", True)

    assert b"Connection: close" in server.transport.sent
    assert server.transport.ends == ["shutdown"]


@pytest.mark.parametrize(
    ("received", "status", "detail"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "two_hosts"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 1100 + b"\r\n\r\n", 431, None),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 1100, 431, None),
        (b"\r\n\r\n\r\nGET", 400, None),
        (b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, None),
    ],
)
def test_what_cannot_be_understood_is_answered_and_nothing_after_it(
    received: bytes, status: int, detail: str | None
) -> None:
    """Threat G4."""
    server = Server()

    server.receive(received)
    server.receive(GET)

    assert server.exchange.error.status == status
    assert detail is None or server.exchange.error.detail == detail
    assert len(server.exchanges) == 1


# --- answers


def test_an_answer_goes_out_at_once_and_the_connection_waits_for_more() -> None:
    server = Server()
    server.receive(GET)

    answer(server)
    server.receive(GET)
    answer(server)

    assert server.transport.sent == 2 * b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert len(server.exchanges) == 2
    assert server.transport.ends == []


def test_a_body_without_length_is_chunked_or_ends_with_the_connection() -> None:
    """RFC 9112 §6.3."""
    new, old = Server(), Server()
    new.receive(GET)
    old.receive(b"GET / HTTP/1.0\r\n\r\n")

    for server in (new, old):
        server.connection.write_head(head(length=None), b"", False)
        server.connection.write_body(b"ok", False)
        server.connection.write_body(b"", True)

    assert new.transport.sent.endswith(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert new.transport.ends == []
    assert old.transport.sent.endswith(b"\r\n\r\nok")
    assert old.transport.ends == ["shutdown"]


def test_trailers_go_out_where_the_framing_can_carry_them() -> None:
    """RFC 9110 §6.5.1."""
    chunked, length = Server(), Server()
    trailer = Field(b"x-sum", b"1", 0, b"X-Sum: 1")
    for server, size in ((chunked, None), (length, 2)):
        server.receive(GET)
        server.connection.write_head(head(length=size), b"", False)
        server.connection.write_body(b"ok", False)
        server.connection.write_trailers([trailer])

    assert chunked.transport.sent.endswith(b"0\r\nX-Sum: 1\r\n\r\n")
    assert length.transport.sent.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_some_answers_have_no_body(method: bytes, status: int) -> None:
    """RFC 9112 §6.3, rules 1 and 2."""
    server = Server()
    server.receive(method + GET[3:])

    server.connection.write_whole(head(status), b"", b"")

    assert server.transport.sent.endswith(b"\r\n\r\n")
    server.receive(GET)
    assert len(server.exchanges) == 2


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_interim_responses_go_to_those_who_know_them(version: bytes) -> None:
    """RFC 9110 §15.2."""
    server = Server()
    server.receive(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)

    server.connection.write_interim(head(103, None))

    assert bool(server.transport.sent) == (version == b"1.1")


def test_an_old_peer_that_asks_for_it_is_kept() -> None:
    server = Server()
    server.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    answer(server)

    assert b"Connection: keep-alive" in server.transport.sent
    assert server.transport.ends == []


def test_a_peer_that_asks_for_the_end_gets_it() -> None:
    server = Server()
    server.receive(GET_CLOSE)

    answer(server)

    assert b"Connection: close" in server.transport.sent
    assert server.transport.ends == ["close"]
    assert server.closed == 1


def test_a_peer_that_asked_for_the_end_but_has_not_all_of_it_yet_is_waited_for() -> None:
    """RFC 9112 §9.6: a reset would destroy what is on its way."""
    server = Server()
    server.transport.acknowledged = False
    server.receive(GET_CLOSE)

    answer(server)
    server.receive(b"GET /late HTTP/1.1\r\n")

    assert server.transport.ends == ["shutdown"]
    server.connection.eof_received()
    assert server.transport.ends == ["shutdown", "close"]


def test_an_early_answer_lingers_for_what_still_comes() -> None:
    """RFC 9112 §9.6."""
    server = Server()
    server.receive(POST)
    answer(server)
    assert b"Connection: close" in server.transport.sent
    assert server.transport.ends == ["shutdown"]
    server.receive(b"abc")

    server.loop.advance(LINGER_S)

    assert server.transport.ends == ["shutdown", "close"]


def test_lingering_ends_with_too_many_bytes() -> None:
    server = Server()
    server.receive(POST)
    server.connection.close_after_response()
    answer(server)

    server.receive(b"x" * (LINGER_BYTES + 1))

    assert server.transport.ends == ["shutdown", "close"]


def test_reset_ends_in_the_middle_and_the_exchange_hears_nothing() -> None:
    """RFC 9112 §9.6: what stands before it on the connection must arrive, so no RST where the framing shows the cut."""
    server = Server()
    server.receive(GET)
    server.connection.write_head(head(length=9), b"", False)
    server.connection.write_body(b"abc", False)

    server.connection.reset()

    assert server.transport.sent.endswith(b"\r\n\r\nabc")
    assert server.transport.ends == ["shutdown"]
    assert server.transport.truncates
    assert server.exchange.names == ["head_received"]


def test_reset_cuts_where_the_end_would_be_that_of_the_message() -> None:
    """RFC 9112 §8: a body that ends with the connection is whole when the connection ends in order."""
    server = Server()
    server.receive(b"GET / HTTP/1.0\r\n\r\n")
    server.connection.write_head(ResponseHead(200, b"OK", [], None), b"", False)

    server.connection.reset()

    assert server.transport.ends == ["abort"]


def test_a_response_of_which_nothing_has_left_can_be_taken_back() -> None:
    """House §7: then a failure is still a local reply."""
    server = Server()
    server.receive(GET)
    server.connection.write_head(head(length=9), b"", False)
    server.connection.write_body(b"abc", False)

    assert server.connection.take_back()

    answer(server)
    assert server.transport.sent.count(b"HTTP/1.1 ") == 1
    assert b"abc" not in server.transport.sent


def test_a_response_of_which_something_has_left_cannot_be_taken_back() -> None:
    server = Server()
    server.receive(GET)
    server.connection.write_head(head(length=9), b"", False)
    server.connection.flush()
    server.connection.write_body(b"abc", False)

    assert not server.connection.take_back()
    server.connection.flush()
    assert not server.connection.take_back()


# --- pipelining


def test_pipelined_requests_are_answered_in_order_from_the_loop() -> None:
    """Threat E3."""
    server = Server()
    server.receive(GET + GET + GET_CLOSE)
    for count in (1, 2, 3):
        assert len(server.exchanges) == count
        answer(server)
        assert len(server.exchanges) == count, "never from the stack"
        server.loop.turn()

    assert server.transport.ends == ["close"]


def test_bytes_behind_a_body_are_the_next_request() -> None:
    server = Server()
    server.receive(POST + b"abc" + GET)
    answer(server)
    server.loop.turn()

    assert [exchange.body for exchange in server.exchanges] == [b"abc", b""]


def test_reading_stops_while_too_much_waits_behind() -> None:
    server = Server()
    server.receive(GET)

    server.receive(b"x" * (PIPELINE_BYTES + 1))

    assert not server.transport.reading


@pytest.mark.parametrize("message", [GET, POST + b"abc"])
def test_a_pipeline_without_end_is_read_no_further_than_the_ceiling(message: bytes) -> None:
    """Also of a peer that takes every answer: each exchange would else let another piece in (threat E3)."""
    server = Server()
    piece = message * (16384 // len(message) + 1)
    kept = []
    for _ in range(200):
        if server.transport.reading:
            server.receive(piece)
        answer(server)
        server.loop.turn()
        kept.append(len(server.connection._buffer))

    assert max(kept) <= PIPELINE_BYTES + 2 * len(piece)
    assert len(server.exchanges) > 190


def test_a_piece_that_is_all_pipeline_stops_the_reading_at_once() -> None:
    """A burst of a bulk transfer may end in 128 KiB of further requests."""
    server = Server()

    server.receive(POST + b"abc" + GET * (2 * PIPELINE_BYTES // len(GET)))

    assert not server.transport.reading


def test_a_peer_that_does_not_take_its_answers_gets_no_more() -> None:
    server = Server()
    server.receive(GET + GET)
    server.transport.stall()
    answer(server)
    server.loop.turn()
    assert len(server.exchanges) == 1

    server.transport.drain()
    server.loop.turn()

    assert len(server.exchanges) == 2


def test_a_bug_in_the_next_exchange_ends_its_connection_alone() -> None:
    """Threat E8."""
    server = Server()
    server.receive(GET + GET)
    answer(server)

    def broken(_: object) -> Any:
        raise ZeroDivisionError

    server.new_exchange = broken  # type: ignore[method-assign]
    server.loop.turn()

    assert len(server.transport.crashes) == 1
    assert server.closed == 1


# --- ends of the peer's direction


def test_half_close_behind_a_request_is_answered_in_the_clear() -> None:
    """RFC 9112 §9.6."""
    server = Server()
    server.receive(GET + GET)
    server.connection.eof_received()
    answer(server)
    server.loop.turn()
    assert server.transport.ends == []

    answer(server)

    assert server.transport.sent.count(b"200 OK") == 2
    assert server.transport.ends[-1] == "close"


def test_half_close_behind_one_request_is_answered_too() -> None:
    server = Server()
    server.receive(GET)
    server.connection.eof_received()

    answer(server)

    assert b"Connection: close" in server.transport.sent
    assert server.transport.ends == ["close"]


def test_the_end_behind_a_request_is_a_departure_on_tls() -> None:
    server = Server(tls=True)
    server.receive(GET)

    server.connection.eof_received()

    assert server.exchange.error.detail == "downstream_closed"
    assert server.transport.ends == ["close"]


def test_the_end_inside_a_body_is_a_departure() -> None:
    server = Server()
    server.receive(POST + b"a")

    server.connection.eof_received()

    assert server.exchange.error.detail == "request_truncated"


@pytest.mark.parametrize("tls", [False, True])
def test_the_end_inside_a_head_is_said_where_it_can_be_heard(tls: bool) -> None:  # noqa: FBT001
    server = Server(tls=tls)
    server.receive(b"GET / HT")

    server.connection.eof_received()

    assert len(server.exchanges) == (not tls)
    if not tls:
        assert server.exchange.error.detail == "head_truncated"


def test_the_end_of_an_idle_connection_is_its_end() -> None:
    server = Server()

    server.connection.eof_received()

    assert server.transport.ends == ["close"]


@pytest.mark.parametrize(
    ("rest", "detail"), [(b"GET / HT", "head_truncated"), (POST + b"a", "request_truncated")]
)
def test_the_end_inside_a_pipelined_request_is_seen_when_its_turn_comes(
    rest: bytes, detail: str
) -> None:
    server = Server()
    server.receive(GET + rest)
    server.connection.eof_received()

    answer(server)
    server.loop.turn()

    assert server.exchange.error.detail == detail


@pytest.mark.parametrize(
    ("error", "detail"), [(None, "downstream_closed"), (OSError(), "downstream_reset")]
)
def test_a_lost_connection_is_told_once(error: BaseException | None, detail: str) -> None:
    server = Server()
    server.receive(GET)

    server.transport.break_(error)

    assert server.exchange.error.detail == detail
    assert server.closed == 1


# --- tunnels


def test_an_upgrade_opens_both_directions_until_both_have_ended() -> None:
    """RFC 9110 §7.8."""
    server = Server()
    server.receive(UPGRADE)
    server.connection.write_head(head(101, None), b"", False)
    server.connection.flush()
    server.receive(b"up")
    server.connection.write_body(b"down", False)
    server.connection.write_body(b"", True)
    assert server.transport.ends == ["shutdown"]

    server.connection.eof_received()

    assert server.exchange.body == b"up"
    assert server.transport.sent.endswith(b"\r\n\r\ndown")
    assert server.transport.ends == ["shutdown", "close"]


def test_what_stood_behind_a_connect_is_the_tunnel_s() -> None:
    """RFC 9110 §9.3.6."""
    server = Server()
    server.receive(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nearly")
    assert server.exchange.body == b""
    server.connection.write_head(head(200, None), b"", False)
    server.receive(b"er")
    server.connection.eof_received()

    server.loop.turn()

    assert server.exchange.body == b"earlyer"
    assert server.exchange.ended
    server.connection.write_body(b"", True)
    assert server.transport.ends == ["shutdown", "close"]


def test_a_refused_connect_is_an_ordinary_answer_and_the_end() -> None:
    server = Server()
    server.receive(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")

    answer(server)

    assert b"Connection: close" in server.transport.sent
    assert server.transport.ends == ["shutdown"], (
        "it may have spoken already: no reset of the answer"
    )


# --- deadlines


def test_an_idle_connection_is_closed_in_time() -> None:
    server = Server(idle_timeout_s=75)

    server.loop.advance(74.9)
    assert server.transport.ends == []
    server.loop.advance(0.2)

    assert server.transport.ends == ["close"]


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\n\r\n", b"GE"])
def test_what_is_no_request_behind_one_does_not_switch_deadlines_off(behind: bytes) -> None:
    """RFC 9112 §2.2: old clients send an empty line behind a body; it begins no request."""
    server = Server(idle_timeout_s=75, head_timeout_s=10)
    server.receive(GET + behind)
    answer(server)
    server.loop.turn()

    server.loop.advance(75.1)

    if behind == b"GE":
        assert server.exchange.error.detail == "head_timeout"
    else:
        assert server.transport.ends == ["close"]


def test_a_slow_head_is_answered_with_408() -> None:
    server = Server(head_timeout_s=10)
    server.receive(b"GET")

    server.loop.advance(10.1)

    assert server.exchange.error.detail == "head_timeout"


@pytest.mark.parametrize("paused", [False, True])
def test_a_body_must_come_at_a_rate_unless_it_is_us_who_do_not_read(
    paused: bool,  # noqa: FBT001
) -> None:
    """Threat E1."""
    server = Server(body_min_rate=500)
    server.receive(CHUNKED + b"1\r\na\r\n")
    if paused:
        server.connection.pause_body()

    server.loop.advance(20.1)

    assert ("head_refused" in server.exchange.names) == (not paused)
    if not paused:
        assert server.exchange.error.detail == "body_too_slow"


def test_a_body_that_comes_fast_enough_is_watched_on() -> None:
    server = Server(body_min_rate=0.5)
    server.receive(CHUNKED)
    for _ in range(3):
        server.receive(b"8\r\n12345678\r\n")
        server.loop.advance(20.1)
    server.loop.advance(20.1)

    assert server.exchange.error.detail == "body_too_slow"


def test_who_waits_for_100_is_not_slow() -> None:
    """RFC 9110 §10.1.1."""
    server = Server()
    server.receive(POST[:-2] + b"Expect: 100-continue\r\n\r\n")

    server.loop.advance(60)

    assert server.exchange.names == ["head_received"]


def test_the_body_s_time_begins_with_the_100() -> None:
    """RFC 9110 §10.1.1: another 1xx does not end the wait, and the 100 needs its time to arrive."""
    server = Server()
    server.receive(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    server.connection.write_interim(head(103, None))
    server.loop.advance(39)
    server.connection.write_interim(head(100, None))

    server.loop.advance(19)
    assert server.exchange.names == ["head_received"]

    server.loop.advance(2)
    assert server.exchange.names == ["head_received", "head_refused"]


def test_without_a_minimum_a_body_may_take_its_time() -> None:
    server = Server(body_min_rate=None)
    server.receive(POST)

    server.loop.advance(600)

    assert server.exchange.names == ["head_received"]


def test_a_peer_that_takes_nothing_is_cut() -> None:
    server = Server(write_timeout_s=30)
    server.receive(GET)
    server.connection.write_head(head(length=None), b"", False)
    server.transport.stall()
    server.connection.write_body(b"x", False)
    server.connection.flush()

    server.loop.advance(29)
    server.transport.progress += 1
    server.loop.advance(2)
    assert server.transport.ends == []
    server.loop.advance(30)

    assert server.exchange.error.detail == "write_timeout"
    assert server.transport.ends == ["abort"]


def test_a_peer_that_has_caught_up_is_not() -> None:
    server = Server(write_timeout_s=30)
    server.receive(GET)
    server.connection.write_head(head(length=None), b"", False)
    server.transport.stall()
    server.connection.flush()
    server.transport.drain()

    server.loop.advance(40)

    assert server.exchange.names == ["head_received", "writable"]


def test_the_exchange_s_deadline_is_told_once() -> None:
    server = Server()
    server.receive(GET)
    server.connection.set_deadline(server.loop.time() + 15)

    server.loop.advance(100)

    assert server.exchange.names == ["head_received", "deadline_passed"]


def test_an_aged_connection_takes_one_more_request_and_says_close() -> None:
    server = Server(max_age_s=100, idle_timeout_s=1000)
    server.receive(GET)
    server.loop.advance(101)
    answer(server)
    server.receive(GET)
    answer(server)

    assert server.transport.sent.count(b"Connection: close") == 1


def test_an_aged_connection_waits_only_a_moment() -> None:
    server = Server(max_age_s=100, idle_timeout_s=1000)
    server.receive(GET)
    server.loop.advance(101)
    answer(server)

    server.loop.advance(AGED_IDLE_S + 0.1)

    assert server.transport.ends[-1] == "close"


# --- after the exchange has left


def test_what_comes_for_an_exchange_that_has_left_is_thrown_away() -> None:
    server = Server()
    server.receive(POST)
    server.connection._events = None

    server.receive(b"abc")

    assert server.exchange.names == ["head_received"]


@pytest.mark.parametrize("rest", [b"0\r\nX-Sum: 1\r\n\r\n", b"x\r\n"])
def test_so_are_trailers_and_what_cannot_be_understood(rest: bytes) -> None:
    server = Server()
    server.receive(CHUNKED)
    server.connection._events = None

    server.receive(rest)

    assert server.exchange.names == ["head_received"]


def test_a_tunnel_whose_exchange_has_left_ends_in_silence() -> None:
    server = Server()
    server.receive(UPGRADE)
    server.connection.write_head(head(101, None), b"", False)
    server.connection._events = None

    server.connection.eof_received()
    server.connection.write_body(b"", True)

    assert server.transport.ends == ["shutdown", "close"]


def test_a_bug_in_a_tunnel_s_first_bytes_ends_its_connection_alone() -> None:
    """Threat E8."""
    server = Server()
    server.receive(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nearly")
    server.connection.write_head(head(200, None), b"", False)

    def broken(chunk: bytes, end: bool) -> None:  # noqa: FBT001
        raise ZeroDivisionError

    server.exchange.body_received = broken  # type: ignore[method-assign]
    server.loop.turn()

    assert len(server.transport.crashes) == 1


def test_bytes_behind_those_of_a_tunnel_stay_behind_them() -> None:
    server = Server()
    server.receive(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n1")
    server.connection.write_head(head(200, None), b"", False)
    server.receive(b"2")

    server.loop.turn()

    assert server.exchange.body == b"12"


def test_an_old_alarm_of_a_closed_connection_does_nothing() -> None:
    server = Server()
    server.connection._phase_at = server.loop.time()
    server.connection._alarm_fired()

    assert server.transport.ends == ["close"]
    server.connection._next_pipelined()
    assert server.exchanges == []


# --- drain


def test_drain_closes_an_idle_connection_and_lets_a_busy_one_answer() -> None:
    idle, busy, unread = Server(), Server(), Server()
    busy.receive(GET)
    unread.transport.quiet = False

    for server in (idle, busy, unread):
        server.connection.drain()

    assert idle.transport.ends == ["close"]
    assert busy.transport.ends == unread.transport.ends == []
    answer(busy)
    assert b"Connection: close" in busy.transport.sent


def test_drain_lets_a_head_arrive_whose_first_half_the_look_at_tls_finds() -> None:
    server = Server(tls=True)
    transport = server.transport
    transport.is_quiet = lambda: server.receive(GET[:10]) is None  # type: ignore[method-assign]

    server.connection.drain()

    assert transport.ends == []
    server.receive(GET[10:])
    answer(server)
    assert b"Connection: close" in transport.sent


def test_abort_is_told_to_the_exchange() -> None:
    server = Server()
    server.receive(GET)

    server.connection.abort()

    assert server.exchange.error.detail == "drain_forced"
    assert repr(server.connection).startswith("ServerConnection(phase ")


def test_a_closed_connection_does_not_wait_for_the_collector() -> None:
    """It owns alarms that call it: a cycle, each of some KB, that only the rare collector would find."""
    server = Server()
    server.receive(POST + b"a")  # a body that takes more than one read
    server.transport.stall()
    answer(server)
    counts = [sys.getrefcount(server.connection)]

    server.transport.break_(None)
    counts.append(sys.getrefcount(server.connection))

    # What is left: the helper's own reference, the transport's receiver, and the argument of getrefcount.
    gc.collect()
    references = [one for one in gc.get_referrers(server.connection) if type(one) is MethodType]
    assert counts[1] < counts[0]
    assert references == []
