"""Retries, hedges and deadlines of one exchange: what is sent again, when, where, and what is not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from ambassador.config.model import RouteSettings
from ambassador.core.errors import (
    ConnectFailed,
    DownstreamClosed,
    ExchangeError,
    UpstreamClosed,
    UpstreamReset,
)
from ambassador.core.model import Field, RequestHead, ResponseHead
from ambassador.policy.circuit_breaker import CircuitBreakerSettings
from ambassador.policy.retry import RetrySettings
from tests.support.streams import RecordingStream
from tests.unit.proxy.make import Scene, answer

RETRY = RetrySettings(attempts=3, backoff_base_s=0.1, backoff_max_s=1.0)
REFUSED = ConnectFailed("connect_refused", "Nobody listens.")
RESET = UpstreamReset("reset_before_response", "The connection was reset.")


def retrying(*, endpoints: int = 2, retry: RetrySettings = RETRY, **settings: Any) -> Scene:
    """Give an exchange of a route with `retry`; every endpoint has an idle connection."""
    scene = Scene(settings=RouteSettings(retry=retry, **settings), endpoints=endpoints)
    for pool in scene.pools:
        pool.idle = [RecordingStream()]
    return scene


def current(scene: Scene) -> Any:
    """Give the connection of the running attempt."""
    assert scene.exchange.attempt is not None
    return scene.exchange.attempt.connection


def fail(scene: Scene, error: ExchangeError = RESET) -> None:
    """Let the running attempt fail on a connection that was no stale one."""
    assert scene.exchange.attempt is not None
    scene.exchange.attempt.reused = False
    scene.exchange.attempt_failed(error)


def pause(scene: Scene, seconds: float = 1.0) -> None:
    """Let the back-off pass; whoever is asked next has an idle connection."""
    for pool in scene.pools:
        pool.idle = pool.idle or ([] if pool.dials else [RecordingStream()])
    scene.clock.advance(seconds)
    scene.loop.run()


def with_retry_after(status: int, value: bytes) -> ResponseHead:
    field = Field(b"retry-after", value, 0, b"Retry-After: " + value)
    return ResponseHead(status, b"", [field], 0)


# --- what is repeated


def test_a_reset_is_repeated_after_a_pause_at_another_endpoint() -> None:
    scene = retrying()
    scene.send()
    first = scene.exchange.tried[0]

    fail(scene)
    assert scene.exchange.attempt is None
    pause(scene)

    assert scene.exchange.tried[0] is first
    assert scene.exchange.tried[1] is not first
    assert current(scene).names == ["write_head"]
    current(scene).receiver.response_head(answer(length=0), True)
    assert (scene.exchange.status, scene.exchange.attempts, scene.exchange.error) == (200, 2, None)
    assert scene.target.retries.results == {"ok": 1}
    assert scene.service.breaker.retries == 0


def test_without_retry_a_reset_is_the_answer() -> None:
    scene = Scene(endpoints=2)
    scene.send(b"POST")
    connection = scene.exchange.attempt.connection if scene.exchange.attempt else None
    if connection is None:
        scene.connect(scene.service.endpoints.index(scene.exchange.tried[0]))

    fail(scene)

    assert scene.downstream.head.status == 503
    assert scene.exchange.not_retried == ""


def test_a_listed_status_is_not_relayed_but_repeated_and_its_connection_is_kept() -> None:
    scene = retrying()
    scene.send()
    first = current(scene)

    first.receiver.response_whole(answer(503, length=2), b"no")
    assert first.names == ["write_head", "release"]
    pause(scene)
    current(scene).receiver.response_whole(answer(200, length=2), b"ok")

    assert scene.downstream.head.status == 200
    assert scene.downstream.body == b"ok"


def test_a_listed_status_with_a_body_to_come_costs_its_connection() -> None:
    scene = retrying()
    scene.send()
    first = current(scene)

    first.receiver.response_head(answer(503, length=100), False)

    assert first.names == ["write_head", "abandon"]
    assert scene.downstream.calls == []


def test_the_last_attempt_s_status_is_relayed_and_flagged() -> None:
    """House §4: retries used up, the last attempt's status, + URX."""
    scene = retrying()
    scene.send()

    for _ in range(2):
        current(scene).receiver.response_whole(answer(503, length=2), b"no")
        pause(scene)
    current(scene).receiver.response_whole(answer(503, length=2), b"no")

    assert scene.downstream.head.status == 503
    assert (scene.exchange.mark, scene.exchange.attempts) == ("URX", 3)
    assert scene.exchange.not_retried == "attempts_used"
    assert scene.target.retries.results == {"failed": 2}
    assert scene.target.retries.skipped == {"attempts_used": 1}


