"""What stands behind `/ready`: how old each discovery's answer is, and how each endpoint does.

Knows services and keepers; must not know pages. Addresses of endpoints are told on loopback only (threats I1): on an
exposed port endpoints have numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ambassador.discovery.keeper import Keeper
    from ambassador.upstream.endpoint import EndpointState
    from ambassador.upstream.service import Service

#: Of a service so many endpoints are listed at most: who is not healthy first.
MAX_ENDPOINTS = 100


def describe(
    services: Iterable[Service],
    keepers: Iterable[Keeper],
    *,
    mono_now: float,
    wall_now: float,
    names_addresses: bool,
) -> list[str]:
    """Give a line for each discovery and each endpoint.

    Units: seconds of the loop's clock and Unix time.
    """
    lines = [_discovery(keeper, wall_now) for keeper in keepers]
    for service in services:
        if service.is_panicking:
            lines.append(f"panic:{service.name}")
        lines += _endpoints(service, mono_now, names_addresses=names_addresses)
    return lines


def _discovery(keeper: Keeper, wall_now: float) -> str:
    what = f"discovery:{keeper.service} {keeper.kind}"
    if not keeper.last_success:
        return f"{what} never succeeded {keeper.failure}".rstrip()
    age_s = max(0, round(wall_now - keeper.last_success))
    return f"{what} last_success {age_s}s ago {keeper.failure}".rstrip()


def _endpoints(service: Service, now: float, *, names_addresses: bool) -> Iterator[str]:
    numbered = list(enumerate(service.endpoints, 1))
    numbered.sort(key=lambda pair: pair[1].state(now) == "healthy")
    for number, state in numbered[:MAX_ENDPOINTS]:
        name = state.address_text if names_addresses else f"#{number}"
        yield f"endpoint:{service.name} {name} {_state(state, now)}"
    if len(numbered) > MAX_ENDPOINTS:
        yield f"endpoint:{service.name} {len(numbered) - MAX_ENDPOINTS} more"


def _state(state: EndpointState, now: float) -> str:
    word, why = state.state(now), state.why(now)
    left_s = max(0, round(state.outlier.next_event_at - now)) if word == "ejected" else 0
    return " ".join(filter(None, (word, why, f"{left_s}s left" if left_s else "")))
