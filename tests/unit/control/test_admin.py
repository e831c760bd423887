"""The admin port answers three pages, to those who may ask."""

from __future__ import annotations

import pytest

from ambassador.control.admin import METRICS_TYPE, Admin, Reply

GET = b"GET"
HOST = b"127.0.0.1:9901"


class Scene:
    def __init__(self, *reasons: str, names: frozenset[str] = frozenset()) -> None:
        self.scrapes = 0
        self.admin = Admin(readiness=lambda: list(reasons), scrape=self._scrape, names=names)

    def _scrape(self) -> object:
        self.scrapes += 1
        return lambda: b"ambassador_ready 1\n"

    def get(self, path: bytes, *, host: bytes = HOST, **fields: bytes) -> Reply:
        return self.admin.respond(GET, path, host=host, **fields)


def test_live_is_live() -> None:
    reply = Scene("draining").get(b"/live")

    assert (reply.status, reply.body) == (200, b"live\n")


def test_ready_is_ready_when_nothing_speaks_against_it() -> None:
    reply = Scene().get(b"/ready")

    assert (reply.status, reply.body) == (200, b"ready\n")


def test_not_ready_gives_one_reason_a_line() -> None:
    """config.md §5, Probes."""
    reply = Scene("draining", "discovery_pending:payments", "bad\x1b\nword").get(b"/ready")

    assert (reply.status, reply.body) == (
        503,
        b"draining\ndiscovery_pending:payments\nbad\\x1b\\x0aword\n",
    )


def test_metrics_are_rendered_by_whoever_asked_when_they_like() -> None:
    scene = Scene()

    reply = scene.get(b"/metrics")

    assert scene.scrapes == 1
    assert (reply.status, reply.content_type, reply.body) == (200, METRICS_TYPE, b"")
    assert reply.render is not None
    assert reply.render() == b"ambassador_ready 1\n"


def test_a_query_changes_nothing() -> None:
    """Prometheus may be configured to send parameters."""
    assert Scene().get(b"/metrics?name[]=x").status == 200


@pytest.mark.parametrize("path", [b"/live", b"/ready", b"/metrics"])
def test_head_is_answered_like_get(path: bytes) -> None:
    reply = Scene().admin.respond(b"HEAD", path, host=HOST)

    assert reply.status == 200


@pytest.mark.parametrize("path", [b"/live", b"/ready", b"/metrics"])
@pytest.mark.parametrize(
    "method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"X"]
)
def test_no_other_method_does_anything(method: bytes, path: bytes) -> None:
    """Threats I1; RFC 9110 §15.5.6."""
    scene = Scene()

    reply = scene.admin.respond(method, path, host=HOST)

    assert reply.status == 405
    assert (b"allow", b"GET, HEAD") in reply.headers
    assert scene.scrapes == 0


@pytest.mark.parametrize("method", [GET, b"POST"])
@pytest.mark.parametrize(
    "path",
    [b"/", b"", b"*", b"/live/", b"//live", b"/LIVE", b"/%6cive", b"/live/../ready", b"/startup", b"/drain",
     b"/quitquitquit", b"/logging", b"/config", b"/config_dump", b"/tap", b"/stats", b"/metrics;x"],
)  # fmt: skip
def test_every_other_path_lists_the_pages(method: bytes, path: bytes) -> None:
    """Threats I1: drain, tap, log level and config are not on this port."""
    reply = Scene().admin.respond(method, path, host=HOST)

    assert (reply.status, reply.body) == (404, b"not_found\n/live\n/ready\n/metrics\n")


@pytest.mark.parametrize("path", [b"/live", b"/ready", b"/metrics", b"/", b"/x"])
@pytest.mark.parametrize("method", [GET, b"POST"])
def test_no_reply_is_stored_sniffed_or_run(method: bytes, path: bytes) -> None:
    """Threats I1: Envoy CVE-2026-73546."""
    reply = Scene().admin.respond(method, path, host=HOST)

    assert reply.content_type.startswith(b"text/plain;")
    assert (b"cache-control", b"no-store") in reply.headers
    assert (b"x-content-type-options", b"nosniff") in reply.headers
    assert (
        b"content-security-policy",
        b"default-src 'none'; frame-ancestors 'none'",
    ) in reply.headers


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:9901", b"LocalHost:9901", b"127.0.0.1", b"10.1.2.3:9901", b"[::1]:9901",
     b"[fd00::7]", b"web", b"web:9901", b""],
)  # fmt: skip
def test_addresses_and_names_of_the_local_network_are_ours(host: bytes) -> None:
    assert Scene().get(b"/live", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"evil.example:9901", b"localhost.evil.example", b"127.0.0.1.evil.example", b"localhost.",
     b"payments.localhost", b"127.0.0.1:", b"127.0.0.1:x", b"[::1", b"[::g]", b"::1", b"127.1", b"0x7f.0.0.1",
     b"user@127.0.0.1", b"127.0.0.1\x00", b"127.0.0.1:9901\n", b"\xff"],
)  # fmt: skip
@pytest.mark.parametrize("path", [b"/live", b"/metrics", b"/"])
def test_another_name_is_not_ours(host: bytes, path: bytes) -> None:
    """Threats H7: DNS rebinding; not even the list of pages."""
    scene = Scene()

    reply = scene.get(path, host=host)

    assert (reply.status, reply.body) == (404, b"unknown_host\n")
    assert scene.scrapes == 0


def test_a_name_that_was_handed_in_is_ours() -> None:
    scene = Scene(names=frozenset({"web.example"}))

    assert scene.get(b"/live", host=b"Web.example:9901").status == 200
    assert scene.get(b"/live", host=b"webb.example").status == 404


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": b"none"}, 200),
        ({"sec_fetch_site": b"same-origin"}, 200),
        ({"sec_fetch_site": b"same-site"}, 403),
        ({"sec_fetch_site": b"cross-site"}, 403),
        ({"sec_fetch_site": b""}, 403),
        ({"origin": b"http://127.0.0.1:9901"}, 200),
        ({"origin": b"HTTP://127.0.0.1:9901"}, 200),
        ({"origin": b"http://127.0.0.1:9902"}, 403),
        ({"origin": b"https://127.0.0.1:9901"}, 403),
        ({"origin": b"http://evil.example"}, 403),
        ({"origin": b"null"}, 403),
        ({"origin": b""}, 403),
        ({"origin": b"http://127.0.0.1:9901", "sec_fetch_site": b"cross-site"}, 403),
        ({"origin": b"null", "sec_fetch_site": b"same-origin"}, 403),
    ],
)
@pytest.mark.parametrize("path", [b"/live", b"/metrics"])
def test_pages_of_other_sites_learn_nothing(
    fields: dict[str, bytes], status: int, path: bytes
) -> None:
    """Threats H7: Origin x Sec-Fetch-Site."""
    assert Scene().get(path, **fields).status == status


def test_the_responder_names_its_hosts() -> None:
    assert repr(Scene(names=frozenset({"web"})).admin) == "Admin(names=['localhost', 'web'])"
