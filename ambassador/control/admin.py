"""Answers on the admin port: is it alive, is it ready, how is it doing. It changes nothing.

Knows pages, methods and who may ask; must not know sockets or HTTP's framing. A page in somebody's browser can reach
loopback, by DNS rebinding even under a name of its own: whoever asks under another name than an address, `localhost`
or one without a dot, or comes from another site, learns nothing (threats H7, I1). A name without a dot (`web:9901`
under compose) is of the local network: nobody can have such a domain.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ambassador.telemetry.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES: Final = (b"/live", b"/ready", b"/metrics")
_METHODS: Final = (b"GET", b"HEAD")
_ALLOW: Final = (b"allow", b", ".join(_METHODS))
_PLAIN: Final = b"text/plain; charset=utf-8"
METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_OWN_SITE: Final = (b"same-origin", b"none")  # `none`: typed into the address bar
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253})(?::[0-9]{1,5})?")
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_LIST: Final = b"not_found\n" + b"".join(page + b"\n" for page in PAGES)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response without its framing; to HEAD the side that writes sends only the head.

    When `render` is set it makes the body and takes milliseconds (40 the first time): call it in a thread, then
    `body` is empty.
    """

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = _HEADERS
    render: Callable[[], bytes] | None = None


class Admin:
    """Gives the reply to each request on the admin port.

    `readiness` gives the reason codes why we are not ready, empty when we are; `detail` more lines, for who asks for
    `/ready?detail`; `scrape` reads the metrics and gives the function that makes their text (`Metrics.scrape`).
    `names` are further host names to answer to, lower case.
    """

    __slots__ = ("_detail", "_names", "_readiness", "_scrape")

    def __init__(
        self,
        *,
        readiness: Callable[[], list[str]],
        scrape: Callable[[], Callable[[], bytes]],
        detail: Callable[[], list[str]] = list,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._readiness = readiness
        self._detail = detail
        self._scrape = scrape
        self._names = names | {"localhost"}

    def __repr__(self) -> str:
        return f"Admin(names={sorted(self._names)})"

    def respond(
        self,
        method: bytes,
        path: bytes,
        *,
        host: bytes,
        origin: bytes | None = None,
        sec_fetch_site: bytes | None = None,
    ) -> Reply:
        """Give the reply; `host` is the authority asked for, empty when HTTP/1.0 named none.

        The order is who, what, how: a stranger does not even learn which pages there are.
        Source: RFC 9110 §15.5.6 (405 names the methods); threats H7 (404 for an unknown host, 403 for another site).
        """
        if not self._is_ours(host):
            return Reply(404, _PLAIN, b"unknown_host\n")
        if not _is_own_site(host, origin, sec_fetch_site):
            return Reply(403, _PLAIN, b"foreign_origin\n")
        page, _, query = path.partition(b"?")
        if page not in PAGES:
            return Reply(404, _PLAIN, _LIST)
        if method not in _METHODS:
            return Reply(405, _PLAIN, b"method_not_allowed\n", (_ALLOW, *_HEADERS))
        return self._page(page, with_detail=query == b"detail")

    def _page(self, page: bytes, *, with_detail: bool) -> Reply:
        if page == b"/live":
            return Reply(200, _PLAIN, b"live\n")
        if page == b"/metrics":
            return Reply(200, METRICS_TYPE, b"", render=self._scrape())
        return self._ready(with_detail=with_detail)

    def _ready(self, *, with_detail: bool) -> Reply:
        reasons = self._readiness()
        lines = [*(reasons or ["ready"]), *(self._detail() if with_detail else ())]
        body = "".join(f"{clean(line)}\n" for line in lines).encode()
        return Reply(503 if reasons else 200, _PLAIN, body)

    def _is_ours(self, host: bytes) -> bool:
        if not host:  # no browser speaks HTTP/1.0 without Host, some probes do
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].decode().lower()
        return "." not in name or name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_own_site(host: bytes, origin: bytes | None, sec_fetch_site: bytes | None) -> bool:
    if sec_fetch_site is not None and sec_fetch_site not in _OWN_SITE:
        return False
    return origin is None or origin.lower() == b"http://" + host.lower()