def test_a_local_reply_says_that_retries_were_used_up() -> None:
    scene = retrying(retry=replace(RETRY, attempts=2))
    scene.send()

    fail(scene)
    pause(scene)
    fail(scene)

    assert b"X-Ambassador-Flags: UR,URX\r\n" in scene.downstream.extra


def test_when_every_endpoint_has_been_tried_all_but_the_last_one_come_again() -> None:
    """The issue: never the same endpoint while another is eligible."""
    scene = retrying(retry=replace(RETRY, attempts=4))
    scene.send()
    tried = [scene.exchange.tried[-1]]

    for _ in range(3):
        fail(scene)
        pause(scene)
        tried.append(scene.exchange.tried[-1])

    assert all(one is not other for one, other in pairwise(tried))


def test_the_only_endpoint_comes_again() -> None:
    scene = retrying(endpoints=1)
    scene.send()
    scene.pools[0].idle = [RecordingStream()]

    fail(scene)
    pause(scene)

    assert current(scene).names == ["write_head"]


def test_after_every_endpoint_refused_another_round_follows_a_pause() -> None:
    """config.md §3: connect_failure; without `retry` one round is all."""
    scene = retrying()
    for pool in scene.pools:
        pool.idle = []
    scene.send(b"POST")

    for _ in range(2):
        at = scene.service.endpoints.index(scene.exchange.tried[-1])
        scene.fail_to_connect(REFUSED, at=at)
    assert scene.downstream.calls == []
    pause(scene)

    assert sum(len(pool.dials) for pool in scene.pools) == 3


# --- bodies


def test_a_body_is_sent_again_whole() -> None:
    scene = retrying()
    scene.send(b"PUT", end=False, length=4)
    first = current(scene)
    scene.exchange.body_received(b"ab", False)
    scene.exchange.body_received(b"cd", True)
    assert first.body == b"abcd"

    fail(scene)
    pause(scene)

    assert current(scene).body == b"abcd"
    assert current(scene).ended


def test_an_upload_goes_on_behind_the_copy() -> None:
    scene = retrying()
    scene.send(b"PUT", end=False, length=6)
    scene.exchange.body_received(b"ab", False)
    fail(scene)

    scene.exchange.body_received(b"cd", False)
    pause(scene)
    scene.exchange.body_received(b"ef", True)

    assert current(scene).body == b"abcdef"
    assert current(scene).ended


def test_trailers_are_sent_again() -> None:
    scene = retrying()
    scene.send(b"PUT", end=False, length=None)
    scene.exchange.body_received(b"ab", False)
    field = Field(b"x-sum", b"7", 0, b"X-Sum: 7")
    scene.exchange.trailers_received([field])

    fail(scene)
    pause(scene)

    assert ("write_trailers", [field]) in current(scene).calls


def test_a_body_beyond_the_cap_is_sent_once() -> None:
    scene = retrying(retry=replace(RETRY, max_body=3))
    scene.send(b"PUT", end=False, length=4)
    scene.exchange.body_received(b"abcd", True)

    fail(scene)

    assert scene.downstream.head.status == 503
    assert scene.exchange.not_retried == "body_too_large"


# --- what is not repeated


def test_what_is_not_idempotent_is_sent_once_unless_the_route_says_so() -> None:
    """RFC 9110 §9.2.2."""
    careful, bold = retrying(), retrying(retry=replace(RETRY, unsafe_methods=frozenset((b"POST",))))
    for scene in (careful, bold):
        scene.send(b"POST")
        fail(scene)

    assert careful.downstream.head.status == 503
    assert careful.exchange.not_retried == "not_idempotent"
    assert bold.downstream.calls == []


def test_a_response_that_has_begun_is_never_repeated() -> None:
    scene = retrying()
    scene.send()
    current(scene).receiver.response_head(answer(length=10), False)

    scene.exchange.attempt_failed(UpstreamClosed("response_truncated"))

    assert scene.downstream.names[-1] == "reset"


