"""`rate_limit` on real sockets: who is refused, what it is told, what is counted (config.md §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, connect, exchange, parse_response, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

SLOW = {"rate": "1/h", "burst": 2}


def statuses(sidecar: Ambassador, count: int, *lines: str, target: str = "/") -> list[int]:
    with connect(sidecar.outbound) as client:
        found = []
        for _ in range(count):
            client.send(request(target, *lines, host="a"))
            found.append(parse_response(client.read_message())[0])
    return found


def outbound(port: int, **outbound: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}", **outbound},
        "services": {"a": {"endpoints": [f"127.0.0.1:{port}"], "plaintext": "loopback"}},
    }


def test_beyond_the_burst_requests_get_429_and_hear_when_to_come_again(
    app: App, tmp_path: Path
) -> None:
    """RFC 6585 §4. The connection lives on: the next request may be another route's."""
    with running_ambassador(outbound(app.port, rate_limit=SLOW), tmp_path) as sidecar:
        found = statuses(sidecar, 4)
        answer = exchange(sidecar.outbound, request(host="a"))

        assert found == [200, 200, 429, 429]
        status, fields, body = parse_response(answer)
        assert (status, fields[b"x-ambassador-flags"]) == (429, b"RL")
        assert fields[b"x-ambassador-detail"] == b"rate_limit_all"
        assert 3000 < int(fields[b"retry-after"]) <= 3600
        assert b"see rate_limit" in body
        assert len(app.requests) == 2
        eventually(
            lambda: sidecar.metric("rate_limited_total", listener="outbound", route="a") == 3
        )
        record = sidecar.wait_for_record(status=429)
        assert (record["flags"], record["phase"]) == ("RL", "admit")


def test_the_nearest_limit_counts_and_each_place_by_itself(app: App, tmp_path: Path) -> None:
    """A listener's limit is for all its routes that have none; a route's is its own."""
    config = outbound(
        app.port,
        rate_limit={**SLOW},
        routes=[
            {"name": "own", "match": {"prefix": "/own"}, "service": "a", "rate_limit": {**SLOW}},
            {"name": "free", "match": {"prefix": "/free"}, "service": "a", "rate_limit": "none"},
            {"name": "one", "match": {"prefix": "/one"}, "service": "a"},
            {"name": "rest", "service": "a"},
        ],
    )
    with running_ambassador(config, tmp_path) as sidecar:
        assert statuses(sidecar, 3, target="/own") == [200, 200, 429]
        assert statuses(sidecar, 4, target="/free") == [200] * 4
        assert statuses(sidecar, 1, target="/one") == [200]
        assert statuses(sidecar, 2, target="/rest") == [200, 429], "shared with /one"


@pytest.mark.parametrize("by", ["all", "peer"])
def test_peers_are_counted_together_or_each_by_its_identity(
    authority: Authority, app: App, tmp_path: Path, by: str
) -> None:
    """A connection more is no more tokens; who is denied takes none from others."""
    shop = Pod("shop", authority, tmp_path)
    peers = [Pod(name, authority, tmp_path) for name in ("web", "batch", "stranger")]
    config = shop.config(inbound=shop.inbound(app.port, peers[:2], rate_limit={**SLOW, "by": by}))
    with running_ambassador(config, tmp_path) as sidecar:

        def ask(peer: Pod) -> bytes:
            tls = client_context(authority, peer.identity)
            with connect(sidecar.inbound, tls) as client:
                client.send(request())
                return client.read_message()

        denied = [ask(peers[2])[:12] for _ in range(3)]
        first = [ask(peers[0])[:12] for _ in range(3)]
        second = ask(peers[1])

        assert set(denied) == {b"HTTP/1.1 403"}
        assert first == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 429"]
        assert second.startswith(b"HTTP/1.1 200" if by == "peer" else b"HTTP/1.1 429")
        assert b"X-Ambassador" not in ask(peers[0])
        assert b"Retry-After: " in ask(peers[0])
