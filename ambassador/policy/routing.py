"""Where to: host, path, method and header -> the payload of the first route that matches.

Knows matches and their order; must not know what a route leads to (the payload is the caller's) nor how a head
was read. Hosts come in as `normal_host` gives them, fields after `headers.sanitize` (threats A2).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from typing import Final, Generic, TypeVar

from ambassador.core.model import IDENTITY, OVERRIDE, WIRE_ROLES, Field
from ambassador.policy.headers import classify
from ambassador.policy.hosts import can_be_rebound, check_host_pattern, normal_host, split_authority
from ambassador.policy.paths import apply_rewrite, check_path, has_prefix, is_normal_path, match_key

__all__ = [
    "CompiledRoute",
    "Match",
    "Rewrite",
    "RouteTable",
    "Split",
    "apply_rewrite",
    "by_name",
    "can_be_rebound",
    "check_header_name",
    "check_host_pattern",
    "check_path",
    "is_normal_path",
    "normal_host",
    "split_authority",
    "suggest",
]

T = TypeVar("T")

_MAX_SUGGESTED_FOR: Final = 64  # difflib is quadratic in the length of what somebody sent
_MAX_KNOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class Match:
    """What a route asks for; all of it must hold, what is absent is everything.

    `headers` are (lower-case name, exact value, or None for `present`).
    """

    hosts: tuple[str, ...] = ()
    path: str | None = None
    prefix: str | None = None
    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a route changes: the matched prefix, the host."""

    prefix: str | None = None
    host: str | None = None


class CompiledRoute(Generic[T]):
    """One route, ready to be asked."""

    __slots__ = (
        "_headers",
        "_methods",
        "_path",
        "_prefix",
        "_suffixes",
        "hosts",
        "name",
        "payload",
    )

    def __init__(self, name: str, match: Match, payload: T) -> None:
        self.name = name
        self.payload = payload
        exact = [host for host in match.hosts if not host.startswith("*.")]
        self.hosts = frozenset(normal_host(host.encode()) for host in exact)
        # As in Envoy, `*.` stands for one label or more, never for none.
        self._suffixes = tuple(
            b"." + normal_host(x[2:].encode()) for x in match.hosts if x.startswith("*.")
        )
        self._path = None if match.path is None else match_key(match.path.encode())
        self._prefix = None if match.prefix is None else match_key(match.prefix.encode())
        self._methods = frozenset(method.encode() for method in match.methods)
        self._headers = tuple(
            (key.lower().encode(), None if value is None else value.encode("utf-8"))
            for key, value in match.headers
        )

    @property
    def only_host(self) -> bool:
        """Say whether nothing but the exact host decides."""
        return not self._suffixes and self.names_no_more

    @property
    def names_no_more(self) -> bool:
        return (
            self._path is None and self._prefix is None and not self._methods and not self._headers
        )

    @property
    def unconditional(self) -> bool:
        return not self.hosts and self.only_host

    @property
    def names_path(self) -> bool:
        """Say whether the route tells paths apart; `prefix: /` does not."""
        return self._path is not None or self._prefix not in {None, b"/"}

    def matches(self, host: bytes, method: bytes, key: bytes, fields: Sequence[Field]) -> bool:
        """Say whether all conditions hold; `key` is the path's `match_key`."""
        if (
            (self.hosts or self._suffixes)
            and host not in self.hosts
            and not host.endswith(self._suffixes)
        ):
            return False
        if self._methods and method not in self._methods:
            return False
        if self._path is not None and key != self._path:
            return False
        # What has no path (CONNECT, OPTIONS *) is below no prefix, not even `/` (threats F4).
        if self._prefix is not None and not has_prefix(key, self._prefix):
            return False
        return all(header_matches(name, value, fields) for name, value in self._headers)

    def __repr__(self) -> str:
        return f"CompiledRoute({self.name!r})"


def header_matches(name: bytes, value: bytes | None, fields: Sequence[Field]) -> bool:
    """Say whether a field is there once, in ASCII, and as wanted.

    A doubled field, or one that readers decode differently, is what a rule must not be decided by
    (threats A8; Envoy CVE-2026-26308). A list in one field is one value, and equals none of its members.
    """
    found = [field.value for field in fields if field.name == name]
    if len(found) != 1 or not found[0].isascii():
        return False
    return value is None or found[0] == value


