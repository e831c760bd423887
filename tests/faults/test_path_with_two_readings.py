"""Paths with two readings, where rules name paths: 400, nothing goes on (F1, F4)."""

from __future__ import annotations

import itertools

import pytest

from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, stage

__all__ = ["inbound", "outbound", "stage"]

ALLOW = {"spiffe": "spiffe://example.org/payments", "paths": ["/public/**", "/"]}
CONFIG = {
    "inbound": {"allow": [ALLOW]},
    "outbound": {"routes": [{"match": {"prefix": "/public"}, "service": "payments"}]},
}
#: What a lenient reader takes for `/`, a dot segment, or an end.
ODD = [
    b"..", b".", b"%2e%2e", b"%2E%2e", b".%2e", b"%2e", b"%2f", b"%2F", b"%5c", b"\\", b"%00", b"%", b"%2", b"%zz",
    b"%61", b"%7e", b"x;y", b"..;", b";", b"%3b", b"#", b"%23", b"%25%32%65", b"a%2fb", b"%c0%af",
    b"%0a",
    b"%0d%0a", b"%09",
]  # fmt: skip
#: These are nothing but themselves to every reader: escapes of reserved bytes and of other bytes (RFC 3986 §2.1).
HARMLESS = {b"%c0%af", b"%23", b"%3b"}
PLACES = [b"/public/%b/admin", b"/public/%b", b"/%b/admin"]
VARIANTS = [place % odd for place, odd in itertools.product(PLACES, ODD) if odd not in HARMLESS]
VARIANTS += [b"/public//admin", b"//public", b"//admin", b"/public/x//", b"/public/x/../../admin"]


@pytest.mark.parametrize("path", VARIANTS)
def test_a_path_with_two_readings_never_reaches_the_app(inbound: Side, path: bytes) -> None:
    """Envoy CVE-2026-73511, -73551; Istio CVE-2021-31920; HAProxy CVE-2023-45539."""
    answer = inbound.refused(
        b"GET %b HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n" % path
    )

    assert answer.startswith(b"HTTP/1.1 400 "), path


@pytest.mark.parametrize("path", VARIANTS)
def test_a_path_with_two_readings_never_selects_a_route(outbound: Side, path: bytes) -> None:
    """A route is a rule too: the bytes that were matched are those that go on."""
    answer = outbound.refused(
        b"GET %b HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n" % path
    )

    assert answer.startswith(b"HTTP/1.1 400 "), path


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT payments:443 HTTP/1.1\r\nHost: payments:443\r\n\r\n", {403, 405, 501}),
        (b"CONNECT /public/x HTTP/1.1\r\nHost: payments\r\n\r\n", {400}),
        (b"OPTIONS * HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n", {403}),
        (b"GET /admin HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n", {403}),
        (b"GET /publicity HTTP/1.1\r\nHost: payments\r\nConnection: close\r\n\r\n", {403}),
    ],
)
def test_what_has_no_path_or_another_one_is_denied(
    inbound: Side, request_: bytes, status: set[int]
) -> None:
    """Envoy CVE-2026-73547: no path matches no path rule."""
    answer = inbound.refused(request_)

    assert int(answer.split(b" ")[1]) in status


@pytest.mark.parametrize(
    "line", [b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin", b"X-HTTP-Method-Override: DELETE"]
)
@pytest.mark.parametrize("spelling", [bytes, bytes.upper, lambda line: line.replace(b"-", b"_")])
def test_an_override_of_the_path_is_gone_where_rules_name_paths(
    inbound: Side, line: bytes, spelling: object
) -> None:
    """Symfony CVE-2018-14773 (A7)."""
    assert callable(spelling)
    name, _, value = line.partition(b": ")
    sent = spelling(name) + b": " + value
    received, _ = inbound.exchange(
        b"GET /public/x HTTP/1.1\r\nHost: payments\r\n%b\r\n%b\r\n\r\n" % (sent, sent),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )

    assert value not in received
