"""Routes, their order, by-name tables, suggestions and splits (config.md §3; threats A2, A8, F2-F4, H1)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import Field
from ambassador.policy.routing import (
    CompiledRoute,
    Match,
    RouteTable,
    Split,
    by_name,
    check_header_name,
    suggest,
)
from tests.unit.policy.make import fields

NO_FIELDS: list[Field] = []


def found(
    match: Match,
    *,
    host: bytes = b"shop",
    method: bytes = b"GET",
    path: bytes = b"/",
    with_fields: list[Field] = NO_FIELDS,
) -> bool:
    """Say whether a table of one route finds it."""
    return RouteTable([("x", match, 1)]).find(host, method, path, with_fields) == 1


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("payments", b"payments", True),
        ("Payments", b"payments", True),
        ("payments.", b"payments", True),
        ("payments", b"payments.example", False),
        ("payments", b"", False),
        ("*.payments.example", b"eu.payments.example", True),
        ("*.payments.example", b"a.eu.payments.example", True),
        ("*.payments.example", b"payments.example", False),
        ("*.payments.example", b"xpayments.example", False),
        ("*.payments.example", b"", False),
        ("[0::1]", b"[::1]", True),
    ],
)
def test_a_host_is_exact_or_below_a_wildcard(pattern: str, host: bytes, expected: bool) -> None:  # noqa: FBT001
    """config.md §3; Envoy's suffix domain wildcard."""
    assert found(Match(hosts=(pattern,)), host=host) is expected
    assert found(Match(hosts=("other", pattern)), host=host) is expected


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        (Match(path="/a"), b"/a", True),
        (Match(path="/a"), b"/a?x", True),
        (Match(path="/a"), b"/a/", False),
        (Match(path="/a"), b"/A", False),
        (Match(path="/a@b"), b"/a%40b", True),
        (Match(path="/caf%c3%a9"), b"/caf%C3%A9", True),
        (Match(prefix="/api"), b"/api", True),
        (Match(prefix="/api"), b"/api?x", True),
        (Match(prefix="/api"), b"/api/x", True),
        (Match(prefix="/api"), b"/apifoo", False),
        (Match(prefix="/api/"), b"/api", False),
        (Match(prefix="/"), b"/x", True),
        (Match(prefix="/"), b"*", False),
        (Match(prefix="/"), b"", False),
        (Match(path="*"), b"/", False),
        (Match(), b"*", True),
        (Match(), b"", True),
    ],
)
def test_a_path_is_matched_whole_or_by_segments(match: Match, path: bytes, expected: bool) -> None:  # noqa: FBT001
    """Threats F2 (borders), F4 (CONNECT and * have no path)."""
    assert found(match, path=path) is expected


@pytest.mark.parametrize(
    ("method", "expected"), [(b"GET", True), (b"PUT", True), (b"get", False), (b"POST", False)]
)
def test_a_method_is_one_of_those_named(method: bytes, expected: bool) -> None:  # noqa: FBT001
    """RFC 9110 §9.1: case-sensitive."""
    assert found(Match(methods=("GET", "PUT")), method=method) is expected


@pytest.mark.parametrize(
    ("pairs", "exact", "present"),
    [
        ([], False, False),
        ([(b"X-Canary", b"1")], True, True),
        ([(b"x-canary", b"2")], False, True),
        ([(b"X-Canary", b"")], False, True),
        ([(b"X-Canary", b"1"), (b"X-Canary", b"1")], False, False),
        ([(b"X-Canary", b"1"), (b"x-canary", b"2")], False, False),
        ([(b"X-Canary", b"1, 1")], False, True),
        ([(b"X-Canary", b"1\xe9")], False, False),
        ([(b"X-Canary", b"\xc2\xb9")], False, False),
        ([(b"X_Canary", b"1")], False, False),
        ([(b"X-Other", b"1"), (b"X-Canary", b"1")], True, True),
    ],
)
def test_a_header_decides_only_when_all_readers_see_one_value(
    pairs: list[tuple[bytes, bytes]],
    exact: bool,
    present: bool,  # noqa: FBT001
) -> None:
    """Threats A8: Envoy CVE-2026-26308, CVE-2026-73552; Istio CVE-2026-31838."""
    received = fields(*pairs)

    assert found(Match(headers=(("X-Canary", "1"),)), with_fields=received) is exact
    assert found(Match(headers=(("x-canary", None),)), with_fields=received) is present


def test_all_conditions_of_a_match_must_hold() -> None:
    """config.md §3."""
    match = Match(("a",), None, "/x", ("GET",), (("h", "1"), ("i", None)))
    all_fields = fields((b"h", b"1"), (b"i", b"2"))

    assert found(match, host=b"a", path=b"/x", with_fields=all_fields)
    assert not found(match, host=b"b", path=b"/x", with_fields=all_fields)
    assert not found(match, host=b"a", path=b"/y", with_fields=all_fields)
    assert not found(match, host=b"a", path=b"/x", method=b"PUT", with_fields=all_fields)
    assert not found(match, host=b"a", path=b"/x", with_fields=all_fields[:1])


def test_the_first_route_that_matches_wins() -> None:
    """config.md §3: first match wins, none: 404."""
    table = RouteTable(
        [("a", Match(prefix="/a"), 1), ("ab", Match(prefix="/a/b"), 2), ("c", Match(path="/c"), 3)]
    )

    assert table.find(b"", b"GET", b"/a/b", NO_FIELDS) == 1
    assert table.find(b"", b"GET", b"/c", NO_FIELDS) == 3
    assert table.find(b"", b"GET", b"/d", NO_FIELDS) is None


