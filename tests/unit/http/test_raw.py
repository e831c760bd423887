"""The two ends of a tunnel between recorders: bytes and half-close, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ambassador.core.model import ResponseHead
from ambassador.http.raw import RawConnection, RawDownstream
from ambassador.net.alarm import NEVER
from ambassador.net.failures import TlsFailure, Truncated, WriteRefused
from tests.support.streams import RecordingReceiver
from tests.unit.http.make import Loop, Responses, Transport

ALERT = b"\x17\x03\x03\x00\x13" + bytes(19)


class Up:
    """The upstream end."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.receiver = Responses()
        self.closed: list[object] = []
        transport: Any = self.transport
        events: Any = self.receiver
        self.end = RawConnection(transport, None, closed=self.closed.append)
        self.end.start(events)


class Down:
    """The downstream end."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.transport = Transport()
        self.receiver = RecordingReceiver()
        self.closed: list[object] = []
        loop: Any = self.loop
        transport: Any = self.transport
        self.end = RawDownstream(loop, transport, write_timeout_s=30, closed=self.closed.append)
        self.end.begin(self.receiver)


# --- both


@pytest.mark.parametrize("make", [Up, Down])
def test_it_is_closed_when_both_directions_have_ended(make: type[Up] | type[Down]) -> None:
    ours_first, theirs_first = make(), make()
    ours_first.end.write_body(b"x", True)
    assert ours_first.transport.ends == ["shutdown"]
    ours_first.end.eof_received()
    theirs_first.end.eof_received()
    assert theirs_first.transport.ends == []
    theirs_first.end.write_trailers([])

    assert ours_first.transport.ends == theirs_first.transport.ends == ["shutdown", "close"]
    assert ours_first.transport.sent == b"x"
    assert len(ours_first.closed) == 1
    assert repr(ours_first.end).startswith("Raw")


@pytest.mark.parametrize("make", [Up, Down])
def test_reading_is_paused_and_resumed(make: type[Up] | type[Down]) -> None:
    tunnel = make()

    tunnel.end.pause_body()
    assert not tunnel.transport.reading
    tunnel.end.resume_body()

    assert tunnel.transport.reading
    assert tunnel.end.flush()


# --- upstream


def test_what_comes_from_upstream_is_body() -> None:
    up = Up()
    up.end.data_received(b"ab")
    up.end.read_finished()
    up.end.writable()
    up.end.eof_received()

    assert up.receiver.events == [("body", b"ab", False), ("writable",), ("body", b"", True)]
    assert up.transport.greedy
    assert up.end.tls is None


@pytest.mark.parametrize(
    ("heard", "error", "flag", "detail"),
    [
        (b"", None, "UC", "tunnel_truncated"),
        (b"", Truncated(), "UC", "tunnel_truncated"),
        (b"", TlsFailure("peer_refused_us", "no"), "UF", "peer_refused_us"),
        (b"", TlsFailure("bad_record", "no"), "UR", "tls_bad_record"),
        (b"", WriteRefused(ALERT), "UF", "peer_refused_us"),
        (b"x", WriteRefused(ALERT), "UR", "tunnel_reset"),
        (b"", OSError(), "UR", "tunnel_reset"),
    ],
)
def test_how_a_tunnel_ended_is_worded(
    heard: bytes, error: BaseException | None, flag: str, detail: str
) -> None:
    up = Up()
    if heard:
        up.end.data_received(heard)

    up.transport.break_(error)

    assert up.receiver.events[-1] == ("failed", flag, detail)
    assert up.closed == [up.end]


@pytest.mark.parametrize("how", ["abandon", "release"])
def test_who_has_left_hears_nothing(how: str) -> None:
    up = Up()
    getattr(up.end, how)()

    up.end.data_received(b"x")
    up.end.read_finished()
    up.end.writable()
    up.end.eof_received()
    up.transport.break_(None)

    assert up.receiver.events == []
    assert up.transport.ends == (["abort"] if how == "abandon" else [])


def test_the_end_of_the_process_cuts_it() -> None:
    up, down = Up(), Down()
    up.end.abort()
    down.end.abort()

    assert up.transport.ends == down.transport.ends == ["abort"]
    assert down.receiver.error.detail == "drain_forced"


# --- downstream


def test_what_comes_from_downstream_is_body() -> None:
    down = Down()
    down.end.data_received(b"ab")
    down.end.read_finished()
    down.end.writable()
    down.end.eof_received()

    assert down.receiver.events == [
        ("body_received", b"ab", False),
        ("writable",),
        ("body_received", b"", True),
    ]
    assert down.receiver.bursts == 1


def test_a_refusal_is_the_end_of_the_connection_and_success_shows_by_bytes() -> None:
    refused, taken = Down(), Down()
    refused.end.write_head(ResponseHead(403, b"No", [], 0), b"", True)
    taken.end.write_interim(ResponseHead(100, b"", [], None))
    taken.end.write_head(ResponseHead(200, b"OK", [], None), b"", False)
    taken.end.write_whole(ResponseHead(200, b"OK", [], None), b"", b"x")
    taken.end.close_after_response()
    taken.end.drain()

    assert refused.transport.ends == ["close"]
    assert refused.receiver.events == []
    assert not refused.end.take_back()
    assert (taken.transport.sent, taken.transport.ends) == (b"x", ["shutdown"])


def test_nothing_is_told_after_a_reset() -> None:
    down = Down()
    down.end.set_deadline(down.loop.time() + 5)
    down.end._events = None

    down.end.data_received(b"x")
    down.end.read_finished()
    down.end.writable()
    down.end.eof_received()
    down.loop.advance(10)

    assert down.receiver.events == []


def test_a_reset_by_the_peer_is_told() -> None:
    down = Down()

    down.transport.break_(OSError())

    assert down.receiver.error.detail == "downstream_reset"


def test_deadlines_are_told_unless_switched_off() -> None:
    down = Down()
    down.end.set_deadline(down.loop.time() + 5)
    down.end.set_deadline(NEVER)
    down.loop.advance(10)
    assert down.receiver.events == []

    down.end.set_deadline(down.loop.time() + 5)
    down.loop.advance(10)

    assert down.receiver.names == ["deadline_passed"]


@pytest.mark.parametrize("heard", [True, False])
def test_a_peer_that_takes_nothing_is_cut(heard: bool) -> None:  # noqa: FBT001
    """Threat E1; with the exchange over nobody else would."""
    down = Down()
    down.transport.stall()
    down.end.write_body(b"x", False)
    down.loop.advance(29)
    down.transport.progress += 1
    down.loop.advance(2)
    assert down.transport.ends == []
    if not heard:
        down.end._events = None

    down.loop.advance(31)

    assert down.transport.ends == ["abort"]
    assert [error.detail for _, error in down.receiver.events] == ["write_timeout"] * heard


def test_a_peer_that_has_caught_up_is_not() -> None:
    down = Down()
    down.transport.stall()
    down.end.write_body(b"x", False)
    down.transport.drain()

    down.loop.advance(60)

    assert down.transport.ends == []
