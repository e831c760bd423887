"""Which deadline an exchange has in its present state, and what it means when it has passed.

Knows the states and the route's settings; must not know timers: the exchange asks its downstream connection, which
owns the one that is running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambassador.core.errors import DownstreamTimeout, ExchangeError, UpstreamTimeout
from ambassador.net.alarm import NEVER
from ambassador.wire.lifecycle import RequestSide, ResponseSide

if TYPE_CHECKING:
    from ambassador.config.model import RouteSettings

#: Timers have the resolution of a millisecond.
_EARLY_S = 0.002


def due_at(
    settings: RouteSettings,
    request: RequestSide,
    response: ResponseSide,
    *,
    idle_from: float,
    total_from: float | None,
    waiting: bool = False,
) -> float:
    """Give the moment at which something is due.

    `idle_from` is the last byte in either direction, or the end of the request; `total_from` its begin, None for a
    tunnel. `waiting`: there is no connection yet, so that nobody can send or read anything.
    Units: seconds of the loop's clock.
    """
    awaited = response is ResponseSide.AWAITED and (request is RequestSide.COMPLETE or waiting)
    span = settings.timeout_s if awaited else settings.body_idle_timeout_s
    due = NEVER if span is None else idle_from + span
    if settings.total_timeout_s is not None and total_from is not None:
        due = min(due, total_from + settings.total_timeout_s)
    return due


def expired(
    settings: RouteSettings,
    request: RequestSide,
    response: ResponseSide,
    *,
    elapsed_s: float | None,
    upstream_slow: bool,
    waiting: bool = False,
) -> ExchangeError:
    """Say whose fault it is. `elapsed_s` is None for a tunnel; `upstream_slow`: it does not take the request."""
    total = settings.total_timeout_s
    if total is not None and elapsed_s is not None and elapsed_s >= total - _EARLY_S:
        return UpstreamTimeout("total_timeout", f"The exchange was not over within {total:g} s.")
    if waiting and response is ResponseSide.AWAITED:
        return UpstreamTimeout(
            "connection_timeout", f"No connection within {settings.timeout_s:g} s."
        )
    if response is ResponseSide.AWAITED and request is RequestSide.COMPLETE:
        return UpstreamTimeout("response_timeout", f"No response within {settings.timeout_s:g} s.")
    if request is RequestSide.UPLOADING and response is ResponseSide.AWAITED and not upstream_slow:
        return DownstreamTimeout("body_idle", "The request's body stopped coming.")
    return UpstreamTimeout("body_idle", "No byte in either direction for too long.")
