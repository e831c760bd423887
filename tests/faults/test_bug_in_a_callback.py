"""An exception in each callback of the loop, it costs its own connection, once (threat E8).

Once more under `python -O`: `test_bug_in_a_callback_optimized.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.peers import PeerConnection
from tests.support.sabotage import MARK, Fuse, sabotage
from tests.support.stage import DIRECTIONS, Side, Stage, staged
from tests.support.waiting import eventually

GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: payments\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
MIB = 1024 * 1024
CONFIG = {
    "settings": {"timeout": "1s", "head_timeout": "1s"},
    "inbound": {"handshake_timeout": "1s"},
}


class Rig:
    """A side whose upstream may never come, once the fuse has blown."""

    def __init__(self, side: Side, fuse: Fuse) -> None:
        self.side, self._fuse = side, fuse

    def connect(self) -> PeerConnection:
        """Give a client that does not wait long for what may never come: a bug before the head's way out is a 503."""
        client = self.side.connect()
        client.sock.settimeout(2)
        return client

    def upstream(self) -> PeerConnection:
        eventually(lambda: self._fuse.has_blown or not self.side.no_upstream(), "upstream")
        if self._fuse.has_blown:
            raise EOFError
        up = self.side.upstream()
        up.sock.settimeout(
            2
        )  # the fuse may blow now, and the bystander's connection is kept for 4 s
        return up


# --- what drives the callbacks; each ends when the client has nothing more to expect


def exchange(rig: Rig) -> None:
    """Both messages in several pieces, then another exchange on the kept connection."""
    client = rig.connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    up = rig.upstream()
    up.read_until(b"abc\r\n")
    client.send(b"3\r\ndef\r\n0\r\nX-Sum: 1\r\n\r\n")
    up.read_until(b"0\r\n")
    up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    client.read_until(b"ok\r\n")
    up.send(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
    client.read_until(b"0\r\n")


def short(rig: Rig) -> None:
    """A request and a response in one piece each."""
    client = rig.connect()
    client.send(GET)
    up = rig.upstream()
    up.read_message()
    up.send(OK)
    client.read_message()


def pipeline(rig: Rig) -> None:
    """Requests behind one another, which start from the loop."""
    client = rig.connect()
    client.send(GET * 3)
    up = rig.upstream()
    up.sock.settimeout(1)  # it may be kept for others, who do not come
    for _ in range(3):
        up.read_message()
        up.send(OK)
    for _ in range(3):
        client.read_message()


def slow_upstream(rig: Rig) -> None:
    """The response's deadline."""
    client = rig.connect()
    client.send(GET)
    rig.upstream().read_message()
    client.read_to_end()


def head_that_stops(rig: Rig) -> None:
    """The deadline of a head."""
    client = rig.connect()
    client.send(b"GET ")
    client.read_to_end()


def reader_that_sleeps(rig: Rig) -> None:
    """A response that the client takes late."""
    client = rig.connect()
    client.send(GET)
    up = rig.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 * MIB))
    up.sock.settimeout(0.3)
    with contextlib.suppress(OSError):
        up.send(b"x" * (32 * MIB))
    client.read_to_end()


def upstream_that_sleeps(rig: Rig) -> None:
    """A request that upstream takes late."""
    client = rig.connect()
    client.sock.settimeout(0.3)
    with contextlib.suppress(OSError):
        client.send(POST + b"Content-Length: %d\r\n\r\n" % (32 * MIB) + b"x" * (32 * MIB))
    rig.upstream().read_to_end()


def client_that_leaves(rig: Rig) -> None:
    """The end of a client that waits for its response."""
    client = rig.connect()
    client.send(GET)
    rig.upstream().read_message()
    client.reset()


def client_that_ends(rig: Rig) -> None:
    """A client's half-close, or departure."""
    client = rig.connect()
    client.send(GET)
    up = rig.upstream()
    up.read_message()
    client.half_close()
    up.send(OK)
    client.read_to_end()


def upstream_that_leaves(rig: Rig) -> None:
    """The end of upstream before its response."""
    client = rig.connect()
    client.send(GET)
    up = rig.upstream()
    up.read_message()
    up.close()
    client.read_message()


