"""WebSocket with the `websockets` library, server-sent events and httpx, through both sidecars."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.certificates import Authority, client_context
from tests.support.foreign import LARGE, Application, digest
from tests.support.pair import Pair, pair
from tests.support.peers import PeerConnection, ScriptedPeer
from tests.support.process import LOOPS
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

BIG = os.urandom(5_000_011)
PATIENCE_S = 20.0


# --- WebSocket


class Speaker:
    """A WebSocket application: `/echo` gives back, `/close` ends with the code it is told, `/push` speaks first.

    `closed` tells by request target how each connection ended.
    """

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.closed: defaultdict[str, queue.SimpleQueue[tuple[int | None, str | None]]]
        self.closed = defaultdict(queue.SimpleQueue)
        self._server: Server = serve(
            self._talk,
            "127.0.0.1",
            0,
            max_size=None,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE_S)

    def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.heads.append(
            {name.lower(): value for name, value in connection.request.headers.raw_items()}
        )
        path = connection.request.path
        try:
            self._speak(connection, path.partition("?")[0])
            connection.recv()
        except ConnectionClosed:
            pass
        self.closed[path].put((connection.close_code, connection.close_reason))

    def _speak(self, connection: ServerConnection, path: str) -> None:
        if path == "/close":
            code, reason = str(connection.recv()).split(" ", 1)
            connection.close(int(code), reason)
        elif path == "/push":
            for number in range(50):
                connection.send(f"push {number}")
        else:
            for message in connection:
                connection.send(message)


@pytest.fixture(scope="module")
def speaker() -> Iterator[Speaker]:
    running = Speaker()
    yield running
    running.close()


@pytest.fixture(scope="module", params=LOOPS)
def talk(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    speaker: Speaker,
    authority: Authority,
) -> Iterator[Pair]:
    """Both sidecars before the WebSocket application, on each loop."""
    folder = tmp_path_factory.mktemp("websocket")
    with pair(authority, folder, app=speaker.port, loop=request.param) as running:
        yield running


def dial(two: Pair, path: str, **more: object) -> ClientConnection:
    """Open a WebSocket to the service by its name below localhost."""
    sock = socket.create_connection(two.outbound, timeout=PATIENCE_S)
    uri = f"ws://payments.localhost:{two.outbound[1]}{path}"
    return connect(uri, sock=sock, max_size=None, proxy=None, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_of_every_size_are_echoed(talk: Pair, compression: str | None) -> None:
    """RFC 6455 §5: bytes after 101 are the application's; permessage-deflate (RFC 7692) is its business too."""
    with dial(talk, "/echo", compression=compression) as client:
        for message in (
            "",
            "text ☃",
            b"\x00\xff",
            os.urandom(125),
            os.urandom(126),
            os.urandom(65_536),
            BIG,
        ):
            client.send(message)
            assert client.recv(PATIENCE_S) == message


def test_many_messages_in_flight_keep_their_order(talk: Pair) -> None:
    """RFC 6455 §5.4."""
    messages = [f"{number} {'x' * (number % 700)}" for number in range(1000)]
    with dial(talk, "/echo") as client:
        sender = threading.Thread(target=lambda: [client.send(message) for message in messages])
        sender.start()
        got = [client.recv(PATIENCE_S) for _ in messages]
        sender.join(PATIENCE_S)

    assert got == messages


def test_a_message_in_fragments_is_put_together(talk: Pair) -> None:
    """RFC 6455 §5.4."""
    with dial(talk, "/echo", compression=None) as client:
        client.send([b"a" * 1000, b"b" * 70_000, b"c"])
        assert client.recv(PATIENCE_S) == b"a" * 1000 + b"b" * 70_000 + b"c"


def test_a_ping_is_answered_by_the_application(talk: Pair) -> None:
    """RFC 6455 §5.5.2."""
    with dial(talk, "/echo") as client:
        for payload in (b"", b"x" * 125):
            assert client.ping(payload).wait(PATIENCE_S)


def test_the_application_may_speak_first(talk: Pair) -> None:
    """Bytes that come with, or right behind, the 101."""
    with dial(talk, "/push") as client:
        assert [client.recv(PATIENCE_S) for _ in range(50)] == [
            f"push {number}" for number in range(50)
        ]


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going away"), (4321, "a reason of its own ☃")]
)
def test_a_close_of_the_application_reaches_the_client(talk: Pair, code: int, reason: str) -> None:
    """RFC 6455 §7.4."""
    with dial(talk, "/close") as client:
        client.send(f"{code} {reason}")
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE_S)

        assert (client.close_code, client.close_reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (4001, "why")])
def test_a_close_of_the_client_reaches_the_application(
    talk: Pair, speaker: Speaker, code: int, reason: str
) -> None:
    """RFC 6455 §7.1.1, and the tunnel is over on both sides."""
    with dial(talk, f"/echo?{code}") as client:
        client.close(code, reason)

    assert speaker.closed[f"/echo?{code}"].get(timeout=PATIENCE_S) == (code, reason)
    eventually(lambda: talk.web.metric("connections") == 0, "no connection is left")


