"""Faults on purpose, so that an app can be tested against a slow or failing one: only under `run --enable-faults`.

Knows which request meets which fault; must not know how the exchange carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ambassador.core.errors import FaultInjected, ResponseFlag
from ambassador.policy.authorization import Authorizer
from ambassador.policy.routing import header_matches
from ambassador.proxy import ending
from ambassador.wire.lifecycle import RequestSide

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.config.model import FaultConfig
    from ambassador.core.model import PeerIdentity, RequestHead
    from ambassador.proxy.exchange import Exchange
    from ambassador.telemetry.metrics import FaultTally


@dataclass(frozen=True, slots=True)
class Injected:
    """What happens to one request. Units: seconds; `abort` None: it goes on after the delay."""

    delay_s: float
    abort: FaultInjected | None


class Fault:
    """The fault of one route, compiled."""

    __slots__ = ("_abort", "_allow", "_chance", "_delay_s", "_headers", "_percent", "_tally")

    def __init__(
        self, config: FaultConfig, tally: FaultTally, *, chance: Callable[[], float], inbound: bool
    ) -> None:
        self._delay_s = config.delay_s
        self._abort = config.abort
        self._percent = config.percent
        self._headers = tuple(
            (name.encode(), None if value is None else value.encode())
            for name, value in config.headers
        )
        # Inbound nobody but those whom the fault's own rules name: a stranger must not be able to ask for one (H6).
        self._allow = Authorizer((), config.allow) if inbound else None
        self._tally = tally
        self._chance = chance

    def __repr__(self) -> str:
        return f"Fault(delay {self._delay_s} s, abort {self._abort}, {self._percent:.0%})"

    def begins(self, exchange: Exchange, peer: PeerIdentity | None) -> bool:
        """Let a request meet the fault; False: it goes on as if there were none."""
        injected = self.meets(exchange.head, peer)
        if injected is None:
            return False
        if not injected.delay_s:
            _proceed(exchange, injected)
            return True
        exchange.flag(ResponseFlag.DELAY_INJECTED)
        if exchange.request_side is RequestSide.UPLOADING:
            exchange.hold(b"")
        if exchange.repeats is not None:  # it is there: the target is special
            exchange.repeats.later(injected.delay_s, partial(_proceed, exchange, injected))
        return True

    def meets(self, head: RequestHead, peer: PeerIdentity | None) -> Injected | None:
        """Say what happens to a request, None for nothing."""
        headers_hold = all(
            header_matches(name, value, head.fields) for name, value in self._headers
        )
        if not headers_hold or not self._allows(head, peer):
            return None
        if self._chance() >= self._percent:
            return None
        if self._delay_s:
            self._tally.delays += 1
        abort = None
        if self._abort is not None:
            self._tally.aborts += 1
            abort = FaultInjected(
                "fault_abort", "This route has a fault on purpose.", status=self._abort
            )
        return Injected(self._delay_s, abort)

    def _allows(self, head: RequestHead, peer: PeerIdentity | None) -> bool:
        if self._allow is None:
            return True
        return (
            peer is not None and self._allow.for_peer(peer).decide(head.method, head.path).allowed
        )


def _proceed(exchange: Exchange, injected: Injected) -> None:
    if injected.abort is not None:
        ending.reply(exchange, injected.abort)
    else:
        exchange.try_endpoint()
