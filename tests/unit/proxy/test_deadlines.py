"""Which deadline is due in which state, and whose fault it is (config.md, `timeout` and its like)."""

from __future__ import annotations

import itertools

import pytest

from ambassador.config.model import RouteSettings
from ambassador.core.errors import DownstreamTimeout, ExchangeError, UpstreamTimeout
from ambassador.net.alarm import NEVER
from ambassador.proxy.deadlines import due_at, expired
from ambassador.wire.lifecycle import RequestSide, ResponseSide

UPLOADING, COMPLETE, STOPPED = RequestSide
AWAITED, STREAMING, ENDED = ResponseSide
SETTINGS = RouteSettings(timeout_s=15, body_idle_timeout_s=300)
STATES = list(itertools.product(RequestSide, ResponseSide))


@pytest.mark.parametrize(("request_", "response"), STATES)
def test_only_a_whole_request_waits_for_a_response_head(
    request_: RequestSide, response: ResponseSide
) -> None:
    due = due_at(SETTINGS, request_, response, idle_from=100, total_from=None)

    assert due == (115 if (request_, response) == (COMPLETE, AWAITED) else 400)


@pytest.mark.parametrize(("request_", "response"), STATES)
def test_none_is_never(request_: RequestSide, response: ResponseSide) -> None:
    settings = RouteSettings(timeout_s=None, body_idle_timeout_s=None)

    assert due_at(settings, request_, response, idle_from=1, total_from=1) == NEVER


@pytest.mark.parametrize(
    ("total_from", "due"), [(95, 105), (112, 115), (None, 115)], ids=["sooner", "later", "tunnel"]
)
def test_the_sooner_of_both_is_due(total_from: float | None, due: float) -> None:
    settings = RouteSettings(timeout_s=15, total_timeout_s=10)

    assert due_at(settings, COMPLETE, AWAITED, idle_from=100, total_from=total_from) == due


@pytest.mark.parametrize(
    ("request_", "response", "elapsed_s", "upstream_slow", "kind", "detail"),
    [
        (COMPLETE, AWAITED, 5.0, False, UpstreamTimeout, "response_timeout"),
        (UPLOADING, AWAITED, 5.0, False, DownstreamTimeout, "body_idle"),
        (UPLOADING, AWAITED, 5.0, True, UpstreamTimeout, "body_idle"),
        (UPLOADING, STREAMING, 5.0, False, UpstreamTimeout, "body_idle"),
        (COMPLETE, STREAMING, None, False, UpstreamTimeout, "body_idle"),
        (STOPPED, ENDED, 5.0, False, UpstreamTimeout, "body_idle"),
        (UPLOADING, AWAITED, 19.999, False, UpstreamTimeout, "total_timeout"),
        (COMPLETE, STREAMING, 25.0, True, UpstreamTimeout, "total_timeout"),
    ],
)
def test_a_deadline_that_has_passed_says_whose_fault_it_is(
    request_: RequestSide,
    response: ResponseSide,
    elapsed_s: float | None,
    upstream_slow: bool,  # noqa: FBT001
    kind: type[ExchangeError],
    detail: str,
) -> None:
    settings = RouteSettings(total_timeout_s=20)

    error = expired(settings, request_, response, elapsed_s=elapsed_s, upstream_slow=upstream_slow)

    assert (type(error), error.detail) == (kind, detail)
