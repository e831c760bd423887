"""Messages of every framing pass both directions, whole and in pieces (RFC 9112 §6, §7)."""

from __future__ import annotations

import pytest

from tests.support.stage import Side, by_name, plain_request, plain_response
from tests.support.stage_fixtures import inbound, outbound, side, stage

__all__ = ["inbound", "outbound", "side", "stage"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"Host: payments\r\n"

# received from the client -> as upstream gets it
REQUESTS = {
    "get": (b"GET /a?b=c HTTP/1.1\r\n" + HEAD + b"\r\n", b"GET /a?b=c HTTP/1.1\r\n" + HEAD + b"\r\n"),
    "length": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"content-length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello",
    ),
    "empty post": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    ),
    "length zero": (
        b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
        b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    ),
    "leading zeros": (
        b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 0003\r\n\r\nabc",
        b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc",
    ),
    "get with a body": (
        b"GET / HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc",
    ),
    "chunked": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "chunked with extension": (
        b"POST / HTTP/1.1\r\n" + HEAD + b'Transfer-Encoding: Chunked\r\n\r\n003;a="b;c"\r\nabc\r\n0;x\r\n\r\n',
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "chunked and empty": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "trailers": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    ),
    "forged trailers": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
        b"X-Forwarded-Client-Cert: URI=spiffe://a/b\r\nx_forwarded_for: 1.1.1.1\r\nContent-Length: 5\r\nHost: a\r\n"
        b"Transfer-Encoding: chunked\r\nAuthorization: x\r\nVia: 1.1 me\r\nX-Ok: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Ok: 1\r\n\r\n",
    ),
    "empty line in front": (
        b"\r\n\r\nGET / HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n",
    ),
    "hop by hop": (
        b"GET / HTTP/1.1\r\n" + HEAD + b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Other: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HEAD + b"X-Other: 2\r\n\r\n",
    ),
    "http/1.0": (
        b"GET / HTTP/1.0\r\n" + HEAD + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n",
    ),
}  # fmt: skip


def same_body(raw: bytes) -> bytes:
    """Join the chunks of a chunked message, whose borders a proxy may move; keep the trailers."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        return raw
    data = b""
    while True:
        line, body = body.split(b"\r\n", 1)
        size = int(line, 16)
        if not size:
            return head + mark + data + b"|" + body
        data, body = data + body[:size], body[size + 2 :]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_arrives_as_it_was_meant(side: Side, name: str) -> None:
    """RFC 9112 §6.3: the framing survives, the fields of the connection end here."""
    sent, expected = REQUESTS[name]

    received, answer = side.exchange(sent, OK)

    assert by_name(plain_request(received)) == by_name(expected)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    "name", ["length", "chunked with extension", "trailers", "empty line in front"]
)
def test_a_request_may_come_byte_by_byte(side: Side, name: str) -> None:
    """A message is the same however TCP cuts it."""
    sent, expected = REQUESTS[name]
    client = side.connect()

    for at in range(len(sent)):
        client.send(sent[at : at + 1])
    received = side.upstream().read_message()

    assert same_body(by_name(plain_request(received))) == same_body(by_name(expected))


@pytest.mark.parametrize("name", ["length", "chunked with extension", "trailers"])
def test_a_request_may_be_cut_anywhere(outbound: Side, name: str) -> None:
    """A message is the same however TCP cuts it; one connection of either side serves them all."""
    sent, expected = REQUESTS[name]
    client, up = outbound.connect(), None

    for at in range(1, len(sent)):
        client.send(sent[:at])
        client.send(sent[at:])
        up = up or outbound.upstream()
        assert same_body(by_name(plain_request(up.read_message()))) == same_body(by_name(expected))
        up.send(OK)
        assert client.read_message().endswith(b"ok")


# method, upstream's answer -> the client's; up to the end of the connection if upstream closes
RESPONSES = {
    "length": (b"GET", OK, OK),
    "chunked": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    "chunked with trailers": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n"
        b"Content-Length: 4\r\nX-Ambassador-Flags: UF\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "204": (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with zero": (
        b"DELETE",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    "304": (
        b"GET",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\nETag: a\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 50\r\n\r\n",
    ),
    "head": (
        b"HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
    ),
    "head of chunked": (
        b"HEAD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ),
    "empty": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    "no reason": (
        b"GET",
        b"HTTP/1.1 299\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok",
    ),
    "hop by hop": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: Basic\r\nX-Ambassador-Flags: UF\r\nX-Other: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-Other: 2\r\nContent-Length: 2\r\n\r\nok",
    ),
    "doubled fields": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_arrives_as_it_was_meant(side: Side, name: str) -> None:
    """RFC 9112 §6.3: the framing survives, the fields of the connection end here."""
    method, sent, expected = RESPONSES[name]
    client = side.connect()
    client.send(method + b" / HTTP/1.1\r\nHost: payments\r\n\r\n")
    up = side.upstream()
    up.read_until(b"\r\n\r\n")

    up.send(sent)

    answer = client.read_until(b"\r\n\r\n")
    answer += client.read_exactly(len(expected) - expected.index(b"\r\n\r\n") - 4)
    assert by_name(plain_response(answer)) == by_name(expected)
    client.send(b"GET /next HTTP/1.1\r\nHost: payments\r\n\r\n")
    assert up.read_until(b"\r\n\r\n").startswith(b"GET /next "), "the same connection serves again"


@pytest.mark.parametrize("name", ["length", "chunked with trailers", "304"])
def test_a_response_may_be_cut_anywhere(outbound: Side, name: str) -> None:
    """A message is the same however TCP cuts it."""
    method, sent, expected = RESPONSES[name]
    client, up = outbound.connect(), None

    for at in range(1, len(sent)):
        client.send(method + b" / HTTP/1.1\r\nHost: payments\r\n\r\n")
        up = up or outbound.upstream()
        up.read_until(b"\r\n\r\n")
        up.send(sent[:at])
        up.send(sent[at:])
        answer = (
            client.read_message()
            if method == b"GET" and b"304" not in sent
            else client.read_until(b"\r\n\r\n")
        )
        assert same_body(by_name(plain_response(answer))) == same_body(by_name(expected))


def test_a_response_may_come_byte_by_byte(side: Side) -> None:
    """A message is the same however TCP cuts it."""
    _, sent, expected = RESPONSES["chunked with trailers"]
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n")
    up = side.upstream()
    up.read_message()

    for at in range(len(sent)):
        up.send(sent[at : at + 1])

    assert same_body(by_name(plain_response(client.read_message()))) == same_body(by_name(expected))
