"""Exchanges whose bytes are opaque: raw TCP, CONNECT, and what 101 leads to. Each way ends by itself.

Knows the begin and the end of a tunnel; in between the exchange relays bodies as it always does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import UpstreamProtocolError
from ambassador.core.model import ResponseHead
from ambassador.policy.headers import sanitize_response
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from ambassador.http.raw import RawConnection
    from ambassador.proxy.exchange import Exchange


def begin(exchange: Exchange, connection: RawConnection) -> None:
    """The far side of a CONNECT or a tcp connection is there: say so, then everything is opaque."""
    exchange.is_tunnel = True
    exchange.upstream_peer = connection.peer_text
    exchange.status = 200
    exchange.response_side = ResponseSide.STREAMING
    held, exchange.held = exchange.held, None
    exchange.begin_deadline()
    downstream = exchange.downstream
    downstream.write_head(ResponseHead(200, b"OK", [], None), b"", False)
    downstream.flush()
    if held is not None:
        downstream.resume_body()
        body = b"".join(held)
        is_whole = exchange.request_side is RequestSide.COMPLETE
        if body or is_whole:
            connection.write_body(body, is_whole)


def switch(exchange: Exchange, head: ResponseHead) -> None:
    """101: both directions are opaque from here on (RFC 9110 §7.8)."""
    if exchange.request_side is not RequestSide.COMPLETE:
        error = UpstreamProtocolError("early_upgrade", "The peer switched too early.")
        exchange.attempt_failed(error)
        return
    exchange.is_tunnel = True
    exchange.request_side = RequestSide.UPLOADING
    exchange.response_side = ResponseSide.STREAMING
    exchange.begin_deadline()
    sanitize_response(head)
    exchange.downstream.write_head(head, exchange.door.response_extra, False)
    exchange.downstream.flush()
