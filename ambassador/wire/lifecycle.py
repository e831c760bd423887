"""The legal actions of one exchange: request side x response side x event (house §7, "Exchange state").

Knows the order in which an exchange may go; must not know how anything is done. Every cell of the product is
named, so a forgotten combination is a failing test and not a surprise in production.

Rules: before the response head is forwarded a failure becomes a retry or a local reply; after it the downstream
stream is reset, so that truncation is seen. A response that ends before its request stops the upload and is
delivered. What arrives after the end is ignored.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class RequestSide(Enum):
    """How far the request has come. Its head is always there: an exchange begins with it."""

    UPLOADING = auto()  # body expected
    COMPLETE = auto()  # ended; also when it had no body
    STOPPED = auto()  # unfinished, and nobody wants the rest


class ResponseSide(Enum):
    """How far the response has come, as downstream sees it."""

    AWAITED = auto()  # no final head forwarded; interim ones may have been
    STREAMING = auto()  # head forwarded, body expected
    ENDED = auto()  # forwarded whole, answered locally, or reset; also once it is a tunnel


class Event(Enum):
    """What can happen to an exchange."""

    REQUEST_BODY = auto()
    REQUEST_ENDED = auto()
    UPLOAD_REFUSED = auto()  # upstream takes no more of the body; its response may still come
    DOWNSTREAM_FAILED = auto()  # malformed body or body deadline; the peer can still be answered
    DOWNSTREAM_GONE = auto()  # closed, reset, or takes nothing any more
    INTERIM_RECEIVED = auto()  # 1xx but 101
    HEAD_RECEIVED = auto()  # final, with a body to follow
    WHOLE_HEAD_RECEIVED = auto()  # final, and the response ends with it
    RESPONSE_BODY = auto()
    RESPONSE_ENDED = auto()
    SWITCHED = auto()  # 101, or 2xx to CONNECT
    ATTEMPT_FAILED = auto()  # connect, reset, malformed response, per-try deadline
    ROUTE_DEADLINE = auto()
    REFUSED = auto()  # by policy, limits or drain, before an attempt runs


class Action(Enum):
    """What the exchange does about it."""

    FORWARD_REQUEST_BODY = auto()
    END_REQUEST = auto()
    DISCARD = auto()  # read and forget
    STOP_UPLOAD = auto()
    FORWARD_INTERIM = auto()
    FORWARD_HEAD = auto()
    FORWARD_WHOLE = auto()  # head that is also the end
    FORWARD_WHOLE_STOP_UPLOAD = auto()
    FORWARD_RESPONSE_BODY = auto()
    END_RESPONSE = auto()
    END_RESPONSE_STOP_UPLOAD = auto()
    OPEN_TUNNEL = auto()
    RETRY_OR_REPLY = auto()
    REPLY = auto()  # abandon the attempt if there is one, answer ourselves
    RESET_DOWNSTREAM = auto()  # and abandon the attempt
    ABANDON = auto()  # nobody to answer: abandon the attempt, log
    IGNORE = auto()
    ILLEGAL = auto()  # a bug of whoever sent the event


State = tuple[RequestSide, ResponseSide]

_REQUEST: Final = (RequestSide.UPLOADING, RequestSide.COMPLETE, RequestSide.STOPPED)
_RESPONSE: Final = (ResponseSide.AWAITED, ResponseSide.STREAMING, ResponseSide.ENDED)

_FORWARD, _BAD, _SKIP = Action.FORWARD_REQUEST_BODY, Action.ILLEGAL, Action.IGNORE
_RESET, _ABANDON, _RETRY = Action.RESET_DOWNSTREAM, Action.ABANDON, Action.RETRY_OR_REPLY
_REPLY, _DISCARD, _INTERIM = Action.REPLY, Action.DISCARD, Action.FORWARD_INTERIM
_HEAD, _WHOLE, _STOP = Action.FORWARD_HEAD, Action.FORWARD_WHOLE, Action.FORWARD_WHOLE_STOP_UPLOAD
_BODY, _END, _END_STOP = (
    Action.FORWARD_RESPONSE_BODY,
    Action.END_RESPONSE,
    Action.END_RESPONSE_STOP_UPLOAD,
)
_TUNNEL, _HALT = Action.OPEN_TUNNEL, Action.STOP_UPLOAD

# One row per event. Columns: first letter the request side (Uploading, Complete, Stopped), second the response
# side (Awaited, Streaming, Ended). Stopped and Awaited: upstream stopped the upload before it answered.
# fmt: off
_ROWS: Final[dict[Event, tuple[Action, ...]]] = {
    #                            UA        US        UE        CA        CS       CE     SA        SS        SE
    Event.REQUEST_BODY:        (_FORWARD, _FORWARD, _DISCARD, _BAD,     _BAD,    _BAD,  _DISCARD, _DISCARD, _DISCARD),
    Event.REQUEST_ENDED:       (Action.END_REQUEST, Action.END_REQUEST,
                                                    _SKIP,    _BAD,     _BAD,    _BAD,  _SKIP,    _SKIP,    _SKIP),
    Event.UPLOAD_REFUSED:      (_HALT,    _HALT,    _SKIP,    _SKIP,    _SKIP,   _SKIP, _SKIP,    _SKIP,    _SKIP),
    Event.DOWNSTREAM_FAILED:   (_REPLY,   _RESET,   _SKIP,    _REPLY,   _RESET,  _SKIP, _REPLY,   _RESET,   _SKIP),
    Event.DOWNSTREAM_GONE:     (_ABANDON, _ABANDON, _SKIP,    _ABANDON, _ABANDON, _SKIP, _ABANDON, _ABANDON, _SKIP),
    Event.INTERIM_RECEIVED:    (_INTERIM, _BAD,     _SKIP,    _INTERIM, _BAD,    _SKIP, _INTERIM, _BAD,     _SKIP),
    Event.HEAD_RECEIVED:       (_HEAD,    _BAD,     _SKIP,    _HEAD,    _BAD,    _SKIP, _HEAD,    _BAD,     _SKIP),
    Event.WHOLE_HEAD_RECEIVED: (_STOP,    _BAD,     _SKIP,    _WHOLE,   _BAD,    _SKIP, _WHOLE,   _BAD,     _SKIP),
    Event.RESPONSE_BODY:       (_BAD,     _BODY,    _SKIP,    _BAD,     _BODY,   _SKIP, _BAD,     _BODY,    _SKIP),
    Event.RESPONSE_ENDED:      (_BAD,     _END_STOP, _SKIP,   _BAD,     _END,    _SKIP, _BAD,     _END,     _SKIP),
    # A peer that switches while the request still comes answers a request it has not read (RFC 9110 §7.8).
    Event.SWITCHED:            (_RETRY,   _BAD,     _SKIP,    _TUNNEL,  _BAD,    _SKIP, _RETRY,   _BAD,     _SKIP),
    Event.ATTEMPT_FAILED:      (_RETRY,   _RESET,   _SKIP,    _RETRY,   _RESET,  _SKIP, _RETRY,   _RESET,   _SKIP),
    Event.ROUTE_DEADLINE:      (_REPLY,   _RESET,   _SKIP,    _REPLY,   _RESET,  _SKIP, _REPLY,   _RESET,   _SKIP),
    Event.REFUSED:             (_REPLY,   _BAD,     _SKIP,    _REPLY,   _BAD,    _SKIP, _REPLY,   _BAD,     _SKIP),
}
# fmt: on

#: Every combination and what it leads to.
TABLE: Final[dict[tuple[RequestSide, ResponseSide, Event], Action]] = {
    (request, response, event): row[3 * column + offset]
    for event, row in _ROWS.items()
    for column, request in enumerate(_REQUEST)
    for offset, response in enumerate(_RESPONSE)
}

_STOPS_UPLOAD: Final = frozenset({_HALT, _STOP, _END_STOP, _REPLY, _RESET, _ABANDON})
_ENDS_RESPONSE: Final = frozenset(
    {_WHOLE, _STOP, _END, _END_STOP, _REPLY, _RESET, _ABANDON, _TUNNEL}
)


def after(request: RequestSide, response: ResponseSide, action: Action) -> State:
    """Give the state that an action leads to.

    `RETRY_OR_REPLY` leaves it as it is: the retry goes on from there, the reply is an action of its own.
    """
    if action is Action.END_REQUEST or action is Action.OPEN_TUNNEL:
        request = RequestSide.COMPLETE
    elif action in _STOPS_UPLOAD and request is RequestSide.UPLOADING:
        request = RequestSide.STOPPED
    if action is Action.FORWARD_HEAD:
        response = ResponseSide.STREAMING
    elif action in _ENDS_RESPONSE:
        response = ResponseSide.ENDED
    return request, response
