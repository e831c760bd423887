"""A copy of a request's body that knows when to give up."""

from __future__ import annotations

from ambassador.wire.replay import ReplayBuffer


def test_pieces_are_kept_in_their_order() -> None:
    buffer = ReplayBuffer(4)

    for piece in (b"ab", b"", b"cd"):
        buffer.add(piece)

    assert buffer.is_whole
    assert buffer.content == b"abcd"


def test_past_its_cap_it_frees_itself_for_ever() -> None:
    """House §7: the running attempt goes on, the exchange is no longer repeatable."""
    buffer = ReplayBuffer(4)

    for piece in (b"ab", b"cde", b"f"):
        buffer.add(piece)

    assert not buffer.is_whole
    assert buffer.content == b""
    assert repr(buffer) == "ReplayBuffer(0 of 4 bytes, whole=False)"


def test_what_nobody_was_sent_yet_is_kept_beyond_the_cap() -> None:
    """In a pause before a retry; the next piece that is sent then ends the copy."""
    buffer = ReplayBuffer(4)
    buffer.add(b"abcd")

    buffer.hold(b"ef")
    assert (buffer.content, buffer.is_whole) == (b"abcdef", True)
    buffer.add(b"g")

    assert (buffer.content, buffer.is_whole) == (b"", False)