def test_the_budget_is_a_ceiling_of_the_service() -> None:
    """The issue: 20 % of active, at least 3."""
    scene = retrying()
    scene.service.breaker.retries = 3
    scene.send()

    fail(scene)

    assert scene.exchange.not_retried == "budget"
    assert scene.target.retries.skipped == {"budget": 1}
    assert scene.service.breaker.retries == 3


def test_a_pause_that_outlasts_the_deadline_is_not_begun() -> None:
    scene = retrying(timeout_s=2.0)
    scene.send()

    current(scene).receiver.response_whole(with_retry_after(503, b"2"), b"")

    assert scene.exchange.not_retried == "no_time_left"
    assert scene.downstream.head.status == 503


def test_a_server_s_own_pause_is_kept_and_stretched_by_up_to_half() -> None:
    """RFC 9110 §10.2.3; Envoy's rate-limited back-off."""
    scene = retrying(retry=replace(RETRY, statuses=frozenset((429,))))
    scene.send()
    current(scene).receiver.response_whole(with_retry_after(429, b"2"), b"")

    pause(scene, 1.99)
    assert scene.exchange.attempt is None
    pause(scene, 1.02)

    assert scene.exchange.attempt is not None


def test_a_retry_after_may_be_left_unheeded() -> None:
    scene = retrying(retry=replace(RETRY, retry_after=False))
    scene.send()
    current(scene).receiver.response_whole(with_retry_after(503, b"100"), b"")

    pause(scene)

    assert scene.exchange.attempt is not None


def test_a_client_that_goes_in_the_pause_ends_it_all() -> None:
    scene = retrying()
    scene.send()
    fail(scene)

    scene.exchange.stream_reset(UpstreamClosed("x"))
    pause(scene)

    assert scene.exchange.attempts == 1
    assert scene.service.breaker.retries == 0
    assert len(scene.door.ended) == 1


# --- time


def test_a_try_has_the_time_left_by_the_attempts_left() -> None:
    """config.md §3, per_try_timeout; a try that hangs does not take the whole time."""
    scene = retrying(timeout_s=9.0)
    scene.send()
    assert b"X-Envoy-Expected-Rq-Timeout-Ms: 3000\r\n" in current(scene).extra

    scene.clock.advance(3.0)
    scene.exchange.deadline_passed()
    assert scene.exchange.attempt is None
    pause(scene)

    assert scene.exchange.attempts == 2
    assert b"X-Envoy-Attempt-Count: 2\r\n" in current(scene).extra
    assert scene.exchange.target is not None
    assert [state.outlier.failures for state in scene.exchange.tried] == [1, 0]


def test_the_last_try_has_all_that_is_left() -> None:
    scene = retrying(timeout_s=9.0, retry=replace(RETRY, attempts=2))
    scene.send()
    scene.clock.advance(4.5)
    scene.exchange.deadline_passed()
    pause(scene, 0.5)

    scene.clock.advance(3.9)
    scene.exchange.deadline_passed()
    assert scene.downstream.calls == []
    scene.clock.advance(0.2)
    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504
    assert b"X-Ambassador-Detail: response_timeout\r\n" in scene.downstream.extra


def test_a_request_that_cannot_be_repeated_is_not_cut_short() -> None:
    scene = retrying(timeout_s=9.0)
    scene.send(b"POST")

    scene.clock.advance(8.9)
    scene.exchange.deadline_passed()

    assert scene.downstream.calls == []
    assert scene.exchange.attempts == 1


def test_a_time_per_try_that_is_written_down_holds_without_retry_too() -> None:
    scene = Scene(settings=RouteSettings(per_try_timeout_s=1.0))
    scene.send(b"POST")

    scene.clock.advance(1.0)
    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504
    assert b"X-Ambassador-Detail: per_try_timeout\r\n" in scene.downstream.extra


def test_the_time_of_a_try_begins_with_the_end_of_the_request() -> None:
    """config.md §3: timeout is from the last request byte."""
    scene = retrying(per_try_timeout_s=1.0)
    scene.send(b"PUT", end=False, length=2)
    scene.clock.advance(5.0)
    scene.exchange.deadline_passed()
    assert scene.exchange.attempt is not None

    scene.exchange.body_received(b"ab", True)
    scene.clock.advance(1.0)
    scene.exchange.deadline_passed()

    assert scene.exchange.attempt is None


# --- hedges


def hedging(**settings: Any) -> Scene:
    scene = Scene(settings=RouteSettings(hedge_after_s=0.5, **settings), endpoints=2)
    for pool in scene.pools:
        pool.idle = [RecordingStream()]
    return scene


