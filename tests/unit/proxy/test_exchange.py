"""What an exchange does beyond its table: attempts, held bodies, tunnels, back-pressure, deadlines, local replies."""

from __future__ import annotations

import pytest

from ambassador.config.model import RouteSettings
from ambassador.core.errors import (
    AccessDenied,
    ConnectFailed,
    DownstreamClosed,
    DownstreamProtocolError,
    ExchangeError,
    NoHealthyUpstream,
    Phase,
    UpstreamClosed,
    UpstreamReset,
)
from ambassador.core.model import DATE, IDENTITY, Field, ResponseHead
from ambassador.upstream.service import Service
from ambassador.wire.lifecycle import RequestSide, ResponseSide
from tests.support.streams import RecordingStream
from tests.unit.proxy.make import Scene, answer

REFUSED = ConnectFailed("connect_refused", "Nobody listens.")
STALE = UpstreamClosed("closed_before_response")


class Emptied:
    """A service that has endpoints no more."""

    def __init__(self, service: Service) -> None:
        self.endpoints = service.endpoints
        self.name = service.name
        self.breaker = service.breaker
        self.hashes = False

    def pick(self, tried: object, key: object) -> None: ...

    def untried(self, tried: object) -> int:
        return 1

    def exhausted(self) -> ExchangeError:
        return NoHealthyUpstream("no_endpoint", "gone")


# --- attempts


def test_a_request_on_an_idle_connection_goes_out_at_once() -> None:
    scene = Scene()

    scene.send()

    assert scene.upstream.names == ["write_head"]
    assert scene.upstream.ended
    assert scene.upstream.extra == (
        b"X-Request-Id: 1\r\nX-Envoy-Expected-Rq-Timeout-Ms: 15000\r\nX-Envoy-Attempt-Count: 1\r\n"
    )
    assert scene.exchange.upstream_peer == scene.upstream.peer_text
    assert scene.pools[0].checked == [False], "policy.retry mends the race"


@pytest.mark.parametrize(("method", "end"), [(b"POST", True), (b"PUT", False)])
def test_what_cannot_be_sent_twice_looks_at_the_socket_first(method: bytes, *, end: bool) -> None:
    """House §7, Retries with bodies."""
    scene = Scene()

    scene.send(method, end=end)

    assert scene.pools[0].checked == [True]


def test_a_dead_kept_connection_is_made_up_for_once_by_a_fresh_one() -> None:
    """RFC 9112 §9.3.1."""
    scene = Scene()
    scene.send()
    scene.exchange.attempt_failed(STALE)
    assert scene.upstream.names == ["write_head", "abandon"]
    assert scene.pools[0].checked == [False], "no look at other kept ones: they may be as dead"

    scene.upstream.take()
    scene.connect()
    scene.exchange.attempt_failed(STALE)

    assert scene.downstream.head.status == 503
    assert (scene.exchange.attempts, len(scene.exchange.tried)) == (2, 1)
    assert scene.exchange.phase is Phase.WAIT


def test_the_next_endpoint_follows_a_failed_connect() -> None:
    scene = Scene(endpoints=2, warm=False)
    scene.send(b"POST")
    first = scene.exchange.tried[0]

    scene.fail_to_connect(REFUSED, at=scene.service.endpoints.index(first))

    second = scene.exchange.tried[1]
    assert second is not first
    assert first.shunned_until > scene.clock.monotonic()
    scene.connect(scene.service.endpoints.index(second))
    scene.exchange.response_head(answer(length=0), True)
    assert (scene.exchange.status, scene.exchange.attempts) == (200, 2)
    assert [state.outstanding for state in scene.service.endpoints] == [0, 0]


def test_when_all_endpoints_refuse_the_last_reason_is_said() -> None:
    scene = Scene(warm=False)
    scene.send()

    scene.fail_to_connect(REFUSED)

    assert scene.downstream.head.status == 503
    assert (
        b"X-Ambassador-Flags: UF\r\nX-Ambassador-Detail: connect_refused" in scene.downstream.extra
    )
    assert scene.downstream.body == b"Nobody listens.\n"
    assert scene.exchange.phase is Phase.CONNECT


