"""One sidecar between a raw client and a raw upstream, in either direction; the test speaks for both of them.

    up, client = side.upstream(), side.connect()

An *outbound* side has a client in the clear and an upstream behind mutual TLS, an *inbound* side the reverse. The
process lives as long as its module's fixture; `Side.finish` ends what a test has left and looks at the gauges.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, client_context, server_context
from tests.support.peers import PATIENCE_S, PeerConnection, ScriptedPeer, connect
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, Pod, running_ambassador
from tests.support.waiting import eventually

HOST = b"payments"
DIRECTIONS = ("outbound", "inbound")
#: Lines that the proxy adds to a request; what they say is for tests of their own.
ADDED = {
    b"via",
    b"x-request-id",
    b"traceparent",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"forwarded",
    b"x-forwarded-client-cert",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-attempt-count",
}
_DATE = re.compile(rb"Date: [A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT\r\n")


class Side:
    """One direction of a running sidecar."""

    def __init__(self, stage: Stage, direction: str) -> None:
        self.stage = stage
        self.direction = direction
        self.client_is_tls = direction == "inbound"
        self._accepted: queue.SimpleQueue[PeerConnection] = queue.SimpleQueue()
        self._over = threading.Event()
        self._clients: list[PeerConnection] = []
        self.peer = ScriptedPeer(
            self._hold,
            tls=None if self.client_is_tls else stage.server_tls,
            port=stage.app_port if self.client_is_tls else stage.peer_port,
        )

    @property
    def sidecar(self) -> Ambassador:
        """The process."""
        return self.stage.sidecar

    def connect(self) -> PeerConnection:
        """Open a client's connection."""
        if self.client_is_tls:
            client = connect(self.sidecar.inbound, self.stage.client_tls, "payments")
        else:
            client = connect(self.sidecar.outbound)
        self._clients.append(client)
        return client

    def upstream(self) -> PeerConnection:
        """Give the next connection that the sidecar has made."""
        return self._accepted.get(timeout=PATIENCE_S)

    def no_upstream(self) -> bool:
        """Say whether the sidecar has made no connection that was not taken."""
        return self._accepted.empty()

    def exchange(self, request: bytes, response: bytes) -> tuple[bytes, bytes]:
        """Send `request`, read it upstream as a message, answer, end; give what upstream and client got."""
        client = self.connect()
        client.send(request)
        up = self.upstream()
        received = up.read_message()
        up.send(response)
        return received, client.read_message()

    def refused(self, request: bytes) -> bytes:
        """Send what is refused, and give all that the client gets; nothing may reach upstream."""
        client = self.connect()
        client.send(request)
        answer = client.read_to_end()
        assert self.no_upstream()
        return answer

    def finish(self) -> None:
        """End everything a test has left open; fail unless every gauge returns to zero."""
        self._over.set()
        try:
            for client in self._clients:
                client.close()
            self._clients.clear()
            eventually(self._is_over, "gauges at zero")
            for connection in self.peer.connections:
                connection.close()
            self.peer.connections.clear()
            self.peer.errors.clear()
            while not self._accepted.empty():
                self._accepted.get()
        finally:
            self._over.clear()  # the next test is not to fail for this one

    def _is_over(self) -> bool:
        """Cut what upstream holds, also what was dialled meanwhile for a repeated request."""
        for connection in list(self.peer.connections):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        return self.is_idle()

    def is_idle(self) -> bool:
        """Say whether no connection is open on either side."""
        return not any(map(self.sidecar.metric, ("connections", "upstream_connections")))

    def _hold(self, connection: PeerConnection) -> None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted.put(connection)
        self._over.wait()


class Stage:
    """A sidecar with both directions; `side` fixtures are its sides."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.app_port, self.peer_port = reserve_port(), reserve_port()
        self.web = Pod("web", authority, folder)
        payments = authority.issue(spiffe="spiffe://example.org/payments", dns=["payments"])
        self.server_tls = server_context(authority, payments)
        self.client_tls = client_context(authority, payments)
        self.sidecar: Ambassador
        self.sides: dict[str, Side] = {}

    def config(
        self,
        settings: Config | None = None,
        *,
        inbound: Config | None = None,
        outbound: Config | None = None,
        service: Config | None = None,
        services: Config | None = None,
        **sections: Any,
    ) -> Config:
        """Give the file; `settings` are of both listeners."""
        peer = {"spiffe": "spiffe://example.org/payments"}
        config = self.web.config(
            inbound={
                **self.web.inbound(self.app_port, allow=[peer]),
                **(settings or {}),
                **(inbound or {}),
            },
            outbound={
                "listen": f"127.0.0.1:{reserve_port()}",
                **(settings or {}),
                **(outbound or {}),
            },
            services={
                "payments": {
                    "endpoints": [f"127.0.0.1:{self.peer_port}"],
                    "peer": peer,
                    **(service or {}),
                },
                **(services or {}),
            },
            **sections,
        )
        whole: Config = json.loads(
            json.dumps(config)
        )  # YAML would write what is shared as an alias
        return whole


@contextmanager
def staged(
    authority: Authority, folder: Path, loop: str = "uvloop", **config: Any
) -> Iterator[Stage]:
    """Run a sidecar with both sides; `config` goes to `Stage.config`."""
    stage = Stage(authority, folder)
    with running_ambassador(stage.config(**config), folder, loop) as stage.sidecar:
        try:
            for direction in DIRECTIONS:
                stage.sides[direction] = Side(stage, direction)
            yield stage
            records = stage.sidecar.metric("requests_total")
            eventually(
                lambda: len(stage.sidecar.records) == records,
                f"{records} records, not {len(stage.sidecar.records)}",
            )
        finally:
            for side in stage.sides.values():
                side._over.set()
                side.peer.close()
    assert not [e for e in stage.sidecar.events if "crashed" in e["event"]], stage.sidecar


def plain_request(raw: bytes) -> bytes:
    """Give a request without the lines that the proxy adds."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    kept = [line for line in lines[1:] if line.split(b":")[0].lower() not in ADDED]
    return b"\r\n".join([lines[0], *kept]) + mark + body


def plain_response(raw: bytes) -> bytes:
    """Give a response without the Via and Date that the proxy adds behind the received lines."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    head = re.sub(rb"\r\nVia: 1\.1 ambassador-[0-9A-Za-z-]+", b"", head, count=1)
    head = _DATE.sub(b"", head + b"\r\n").removesuffix(b"\r\n")
    return head + mark + body


def by_name(raw: bytes) -> bytes:
    """Sort the lines of a head by name; only lines of one name have an order (RFC 9110 §5.3)."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return (
        b"\r\n".join([first, *sorted(lines, key=lambda line: line.split(b":")[0].lower())])
        + mark
        + body
    )