def test_a_client_that_vanishes_is_missed_by_the_application(talk: Pair, speaker: Speaker) -> None:
    """RFC 6455 §7.1.5: 1006 is what nobody sent."""
    with dial(talk, "/echo?vanishes") as client:
        client.send("here")
        assert client.recv(PATIENCE_S) == "here"
        client.socket.shutdown(socket.SHUT_RDWR)

        assert speaker.closed["/echo?vanishes"].get(timeout=PATIENCE_S)[0] == 1006
        with pytest.raises(ConnectionClosedError):
            client.recv(PATIENCE_S)


def test_the_handshake_tells_the_application_who_asks(talk: Pair, speaker: Speaker) -> None:
    """The Upgrade request has the same identity headers as any other."""
    with dial(
        talk, "/echo", subprotocols=["chat"], additional_headers={"Client-Cert": "forged"}
    ) as client:
        assert client.subprotocol == "chat"
    head = speaker.heads[-1]

    assert "URI=spiffe://example.org/web" in head["x-forwarded-client-cert"]
    assert "client-cert" not in head
    assert head["upgrade"] == "websocket"


def test_a_websocket_through_connect(talk: Pair) -> None:
    """`proxy=`: websockets makes a CONNECT tunnel to the tcp service, whose far end is the same application."""
    proxy = f"http://127.0.0.1:{talk.outbound[1]}"
    with connect(
        f"ws://raw:{talk.inbound_raw[1]}/echo", proxy=proxy, open_timeout=PATIENCE_S
    ) as client:
        client.send("through")
        assert client.recv(PATIENCE_S) == "through"


def test_a_websocket_through_a_tcp_listener(talk: Pair) -> None:
    """`protocol: tcp` knows nothing of it."""
    sock = socket.create_connection(talk.raw, timeout=PATIENCE_S)
    with connect("ws://anything/echo", sock=sock, max_size=None, proxy=None) as client:
        client.send(BIG)
        assert client.recv(PATIENCE_S) == BIG


def test_a_tunnel_is_one_record_with_its_bytes(talk: Pair) -> None:
    """House §4: one record per exchange, written when it is over."""
    payload = b"x" * 1234
    with dial(talk, "/echo?recorded", compression=None) as client:
        client.send(payload)
        assert client.recv(PATIENCE_S) == payload
    # Frames have 4 bytes of head, from a client 4 of mask; the close frames hold a code.
    received, sent = 4 + 4 + 1234 + 2 + 4 + 2, 4 + 1234 + 2 + 2
    for sidecar in (talk.web, talk.payments):
        record = sidecar.wait_for_record(bytes_received=received, bytes_sent=sent)
        assert (record["status"], record["path"]) == (101, "/echo")
        assert (record["flags"], record["detail"]) == ("-", "")


def test_a_websocket_from_a_foreign_page_is_refused(talk: Pair) -> None:
    """Threats H7: browsers send Origin with every WebSocket."""
    with (
        pytest.raises(InvalidStatus) as refused,
        dial(talk, "/echo", origin="https://evil.example"),
    ):
        raise AssertionError("it was let in")

    assert refused.value.response.status_code == 403


# --- server-sent events


