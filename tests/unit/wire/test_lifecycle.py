from __future__ import annotations

from itertools import product

import pytest

from ambassador.wire.lifecycle import TABLE, Action, Event, RequestSide, ResponseSide, after

UPLOADING, COMPLETE, STOPPED = RequestSide
AWAITED, STREAMING, ENDED = ResponseSide

CELLS = list(product(RequestSide, ResponseSide, Event))


def test_the_table_names_every_combination() -> None:
    """House §7: a forgotten cell is a failing test."""
    assert set(TABLE) == set(CELLS)


@pytest.mark.parametrize(("request_side", "event"), list(product(RequestSide, Event)))
def test_nothing_happens_after_the_end(request_side: RequestSide, event: Event) -> None:
    """House §7: every event may arrive after the exchange has ended."""
    action = TABLE[request_side, ENDED, event]

    # Only a body that goes on behind a request that said it was whole is a bug of the reader.
    bug = request_side is COMPLETE and event in {Event.REQUEST_BODY, Event.REQUEST_ENDED}
    assert action in ({Action.ILLEGAL} if bug else {Action.IGNORE, Action.DISCARD})


@pytest.mark.parametrize("request_side", list(RequestSide))
@pytest.mark.parametrize(
    "event", [Event.ATTEMPT_FAILED, Event.ROUTE_DEADLINE, Event.DOWNSTREAM_FAILED]
)
def test_a_failure_is_answered_before_the_head_and_cut_after_it(
    request_side: RequestSide, event: Event
) -> None:
    """House §7, the law: a retry or a local reply before, a reset after."""
    before = TABLE[request_side, AWAITED, event]
    behind = TABLE[request_side, STREAMING, event]

    assert before in {Action.RETRY_OR_REPLY, Action.REPLY}
    assert behind is Action.RESET_DOWNSTREAM


@pytest.mark.parametrize("request_side", list(RequestSide))
def test_a_local_reply_never_stands_inside_a_response(request_side: RequestSide) -> None:
    """Threat G4."""
    actions = {TABLE[request_side, STREAMING, event] for event in Event}

    assert not actions & {Action.REPLY, Action.RETRY_OR_REPLY, Action.FORWARD_HEAD}
    assert not actions & {Action.FORWARD_INTERIM, Action.OPEN_TUNNEL}


@pytest.mark.parametrize("event", list(Event))
def test_nobody_is_answered_who_has_gone(event: Event) -> None:
    """DOWNSTREAM_GONE abandons whatever runs, and only it does."""
    for request_side, response_side in product(RequestSide, [AWAITED, STREAMING]):
        abandons = TABLE[request_side, response_side, event] is Action.ABANDON

        assert abandons is (event is Event.DOWNSTREAM_GONE)


def test_an_early_response_stops_the_upload_and_is_delivered() -> None:
    """RFC 9112 §9.5 seen from the middle; house §7."""
    head = TABLE[UPLOADING, AWAITED, Event.HEAD_RECEIVED]
    state = after(UPLOADING, AWAITED, head)
    end = TABLE[*state, Event.RESPONSE_ENDED]

    assert (state, end) == ((UPLOADING, STREAMING), Action.END_RESPONSE_STOP_UPLOAD)
    assert after(*state, end) == (STOPPED, ENDED)
    whole = TABLE[UPLOADING, AWAITED, Event.WHOLE_HEAD_RECEIVED]
    assert after(UPLOADING, AWAITED, whole) == (STOPPED, ENDED)


def test_a_whole_exchange_walks_from_upload_to_end() -> None:
    """The ordinary walk, with an interim response in it."""
    state = (UPLOADING, AWAITED)
    actions = []
    for event in (
        Event.REQUEST_BODY,
        Event.INTERIM_RECEIVED,
        Event.REQUEST_ENDED,
        Event.HEAD_RECEIVED,
        Event.RESPONSE_BODY,
        Event.RESPONSE_ENDED,
    ):
        actions.append(TABLE[*state, event])
        state = after(*state, actions[-1])

    assert state == (COMPLETE, ENDED)
    assert actions == [
        Action.FORWARD_REQUEST_BODY,
        Action.FORWARD_INTERIM,
        Action.END_REQUEST,
        Action.FORWARD_HEAD,
        Action.FORWARD_RESPONSE_BODY,
        Action.END_RESPONSE,
    ]


def test_an_upload_that_upstream_refuses_still_waits_for_the_response() -> None:
    """RFC 9112 §9.5: a peer that closes its reading side may have answered already."""
    action = TABLE[UPLOADING, AWAITED, Event.UPLOAD_REFUSED]
    state = after(UPLOADING, AWAITED, action)

    assert (action, state) == (Action.STOP_UPLOAD, (STOPPED, AWAITED))
    assert TABLE[*state, Event.REQUEST_BODY] is Action.DISCARD
    assert TABLE[*state, Event.HEAD_RECEIVED] is Action.FORWARD_HEAD


def test_a_tunnel_opens_only_behind_a_whole_request() -> None:
    """RFC 9110 §7.8: the request is read before the protocol changes; threat G2."""
    opening = {cell[:2] for cell, action in TABLE.items() if action is Action.OPEN_TUNNEL}

    assert opening == {(COMPLETE, AWAITED)}
    assert after(COMPLETE, AWAITED, Action.OPEN_TUNNEL) == (COMPLETE, ENDED)


@pytest.mark.parametrize(("request_side", "response_side", "event"), CELLS)
def test_no_step_leads_backwards(
    request_side: RequestSide, response_side: ResponseSide, event: Event
) -> None:
    """A response that has begun never un-begins, an upload that ended never goes on."""
    action = TABLE[request_side, response_side, event]
    new_request, new_response = after(request_side, response_side, action)

    assert list(ResponseSide).index(new_response) >= list(ResponseSide).index(response_side)
    assert request_side in {UPLOADING, new_request}