def test_a_late_answer_is_asked_for_at_a_second_endpoint_and_the_first_one_wins() -> None:
    scene = hedging()
    scene.send()
    first = current(scene)
    second_endpoint = next(x for x in scene.service.endpoints if x not in scene.exchange.tried)
    second = second_endpoint.pool.idle[0]

    pause(scene, 0.5)
    assert second.names == ["write_head"]  # type: ignore[attr-defined]
    assert b"X-Envoy-Attempt-Count: 2\r\n" in second.extra  # type: ignore[attr-defined]
    second.receiver.response_whole(answer(length=2), b"ok")  # type: ignore[attr-defined]

    assert scene.downstream.body == b"ok"
    assert first.names == ["write_head", "abandon"]
    assert second.names == ["write_head", "release"]  # type: ignore[attr-defined]
    assert scene.exchange.tried[-1] is second_endpoint
    assert [state.outstanding for state in scene.service.endpoints] == [0, 0]
    assert (scene.service.breaker.requests, scene.service.breaker.retries) == (0, 0)


def test_when_the_first_one_answers_the_hedge_is_abandoned() -> None:
    scene = hedging()
    scene.send()
    first, first_endpoint = current(scene), scene.exchange.tried[0]
    pause(scene, 0.5)
    second_endpoint = scene.exchange.tried[1]

    first.receiver.response_whole(answer(length=2), b"ok")

    assert scene.downstream.body == b"ok"
    assert scene.exchange.tried == (second_endpoint, first_endpoint), "the log names the last"
    assert [state.outstanding for state in scene.service.endpoints] == [0, 0]
    assert scene.service.breaker.retries == 0


def test_when_the_first_one_fails_the_hedge_goes_on() -> None:
    scene = hedging()
    scene.send()
    pause(scene, 0.5)
    assert scene.exchange.attempts == 2

    fail(scene)
    assert scene.downstream.calls == []
    current(scene).receiver.response_whole(answer(length=2), b"ok")

    assert scene.downstream.body == b"ok"


def test_when_the_hedge_fails_the_first_one_goes_on() -> None:
    scene = hedging()
    scene.send()
    first = current(scene)
    taken = [pool.idle[0] for pool in scene.pools if pool.idle]
    pause(scene, 0.5)

    taken[0].receiver.attempt_failed(RESET)
    first.receiver.response_whole(answer(length=2), b"ok")

    assert scene.downstream.body == b"ok"


def test_a_hedge_that_has_to_dial_waits_for_its_connection() -> None:
    scene = hedging()
    for pool in scene.pools:
        pool.idle = []
    scene.pools[0].idle = scene.pools[1].idle = []
    scene.send()
    first = scene.service.endpoints.index(scene.exchange.tried[0])
    scene.connect(first)

    scene.clock.advance(0.5)
    scene.loop.run()
    waiter, _ = scene.pools[1 - first].dials[-1]
    fresh = RecordingStream()
    waiter.connection_ready(fresh)

    assert fresh.names == ["write_head"]


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_is_not_idempotent_is_never_hedged(method: bytes) -> None:
    scene = hedging()
    scene.send(method)

    pause(scene, 0.5)

    assert scene.exchange.attempts == 1


def test_a_body_is_never_hedged() -> None:
    scene = hedging()
    scene.send(b"PUT", end=False, length=2)
    scene.exchange.body_received(b"ab", True)

    pause(scene, 0.5)

    assert scene.exchange.attempts == 1


def test_a_hedge_counts_in_the_budget() -> None:
    """Threats H6."""
    scene = hedging()
    scene.service.breaker.retries = 3
    scene.send()

    pause(scene, 0.5)

    assert scene.exchange.attempts == 1
    assert scene.target.retries.skipped == {"budget": 1}


# --- ceilings


def test_a_service_with_as_many_requests_as_it_takes_is_full_at_once() -> None:
    """config.md §3, circuit_breaker; §5: UO carries Retry-After."""
    scene = Scene(breaker=CircuitBreakerSettings(requests=1))
    scene.service.breaker.requests = 1

    scene.send()

    assert scene.downstream.head.status == 503
    assert b"X-Ambassador-Flags: UO\r\n" in scene.downstream.extra
    assert b"Retry-After: 1\r\n" in scene.downstream.extra
    assert scene.exchange.phase == "admit"


