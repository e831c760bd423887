"""Our own answers (house §4): what the app is told, and what a stranger is not."""

from __future__ import annotations

import pytest

from ambassador.core.errors import (
    AccessDenied,
    ConnectFailed,
    ExchangeError,
    FaultInjected,
    NoHealthyUpstream,
    NoRoute,
    Overloaded,
    PeerRefusedUs,
    Phase,
    UpstreamTimeout,
)
from ambassador.proxy.local_reply import DateLine, local_reply, phase_before_head, too_large


def test_the_app_gets_flag_detail_and_a_sentence() -> None:
    head, extra, body = local_reply(NoRoute("no_route", "No such service."), remote=False)

    assert (head.status, head.reason, head.content_length) == (404, b"Not Found", 17)
    assert extra == (
        b"X-Ambassador-Flags: NR\r\nX-Ambassador-Detail: no_route\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
    )
    assert body == b"No such service.\n"


def test_without_a_sentence_the_reason_phrase_is_one() -> None:
    assert local_reply(UpstreamTimeout("response_timeout"), remote=False)[2] == b"Gateway Timeout\n"


def test_a_stranger_gets_the_bare_status() -> None:
    head, extra, body = local_reply(AccessDenied("no_rule", "secret"), remote=True)

    assert (head.status, head.content_length, extra, body) == (403, 0, b"", b"")


def test_what_passes_by_itself_says_when_to_come_again() -> None:
    assert local_reply(Overloaded("buffers"), remote=False)[1].endswith(b"\r\nRetry-After: 1\r\n")


def test_a_status_without_a_name_has_an_empty_phrase() -> None:
    head, _, body = local_reply(FaultInjected("fault_abort", status=599), remote=False)

    assert (head.status, head.reason, body) == (599, b"", b"fault_abort\n")


def test_text_that_is_no_unicode_is_shown_all_the_same() -> None:
    assert local_reply(NoRoute("no_route", "\udc80"), remote=False)[2] == b"\\udc80\n"


def test_the_date_is_rendered_once_a_second() -> None:
    """RFC 9110 §5.6.7."""
    date = DateLine()

    line = date.at(784111777.2)

    assert line == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert date.at(784111777.9) is line
    assert date.at(784111778.0) != line


def test_a_body_that_is_too_large_names_the_ceiling() -> None:
    error = too_large(1024)

    assert (error.status, error.detail) == (413, "body_too_large")
    assert "1024" in error.message


@pytest.mark.parametrize(
    ("error", "understood", "routed", "connected", "uploading", "phase"),
    [
        (AccessDenied("no_rule"), True, False, False, False, Phase.ADMIT),
        (NoRoute("no_route"), True, False, False, False, Phase.ROUTE),
        (NoRoute("bad"), False, False, False, False, Phase.HEAD),
        (ConnectFailed("connect_refused"), True, True, True, False, Phase.CONNECT),
        (NoHealthyUpstream("no_endpoint"), True, True, False, False, Phase.CONNECT),
        (PeerRefusedUs("peer_refused_us"), True, True, True, False, Phase.WAIT),
        (UpstreamTimeout("body_idle"), True, True, True, True, Phase.SEND),
        (UpstreamTimeout("response_timeout"), True, True, True, False, Phase.WAIT),
        (UpstreamTimeout("total_timeout"), True, True, False, False, Phase.CONNECT),
    ],
)
def test_the_phase_says_how_far_it_had_come(
    error: ExchangeError,
    understood: bool,  # noqa: FBT001
    routed: bool,  # noqa: FBT001
    connected: bool,  # noqa: FBT001
    uploading: bool,  # noqa: FBT001
    phase: Phase,
) -> None:
    found = phase_before_head(
        error, understood=understood, routed=routed, connected=connected, uploading=uploading
    )

    assert found is phase
