"""nginx as the app behind our inbound listener: ranges, validators, compression, large files, streams."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.foreign import nginx
from tests.support.peers import PeerConnection, ScriptedPeer, connect
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador

pytestmark = pytest.mark.interop

TEXT = b"".join(b"line %d\n" % number for number in range(20_000))
LARGE_SIZE = 48_000_011


class EventSource(ScriptedPeer):
    """A server-sent-events source behind nginx: sends what the test puts into `events`; None ends."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        super().__init__(self._stream)

    def _stream(self, connection: PeerConnection) -> None:
        connection.read_message()
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while (event := self.events.get(timeout=20)) is not None:
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
        connection.send(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.txt").write_bytes(TEXT)
    piece = os.urandom(1_000_003)
    with (folder / "large").open("wb") as large:
        for _ in range(LARGE_SIZE // len(piece) + 1):
            large.write(piece)
        large.truncate(LARGE_SIZE)
    return folder


@pytest.fixture(scope="module")
def source() -> Iterator[EventSource]:
    with EventSource() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(
    tmp_path_factory: pytest.TempPathFactory, files: Path, source: EventSource, authority: Authority
) -> Iterator[Ambassador]:
    folder = tmp_path_factory.mktemp("app")
    port = reserve_port()
    server = f"""
    server {{
      listen 127.0.0.1:{port}; root {files}; client_max_body_size 0;
      gzip on; gzip_min_length 1; gzip_types text/plain; gzip_http_version 1.0; gzip_proxied any;
      location /events {{
        proxy_pass http://127.0.0.1:{source.port}; proxy_buffering off;
        proxy_http_version 1.1; proxy_set_header Connection "";
      }}
      location /upload {{ client_body_in_file_only clean; dav_methods PUT; root {folder}/; }}
      location = /identity {{ return 200 $http_x_forwarded_client_cert; }}
    }}"""
    (folder / "upload").mkdir()
    payments = Pod("payments", authority, folder)
    with (
        nginx(folder / "nginx", server, ports=[port]),
        running_ambassador(payments.config(inbound=payments.inbound(port)), folder) as running,
    ):
        yield running


@pytest.fixture
def client(sidecar: Ambassador, authority: Authority) -> Iterator[http.client.HTTPSConnection]:
    """A client with a certificate."""
    context = client_context(
        authority, authority.issue(spiffe="spiffe://example.org/web", cn="web")
    )
    host, port = sidecar.inbound
    connection = http.client.HTTPSConnection(str(host), int(port), timeout=30, context=context)
    with contextlib.closing(connection):
        yield connection


def ask(
    client: http.client.HTTPSConnection,
    target: str,
    *,
    method: str = "GET",
    body: object = None,
    **fields: str,
) -> tuple[http.client.HTTPResponse, bytes]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    client.request(method, target, body, headers=headers)  # type: ignore[arg-type]
    response = client.getresponse()
    return response, response.read()


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ("bytes=0-9", TEXT[:10]),
        ("bytes=100-", TEXT[100:]),
        ("bytes=-7", TEXT[-7:]),
    ],
)
def test_a_range_is_served(
    client: http.client.HTTPSConnection, wanted: str, content: bytes
) -> None:
    """RFC 9110 §14: Range, Content-Range and 206 are end to end."""
    response, body = ask(client, "/text.txt", Range=wanted)

    assert (response.status, body) == (206, content)
    assert response.headers["Content-Range"].endswith(f"/{len(TEXT)}")


def test_several_ranges_come_as_multipart(client: http.client.HTTPSConnection) -> None:
    """RFC 9110 §14.6."""
    response, body = ask(client, "/text.txt", Range="bytes=0-1,10-11")

    assert response.status == 206
    assert response.headers.get_content_type() == "multipart/byteranges"
    assert body.count(b"Content-Range: bytes ") == 2


def test_a_range_that_cannot_be_satisfied_is_416(client: http.client.HTTPSConnection) -> None:
    """RFC 9110 §15.5.17."""
    response, _ = ask(client, "/text.txt", Range="bytes=99999999-")

    assert response.status == 416
    assert ask(client, "/identity")[0].status == 200