def test_a_service_whose_endpoints_are_all_tried_has_none_left() -> None:
    scene = Scene(warm=False)
    scene.exchange.tried = scene.service.endpoints

    scene.send()

    assert scene.downstream.head.status == 503
    assert b"X-Ambassador-Flags: UH" in scene.downstream.extra


def test_endpoints_that_went_away_meanwhile_leave_the_first_reason() -> None:
    scene = Scene(endpoints=2, warm=False)
    scene.send()
    first = scene.service.endpoints.index(scene.exchange.tried[0])
    scene.target.service = Emptied(scene.service)  # type: ignore[assignment]

    scene.fail_to_connect(REFUSED, at=first)

    assert b"X-Ambassador-Detail: connect_refused" in scene.downstream.extra


def test_a_failure_of_nobody_s_attempt_changes_nothing() -> None:
    scene = Scene()

    scene.exchange.attempt_failed(REFUSED)

    assert scene.downstream.calls == []
    assert scene.endpoint.shunned_until == 0


def test_an_error_without_status_is_a_cut() -> None:
    """A peer that has gone is logged with status 0."""
    scene = Scene()
    scene.send()

    scene.exchange.head_refused(DownstreamClosed("downstream_closed"))

    assert scene.downstream.names == ["reset"]
    assert scene.exchange.status == 0


def test_a_dial_that_is_not_needed_any_more_is_cancelled() -> None:
    scene = Scene(warm=False)
    scene.send()

    scene.exchange.stream_reset(DownstreamClosed("downstream_closed"))

    assert scene.pools[0].dials[0][1].waiter is None
    assert scene.connect().calls == []
    assert scene.downstream.calls == []
    assert scene.exchange.status == 0


# --- bodies before the connection


def test_a_body_waits_for_the_connection_and_nothing_more_is_read() -> None:
    scene = Scene(warm=False)
    scene.send(b"POST", end=False)
    scene.exchange.body_received(b"ab", False)
    scene.exchange.body_received(b"c", False)
    assert scene.downstream.names == ["pause_body"]

    scene.connect()

    assert scene.upstream.names == ["write_head", "write_body", "flush"]
    assert scene.upstream.body == b"abc"
    assert not scene.upstream.ended
    assert scene.downstream.names == ["pause_body", "resume_body"]


def test_a_body_that_ended_meanwhile_goes_out_whole() -> None:
    scene = Scene(warm=False)
    scene.send(b"POST", end=False)
    scene.exchange.body_received(b"ab", True)

    scene.connect()

    assert scene.upstream.calls[1:] == [("write_body", b"ab", True)]


def test_trailers_wait_like_the_body_before_them() -> None:
    scene = Scene(warm=False)
    scene.send(b"POST", end=False)
    scene.exchange.body_received(b"ab", False)
    trailer = Field(b"x-sum", b"1", 0, b"X-Sum: 1")
    scene.exchange.trailers_received([trailer])

    scene.connect()

    assert scene.upstream.calls[1:] == [
        ("write_body", b"ab", False),
        ("write_trailers", [trailer]),
    ]


def test_trailers_are_sanitised_and_end_the_request() -> None:
    """Threat A2: identity in a trailer."""
    scene = Scene()
    scene.send(b"POST", end=False)
    good = Field(b"x-sum", b"1", 0, b"X-Sum: 1")
    bad = Field(b"x-forwarded-for", b"1", IDENTITY, b"X-Forwarded-For: 1")

    scene.exchange.trailers_received([good, bad])
    scene.exchange.trailers_received([good])

    assert scene.upstream.calls[1:] == [("write_trailers", [good])]
    assert scene.exchange.request_side is RequestSide.COMPLETE


