"""The HTTP side of `tests.support.fake_kubernetes`: TLS, who asks, what for, and the stream of a watch.

Knows requests and connections; what is stored is the fake's.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.support.fake_kubernetes_rules import (
    GROUP,
    KIND,
    LISTS,
    VERSION,
    WATCHES,
    WRITES,
    Json,
    Query,
    Refusal,
    document_of,
    patched,
)

if TYPE_CHECKING:
    from tests.support.fake_kubernetes import FakeKubernetes


@dataclass(frozen=True)
class Grant:
    """Who a token is, and what RBAC lets it do with EndpointSlices; `namespace` "" is every one."""

    user: str
    verbs: frozenset[str]
    namespace: str = ""


@dataclass
class Seen:
    """How far a watch has come: version, bookmarks, ends, injected lines."""

    version: int
    bookmarks: int
    ends: int
    lines: int


class ApiServer(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], fake: FakeKubernetes, context: ssl.SSLContext
    ) -> None:
        self.fake = fake
        self.is_killed = False
        self._context = context
        self._open: set[socket.socket] = set()
        super().__init__(address, _Conversation)

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, peer = super().get_request()
        # The handshake comes with the first read, in the thread of the connection.
        tls = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._open.add(tls)
        return tls, peer

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        request.close()

    def cut(self) -> None:
        for sock in list(self._open):
            try:
                socket.socket.shutdown(
                    sock, socket.SHUT_RDWR
                )  # below TLS: the peer gets no farewell
            except OSError:
                continue  # it ended first

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # a peer that left, or was cut
            self.fake.failures.append(error)


class _Conversation(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ApiServer
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        """Say nothing: `requests` has it."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fake = self.server.fake
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fake.requests.append((self.command, self.path))
        fake.headers.append(dict(self.headers))
        url = urlsplit(self.path)
        try:
            fake.before(unquote(self.path))
            grant = self._authenticate()
            query = Query.parse(url.query)
            parts = [unquote(part) for part in url.path.split("/")[1:]]
            document = document_of(url.path) if self.command == "GET" else None
            if document is not None:
                self._send(200, document)
            elif parts[:3] == ["apis", GROUP, VERSION]:
                self._resource(grant, parts[3:], query, content)
            else:
                raise Refusal(404, "the server could not find the requested resource")
        except Refusal as refusal:
            self._send(refusal.code, refusal.status)

    def _authenticate(self) -> Grant:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        grant = self.server.fake.tokens.get(token)
        if scheme != "Bearer" or grant is None:
            raise Refusal(401, "Unauthorized")
        return grant

    def _resource(self, grant: Grant, parts: list[str], query: Query, content: bytes) -> None:
        match parts:
            case ["endpointslices"]:
                namespace, name = "", ""
            case ["namespaces", namespace, "endpointslices"]:
                name = ""
            case ["namespaces", namespace, "endpointslices", name]:
                pass
            case _:
                raise Refusal(404, "the server could not find the requested resource")
        verb = self._verb(name, query)
        if not name and verb in {"create", "list", "watch"}:
            pass
        elif not name:
            raise Refusal(405, "the server does not allow this method on the requested resource")
        self._authorize(grant, verb, namespace)
        if verb == "watch":
            query.only(WATCHES)
            query.check_selectors()
            self._watch(namespace, query)
            return
        fake = self.server.fake
        with fake.changed:
            code, answer = self._act(verb, namespace, name, query, content)
        self._send(code, answer)

    def _verb(self, name: str, query: Query) -> str:
        if self.command == "GET":
            if name:
                return "get"
            return "watch" if query.truth("watch") else "list"
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        return verbs[self.command]

    def _authorize(self, grant: Grant, verb: str, namespace: str) -> None:
        if verb in grant.verbs and grant.namespace in {"", namespace}:
            return
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        raise Refusal(
            403,
            f'endpointslices.{GROUP} is forbidden: User "{grant.user}" cannot {verb} resource "endpointslices"'
            f' in API group "{GROUP}"{where}',
        )

    def _act(
        self, verb: str, namespace: str, name: str, query: Query, content: bytes
    ) -> tuple[int, Json]:
        fake = self.server.fake
        if verb == "list":
            query.only(LISTS, {"watch"})
            query.check_selectors()
            return 200, fake.page(namespace, query)
        if verb == "get":
            query.only({"resourceVersion"})
            return 200, fake.find(namespace, name)
        if verb == "delete":
            query.only({"dryRun", "gracePeriodSeconds", "propagationPolicy"})
            gone = fake.discard(namespace, name)
            details = {
                "name": name,
                "group": GROUP,
                "kind": "endpointslices",
                "uid": gone["metadata"]["uid"],
            }
            return 200, {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            }
        query.only(WRITES)
        if query.text("dryRun"):
            raise Refusal(400, "dryRun is not built into this fake")
        given = self._body(verb, content)
        if verb == "patch":
            return 200, fake.store(
                namespace, name, patched(fake.find(namespace, name), given), exists=True
            )
        self._check_meta(given, namespace, name)
        if verb == "update":
            return 200, fake.store(namespace, name, given, exists=True)
        if namespace not in fake.namespaces:
            raise Refusal(404, f'namespaces "{namespace}" not found')
        return 201, fake.store(namespace, str(given["metadata"].get("name")), given, exists=False)

    def _body(self, verb: str, content: bytes) -> Json:
        kind = self.headers.get("Content-Type", "").partition(";")[0]
        # What a strategic merge does to EndpointSlices is a merge: all of their lists are atomic.
        patches = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
        if kind not in (patches if verb == "patch" else {"application/json"}):
            raise Refusal(415, f"the body of the request was in an unknown format: {kind}")
        try:
            given = json.loads(content)
        except ValueError as error:
            raise Refusal(400, f"the object provided is unrecognized: {error}") from None
        if not isinstance(given, dict):
            raise Refusal(400, "the object provided is unrecognized")
        return given

    def _check_meta(self, given: Json, namespace: str, name: str) -> None:
        if (given.get("apiVersion"), given.get("kind")) != (f"{GROUP}/{VERSION}", KIND):
            found = f"{given.get('apiVersion')} {given.get('kind')}"
            raise Refusal(400, f"{found} cannot be handled as a {KIND}")
        unknown = set(given) - {
            "apiVersion",
            "kind",
            "metadata",
            "addressType",
            "endpoints",
            "ports",
        }
        if unknown:
            raise Refusal(400, f"strict decoding error: unknown field {sorted(unknown)}")
        metadata = given.setdefault("metadata", {})
        if metadata.get("namespace", namespace) != namespace:
            raise Refusal(
                400,
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        if name and metadata.get("name") != name:
            raise Refusal(400, "the name of the object does not match the name on the URL")

    # --- a watch

    def _watch(self, namespace: str, query: Query) -> None:
        fake = self.server.fake
        version = query.number("resourceVersion") or 0
        seconds = query.number("timeoutSeconds") or 3600
        refusal = None
        with fake.changed:
            try:
                if version:
                    fake.check_version(version)
            except Refusal as found:
                if fake.gone_by == "status" or found.code != 410:
                    raise
                refusal = found
            self._begin_stream()
            if refusal is not None:
                self._say(_event("ERROR", refusal.status))
                self._end_stream()
                return
            if not version:
                for each in fake.present(namespace, query):
                    self._say(_event("ADDED", each))
                version = fake.version
            fake.watches += 1
            seen = Seen(version, fake.bookmarks, fake.ends, 0)
        try:
            self._follow(namespace, query, seen, time.monotonic() + seconds)
        finally:
            with fake.changed:
                fake.watches -= 1

    def _follow(self, namespace: str, query: Query, seen: Seen, deadline: float) -> None:
        fake = self.server.fake
        while True:
            with fake.changed:
                fake.changed.wait_for(
                    lambda: self.server.is_killed or fake.has_news(seen),
                    None if fake.silent else max(deadline - time.monotonic(), 0),
                )
                if self.server.is_killed:
                    self.close_connection = True
                    return
                if fake.silent:
                    continue
                late = time.monotonic() >= deadline
                over = late or fake.ends != seen.ends
                told = [_event(*each) for each in fake.events(namespace, query, seen.version)]
                # The real one sends a bookmark right before it ends a watch.
                if query.truth("allowWatchBookmarks") and (
                    late or fake.bookmarks != seen.bookmarks
                ):
                    told.append(_event("BOOKMARK", _bookmark(fake.version)))
                told += fake.injected[seen.lines :]
                seen.version, seen.bookmarks = fake.version, fake.bookmarks
                seen.lines = len(fake.injected)
            if told:  # in one piece, as the real one flushes only when it has no more to say
                self._say(b"".join(told))
            if over:
                self._end_stream()
                return

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _say(self, line: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send(self, code: int, answer: Json) -> None:
        content = json.dumps(answer).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _event(kind: str, found: Json) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def _bookmark(version: int) -> Json:
    return {
        "kind": KIND,
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
        "addressType": "",
        "endpoints": None,
        "ports": None,
    }