def test_beyond_the_connections_requests_wait_and_beyond_those_they_are_refused() -> None:
    settings = CircuitBreakerSettings(connections=1, pending=1)
    scene = Scene(breaker=settings, warm=False)
    scene.service.breaker.connections = 1
    scene.send()
    assert scene.downstream.calls == []
    assert scene.pools[0].dials == []

    other = scene.beside()
    other.send()
    assert b"X-Ambassador-Detail: circuit_breaker_pending\r\n" in other.downstream.extra
    scene.service.admission.freed()
    scene.loop.run()

    assert len(scene.pools[0].dials) == 1


def test_who_goes_while_it_waits_frees_its_place() -> None:
    scene = Scene(breaker=CircuitBreakerSettings(connections=1, pending=1), warm=False)
    scene.service.breaker.connections = 1
    scene.send()

    scene.exchange.stream_reset(UpstreamClosed("x"))
    scene.service.admission.freed()
    scene.loop.run()

    assert scene.service.admission.waiting == {}
    assert scene.pools[0].dials == []
    assert scene.service.breaker.requests == 0


def test_who_waits_takes_a_connection_that_comes_back() -> None:
    scene = Scene(breaker=CircuitBreakerSettings(connections=1), warm=False)
    scene.service.breaker.connections = 1
    scene.send()

    scene.pools[0].idle.append(scene.upstream)
    scene.service.admission.wake()
    scene.loop.run()

    assert scene.upstream.names == ["write_head"]


# --- deadlines of others


def expecting(scene: Scene, value: bytes, *more: bytes) -> None:
    """Let a request come that says how long its sender waits."""
    from ambassador.core.model import EXPECTED_TIMEOUT, RequestHead

    name = b"x-envoy-expected-rq-timeout-ms"
    fields = [Field(name, one, EXPECTED_TIMEOUT, name + b": " + one) for one in (value, *more)]
    head = RequestHead(b"GET", b"http", b"payments", b"/", [], 0, EXPECTED_TIMEOUT, 11, fields)
    scene.exchange.head_received(head, True)


def test_a_sender_s_time_shortens_ours() -> None:
    scene = Scene()

    expecting(scene, b"250")

    assert scene.downstream.deadline == pytest.approx(scene.clock.monotonic() + 0.25)
    assert b"X-Envoy-Expected-Rq-Timeout-Ms: 250\r\n" in scene.upstream.extra


@pytest.mark.parametrize("value", [b"60000", b"0", b"", b"-1", b"1e3", b"9999999999", b"\xb2"])
def test_a_sender_s_time_never_lengthens_ours(value: bytes) -> None:
    """Threats H6."""
    scene = Scene()

    expecting(scene, value)

    assert b"X-Envoy-Expected-Rq-Timeout-Ms: 15000\r\n" in scene.upstream.extra


def test_two_times_are_none() -> None:
    scene = Scene()

    expecting(scene, b"250", b"100")

    assert b"X-Envoy-Expected-Rq-Timeout-Ms: 15000\r\n" in scene.upstream.extra


def test_where_we_wait_for_ever_a_sender_s_time_holds() -> None:
    scene = Scene(settings=RouteSettings(timeout_s=None))

    expecting(scene, b"250")

    assert b"X-Envoy-Expected-Rq-Timeout-Ms: 250\r\n" in scene.upstream.extra


def test_who_waits_for_ever_says_nothing() -> None:
    scene = Scene(settings=RouteSettings(timeout_s=None))

    scene.send()

    assert b"Expected" not in scene.upstream.extra


# --- what is left behind


def test_a_promoted_hedge_has_the_deadline_of_the_route() -> None:
    """The first try has hung, its hedge hangs as well: the route's timeout still ends it."""
    scene = hedging(per_try_timeout_s=1.0, timeout_s=3.0)
    scene.send()
    pause(scene, 0.5)
    scene.clock.advance(0.5)
    scene.exchange.deadline_passed()
    assert scene.exchange.attempt is not None

    assert scene.downstream.deadline == pytest.approx(scene.clock.monotonic() + 2.0)
    scene.clock.advance(2.0)
    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504


def test_a_failing_status_counts_for_its_endpoint_although_nobody_sees_it() -> None:
    scene = retrying()
    scene.send()
    endpoint = scene.exchange.tried[0]

    current(scene).receiver.response_whole(answer(503, length=2), b"no")

    assert endpoint.outlier.failures == 1