def test_a_slow_connection_keeps_the_held_body_s_sender_waiting() -> None:
    scene = Scene(warm=False)
    scene.send(b"POST", end=False)
    scene.exchange.body_received(b"ab", False)
    scene.upstream.full = True
    scene.connect()
    assert scene.downstream.names == ["pause_body"]

    scene.exchange.upstream_writable()
    scene.exchange.upstream_writable()

    assert scene.downstream.names == ["pause_body", "resume_body"]


# --- back-pressure


def test_a_slow_upstream_pauses_downstream_once() -> None:
    scene = Scene()
    scene.send(b"POST", end=False)
    scene.upstream.full = True

    scene.exchange.body_received(b"x", False)
    scene.exchange.body_received(b"x", False)
    scene.exchange.read_finished()

    assert scene.downstream.names == ["pause_body"]


def test_a_slow_downstream_pauses_upstream_until_it_is_writable() -> None:
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(), False)
    scene.downstream.full = True

    scene.exchange.response_body(b"x", False)
    scene.exchange.response_burst_over()
    scene.exchange.writable()

    assert scene.upstream.names[1:] == ["pause_body", "pause_body", "resume_body"]


def test_bursts_and_space_mean_nothing_when_there_is_nobody() -> None:
    scene = Scene(warm=False)
    scene.send()
    scene.exchange.read_finished()
    scene.exchange.writable()
    scene.exchange.response_burst_over()
    scene.exchange.upstream_writable()
    scene.exchange.response_trailers([])

    assert scene.take() == ([], [])


# --- responses


def test_our_lines_and_a_missing_date_are_added() -> None:
    """RFC 9110 §6.6.1."""
    scene = Scene()
    scene.send()

    scene.exchange.response_head(answer(length=0), True)

    assert scene.downstream.extra == b"Via: 1.1 us\r\nDate: Fri, 15 Jan 2027 08:00:00 GMT\r\n"


@pytest.mark.parametrize("version", [10, 11])
def test_a_response_in_one_piece_is_the_same_as_in_two(version: int) -> None:
    scene = Scene()
    scene.send()
    spoof = Field(b"x-ambassador-flags", b"UF", IDENTITY, b"X-Ambassador-Flags: UF")
    head = ResponseHead(200, b"OK", [spoof], 2, IDENTITY | DATE, version)

    scene.clock.advance(0.25)
    scene.exchange.response_whole(head, b"ok")
    scene.exchange.response_whole(head, b"ok")

    assert scene.downstream.names == ["write_head", "write_body"]
    assert scene.downstream.head.fields == []
    via = b"Via: 1.0 us\r\n" if version == 10 else b"Via: 1.1 us\r\n"
    assert scene.downstream.extra == via, "RFC 9110 §7.6.3: the version that was received"
    assert (scene.exchange.bytes_sent, scene.exchange.upstream_s) == (2, 0.25)
    assert scene.upstream.names == ["write_head", "release"]


def test_response_trailers_are_sanitised_and_end_the_exchange() -> None:
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(), False)
    bad = Field(b"x-ambassador-flags", b"UF", IDENTITY, b"X-Ambassador-Flags: UF")

    scene.exchange.response_trailers([bad])

    assert scene.downstream.calls[-1] == ("write_trailers", [])
    assert scene.upstream.names[-1] == "release"
    assert scene.exchange.response_side is ResponseSide.ENDED


def test_a_failure_after_the_head_is_a_cut() -> None:
    """House §7: truncation must be seen."""
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(length=5), False)

    scene.exchange.attempt_failed(UpstreamReset("reset_in_response"))

    assert scene.downstream.names == ["write_head", "reset"]
    assert (scene.exchange.status, scene.exchange.phase) == (200, Phase.RELAY)


# --- tunnels


def test_an_upgrade_goes_on_in_both_directions_until_both_have_ended() -> None:
    """RFC 9110 §7.8."""
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(101), False)
    scene.exchange.body_received(b"up", False)
    scene.exchange.response_body(b"down", False)
    scene.exchange.body_received(b"", True)
    assert not scene.door.ended

    scene.exchange.response_body(b"", True)

    assert scene.upstream.body == b"up"
    assert scene.downstream.body == b"down"
    assert scene.door.ended == [scene.exchange]
    assert (scene.exchange.status, scene.exchange.error) == (101, None)