def upgrade(rig: Rig) -> None:
    """A tunnel, with bytes both ways."""
    client = rig.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n" + UPGRADE)
    up = rig.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE)
    client.read_until(b"\r\n\r\n")
    client.send(b"ping")
    up.read_until(b"ping")
    up.send(b"pong")
    client.read_until(b"pong")


def connect(rig: Rig) -> None:
    """A tunnel by CONNECT, with bytes that were early."""
    client = rig.connect()
    authority = b"payments:%d" % rig.side.stage.peer_port
    client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\nearly" % (authority, authority))
    up = rig.upstream()
    up.read_until(b"early")
    up.send(b"pong")
    client.read_until(b"pong")
    client.half_close()
    up.read_to_end()


Drill = Callable[[Rig], None]
SERVER = "ambassador.http.http1.server:ServerConnection."
CLIENT = "ambassador.http.http1.client:ClientConnection."
EXCHANGE = "ambassador.proxy.exchange:Exchange."
RAW = "ambassador.http.raw:RawConnection."
#: Place, what leads there, and how many exchanges had begun. What only one direction has, says which.
CASES: list[tuple[str, Drill, int, str]] = [
    ("ambassador.net.listener:Listener._accepted", short, 0, ""),
    ("ambassador.proxy.doors:Doors.serve", short, 0, ""),
    ("ambassador.net.handshake:Handshake._go_on", short, 0, "inbound"),
    ("ambassador.net.handshake:Handshake.start", short, 0, "inbound"),
    ("ambassador.identity.tls:ServerTls.peer", short, 0, "inbound"),
    (SERVER + "data_received", short, 0, ""),
    (SERVER + "_begin", short, 0, ""),
    (SERVER + "_read_body", exchange, 1, ""),
    (SERVER + "read_finished", exchange, 1, ""),
    (SERVER + "writable", reader_that_sleeps, 1, ""),
    (SERVER + "write_whole", short, 1, ""),
    (SERVER + "write_head", exchange, 1, ""),
    (SERVER + "write_body", exchange, 1, ""),
    (SERVER + "eof_received", client_that_ends, 1, ""),
    (SERVER + "_next_pipelined", pipeline, 1, ""),
    (SERVER + "_search_head", pipeline, 1, ""),
    (SERVER + "_alarm_fired", head_that_stops, 0, ""),
    (SERVER + "_alarm_fired", slow_upstream, 1, ""),
    (SERVER + "_phase_expired", head_that_stops, 0, ""),
    (SERVER + "_feed_tunnel", connect, 1, "outbound"),
    (EXCHANGE + "head_received", short, 1, ""),
    (EXCHANGE + "_next_attempt", short, 1, ""),
    (EXCHANGE + "body_received", exchange, 1, ""),
    (EXCHANGE + "trailers_received", exchange, 1, ""),
    (EXCHANGE + "upstream_ready", short, 1, ""),
    (EXCHANGE + "response_head", exchange, 1, ""),
    (EXCHANGE + "response_body", exchange, 1, ""),
    (EXCHANGE + "response_burst_over", exchange, 1, ""),
    (EXCHANGE + "response_trailers", exchange, 1, ""),
    (EXCHANGE + "deadline_passed", slow_upstream, 1, ""),
    (EXCHANGE + "writable", reader_that_sleeps, 1, ""),
    (EXCHANGE + "upstream_writable", upstream_that_sleeps, 1, ""),
    (EXCHANGE + "stream_reset", client_that_leaves, 1, ""),
    (EXCHANGE + "attempt_failed", upstream_that_leaves, 1, ""),
    ("ambassador.proxy.tunnel:switch", upgrade, 1, ""),
    (EXCHANGE + "tunnel_ready", connect, 1, "outbound"),
    (CLIENT + "data_received", short, 1, ""),
    (CLIENT + "_read_head", short, 1, ""),
    (CLIENT + "send_head", short, 1, ""),
    (CLIENT + "release", short, 1, ""),
    (CLIENT + "eof_received", upstream_that_leaves, 1, ""),
    (CLIENT + "read_finished", exchange, 1, ""),
    (CLIENT + "writable", upstream_that_sleeps, 1, ""),
    (RAW + "data_received", connect, 1, "outbound"),
    ("ambassador.net.dialer:_connect_one", short, 1, ""),
    ("ambassador.proxy.ledger:Ledger.exchange_ended", short, 0, ""),
]  # fmt: skip