def test_what_is_kept_of_a_body_counts_among_the_buffers() -> None:
    """Threats E6."""
    scene = retrying(retry=replace(RETRY, max_body=4))
    scene.send(b"PUT", end=False, length=6)
    scene.exchange.body_received(b"abcd", False)
    assert scene.budget.used == 4
    scene.exchange.body_received(b"ef", True)
    assert scene.budget.used == 0, "past the cap it is freed"

    other = scene.beside()
    other.send(b"PUT", end=False, length=2)
    other.exchange.body_received(b"ab", True)
    assert scene.budget.used == 2
    current(other).receiver.response_head(answer(length=10), False)

    assert scene.budget.used == 0
    assert other.exchange.repeats is not None


def test_flags_of_a_panic_and_of_retries_stand_side_by_side() -> None:
    scene = retrying(retry=replace(RETRY, attempts=2))
    for state in scene.service.endpoints:
        state.health.is_healthy = False
    scene.send()

    fail(scene)
    pause(scene)
    fail(scene)

    assert b"X-Ambassador-Flags: UR,HP,URX\r\n" in scene.downstream.extra


# --- what a hostile reading has found


def test_a_piece_that_comes_in_the_pause_leaves_no_hole_in_the_body() -> None:
    """Past the cap in the pause: the copy was freed, and the second attempt got the last piece alone."""
    scene = retrying(retry=replace(RETRY, max_body=10))
    scene.send(b"PUT", end=False, length=None)
    scene.exchange.body_received(b"AAAAAAAA", False)
    current(scene).receiver.response_head(answer(503, length=0), True)
    assert scene.downstream.names[-1] == "pause_body"

    scene.exchange.body_received(b"BBBBBBBB", False)
    pause(scene)
    scene.exchange.body_received(b"CC", True)

    assert current(scene).body == b"AAAAAAAABBBBBBBBCC"
    assert current(scene).ended
    fail(scene)
    assert scene.exchange.not_retried == "body_too_large"


def test_the_request_s_end_in_a_pause_does_not_begin_a_try() -> None:
    scene = retrying(per_try_timeout_s=0.1)
    scene.send(b"PUT", end=False, length=2)
    fail(scene)

    scene.exchange.body_received(b"ab", True)
    assert scene.exchange.attempt is None
    scene.clock.advance(0.5)
    scene.exchange.deadline_passed()

    assert scene.downstream.deadline == pytest.approx(scene.clock.monotonic() + 14.5)


def test_back_pressure_holds_after_a_retry() -> None:
    """A flag of the failed attempt must not hide that the next one does not keep up."""
    scene = retrying()
    scene.send(b"PUT", end=False, length=None)
    current(scene).full = True
    scene.exchange.body_received(b"ab", False)
    assert scene.downstream.names == ["pause_body"]
    fail(scene)
    pause(scene)
    scene.downstream.take()

    current(scene).full = True
    scene.exchange.body_received(b"cd", False)

    assert scene.downstream.names == ["pause_body"]


def test_a_hedge_that_fails_quickly_does_not_win() -> None:
    scene = hedging()
    scene.send()
    first = current(scene)
    second_endpoint = next(x for x in scene.service.endpoints if x not in scene.exchange.tried)
    second: Any = second_endpoint.pool.idle[0]
    pause(scene, 0.5)

    second.receiver.response_whole(answer(503, length=2), b"no")
    assert scene.downstream.calls == []
    first.receiver.response_whole(answer(length=2), b"ok")

    assert scene.downstream.body == b"ok"
    assert second_endpoint.outlier.failures == 1
    assert second.names == ["write_head", "release"]


def test_a_hedge_is_heard_when_the_first_one_has_failed() -> None:
    scene = hedging()
    scene.send()
    pause(scene, 0.5)
    fail(scene)

    current(scene).receiver.response_whole(answer(503, length=2), b"no")

    assert scene.downstream.head.status == 503


def test_an_upgrade_is_never_hedged() -> None:
    """Two of them would be two tunnels to the app."""
    scene = hedging()
    scene.exchange.head_received(
        RequestHead(b"GET", b"http", b"payments", b"/", [], 0, upgrade=b"websocket"), True
    )

    pause(scene, 0.5)

    assert scene.exchange.attempts == 1