def test_the_far_side_may_end_a_tunnel_first() -> None:
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(101), False)
    scene.exchange.response_body(b"", True)
    assert not scene.door.ended

    scene.exchange.body_received(b"bye", True)

    assert scene.upstream.calls[-2:] == [("write_body", b"bye", True), ("release",)]
    assert len(scene.door.ended) == 1


def test_a_half_closed_tunnel_that_breaks_is_a_cut() -> None:
    scene = Scene()
    scene.send()
    scene.exchange.response_head(answer(101), False)
    scene.exchange.response_body(b"", True)

    scene.exchange.attempt_failed(UpstreamReset("tunnel_reset"))

    assert scene.downstream.names[-1] == "reset"
    assert len(scene.door.ended) == 1


def test_connect_dials_a_connection_of_its_own_and_then_says_200() -> None:
    """RFC 9110 §9.3.6."""
    scene = Scene()
    scene.send(b"CONNECT", end=False)
    assert scene.downstream.names == ["pause_body"]
    scene.exchange.body_received(b"hello", False)

    waiter, _ = scene.pools[0].raw_dials[0]
    waiter.raw_connection_ready(scene.upstream)

    assert scene.pools[0].checked == []
    assert scene.downstream.names == ["pause_body", "write_head", "flush", "resume_body"]
    assert scene.downstream.head.status == 200
    assert scene.upstream.calls == [("start",), ("write_body", b"hello", False)]


def test_a_connect_whose_sender_has_gone_is_not_answered() -> None:
    scene = Scene()
    scene.send(b"CONNECT", end=False)
    scene.exchange.stream_reset(DownstreamClosed("downstream_closed"))

    scene.pools[0].raw_dials[0][0].raw_connection_ready(scene.upstream)

    assert scene.upstream.calls == []


def test_a_connect_that_has_ended_meanwhile_is_half_closed_at_once() -> None:
    scene = Scene()
    scene.send(b"CONNECT", end=False)
    scene.exchange.body_received(b"", True)

    scene.pools[0].raw_dials[0][0].raw_connection_ready(scene.upstream)

    assert scene.upstream.calls == [("start",), ("write_body", b"", True)]


def test_a_tunnel_may_have_more_bytes_than_a_body() -> None:
    scene = Scene(settings=RouteSettings(max_body=3))
    scene.send()
    scene.exchange.response_head(answer(101), False)

    scene.exchange.body_received(b"longer", False)

    assert scene.upstream.body == b"longer"


# --- refusals


def test_a_body_above_the_ceiling_is_refused_by_its_length() -> None:
    scene = Scene(settings=RouteSettings(max_body=3))

    scene.send(b"POST", end=False, length=4)

    assert scene.downstream.head.status == 413
    assert scene.upstream.calls == []


def test_a_body_above_the_ceiling_is_refused_while_it_comes() -> None:
    scene = Scene(settings=RouteSettings(max_body=3))
    scene.send(b"POST", end=False)

    scene.exchange.body_received(b"four", False)

    assert scene.downstream.names == ["close_after_response", "write_head", "write_body"]
    assert scene.downstream.head.status == 413
    assert scene.upstream.names == ["write_head", "abandon"]


def test_a_full_process_takes_no_more_bodies() -> None:
    """Threat E6."""
    scene = Scene()
    scene.budget.used = 2048

    scene.send(b"POST", end=False)

    assert scene.downstream.head.status == 503
    assert b"X-Ambassador-Detail: buffers" in scene.downstream.extra


def test_a_stranger_gets_the_bare_status() -> None:
    """House §4."""
    scene = Scene(remote=True)
    scene.door.refusal = AccessDenied("no_rule", "not for you")

    scene.send()

    assert scene.downstream.names == ["write_head"]
    assert b"Ambassador" not in scene.downstream.extra
    assert scene.downstream.body == b""