#: A bug inside a decision of TLS is a refusal (fail-closed rule 9), and logged as one.
REFUSALS = {
    "ambassador.net.handshake:Handshake._go_on",
    "ambassador.identity.tls:ServerTls.peer",
}
TIMERS = {SERVER + "_alarm_fired"}


def named(direction: str, place: str, drill: Drill) -> str:
    """Give the name of a case."""
    return f"{direction}-{place.partition(':')[2]}-{drill.__name__}"


@pytest.fixture(scope="module")
def drilled(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Fuse]]:
    folder = tmp_path_factory.mktemp("stage")
    places = sorted({case[0] for case in CASES})
    with (
        sabotage(
            folder / "sabotage", places, optimize=getattr(request.module, "OPTIMIZE", False)
        ) as fuse,
        staged(authority, folder, **CONFIG) as stage,
    ):
        yield stage, fuse


def is_asleep(stage: Stage) -> bool:
    """Say whether the process waits for something each time we look: no callback is called without end."""
    stat = Path(f"/proc/{stage.sidecar.pid}/stat")
    return all(
        stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S" for _ in range(50)
    )


@pytest.mark.parametrize(
    ("direction", "place", "drill", "exchanges"),
    [
        pytest.param(direction, place, drill, exchanges, id=named(direction, place, drill))
        for place, drill, exchanges, only in CASES
        for direction in DIRECTIONS
        if only in {"", direction}
    ],
)
def test_a_bug_in_a_callback_ends_its_own_connection_and_nothing_else(
    drilled: tuple[Stage, Fuse], direction: str, place: str, drill: Drill, exchanges: int
) -> None:
    """aiohttp CVE-2025-69227: neither an endless call nor a lost slot; one event, one record; the next is served."""
    run_case(drilled, direction, place, drill, exchanges)


def run_case(
    drilled: tuple[Stage, Fuse], direction: str, place: str, drill: Drill, exchanges: int
) -> None:
    """Let `place` fail once in `direction`, with somebody else on the other side, and look at what is left."""
    stage, fuse = drilled
    side, other = stage.sides[direction], stage.sides[DIRECTIONS[direction == "outbound"]]
    for each in (side, other):
        each.finish()  # what a failed predecessor has left must not fail this one
    records = stage.sidecar.records
    before = len(records)
    bystander = other.connect()
    bystander.send(GET)
    up = other.upstream()
    answer(up, bystander)
    eventually(
        lambda: counted(stage) == len(records) == before + 1,
        "its record: nothing of it is left to do",
    )
    if place in TIMERS:
        bystander.close()  # its timer could be the one that fails
        other.finish()
        bystander = other.connect()
    events = len(stage.sidecar.events)
    fuse.lay(place)

    with contextlib.suppress(OSError, EOFError):
        drill(Rig(side, fuse))
    eventually(lambda: fuse.has_blown, f"{place} was called")

    bystander.send(GET)
    if place in TIMERS:
        up = other.upstream()
    answer(up, bystander)
    eventually(lambda: is_asleep(stage), "an idle process")
    bystander.close()
    up.close()
    side.finish()
    assert side.exchange(GET, OK)[1].endswith(b"ok")
    side.finish()
    other.finish()
    eventually(
        lambda: counted(stage) == len(records) == before + 3 + exchanges,
        f"{exchanges} besides ours: {records[before:]}",
        patience_s=3,
    )
    assert take_bugs(stage, place, events) == 1


def counted(stage: Stage) -> float:
    """Give the number of exchanges; who asks has the books kept at once."""
    return stage.sidecar.metric("requests_total")


def answer(up: PeerConnection, client: PeerConnection) -> None:
    up.read_message()
    up.send(OK)
    assert client.read_message().endswith(b"ok")


def take_bugs(stage: Stage, place: str, since: int) -> int:
    """Give the number of events that tell of `place`, and forget them: they are what was wanted."""
    events = stage.sidecar.events
    bugs = eventually(
        lambda: [
            event
            for event in events[since:]
            if MARK + place in str(event)
            or (place in REFUSALS and event["event"] == "handshake_refused")
        ],
        f"its event in {events}",
    )
    for bug in bugs:
        events.remove(bug)
    return len(bugs)
