"""The immutable compiled view of the configuration that an exchange captures once.

Knows routes with their services, settings and counters; must not know sockets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ambassador.core.errors import RateLimited
from ambassador.policy.rate_limit import RateLimiter
from ambassador.policy.routing import RouteTable, Split, by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ambassador.config.model import RouteConfig, RouteSettings
    from ambassador.policy.rate_limit import RateLimit
    from ambassador.telemetry.metrics import Metrics, RequestStats, Tally
    from ambassador.upstream.directory import Directory
    from ambassador.upstream.service import Service


class Target:
    """A service as one route leads to it, with the counters of both."""

    __slots__ = ("limit", "service", "settings", "stats")

    def __init__(
        self,
        service: Service,
        settings: RouteSettings,
        stats: RequestStats,
        limit: Limit | None = None,
    ) -> None:
        self.service = service
        self.settings = settings
        self.stats = stats
        self.limit = limit


class Limit:
    """A rate limit as one route has it, with its counter."""

    __slots__ = ("_limiter", "_tally")

    def __init__(self, limiter: RateLimiter, tally: Tally) -> None:
        self._limiter = limiter
        self._tally = tally

    def admit(self, peer: str, now: float) -> None:
        """Let a request begin. Errors: RateLimited.

        Units: `now` is monotonic seconds.
        """
        wait_s = self._limiter.take(peer, now)
        if wait_s:
            self._tally.value += 1
            whose = "this peer" if self._limiter.by_peer else "all"
            raise RateLimited(
                "rate_limit_peer" if self._limiter.by_peer else "rate_limit_all",
                f"Too many requests; see rate_limit, which counts {whose} here.",
                retry_after_s=math.ceil(wait_s),
            )


class Route:
    """One route, ready to be walked."""

    __slots__ = (
        "_split",
        "matched_prefix",
        "name",
        "names_host",
        "only_target",
        "rewrite_host",
        "rewrite_prefix",
        "rewrites",
        "targets",
        "upgrades",
    )

    def __init__(
        self,
        name: str,
        targets: Sequence[tuple[Target, int]],
        settings: RouteSettings,
        *,
        matched_prefix: bytes = b"/",
        rewrite_prefix: bytes | None = None,
        rewrite_host: bytes | None = None,
        names_host: bool = True,
    ) -> None:
        self.name = name
        self.names_host = names_host  # else every Host leads here
        self.targets = tuple(target for target, _ in targets)
        self.only_target = targets[0][0] if len(targets) == 1 else None
        self._split = Split(targets)
        self.matched_prefix = matched_prefix
        self.rewrite_prefix = rewrite_prefix
        self.rewrite_host = rewrite_host
        self.rewrites = rewrite_prefix is not None or rewrite_host is not None
        self.upgrades = frozenset(token.lower().encode() for token in settings.upgrades)

    def __repr__(self) -> str:
        return f"Route({self.name})"

    def target(self, chance: Callable[[], float]) -> Target:
        """Give the service for one exchange."""
        return self.only_target or self._split.pick(chance())


class RouteCompiler:
    """Makes routes of one listener out of its configuration."""

    __slots__ = ("_direction", "_directory", "_limiters", "_listener", "_metrics")

    def __init__(
        self,
        direction: str,
        listener: str,
        directory: Directory,
        metrics: Metrics,
        *,
        limiters: dict[RateLimit, RateLimiter],
    ) -> None:
        self._limiters = limiters  # of all listeners: a service's limit counts them together
        self._direction = direction
        self._listener = listener
        self._directory = directory
        self._metrics = metrics

    def table(self, routes: Iterable[RouteConfig]) -> RouteTable[Route]:
        """Give the table of explicit routes."""
        return RouteTable([(route.name, route.match, self._route(route)) for route in routes])

    def by_name(
        self, services: Iterable[tuple[str, Sequence[str], RouteSettings]]
    ) -> RouteTable[Route]:
        """Give the table that leads NAME, NAME.localhost and `hosts` to the service NAME."""
        return by_name(
            [(name, hosts, self.single(name, settings)) for name, hosts, settings in services]
        )

    def single(self, service: str, settings: RouteSettings) -> Route:
        """Give the route that leads everything to one service; it has the service's name."""
        return Route(service, [(self._target(service, service, settings), 1)], settings)

    def _route(self, route: RouteConfig) -> Route:
        rewrite = route.rewrite
        matched = route.match.prefix or route.match.path or "/"
        return Route(
            route.name,
            [
                (
                    self._target(
                        route.name, service, route.service_settings.get(service, route.settings)
                    ),
                    weight,
                )
                for service, weight in route.targets
            ],
            route.settings,
            matched_prefix=matched.encode(),
            rewrite_prefix=rewrite.prefix.encode()
            if rewrite is not None and rewrite.prefix is not None
            else None,
            rewrite_host=rewrite.host.encode()
            if rewrite is not None and rewrite.host is not None
            else None,
            names_host=bool(route.match.hosts),
        )

    def _target(self, route: str, service: str, settings: RouteSettings) -> Target:
        stats = self._metrics.requests(
            self._direction, self._listener, route=route, service=service
        )
        return Target(
            self._directory[service], settings, stats, self._limit(route, settings.rate_limit)
        )

    def _limit(self, route: str, settings: RateLimit | None) -> Limit | None:
        if settings is None:
            return None
        limiter = self._limiters.setdefault(settings, RateLimiter(settings))
        return Limit(limiter, self._metrics.rate_limit(self._listener, route))
