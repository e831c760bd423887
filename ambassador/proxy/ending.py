"""How an exchange ends without the response of its upstream: an answer of ours, or a cut.

Knows the law: before the response head has left, a failure becomes a local reply; after it only truncation can tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import (
    DownstreamProtocolError,
    DownstreamTimeout,
    ExchangeError,
    Phase,
    UpstreamTimeout,
)
from ambassador.policy.trace_context import stamp
from ambassador.proxy.local_reply import local_reply, phase_before_head
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from ambassador.proxy.exchange import Exchange


def blame(exchange: Exchange, error: ExchangeError) -> None:
    """Tell of an endpoint that was connected and gave no response, unless it was its sender who had no more time."""
    attempt, target = exchange.attempt, exchange.target
    if attempt is None or attempt.connection is None or target is None:
        return
    if not (target.is_shortened and isinstance(error, UpstreamTimeout)):
        attempt.failed(error)


def fail(exchange: Exchange, error: ExchangeError) -> None:
    """End it, in whichever way is left."""
    if exchange.response_side is ResponseSide.STREAMING and exchange.downstream.take_back():
        exchange.response_side = ResponseSide.AWAITED  # its head came, and went no further
        exchange.bytes_sent = 0
    if exchange.response_side is ResponseSide.AWAITED:
        reply(exchange, error)
    else:
        cut(exchange, error)


def reply(exchange: Exchange, error: ExchangeError) -> None:
    """Answer ourselves."""
    exchange.phase = phase_of(exchange, error)
    exchange.response_ended()
    exchange.end_attempt()
    exchange.status = error.status
    surroundings = exchange.door.surroundings
    if not exchange.request_id:  # by which lines of two proxies are joined
        exchange.request_id, exchange.trace_id, _ = stamp(exchange.head, surroundings.random_bits)
    downstream = exchange.downstream
    if error.status == 0:
        downstream.reset()
        exchange.finish(error)
        return
    head, extra, body = local_reply(error, remote=exchange.door.is_remote, mark=exchange.mark)
    extra += surroundings.date.at(surroundings.wall())
    if isinstance(error, DownstreamProtocolError | DownstreamTimeout):
        downstream.close_after_response()
    if body and exchange.head.method != b"HEAD" and downstream.shows_heads:
        exchange.bytes_sent += len(body)
        downstream.write_head(head, extra, False)
        downstream.write_body(body, True)
    else:
        downstream.write_head(head, extra, True)
    exchange.finish(error)


def cut(exchange: Exchange, error: ExchangeError) -> None:
    """The head is out: only truncation can tell the peer."""
    exchange.phase = phase_of(exchange, error)
    exchange.response_ended()
    exchange.end_attempt()
    exchange.downstream.reset()
    exchange.finish(error)


def phase_of(exchange: Exchange, error: ExchangeError) -> Phase:
    """Say where it ended."""
    if exchange.response_side is not ResponseSide.AWAITED:
        return Phase.RELAY
    return phase_before_head(
        error,
        understood=bool(exchange.head.method),
        routed=exchange.target is not None,
        connected=exchange.upstream_started > 0,
        uploading=exchange.request_side is RequestSide.UPLOADING,
    )
