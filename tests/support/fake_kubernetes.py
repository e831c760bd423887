"""An API server of Kubernetes that knows EndpointSlices and nothing else, and refuses what the real one refuses.

    with FakeKubernetes(tmp_path, authority) as server:
        server.put("payments-abc", "payments", ["10.0.0.1"], ports={"mtls": 8443})
        ...                       # server.url, server.token_file, server.ca_file
        server.kill(); server.restart()

It is a fake: its rules are read in the API's documentation and source, and held against a real kubectl by
`tests/interop/test_kubectl_drives_the_fake.py`. Stricter than the real one in this: an unknown query parameter is
400, so that a misspelt one is found. What it keeps survives `kill` and `restart`, as etcd's does.
"""

from __future__ import annotations

import base64
import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from tests.support.certificates import Authority, server_context
from tests.support.fake_kubernetes_http import ApiServer, Grant, Seen
from tests.support.fake_kubernetes_rules import (
    GROUP,
    KIND,
    SERVICE_LABEL,
    VERBS,
    VERSION,
    Json,
    Query,
    Refusal,
    cause_of,
    problems_of,
)


@dataclass
class _Change:
    version: int
    before: Json | None
    after: Json | None


class FakeKubernetes:
    """The server, in threads of this process; use as a context manager.

    `allows_loopback` is its one lenience, for endpoints that are processes of a test. `pages` cuts lists smaller than
    their `limit`, as the real one may. `gone_by` says how a watch from a forgotten version is refused: as an
    `event` (200, then ERROR) or by its `status`.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        names: Sequence[str] = ("127.0.0.1",),
        allows_loopback: bool = False,
    ) -> None:
        self.allows_loopback = allows_loopback
        self.pages: int | None = None
        self.gone_by = "event"
        self.silent = False  # a watch gets neither a word nor an end
        self.before: Callable[[str], None] = lambda target: (
            None
        )  # called with each target, first of all
        self.namespaces = {"default", "shop"}
        self.tokens = {"full": Grant("admin", frozenset(VERBS))}
        self.requests: list[tuple[str, str]] = []  # method and target
        self.headers: list[Mapping[str, str]] = []
        self.failures: list[BaseException] = []
        self.watches = 0
        self.changed = threading.Condition()
        self.version = 100
        self._objects: dict[tuple[str, str], Json] = {}
        self._history: list[_Change] = []
        self._floor = 100
        self._lists: dict[int, list[Json]] = {}
        self.bookmarks = 0
        self.ends = 0
        self.injected: list[bytes] = []
        issued = authority.issue(
            cn="kube-apiserver", ips=list(names), dns=["kubernetes.default.svc"]
        )
        self._context = server_context(authority, issued, client_certificate=False)
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file, self.token_file = folder / "ca.crt", folder / "token"
        self.ca_file.write_bytes(authority.pem)
        self.use_token("full")
        self._server: ApiServer | None = ApiServer(("127.0.0.1", 0), self, self._context)
        self.port = self._server.server_address[1]
        self._thread = self._serve(self._server)

    @property
    def url(self) -> str:
        """The `api_server`."""
        return f"https://127.0.0.1:{self.port}"

    # --- what a test does to it

    def grant(
        self,
        token: str,
        *verbs: str,
        user: str = "system:serviceaccount:shop:web",
        namespace: str = "shop",
    ) -> None:
        """Let a token do this, and nothing else."""
        assert set(verbs) <= set(VERBS), verbs
        self.tokens[token] = Grant(user, frozenset(verbs), namespace)

    def use_token(self, token: str) -> None:
        """Lay the token into the file, as the kubelet does when it rotates one."""
        fresh = self.token_file.with_name("token.new")
        fresh.write_text(token + "\n", encoding="ascii")
        fresh.replace(self.token_file)

    def put(
        self,
        name: str,
        service: str,
        addresses: Iterable[str] = (),
        *,
        ports: Mapping[str, int | None] | None = None,
        datagram_ports: Mapping[str, int] | None = None,
        kind: str = "IPv4",
        places: Iterable[Json] = (),
    ) -> None:
        """Lay or replace a slice of namespace shop: `addresses` with no more to say, or whole `places`."""
        every = [{"addresses": [address]} for address in addresses]
        found: Json = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": name, "namespace": "shop", "labels": {SERVICE_LABEL: service}},
            "addressType": kind,
            "endpoints": [*every, *places],
            "ports": [
                {"name": port, "protocol": protocol, **({"port": number} if number else {})}
                for protocol, named in (("UDP", datagram_ports), ("TCP", ports))
                for port, number in (named or {}).items()
            ],
        }
        with self.changed:
            self.store("shop", name, found, exists=("shop", name) in self._objects)

    def remove(self, name: str) -> None:
        """Delete a slice of namespace shop."""
        with self.changed:
            self.discard("shop", name)

    def relabel(self, name: str, service: str) -> None:
        """Make a slice of namespace shop another service's: for a watch of the old one it is deleted."""
        with self.changed:
            found = self.find("shop", name)
            found["metadata"]["labels"] = {SERVICE_LABEL: service}
            self.store("shop", name, found, exists=True)

    def bookmark(self) -> None:
        """Send every watch a bookmark, as the real one does about once a minute."""
        with self.changed:
            self.bookmarks += 1
            self.changed.notify_all()

    def end_watches(self) -> None:
        """End every watch in order, as at the end of its time."""
        with self.changed:
            self.ends += 1
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget what happened up to now, as etcd does every five minutes."""
        with self.changed:
            self.version += 1
            self._floor = self.version
            self._history.clear()
            self._lists.clear()

    def inject(self, line: bytes) -> None:
        """Send bytes that a sound server would not send to every watch, also to those to come."""
        with self.changed:
            self.injected.append(line)
            self.changed.notify_all()

    def kill(self) -> None:
        """Cut all connections and listen no more."""
        server, self._server = self._server, None
        if server is None:
            return
        with self.changed:
            server.is_killed = True
            self.changed.notify_all()
        server.shutdown()
        server.cut()
        server.server_close()  # joins the threads of its connections
        self._thread.join()

    def restart(self) -> None:
        """Listen again at the same port, with everything that was stored."""
        assert self._server is None
        self._server = ApiServer(("127.0.0.1", self.port), self, self._context)
        self._thread = self._serve(self._server)

    def asked(self, *words: str) -> list[str]:
        """Give the targets of the requests that hold all of these words."""
        targets = [f"{method} {unquote(target)}" for method, target in list(self.requests)]
        return [target for target in targets if all(word in target for word in words)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if error is None:
            assert not self.failures, self.failures

    def _serve(self, server: ApiServer) -> threading.Thread:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        return thread

    # --- what is stored; whoever calls holds `changed`

    def find(self, namespace: str, name: str) -> Json:
        """Give a copy of an object."""
        try:
            return copy.deepcopy(self._objects[namespace, name])
        except KeyError:
            raise Refusal(404, f'endpointslices.{GROUP} "{name}" not found') from None

    def store(self, namespace: str, name: str, given: Json, *, exists: bool) -> Json:
        """Create or replace an object as the API does; give what is stored then."""
        before = self._objects.get((namespace, name))
        if not exists and before is not None:
            raise Refusal(409, f'endpointslices.{GROUP} "{name}" already exists', "AlreadyExists")
        if exists and before is None:
            raise Refusal(404, f'endpointslices.{GROUP} "{name}" not found')
        metadata = given.get("metadata", {})
        claimed = metadata.get("resourceVersion")
        if claimed and before is None:
            raise Refusal(400, "resourceVersion should not be set on objects to be created")
        if claimed and before and claimed != before["metadata"]["resourceVersion"]:
            message = "the object has been modified; please apply your changes to the latest version and try again"
            raise Refusal(
                409, f'Operation cannot be fulfilled on endpointslices.{GROUP} "{name}": {message}'
            )
        problems = list(problems_of(given, before, allows_loopback=self.allows_loopback))
        if problems:
            raise Refusal(
                422,
                f'{KIND}.{GROUP} "{name}" is invalid: {"; ".join(problems)}',
                details={
                    "name": name,
                    "group": GROUP,
                    "kind": KIND,
                    "causes": [cause_of(problem) for problem in problems],
                },
            )
        after = copy.deepcopy(given)
        kept = before["metadata"] if before else {}
        after["metadata"] = {
            **metadata,
            "name": name,
            "namespace": namespace,
            "uid": kept.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": kept.get("creationTimestamp") or "2026-01-01T00:00:00Z",
            "generation": kept.get("generation", 0) + 1,
        }
        for place in after.get("endpoints") or ():
            place.setdefault("conditions", {})
        self._record(namespace, name, before, after)
        return after

    def discard(self, namespace: str, name: str) -> Json:
        """Delete an object."""
        before = self.find(namespace, name)
        self._record(namespace, name, before, None)
        return before

    def _record(self, namespace: str, name: str, before: Json | None, after: Json | None) -> None:
        self.version += 1
        if after is None:
            self._objects.pop((namespace, name))
        else:
            after["metadata"]["resourceVersion"] = str(self.version)
            self._objects[namespace, name] = after
        self._history.append(_Change(self.version, before, after))
        self.changed.notify_all()

    def page(self, namespace: str, query: Query) -> Json:
        """Give a page."""
        version, begin = self._list_from(query)
        if version == self.version:
            objects = [self._objects[key] for key in sorted(self._objects)]
            self._lists[version] = copy.deepcopy(objects)
        found = [
            each
            for each in self._lists[version]
            if namespace in {"", each["metadata"]["namespace"]} and query.selects(each)
        ]
        limit = query.number("limit") or len(found) or 1
        end = begin + min(limit, self.pages or limit)
        metadata: Json = {"resourceVersion": str(version)}
        if end < len(found):
            metadata["continue"] = _token(version, end)
            if not query.text("labelSelector") and not query.text("fieldSelector"):
                metadata["remainingItemCount"] = len(found) - end
        # The items of a list carry neither kind nor version in the real one.
        items = [
            {key: value for key, value in each.items() if key not in {"kind", "apiVersion"}}
            for each in found[begin:end]
        ]
        return {
            "kind": f"{KIND}List",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": metadata,
            "items": items,
        }

    def _list_from(self, query: Query) -> tuple[int, int]:
        wanted = query.number("resourceVersion")
        token = query.text("continue")
        if not token:
            if wanted is not None and wanted > self.version:
                raise Refusal(504, f"Too large resource version: {wanted}, current: {self.version}")
            return self.version, 0
        if wanted:
            message = "specifying resource version is not allowed when using continue"
            raise Refusal(400, message)
        try:
            found = json.loads(base64.urlsafe_b64decode(token))
            version, begin = int(found["rv"]), int(found["start"])
        except (ValueError, KeyError, TypeError):
            raise Refusal(400, "continue key is not valid") from None
        if version < self._floor or version not in self._lists:
            raise Refusal(
                410,
                "The provided continue parameter is too old to display a consistent list result. You can start a"
                " new list without the continue parameter.",
            )
        return version, begin

    def check_version(self, version: int) -> None:
        """Refuse a watch from what is forgotten or is to come."""
        if version > self.version:
            raise Refusal(504, f"Too large resource version: {version}, current: {self.version}")
        if version < self._floor:
            raise Refusal(410, f"too old resource version: {version} ({self._floor})")

    def events(self, namespace: str, query: Query, after: int) -> list[tuple[str, Json]]:
        """Give what a watch has to tell about the time after a version."""
        found = []
        for change in self._history:
            if change.version <= after:
                continue
            sides = [
                each
                if each is not None
                and namespace in {"", each["metadata"]["namespace"]}
                and query.selects(each)
                else None
                for each in (change.before, change.after)
            ]
            match sides:
                case [None, None]:
                    continue
                case [None, new]:
                    found.append(("ADDED", new))
                case [old, None]:
                    gone = copy.deepcopy(old)
                    assert gone is not None
                    gone["metadata"]["resourceVersion"] = str(change.version)
                    found.append(("DELETED", gone))
                case [_, new]:
                    found.append(("MODIFIED", new))
        return [(kind, each) for kind, each in found if each is not None]

    def present(self, namespace: str, query: Query) -> Sequence[Json]:
        """Give what there is, for a watch that begins with it."""
        return [
            each
            for (place, _), each in sorted(self._objects.items())
            if namespace in {"", place} and query.selects(each)
        ]

    def has_news(self, seen: Seen) -> bool:
        """Say whether a watch that has seen so much has something to do."""
        now = Seen(self.version, self.bookmarks, self.ends, len(self.injected))
        return not self.silent and now != seen


def _token(version: int, start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"rv": version, "start": start}).encode()).decode()