class RouteTable(Generic[T]):
    """The routes of one listener; the first that matches wins.

    `constant`: the payload, when the first route matches everything; then `find` need not be called.
    `names_paths`: some route tells paths apart, so a path that is not normal is to be refused before.
    `names_methods`: likewise for methods; either one drops the override fields.
    """

    __slots__ = ("_by_host", "_routes", "constant", "names_methods", "names_paths")

    def __init__(self, routes: Sequence[tuple[str, Match, T]]) -> None:
        self._routes = tuple(CompiledRoute(name, match, payload) for name, match, payload in routes)
        self.constant = (
            self._routes[0].payload if self._routes and self._routes[0].unconditional else None
        )
        self.names_paths = any(route.names_path for route in self._routes)
        self.names_methods = any(match.methods for _, match, _ in routes)
        self._by_host = self._hosts_only()

    def _hosts_only(self) -> dict[bytes, T] | None:
        """Give one dict when exact hosts alone decide; earlier routes keep their hosts."""
        if not all(route.only_host and route.hosts for route in self._routes):
            return None
        found: dict[bytes, T] = {}
        for route in self._routes:
            for host in route.hosts:
                found.setdefault(host, route.payload)
        return found

    def find(self, host: bytes, method: bytes, path: bytes, fields: Sequence[Field]) -> T | None:
        """Give the payload of the first route that matches, None when there is none.

        `host` is a `normal_host` (empty when the request has none), `path` the target with its query.
        See `benchmarks/micro/policy_routing.py`.
        """
        if self._by_host is not None:
            return self._by_host.get(host)
        key = match_key(path)
        for route in self._routes:
            if route.matches(host, method, key, fields):
                return route.payload
        return None

    def __repr__(self) -> str:
        return f"RouteTable({[route.name for route in self._routes]})"


def by_name(services: Iterable[tuple[str, Sequence[str], T]]) -> RouteTable[T]:
    """Give the table of an outbound listener without `routes`: NAME, NAME.localhost and the service's hosts.

    A service's name goes before another one's `hosts`. `services` are (name, hosts, payload).
    """
    rows = list(services)
    names = [(name, Match(hosts=(name, f"{name}.localhost")), payload) for name, _, payload in rows]
    hosts = [(name, Match(hosts=tuple(also)), payload) for name, also, payload in rows if also]
    return RouteTable([*names, *hosts])


def check_header_name(name: str) -> str | None:
    """Give the reason why no route can match on a field, or None.

    Framing is never among the fields, and what a peer claims about identity or path is dropped before routing
    (threats A2).
    """
    if not name.isascii():
        return "it is no field name"
    role = classify(name.encode())
    if role & WIRE_ROLES:
        return "it ends at each hop"
    if role & (IDENTITY | OVERRIDE):
        return "it is dropped before routing, for nothing a sender says in it is believed"
    return None


def suggest(name: str, known: Iterable[str]) -> list[str]:
    """Give up to three known names that could have been meant, the nearest first."""
    if len(name) > _MAX_SUGGESTED_FOR:
        return []
    return get_close_matches(name, list(known)[:_MAX_KNOWN], n=3, cutoff=0.6)


class Split(Generic[T]):
    """A choice among targets by weight; chance comes in."""

    __slots__ = ("_bounds", "_targets")

    def __init__(self, targets: Sequence[tuple[T, int]]) -> None:
        self._targets = tuple(target for target, weight in targets if weight)
        self._bounds = tuple(accumulate(weight for _, weight in targets if weight))
        if not self._targets:
            raise ValueError("a split needs a target with a weight above 0")

    def pick(self, chance: float) -> T:
        """Give the target that a number out of [0, 1) falls on."""
        if len(self._targets) == 1:
            return self._targets[0]
        return self._targets[bisect_right(self._bounds, chance * self._bounds[-1])]

    def __repr__(self) -> str:
        return f"Split({self._targets}, {self._bounds})"
