"""Who may begin a TLS handshake, in the whole process: slots, rate, and no source with more than its share (D3).

Knows numbers of handshakes and their sources; must not know sockets. What waits for the gate itself waits unaccepted
in the kernel's queue. The handshakes of a source that has its share already are accepted, for else they would block
the queue for everybody, and wait *parked*: under their deadline, without a TLS object, until a slot is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

#: How long parked handshakes let those go first who stand unaccepted: they are of others. Units: seconds.
_COURTESY_S: Final = 0.005


class Parked(Protocol):
    """A handshake that has not begun."""

    source: str

    def may_begin(self) -> bool:
        """Say whether its own listener has a slot for it."""

    def begin(self) -> None: ...


class Waiting(Protocol):
    """A listener that stopped to accept."""

    def resume_accepting(self) -> None: ...


class HandshakeGate:
    """Handshakes in flight and per second (a token bucket of one second's worth).

    Units: `rate` is handshakes per second.
    """

    __slots__ = (
        "_filled_at",
        "_is_due",
        "_loop",
        "_of_source",
        "_parked",
        "_rate",
        "_tokens",
        "ceiling",
        "in_flight",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, *, ceiling: int, rate: float) -> None:
        self._loop = loop
        self.ceiling = ceiling
        self._rate = rate
        self._tokens = rate
        self._filled_at = 0.0
        self._of_source: dict[str, int] = {}
        self._parked: dict[Parked, None] = {}  # in the order of arrival
        self._is_due = False
        self.in_flight = 0
        self.waiting: set[Waiting] = set()

    def __repr__(self) -> str:
        return f"HandshakeGate({self.in_flight} in flight, {len(self._parked)} parked)"

    def pause_s(self, now: float) -> float | None:
        """Give 0 when a handshake may begin, seconds to wait for the rate, or None: until one ends."""
        if self.in_flight >= self.ceiling:
            return None
        self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def has_share(self, source: str, slots: int) -> bool:
        """Say whether a source has as many in flight as it may: half of `slots`. Unix peers all look alike."""
        return bool(source) and self._of_source.get(source, 0) >= max(1, slots // 2)

    def take(self, source: str) -> None:
        """Note that a handshake has begun."""
        self.in_flight += 1
        self._tokens -= 1
        self._of_source[source] = self._of_source.get(source, 0) + 1

    def give_back(self, source: str) -> None:
        """Note that it has ended, and let others have the slot."""
        self.in_flight -= 1
        left = self._of_source[source] - 1
        if left:
            self._of_source[source] = left
        else:
            del self._of_source[source]
        if self._parked:
            # From the loop: one that fails at once would begin the next one inside its own end.
            self._begin_parked_in(_COURTESY_S if self.waiting else 0.0)
        for listener in list(self.waiting):
            listener.resume_accepting()

    def park(self, handshake: Parked) -> None:
        self._parked[handshake] = None

    def unpark(self, handshake: Parked) -> None:
        """Forget one that has ended before it began; another one is no error."""
        self._parked.pop(handshake, None)

    def _begin_parked_in(self, seconds: float) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(seconds, self._begin_parked)

    def _begin_parked(self) -> None:
        self._is_due = False
        for handshake in list(self._parked):
            pause_s = self.pause_s(self._loop.time())
            if pause_s is None:
                return  # whoever ends next comes back here
            if pause_s:
                self._begin_parked_in(max(pause_s, _COURTESY_S))
                return
            if handshake in self._parked and handshake.may_begin():
                del self._parked[handshake]
                handshake.begin()
