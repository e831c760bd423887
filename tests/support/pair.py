"""Two Pods on loopback: the sidecar of the client, mutual TLS, the sidecar of the server, an application.

    with pair(authority, folder, app=app.port) as two:
        http.client.HTTPConnection(*two.outbound)

The service is called `payments` over HTTP and `raw` over `protocol: tcp` (its ALPN is `h2`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador


@dataclass(frozen=True, slots=True)
class Pair:
    """The running sidecars `web` and `payments`, and where `web` listens.

    `outbound` by name; `unix` the same on a Unix socket; `own` the listener of the service itself; `raw` opaque bytes.
    """

    web: Ambassador
    payments: Ambassador
    outbound: tuple[str, int]
    unix: str
    own: tuple[str, int]
    raw: tuple[str, int]
    inbound: tuple[str, int]
    inbound_raw: tuple[str, int]


@contextmanager
def pair(
    authority: Authority,
    folder: Path,
    *,
    app: int,
    raw_app: int | None = None,
    loop: str = "uvloop",
) -> Iterator[Pair]:
    """Run both sidecars; `raw_app` is behind the tcp listener (default: the same app)."""
    web, payments = Pod("web", authority, folder), Pod("payments", authority, folder)
    inbound_raw, outbound, own, raw = (reserve_port() for _ in range(4))
    socket = folder / "outbound.sock"
    allow = {"allow": [{"spiffe": web.spiffe}]}
    behind = payments.config(
        inbound=[
            {"name": "api", "listen": f"127.0.0.1:{payments.port}", "app": app, **allow},
            {
                "name": "raw",
                "listen": f"127.0.0.1:{inbound_raw}",
                "protocol": "tcp",
                "alpn": ["h2"],
                "app": raw_app or app,
                "allow": [{"spiffe": web.spiffe}],
            },
        ]
    )
    before = web.config(
        outbound=[
            {"name": "main", "listen": f"127.0.0.1:{outbound}"},
            {"name": "unix", "listen": f"unix:{socket}"},
            {"name": "raw", "listen": f"127.0.0.1:{raw}", "protocol": "tcp", "service": "raw"},
        ],
        services={
            "payments": {
                **payments.endpoint(),
                "listen": f"127.0.0.1:{own}",
                "server_name": "payments.example.org",
            },
            "raw": {
                "endpoints": [f"127.0.0.1:{inbound_raw}"],
                "peer": {"spiffe": payments.spiffe},
                "alpn": ["h2"],
            },
        },
    )
    with (
        running_ambassador(behind, folder, loop) as second,
        running_ambassador(before, folder, loop) as first,
    ):
        yield Pair(
            first,
            second,
            ("127.0.0.1", outbound),
            str(socket),
            ("127.0.0.1", own),
            ("127.0.0.1", raw),
            ("127.0.0.1", payments.port),
            ("127.0.0.1", inbound_raw),
        )
