"""The exchange against `wire.lifecycle.TABLE`, over the whole product of what an exchange can be in.

Three things are otherwise than in the table, and are meant so:
* Upstream's refusal of an upload is the transport's business (it swallows what cannot be sent, RFC 9112 §9.5), so
  there is neither the event nor the state STOPPED before an answer.
* A tunnel is an exchange that goes on STREAMING in both directions.
* A request whose sender has gone is STOPPED also when it was COMPLETE.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.errors import (
    AccessDenied,
    DownstreamClosed,
    DownstreamProtocolError,
    UpstreamClosed,
)
from ambassador.wire.lifecycle import TABLE, Action, Event, RequestSide, ResponseSide, State, after
from tests.unit.proxy.make import Scene, answer

UPLOADING, COMPLETE, STOPPED = RequestSide
AWAITED, STREAMING, ENDED = ResponseSide


def _uploading(scene: Scene) -> None:
    scene.send(b"POST", end=False)


def _complete(scene: Scene) -> None:
    scene.send()


def _head(scene: Scene) -> None:
    scene.exchange.response_head(answer(), False)


def _whole(scene: Scene) -> None:
    scene.exchange.response_head(answer(), True)


STATES: dict[State, tuple[Callable[[Scene], None], ...]] = {
    (UPLOADING, AWAITED): (_uploading,),
    (UPLOADING, STREAMING): (_uploading, _head),
    (COMPLETE, AWAITED): (_complete,),
    (COMPLETE, STREAMING): (_complete, _head),
    (COMPLETE, ENDED): (_complete, _whole),
    (STOPPED, ENDED): (_uploading, _whole),
}


def _deadline(scene: Scene) -> None:
    scene.clock.advance(3600)
    scene.exchange.deadline_passed()


EVENTS: dict[Event, Callable[[Scene], None]] = {
    Event.REQUEST_BODY: lambda scene: scene.exchange.body_received(b"x", False),
    Event.REQUEST_ENDED: lambda scene: scene.exchange.body_received(b"", True),
    Event.DOWNSTREAM_FAILED: lambda scene: scene.exchange.head_refused(
        DownstreamProtocolError("bad_chunk_size")
    ),
    Event.DOWNSTREAM_GONE: lambda scene: scene.exchange.stream_reset(
        DownstreamClosed("downstream_closed")
    ),
    Event.INTERIM_RECEIVED: lambda scene: scene.exchange.response_interim(answer(103)),
    Event.HEAD_RECEIVED: _head,
    Event.WHOLE_HEAD_RECEIVED: _whole,
    Event.RESPONSE_BODY: lambda scene: scene.exchange.response_body(b"y", False),
    Event.RESPONSE_ENDED: lambda scene: scene.exchange.response_body(b"y", True),
    Event.SWITCHED: lambda scene: scene.exchange.response_head(answer(101), False),
    Event.ATTEMPT_FAILED: lambda scene: scene.exchange.attempt_failed(
        UpstreamClosed("closed_before_response")
    ),
    Event.ROUTE_DEADLINE: _deadline,
}

#: Action -> names of the calls downstream and upstream.
CALLS: dict[Action, tuple[list[str], list[str]]] = {
    Action.FORWARD_REQUEST_BODY: ([], ["write_body"]),
    Action.END_REQUEST: ([], ["write_body"]),
    Action.FORWARD_INTERIM: (["write_interim"], []),
    Action.FORWARD_HEAD: (["write_head"], []),
    Action.FORWARD_WHOLE: (["write_head"], ["release"]),
    Action.FORWARD_WHOLE_STOP_UPLOAD: (["write_head"], ["release"]),
    Action.FORWARD_RESPONSE_BODY: (["write_body"], []),
    Action.END_RESPONSE: (["write_body"], ["release"]),
    Action.END_RESPONSE_STOP_UPLOAD: (["write_body"], ["release"]),
    Action.OPEN_TUNNEL: (["write_head", "flush"], []),
    Action.RETRY_OR_REPLY: (["write_head", "write_body"], ["abandon"]),
    Action.REPLY: (["write_head", "write_body"], ["abandon"]),
    Action.RESET_DOWNSTREAM: (["reset"], ["abandon"]),
    Action.ABANDON: ([], ["abandon"]),
    Action.DISCARD: ([], []),
    Action.IGNORE: ([], []),
    Action.ILLEGAL: ([], []),  # a bug of a connection changes nothing here
}


def _in(state: State) -> Scene:
    scene = Scene(warm=False)  # a fresh connection: what fails there is not repeated
    steps = STATES[state]
    steps[0](scene)
    scene.connect()
    for step in steps[1:]:
        step(scene)
    assert scene.state == state
    scene.take()
    return scene


def _expected(state: State, event: Event, action: Action) -> State:
    match action:
        case Action.OPEN_TUNNEL:
            return UPLOADING, STREAMING
        case Action.RETRY_OR_REPLY:  # a second failure of the only endpoint: the reply
            return after(*state, Action.REPLY)
        case Action.ABANDON:
            return STOPPED, ENDED
        case _:
            return after(*state, action)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state[0].name}-{state[1].name}")
def test_every_event_in_every_state_does_what_the_table_says(state: State, event: Event) -> None:
    """House §7, Exchange state."""
    action = TABLE[(*state, event)]
    scene = _in(state)

    EVENTS[event](scene)

    down, up = scene.take()
    names = [call[0] for call in down], [call[0] for call in up]
    unfinished = event is Event.ROUTE_DEADLINE and state[0] is UPLOADING
    if action is Action.REPLY and (event is Event.DOWNSTREAM_FAILED or unfinished):
        names[0].remove("close_after_response")  # what follows could not be understood
    assert names == CALLS[action]
    assert scene.state == _expected(state, event, action)
    over = scene.exchange.response_side is ENDED
    assert len(scene.door.ended) == over
    assert scene.endpoint.outstanding == (not over)


@pytest.mark.parametrize("end", [False, True])
def test_a_refusal_at_the_door_is_answered_without_an_attempt(*, end: bool) -> None:
    scene = Scene()
    scene.door.refusal = AccessDenied("no_rule")

    scene.send(b"POST", end=end)

    state = (COMPLETE if end else UPLOADING), AWAITED
    assert TABLE[(*state, Event.REFUSED)] is Action.REPLY
    assert scene.state == after(*state, Action.REPLY)
    assert scene.downstream.head.status == 403
    assert scene.upstream.calls == []


def test_the_states_left_out_cannot_be_reached() -> None:
    left = {(request, response) for request, response, _ in TABLE} - STATES.keys()

    assert left == {(UPLOADING, ENDED), (STOPPED, AWAITED), (STOPPED, STREAMING)}


@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from(sorted(EVENTS, key=lambda event: event.name)), max_size=12),
)
def test_whatever_happens_ends_once(
    uploading: bool,  # noqa: FBT001
    warm: bool,  # noqa: FBT001
    events: list[Event],
) -> None:
    """Every event may arrive after the end; each end is noted once, and gives back what it took."""
    scene = Scene(warm=warm)
    (_uploading if uploading else _complete)(scene)
    if not warm:
        scene.connect()

    for event in events:
        ended = bool(scene.door.ended)
        scene.take()
        EVENTS[event](scene)
        if ended:
            assert scene.take() == ([], [])
    scene.exchange.stream_reset(DownstreamClosed("downstream_closed"))

    assert scene.door.ended == [scene.exchange]
    assert scene.endpoint.outstanding == 0
    assert scene.crashes == []