def test_a_full_service_after_a_stale_connection_is_an_answer() -> None:
    """Not a cut, and no bug in the log."""
    scene = Scene(breaker=CircuitBreakerSettings(connections=1, pending=0))
    scene.service.breaker.connections = 1
    scene.send()

    scene.exchange.attempt_failed(UpstreamClosed("closed_before_response"))

    assert scene.downstream.head.status == 503
    assert scene.crashes == []


def test_an_upload_that_waits_for_a_connection_has_the_time_of_a_response() -> None:
    """Nobody reads it: `body_idle_timeout` would blame the app after five minutes."""
    scene = Scene(breaker=CircuitBreakerSettings(connections=1), warm=False)
    scene.service.breaker.connections = 1
    scene.send(b"POST", end=False, length=9)
    assert scene.downstream.deadline == pytest.approx(scene.clock.monotonic() + 15)

    scene.clock.advance(15.0)
    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504
    assert b"X-Ambassador-Detail: connection_timeout\r\n" in scene.downstream.extra
    assert scene.endpoint.outlier.failures == 0


def test_a_sender_without_patience_does_not_make_an_endpoint_look_bad() -> None:
    """Threats H6: else a caller could have healthy endpoints ejected."""
    scene = Scene()
    expecting(scene, b"1")

    scene.clock.advance(0.1)
    scene.exchange.deadline_passed()

    assert scene.downstream.head.status == 504
    assert scene.endpoint.outlier.failures == 0


def test_who_waits_is_not_overtaken() -> None:
    scene = Scene(breaker=CircuitBreakerSettings(connections=1), warm=False)
    scene.service.breaker.connections = 1
    scene.send()
    scene.pools[0].idle.append(scene.upstream)

    other = scene.beside()
    other.send()
    assert scene.upstream.calls == []
    scene.service.admission.wake()
    scene.loop.run()

    assert scene.upstream.receiver is scene.exchange


def test_a_retry_prefers_a_good_endpoint_that_was_tried_to_a_bad_one() -> None:
    scene = retrying(endpoints=2)
    scene.send()
    first = scene.exchange.tried[0]
    other = next(x for x in scene.service.endpoints if x is not first)
    other.health.is_healthy = False
    scene.service.look_again()

    fail(scene)
    pause(scene)

    assert scene.exchange.attempt is not None
    assert scene.exchange.attempt.state is first


def test_a_place_in_the_budget_is_given_back_with_the_response_s_begin() -> None:
    """A stream that was retried once must not take a place from others for hours."""
    scene = retrying()
    scene.send()
    fail(scene)
    pause(scene)
    assert scene.service.breaker.retries == 1

    current(scene).receiver.response_head(answer(length=None), False)

    assert scene.service.breaker.retries == 0
    assert not scene.exchange.over


def test_a_pause_of_none_is_the_back_off() -> None:
    """Retry-After: 0 would bring everybody back at once."""
    scene = retrying()
    scene.send()

    current(scene).receiver.response_whole(with_retry_after(503, b"0"), b"")

    assert scene.loop.timers[-1].at > scene.clock.monotonic()


def test_trailers_are_never_hedged() -> None:
    scene = hedging()
    scene.send(b"PUT", end=False, length=None)
    scene.exchange.trailers_received([Field(b"x-sum", b"7", 0, b"X-Sum: 7")])

    pause(scene, 0.5)

    assert scene.exchange.attempts == 1


def test_an_exchange_that_is_over_is_free_of_cycles() -> None:
    """1.2 KiB a request waited for the rare collector."""
    scene = retrying()
    scene.send()

    current(scene).receiver.response_whole(answer(length=2), b"ok")

    assert scene.exchange.repeats is None


def test_an_answer_that_is_not_relayed_is_nothing_that_the_log_may_call_the_answer() -> None:
    """Who leaves in the pause is logged with status 0."""
    scene = retrying()
    scene.send()
    current(scene).receiver.response_whole(answer(503, length=2), b"no")

    scene.exchange.stream_reset(DownstreamClosed("downstream_closed"))

    assert (scene.exchange.status, scene.exchange.upstream_s) == (0, None)


def test_when_a_hedge_fails_the_log_names_the_first_one() -> None:
    scene = hedging()
    scene.send()
    first = scene.exchange.tried[0]
    second: Any = next(pool.idle[0] for pool in scene.pools if pool.idle)
    pause(scene, 0.5)
    assert scene.exchange.tried[-1] is not first

    second.receiver.attempt_failed(RESET)

    assert scene.exchange.tried[-1] is first
