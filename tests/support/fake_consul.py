"""A fake of Consul's health API, as its documentation has it; strict: what a real one might forgive is refused.

Knows `GET /v1/health/service/NAME` with `passing`, `index`, `wait`, `dc` and `tag`, blocking queries and tokens. Not a
Consul: nothing expires, there are no checks but a word each, and one datacenter.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.peers import App, ReceivedRequest, response
from tests.support.ports import reserve_port

DATACENTER = "dc1"
_PATH = "/v1/health/service/"
_KNOWN = {"passing", "index", "wait", "dc", "tag"}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_LONGEST_WAIT_S = 600.0
_STATUS = {400: "400 Bad Request", 403: "403 Forbidden", 404: "404 Not Found", 500: "500 Internal"}
Json = dict[str, Any]


def instance(
    address: str,
    port: int,
    *,
    node: str = "10.9.9.9",
    tags: tuple[str, ...] = (),
    check: str = "passing",
    **service: Any,
) -> Json:
    """Give an entry as Consul answers; `service` overrides fields of its `Service`."""
    return {
        "Node": {"ID": "", "Node": "n1", "Address": node, "Datacenter": DATACENTER, "Meta": {}},
        "Service": {
            "ID": f"{address}:{port}",
            "Service": "payments",
            "Tags": list(tags),
            "Address": address,
            "Port": port,
            "Meta": None,
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": [{"CheckID": "service:1", "Status": check}],
    }


class FakeConsul:
    """The state of a fake, and the server in front of it, which may be killed and started again.

    `queries` are the parameters of every query, `lies` raw answers that are given before the truth.
    """

    def __init__(self, *, token: str | None = None) -> None:
        self.port = reserve_port()
        self.queries: list[dict[str, str]] = []
        self.lies: list[bytes] = []
        #: A token that exists and may read nothing.
        self.blind_token = "b1-1nd"
        self._token = token
        self._index = 10
        self._services: dict[str, list[Json]] = {}
        self._changed = threading.Condition()
        self._server: App | None = None
        self._is_alive = False

    @property
    def address(self) -> str:
        """The URL for a configuration."""
        return f"http://127.0.0.1:{self.port}"

    def register(self, service: str, *instances: Json) -> None:
        """Let these be all instances of a service from now on."""
        with self._changed:
            self._services[service] = list(instances)
        self.touch()

    def touch(self) -> None:
        """Answer every query that blocks, as after a change of something else in the same table."""
        with self._changed:
            self._index += 1
            self._changed.notify_all()

    def start(self) -> None:
        """Listen, on the same port each time."""
        self._is_alive = True
        self._server = App(self._respond, port=self.port)

    def kill(self) -> None:
        """Cut every connection and refuse new ones."""
        server, self._server = self._server, None
        with self._changed:
            self._is_alive = False
            self._changed.notify_all()
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _respond(self, request: ReceivedRequest) -> bytes:
        parts = urlsplit(request.target.decode("ascii"))
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        query = dict(pairs)
        self.queries.append(query)
        if self.lies:
            return self.lies.pop(0)
        if request.method != b"GET" or not parts.path.startswith(_PATH):
            return _refuse(404, "not built into the fake")
        if len(query) != len(pairs) or not set(query) <= _KNOWN:
            return _refuse(400, f"parameters of {parts.query}")
        problem = _problem(query)
        if problem:
            return problem
        given = b"".join(request.values("X-Consul-Token")).decode()
        if self._token is not None and given not in {"", self._token, self.blind_token}:
            return _refuse(403, "ACL not found")
        self._block(query)
        return self._answer(unquote(parts.path.removeprefix(_PATH)), query, token=given)

    def _block(self, query: dict[str, str]) -> None:
        """Wait as long as the index is not above that of the query."""
        index = int(query.get("index", "0"))
        with self._changed:
            if index:
                self._changed.wait_for(
                    lambda: self._index > index or not self._is_alive,
                    _seconds(query.get("wait", "5m")),
                )
            if not self._is_alive:
                raise EOFError("killed")

    def _answer(self, service: str, query: dict[str, str], *, token: str) -> bytes:
        with self._changed:
            found, index = list(self._services.get(service, [])), self._index
        found = [entry for entry in found if _matches(entry, query)]
        lines = [
            f"X-Consul-Index: {index}",
            "X-Consul-KnownLeader: true",
            "X-Consul-LastContact: 0",
        ]
        if self._token is not None and token != self._token:
            if token and found:  # the anonymous are not even told
                lines.append("X-Consul-Results-Filtered-By-ACLs: true")
            found = []
        lines.append("Content-Type: application/json")
        return response(json.dumps(found).encode(), "200 OK", *lines)


def _problem(query: dict[str, str]) -> bytes | None:
    checks: dict[str, Callable[[str], bool]] = {
        "passing": lambda value: value in {"", "1", "true"},
        "index": lambda value: value.isdigit(),
        "wait": lambda value: 0 < _seconds(value) <= _LONGEST_WAIT_S,
        "tag": bool,
        "dc": bool,
    }
    for name, value in query.items():
        if not checks[name](value):
            return _refuse(400, f"Invalid {name}")
    if query.get("dc", DATACENTER) != DATACENTER:
        return _refuse(500, "No path to datacenter")
    return None


def _matches(entry: Json, query: dict[str, str]) -> bool:
    sound = all(check["Status"] == "passing" for check in entry["Checks"])
    tagged = "tag" not in query or query["tag"] in entry["Service"]["Tags"]
    return tagged and (sound or "passing" not in query)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)(ms|s|m)", text)
    return int(match[1]) * _UNITS[match[2]] if match else 0.0


def _refuse(status: int, why: str) -> bytes:
    return response(why.encode(), _STATUS[status], "Content-Type: text/plain")