class EventSource(ScriptedPeer):
    """An application whose `/NAME` is what is put into `events[b"/NAME"]`, None ends it; `/eof` is not chunked."""

    def __init__(self) -> None:
        self.events: defaultdict[bytes, queue.SimpleQueue[bytes | None]] = defaultdict(
            queue.SimpleQueue
        )
        super().__init__(self._stream)

    def _stream(self, connection: PeerConnection) -> None:
        target = connection.read_message().split(b" ")[1]
        framed = not target.startswith(b"/eof")
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
            + (b"Transfer-Encoding: chunked\r\n\r\n" if framed else b"Connection: close\r\n\r\n")
        )
        while (event := self.events[target].get(timeout=PATIENCE_S)) is not None:
            connection.send(b"%x\r\n%b\r\n" % (len(event), event) if framed else event)
        if framed:
            connection.send(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def source() -> Iterator[EventSource]:
    with EventSource() as running:
        yield running


@pytest.fixture(scope="module")
def stream(
    tmp_path_factory: pytest.TempPathFactory, source: EventSource, authority: Authority
) -> Iterator[Pair]:
    with pair(authority, tmp_path_factory.mktemp("events"), app=source.port) as running:
        yield running


@pytest.mark.parametrize("framing", ["chunked", "eof"])
def test_events_arrive_one_by_one(stream: Pair, source: EventSource, framing: str) -> None:
    """Issue: server-sent events without buffering; the next is sent only when this one has been read."""
    url = f"http://127.0.0.1:{stream.outbound[1]}/{framing}"
    with (
        httpx.Client(trust_env=False, timeout=PATIENCE_S) as client,
        client.stream("GET", url, headers={"Host": "payments"}) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        lines = response.iter_lines()
        for number in range(30):
            source.events[f"/{framing}".encode()].put(b"data: %d\n\n" % number)
            assert (next(lines), next(lines)) == (f"data: {number}", "")
        source.events[f"/{framing}".encode()].put(None)
        assert list(lines) == []


def test_a_reader_that_leaves_ends_the_stream_with_the_next_event(
    stream: Pair, source: EventSource
) -> None:
    """House §7: in the clear an end of the app is a half-close until something is written to it."""
    events = source.events[b"/left"]
    url = f"http://127.0.0.1:{stream.outbound[1]}/left"
    with (
        httpx.Client(trust_env=False, timeout=PATIENCE_S) as client,
        client.stream("GET", url, headers={"Host": "payments"}) as response,
    ):
        events.put(b"data: x\n\n")
        assert next(response.iter_lines()) == "data: x"

    def is_cut() -> bool:
        events.put(b"data: y\n\n")
        return stream.payments.metric("upstream_connections") == 0

    eventually(is_cut, "the connection to the source is cut")
    events.put(None)  # lets the source's thread go
    for sidecar in (stream.web, stream.payments):
        assert sidecar.wait_for_record(path="/left", flags="DC")["status"] == 200


def test_a_peer_that_leaves_ends_the_stream_at_once(
    stream: Pair, source: EventSource, authority: Authority
) -> None:
    """House §7: on TLS an end is a departure; the source is not kept until it next has something to say."""
    context = client_context(authority, authority.issue(spiffe="spiffe://example.org/web"))
    url = f"https://127.0.0.1:{stream.inbound[1]}/departed"
    with (
        httpx.Client(verify=context, trust_env=False, timeout=PATIENCE_S) as client,
        client.stream("GET", url) as response,
    ):
        source.events[b"/departed"].put(b"data: x\n\n")
        assert next(response.iter_lines()) == "data: x"
    record = stream.payments.wait_for_record(path="/departed")
    source.events[b"/departed"].put(None)

    assert (record["flags"], record["status"]) == ("DC", 200)


# --- httpx


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, app: Application, authority: Authority
) -> Iterator[Pair]:
    with pair(authority, tmp_path_factory.mktemp("httpx"), app=app.port) as running:
        yield running


@pytest.fixture
def client(two: Pair) -> Iterator[httpx.Client]:
    """httpx with our outbound listener as its HTTP proxy."""
    with httpx.Client(
        proxy=f"http://127.0.0.1:{two.outbound[1]}", trust_env=False, timeout=PATIENCE_S
    ) as running:
        yield running


def test_httpx_with_a_proxy_reaches_the_service_by_name(
    client: httpx.Client, app: Application
) -> None:
    """RFC 9112 §3.2.2."""
    app.requests.clear()
    response = client.get("http://payments/hello", params={"q": "a b"})

    assert (response.status_code, response.text) == (200, "hello")
    assert app.request("/hello?q=a+b").value("host") == b"payments"


def test_httpx_sends_and_gets_large_bodies(client: httpx.Client) -> None:
    """RFC 9112 §6."""
    pieces = (BIG[at : at + 65_537] for at in range(0, len(BIG), 65_537))

    assert client.post("http://payments/digest", content=BIG).content == digest(BIG)
    assert client.post("http://payments/digest", content=pieces).content == digest(BIG)
    assert client.get("http://payments/large").content == LARGE
    assert client.get("http://payments/large-chunked").content == LARGE


def test_httpx_keeps_one_connection(client: httpx.Client, two: Pair) -> None:
    """RFC 9112 §9.3."""
    before = two.web.metric("connections_total", listener="main")
    for path in ("hello", "204", "304", "chunked", "hello"):
        client.request("HEAD" if path == "hello" else "GET", f"http://payments/{path}")

    assert two.web.metric("connections_total", listener="main") == before + 1


def test_httpx_reads_part_of_a_response_and_goes_on(client: httpx.Client) -> None:
    """The rest is not taken for the next response."""
    with client.stream("GET", "http://payments/large") as response:
        assert next(response.iter_raw())

    assert client.get("http://payments/hello").text == "hello"


def test_httpx_over_the_unix_socket(two: Pair) -> None:
    """Config, `listen: unix:/path`."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=two.unix), timeout=PATIENCE_S) as client:
        assert client.get("http://payments/hello").text == "hello"
        assert client.post("http://payments/digest", content=BIG).content == digest(BIG)


def test_httpx_with_a_certificate_straight_to_the_peer(two: Pair, authority: Authority) -> None:
    """mTLS with the standard library's TLS, host name checked."""
    context = client_context(authority, authority.issue(spiffe="spiffe://example.org/web"))
    url = f"https://127.0.0.1:{two.inbound[1]}"
    with httpx.Client(verify=context, trust_env=False, timeout=PATIENCE_S) as client:
        assert client.get(f"{url}/hello").text == "hello"
        assert client.post(f"{url}/digest", content=BIG).content == digest(BIG)


def test_https_through_the_proxy_is_no_way_around(client: httpx.Client) -> None:
    """Issue: CONNECT only to configured services and ports; httpx tunnels https:// by itself."""
    with pytest.raises(httpx.ProxyError, match=r"40[34]"):
        client.get("https://payments/hello")