def test_the_answer_to_head_has_no_body() -> None:
    """RFC 9110 §9.3.2."""
    scene = Scene(warm=False)
    scene.send(b"HEAD")

    scene.fail_to_connect(REFUSED)

    assert scene.downstream.body == b""
    assert scene.downstream.head.content_length == len("Nobody listens.\n")


def test_what_could_not_be_understood_is_answered_without_a_route() -> None:
    scene = Scene()

    scene.exchange.head_refused(DownstreamProtocolError("bad_request_line"))

    assert scene.downstream.names == ["close_after_response", "write_head", "write_body"]
    assert scene.exchange.phase is Phase.HEAD
    scene.exchange.deadline_passed()
    assert len(scene.door.ended) == 1


def test_a_bug_of_ours_is_500_and_reported() -> None:
    scene = Scene()
    scene.door.refusal = ZeroDivisionError()

    scene.send()

    assert scene.downstream.head.status == 500
    assert len(scene.crashes) == 1


def test_a_call_that_calls_back_ends_the_exchange_once() -> None:
    """House §7: change state first, call out last."""
    scene = Scene()
    scene.send()
    scene.downstream.call_back["write_head"] = lambda: scene.exchange.stream_reset(
        DownstreamClosed("downstream_reset")
    )

    scene.exchange.response_head(answer(), False)

    assert len(scene.door.ended) == 1
    assert scene.endpoint.outstanding == 0


def test_a_split_chooses_by_chance() -> None:
    scene = Scene()
    scene.route.only_target = None

    scene.send()

    assert scene.exchange.target is scene.target


# --- deadlines


def test_a_silent_upstream_is_504() -> None:
    scene = Scene(settings=RouteSettings(timeout_s=15))
    scene.send()
    assert scene.downstream.deadline == scene.clock.monotonic() + 15
    scene.clock.advance(15)

    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504
    assert scene.exchange.phase is Phase.WAIT


def test_a_deadline_that_has_moved_is_set_anew() -> None:
    scene = Scene(settings=RouteSettings(body_idle_timeout_s=5))
    scene.send(b"POST", end=False)
    scene.clock.advance(3)
    scene.exchange.read_finished()
    scene.clock.advance(2)

    scene.exchange.deadline_passed()

    assert scene.downstream.deadline == scene.clock.monotonic() + 3
    assert not scene.door.ended


def test_a_body_that_stops_coming_is_the_sender_s_fault() -> None:
    scene = Scene(settings=RouteSettings(body_idle_timeout_s=5))
    scene.send(b"POST", end=False)
    scene.clock.advance(5)

    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 408
    assert scene.exchange.phase is Phase.SEND


def test_no_deadline_when_none_is_wanted() -> None:
    scene = Scene(settings=RouteSettings(timeout_s=None, body_idle_timeout_s=None))
    scene.send()
    scene.exchange.response_head(answer(), False)
    scene.exchange.response_burst_over()

    assert scene.downstream.deadline is None


def test_the_total_counts_from_the_begin() -> None:
    scene = Scene(settings=RouteSettings(total_timeout_s=20))
    scene.send()
    scene.clock.advance(14)
    scene.exchange.response_head(answer(), False)
    scene.exchange.response_burst_over()
    assert scene.downstream.deadline == pytest.approx(scene.clock.monotonic() + 6)
    scene.clock.advance(6)

    scene.exchange.deadline_passed()

    assert scene.downstream.names[-1] == "reset"
    assert scene.exchange.error is not None
    assert scene.exchange.error.detail == "total_timeout"


def test_everything_prints_its_state() -> None:
    scene = Scene()
    scene.send()

    assert repr(scene.exchange) == "Exchange(b'GET', COMPLETE, AWAITED)"
    assert repr(scene.exchange.attempt).startswith("Attempt(10.0.0.7:8443")
    assert isinstance(scene.upstream, RecordingStream)
