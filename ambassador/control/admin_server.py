"""The admin pages over HTTP/1.1: requests in, `Admin`'s replies out.

Knows the stream interface; must not know what the pages say. The metrics page is made in a thread: it takes
milliseconds that the event loop has not.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from ambassador.control.admin import Admin, Reply
from ambassador.core.model import ResponseHead
from ambassador.http.http1.limits import ServerLimits
from ambassador.http.http1.server import ServerConnection
from ambassador.wire.field import HeadLimits, LineCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.core.errors import ExchangeError
    from ambassador.core.model import Field, RequestHead
    from ambassador.net.listener import Accepted
    from ambassador.net.tasks import TaskGroup

#: Probes and scrapes are small and quick. Units: bytes, seconds.
LIMITS = ServerLimits(
    head=HeadLimits(max_head=8192, max_fields=50, max_uri=2048),
    head_timeout_s=5.0,
    idle_timeout_s=60.0,
)

_FAILED: Final = Reply(
    500,
    b"text/plain; charset=utf-8",
    b"This page could not be made; the event task_crashed says why.\n",
)


class AdminServer:
    """Serves connections of the admin listener."""

    __slots__ = ("_accepted", "_admin", "_cache", "_loop", "_tasks", "connections", "release")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admin: Admin,
        *,
        tasks: TaskGroup,
        classify: Callable[[bytes], int],
    ) -> None:
        self._loop = loop
        self._admin = admin
        self._tasks = tasks
        self._cache = LineCache(classify)
        self._accepted: dict[ServerConnection, Accepted] = {}
        self.connections: set[ServerConnection] = set()
        self.release: Callable[[Accepted], None]

    def __repr__(self) -> str:
        return f"AdminServer({len(self.connections)} connections)"

    def open(self, accepted: Accepted) -> None:
        """Serve a connection."""
        connection = ServerConnection(
            self._loop, accepted.transport, self, cache=self._cache, limits=LIMITS
        )
        self._accepted[connection] = accepted
        self.connections.add(connection)
        connection.start()

    def close(self) -> None:
        """Cut all connections, at the very end."""
        for connection in list(self.connections):
            connection.abort()

    def new_exchange(self, stream: ServerConnection) -> AdminExchange:
        return AdminExchange(self._admin, stream, self._tasks)

    def connection_closed(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)
        self.release(self._accepted.pop(connection))


class AdminExchange:
    """One request to the admin port."""

    __slots__ = ("_admin", "_open", "_stream", "_tasks")

    def __init__(self, admin: Admin, stream: ServerConnection, tasks: TaskGroup) -> None:
        self._admin = admin
        self._stream = stream
        self._tasks = tasks
        self._open = True

    def head_received(self, head: RequestHead, end: bool) -> None:  # noqa: FBT001  # bodies are thrown away
        values = {
            field.name: field.value
            for field in head.fields
            if field.name in {b"origin", b"sec-fetch-site"}
        }
        reply = self._admin.respond(
            head.method,
            head.path,
            host=head.authority,
            origin=values.get(b"origin"),
            sec_fetch_site=values.get(b"sec-fetch-site"),
        )
        if reply.render is None:
            self._answer(reply, reply.body, head.method)
        else:
            self._tasks.start(self._render(reply, head.method), name="metrics page")

    def head_refused(self, error: ExchangeError) -> None:
        if self._open:
            self._answer(
                Reply(error.status, b"text/plain; charset=utf-8", f"{error.detail}\n".encode()),
                b"",
                b"GET",
            )

    def body_received(self, chunk: bytes, end: bool) -> None:  # noqa: FBT001
        """No page takes a body; the connection closes after the answer."""

    def trailers_received(self, fields: list[Field]) -> None:
        """No page takes a body."""

    def stream_reset(self, error: ExchangeError) -> None:  # nobody counts probes
        self._open = False

    def read_finished(self) -> None:
        """Nothing is corked: every answer goes out whole."""

    def writable(self) -> None:
        """Answers are one piece."""

    def deadline_passed(self) -> None:
        """No deadline is set."""

    async def _render(self, reply: Reply, method: bytes) -> None:
        render = reply.render
        try:
            body = await asyncio.to_thread(render) if render is not None else b""
        except (
            Exception
        ):  # the guard of this task (E8): who scrapes gets an answer, and the event names the bug
            if self._open:
                self._answer(_FAILED, _FAILED.body, method)
            raise
        if self._open:
            self._answer(reply, body, method)

    def _answer(self, reply: Reply, body: bytes, method: bytes) -> None:
        self._open = False
        extra = b"Content-Type: %b\r\n" % reply.content_type
        extra += b"".join(b"%b: %b\r\n" % header for header in reply.headers)
        head = ResponseHead(reply.status, HTTPStatus(reply.status).phrase.encode(), [], len(body))
        if not body or method == b"HEAD":
            self._stream.write_head(head, extra, True)
        else:
            self._stream.write_head(head, extra, False)
            self._stream.write_body(body, True)