def test_a_validator_gives_304_and_the_connection_goes_on(
    client: http.client.HTTPSConnection,
) -> None:
    """RFC 9110 §15.4.5: 304 ends with its head, though it may tell a length."""
    first, _ = ask(client, "/text.txt")
    again, nothing = ask(client, "/text.txt", If_None_Match=first.headers["ETag"])
    late, _ = ask(client, "/text.txt", If_Modified_Since=first.headers["Last-Modified"])
    unmet, _ = ask(client, "/text.txt", If_Match='"other"')

    assert (first.status, again.status, nothing, late.status, unmet.status) == (
        200,
        304,
        b"",
        304,
        412,
    )
    assert ask(client, "/text.txt")[1] == TEXT


def test_compressed_content_is_passed_as_it_is(client: http.client.HTTPSConnection) -> None:
    """RFC 9110 §8.4: content codings are end to end; nginx sends them chunked."""
    response, body = ask(client, "/text.txt", Accept_Encoding="gzip")

    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == TEXT


def test_a_large_file_arrives_whole(client: http.client.HTTPSConnection, files: Path) -> None:
    """sendfile on the app's side, many records on ours."""
    expected = hashlib.sha256((files / "large").read_bytes()).hexdigest()
    client.request("GET", "/large")
    response = client.getresponse()
    got = hashlib.sha256()
    while piece := response.read(1 << 20):
        got.update(piece)

    assert response.headers["Content-Length"] == str(LARGE_SIZE)
    assert got.hexdigest() == expected


def test_a_large_file_abandoned_half_way_ends_the_transfer_behind_us(
    client: http.client.HTTPSConnection, sidecar: Ambassador
) -> None:
    """The peer goes away: nothing is read from the app for nobody."""
    client.request("GET", "/large?abandoned")
    client.getresponse().read(100_000)
    client.close()
    record = sidecar.wait_for_record(path="/large", flags="DC")

    assert record["bytes_sent"] < LARGE_SIZE


def test_uploads_of_both_framings_are_stored_whole(
    client: http.client.HTTPSConnection, files: Path
) -> None:
    """RFC 9112 §6: nginx' DAV PUT answers 201, then 204."""
    content = (files / "large").read_bytes()[:3_000_001]
    created, _ = ask(client, "/upload/one", method="PUT", body=content)
    pieces = (content[at : at + 10_007] for at in range(0, len(content), 10_007))
    replaced, _ = ask(client, "/upload/one", method="PUT", body=pieces)

    assert (created.status, replaced.status) == (201, 204)
    assert ask(client, "/upload/one")[1] == content


def test_head_tells_what_get_would(client: http.client.HTTPSConnection) -> None:
    """RFC 9110 §9.3.2."""
    response, body = ask(client, "/large", method="HEAD")

    assert (response.headers["Content-Length"], body) == (str(LARGE_SIZE), b"")
    assert ask(client, "/text.txt")[1] == TEXT


def test_the_app_can_use_the_identity_as_a_variable(client: http.client.HTTPSConnection) -> None:
    """$http_x_forwarded_client_cert."""
    _, body = ask(client, "/identity", X_Forwarded_Client_Cert="Hash=forged")

    assert body.startswith(b"By=spiffe://example.org/payments;Hash=")
    assert body.endswith(b';Subject="CN=web";URI=spiffe://example.org/web')


def test_server_sent_events_pass_one_by_one(
    sidecar: Ambassador, source: EventSource, authority: Authority
) -> None:
    """Issue: server-sent events without buffering; each is read before the next is sent."""
    identity = authority.issue(spiffe="spiffe://example.org/web")
    with connect(sidecar.inbound, client_context(authority, identity)) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: app\r\nAccept: text/event-stream\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        for number in range(20):
            event = b"id: %d\ndata: x\n\n" % number
            source.events.put(event)
            assert client.read_until(b"\r\n%b\r\n" % event)
        source.events.put(None)
        assert client.read_until(b"0\r\n\r\n")


def test_an_http_1_0_client_gets_the_same_file(sidecar: Ambassador, authority: Authority) -> None:
    """RFC 9112 §9.3: closed after the response, since nothing was said about keep-alive."""
    identity = authority.issue(spiffe="spiffe://example.org/web")
    with connect(sidecar.inbound, client_context(authority, identity)) as client:
        client.send(b"GET /text.txt HTTP/1.0\r\nHost: app\r\n\r\n")
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"chunked" not in head.lower()
    assert body == TEXT