def test_a_first_route_without_conditions_is_constant() -> None:
    """House §8: it is decided when the configuration is compiled."""
    assert RouteTable([("all", Match(), 1), ("never", Match(path="/"), 2)]).constant == 1
    assert RouteTable([("some", Match(hosts=("a",)), 1), ("all", Match(), 2)]).constant is None
    assert RouteTable([("root", Match(prefix="/"), 1)]).constant is None
    empty: RouteTable[int] = RouteTable([])
    assert empty.constant is None
    assert empty.find(b"a", b"GET", b"/", NO_FIELDS) is None


@pytest.mark.parametrize(
    ("match", "paths", "methods"),
    [
        (Match(), False, False),
        (Match(prefix="/"), False, False),
        (Match(prefix="/a"), True, False),
        (Match(path="/"), True, False),
        (Match(methods=("GET",)), False, True),
        (Match(hosts=("a",)), False, False),
    ],
)
def test_a_table_says_whether_it_tells_paths_or_methods_apart(
    match: Match,
    paths: bool,
    methods: bool,  # noqa: FBT001
) -> None:
    """Threats A7, F1: then paths must be normal, and override fields go."""
    table = RouteTable([("x", match, 1)])

    assert (table.names_paths, table.names_methods) == (paths, methods)


_HOSTS = st.sampled_from(["a", "b", "c", "*.a"])


@given(
    st.lists(st.lists(_HOSTS, max_size=2), max_size=5), st.sampled_from([b"a", b"b", b"x.a", b"d"])
)
def test_the_dict_of_exact_hosts_finds_what_the_walk_finds(
    rows: list[list[str]], host: bytes
) -> None:
    """The short way is only a short way."""
    routes = [(str(number), Match(hosts=tuple(hosts)), number) for number, hosts in enumerate(rows)]
    walked = (
        route.payload
        for route in (CompiledRoute(*row) for row in routes)
        if route.matches(host, b"GET", b"/", NO_FIELDS)
    )

    assert RouteTable(routes).find(host, b"GET", b"/", NO_FIELDS) == next(walked, None)


BY_NAME = by_name([
    ("payments", ("pay.example.org", "STOCK.example.org"), "P"),
    ("stock", (), "S"),
    ("stock-2", ("payments", "payments.localhost", "stock.example.org"), "S2"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("host", "service"),
    [
        (b"payments", "P"),
        (b"payments.localhost", "P"),
        (b"pay.example.org", "P"),
        (b"stock.example.org", "P"),
        (b"stock", "S"),
        (b"stock-2.localhost", "S2"),
        (b"stock.other", None),
        (b"localhost", None),
        (b"127.0.0.1", None),
        (b"169.254.169.254", None),
        (b"[::ffff:7f00:1]", None),
        (b"0", None),
        (b"2130706433", None),
        (b"", None),
    ],
)
def test_without_routes_a_host_names_its_service_and_nothing_else(
    host: bytes, service: str | None
) -> None:
    """config.md §3; threats H1: names select services, an authority is never dialled."""
    assert BY_NAME.find(host, b"GET", b"/", NO_FIELDS) == service


def test_tables_and_routes_print_themselves() -> None:
    """House §8."""
    assert repr(RouteTable([("a", Match(), 1)])) == "RouteTable(['a'])"
    assert repr(CompiledRoute("a", Match(), 1)) == "CompiledRoute('a')"
    assert repr(Split([("a", 2)])) == "Split(('a',), (2,))"


@pytest.mark.parametrize("name", ["x-canary", "User-Agent", "cookie", "x-client-version"])
def test_a_field_that_stays_can_be_routed_by(name: str) -> None:
    """config.md §3."""
    assert check_header_name(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Host", "ends at each hop"),
        ("transfer-encoding", "ends at each hop"),
        ("X-Forwarded-Client-Cert", "dropped before routing"),
        ("x_real_ip", "dropped before routing"),
        ("X-Original-URL", "dropped before routing"),
        ("é", "no field name"),
    ],
)
def test_a_route_on_a_field_that_is_gone_by_then_is_an_error(name: str, words: str) -> None:
    """Threats A2: a route on a forged XFCC never matches, so it is not even accepted."""
    assert words in (check_header_name(name) or "")


def test_near_names_are_suggested_the_nearest_first() -> None:
    """Issue 3: unknown services get 404 with the names that could be meant."""
    assert suggest("payment", ["stock", "payments", "pavement"]) == ["payments", "pavement"]
    assert suggest("zzz", ["stock", "payments"]) == []
    assert suggest("p" * 65, ["p" * 64]) == []
    assert len(suggest("a", ["a", "a1", "a2", "a3", "a4"])) == 3


def test_a_split_shares_out_by_weight() -> None:
    """config.md §3: split {NAME: weight}."""
    split = Split([("a", 90), ("never", 0), ("b", 10)])
    picked = Counter(split.pick(number / 1000) for number in range(1000))

    assert picked == {"a": 900, "b": 100}


def test_a_split_of_one_is_that_one() -> None:
    """Nothing is drawn."""
    assert Split([("a", 1)]).pick(0.5) == "a"
    assert Split([("a", 1), ("b", 3)]).pick(0.9999999999999999) == "b"


@pytest.mark.parametrize("targets", [[], [("a", 0)]])
def test_a_split_without_weight_is_refused(targets: list[tuple[str, int]]) -> None:
    """Nothing could be picked."""
    with pytest.raises(ValueError, match="weight above 0"):
        Split(targets)
