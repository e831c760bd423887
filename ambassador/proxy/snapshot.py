"""The immutable compiled view of the configuration that an exchange captures once.

Knows routes with their services, settings and counters; must not know sockets.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ambassador.core.errors import RateLimited
from ambassador.policy.forwarding import attempt_line, timeout_line
from ambassador.policy.rate_limit import RateLimiter
from ambassador.policy.routing import RouteTable, Split, by_name
from ambassador.proxy.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ambassador.config.model import FaultConfig, RouteConfig, RouteSettings
    from ambassador.policy.rate_limit import RateLimit
    from ambassador.telemetry.metrics import Metrics, RequestStats, RetryStats, Tally
    from ambassador.upstream.directory import Directory
    from ambassador.upstream.service import Service


#: Times that peers asked for, told apart: a hop before us has a few, its retries some more.
_MAX_SHORTENED: Final = 256


class Target:
    """A service as one route leads to it, with the counters of both.

    `first_lines` go with the first attempt, which has `span_s` seconds; `is_special`: its exchanges have repetitions
    or faults to look after.
    """

    __slots__ = (
        "_counts_attempts", "_shortened", "fault", "first_lines", "is_shortened", "is_special", "limit", "retries",
        "service", "settings", "span_s", "stats",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        settings: RouteSettings,
        stats: RequestStats,
        *,
        retries: RetryStats,
        limit: Limit | None = None,
        fault: Fault | None = None,
        is_shortened: bool = False,
    ) -> None:
        self.is_shortened = is_shortened  # by a request's sender
        self.service = service
        self.settings = settings
        self.stats = stats
        self.retries = retries
        self.limit = limit
        self.fault = fault
        self._counts_attempts = not service.config.is_app
        self.span_s = _shortest(settings)
        self.first_lines = self.lines(1, self.span_s)
        self.is_special = fault is not None or (
            settings.retry is not None
            or settings.hedge_after_s is not None
            or settings.per_try_timeout_s is not None
        )
        self._shortened: dict[int, Target] = {}

    def __repr__(self) -> str:
        return f"Target({self.service.name})"

    def lines(self, number: int, left_s: float | None) -> bytes:
        """Give the header lines of an attempt that has so much time. Units: seconds, None for ever."""
        lines = timeout_line(left_s)
        return lines + attempt_line(number) if self._counts_attempts else lines

    def within(self, asked_ms: int) -> Target:
        """Give the target for a request whose sender waits only so long; it can only shorten ours (threats H6)."""
        ours = self.settings.timeout_s
        if ours is not None and asked_ms >= ours * 1000:
            return self
        shortened = self._shortened.get(asked_ms)
        if shortened is None:
            if len(self._shortened) >= _MAX_SHORTENED:
                self._shortened.clear()
            shortened = self._shortened[asked_ms] = Target(
                self.service,
                replace(self.settings, timeout_s=asked_ms / 1000),
                self.stats,
                retries=self.retries,
                limit=self.limit,
                fault=self.fault,
                is_shortened=True,
            )
        return shortened


def _shortest(settings: RouteSettings) -> float | None:
    spans = [span for span in (settings.timeout_s, settings.total_timeout_s) if span is not None]
    return min(spans, default=None)


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

    __slots__ = ("_chance", "_direction", "_directory", "_limiters", "_listener", "_metrics")

    def __init__(
        self,
        direction: str,
        listener: str,
        directory: Directory,
        metrics: Metrics,
        *,
        limiters: dict[RateLimit, RateLimiter],
        faults: Callable[[], float] | None,
    ) -> None:
        self._chance = faults  # None: faults are not enabled, whatever the file says
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
            self._directory[service],
            settings,
            stats,
            retries=self._metrics.retries(service),
            limit=self._limit(route, settings.rate_limit),
            fault=self._fault(route, settings.fault),
        )

    def _fault(self, route: str, config: FaultConfig | None) -> Fault | None:
        if config is None or self._chance is None:
            return None
        tally = self._metrics.faults(self._listener, route)
        return Fault(config, tally, chance=self._chance, inbound=self._direction == "inbound")

    def _limit(self, route: str, settings: RateLimit | None) -> Limit | None:
        if settings is None:
            return None
        limiter = self._limiters.setdefault(settings, RateLimiter(settings))
        return Limit(limiter, self._metrics.rate_limit(self._listener, route))
