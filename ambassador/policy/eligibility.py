"""Which endpoints of a service may be picked now.

Knows what has been seen of each endpoint, as flags; must not know how it was seen. It is asked when something has
changed, not for every request.

An endpoint that refused a connection just now still counts as available where shares are counted: it comes last for
some seconds, and tiers and zones should not change sides with every refused connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Generic, Protocol, TypeVar

from ambassador.policy.balancing import BalanceSettings

_OVERPROVISIONING: Final = 1.4  # Envoy's: up to 28 % of a zone may be missing before others help


class State(Protocol):
    """What has been seen of an endpoint.

    `available`: healthy by its checks and not ejected. `is_impostor`: its identity was wrong when it was dialled
    last. `unreachable`: a connect failed just now. A `zone` that is not known is empty.
    """

    @property
    def priority(self) -> int: ...

    @property
    def zone(self) -> str: ...

    @property
    def available(self) -> bool: ...

    @property
    def is_impostor(self) -> bool: ...

    @property
    def unreachable(self) -> bool: ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Choice(Generic[S]):
    """The endpoints to pick from: a fraction of `near_share` of the requests goes to `near`, the others to `far`.

    A balancer by key takes both as one set, or the same key would go here and there.
    """

    near: tuple[S, ...]
    far: tuple[S, ...]
    near_share: float
    panicking: bool


def choose(states: Sequence[S], *, settings: BalanceSettings, zone: str) -> Choice[S]:
    """Give the endpoints that may be picked, best tier and own zone first; all but impostors in a panic.

    The only endpoint of a service is always given: nothing better is left, and the dial checks its identity again.
    Source: Envoy's priority levels, panic threshold and zone aware routing.
    """
    if len(states) == 1:
        return Choice((states[0],), (), 1.0, not states[0].available)
    sound = [state for state in states if state.available and not state.is_impostor]
    if len(sound) < settings.panic_threshold * _size_in_question(states, sound):
        return Choice(_for_panic(states), (), 1.0, panicking=True)
    if not sound:
        return Choice((), (), 1.0, panicking=False)
    first, last = _tiers(states, sound, settings.panic_threshold)
    usable = _reachable([state for state in sound if first <= state.priority <= last])
    if not (settings.prefers_zone and zone):
        return Choice(tuple(usable), (), 1.0, panicking=False)
    share = _near_share([state for state in states if first <= state.priority <= last], zone)
    return _by_zone(usable, zone, share)


def _size_in_question(states: Sequence[S], sound: list[S]) -> int:
    """Give how many there should be: the tier that would be used, for a small whole tier is no reason to panic."""
    if not sound:
        return len(states)
    first = min(state.priority for state in sound)
    return sum(1 for state in states if state.priority == first)


def _reachable(states: list[S]) -> list[S]:
    """Give those that did not refuse a connection just now; when all did, they are worth a try."""
    return [state for state in states if not state.unreachable] or states


def _for_panic(states: Sequence[S]) -> tuple[S, ...]:
    """Give the lowest tier without its impostors; of the others too when nobody there is reachable.

    Wrong checks must not take a whole service away (fail open), a wrong identity must (threats.md H4).
    """
    trusted = [state for state in states if not state.is_impostor]
    lowest = min((state.priority for state in trusted), default=0)
    tier = [state for state in trusted if state.priority == lowest]
    return tuple(_reachable(trusted if all(state.unreachable for state in tier) else tier))


def _tiers(states: Sequence[S], sound: list[S], threshold: float) -> tuple[int, int]:
    """Give the first and the last priority in use: from the first that can be reached on, until enough is there."""
    first = min(state.priority for state in _reachable(sound))
    size = sum(1 for state in states if state.priority == first)
    enough = max(1, ceil(threshold * size))
    return first, sorted(state.priority for state in sound if state.priority >= first)[:enough][-1]


def _near_share(states: list[S], zone: str) -> float:
    """Give the share of its own zone: all, unless more than 28 % of its endpoints are missing."""
    near = [state for state in states if state.zone == zone]
    available = sum(1 for state in near if state.available and not state.is_impostor)
    return min(1.0, _OVERPROVISIONING * available / len(near)) if near else 1.0


def _by_zone(usable: list[S], zone: str, share: float) -> Choice[S]:
    near = tuple(state for state in usable if state.zone == zone)
    far = tuple(state for state in usable if state.zone != zone)
    if near and far:
        return Choice(near, far, share, panicking=False)
    return Choice(near or far, (), 1.0, panicking=False)
