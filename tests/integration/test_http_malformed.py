"""What two parsers could read differently is refused, and nothing behind it is served (threats G1, G3, G4)."""

from __future__ import annotations

import re

import pytest

from tests.support.peers import is_truncated
from tests.support.stage import Side
from tests.support.stage_fixtures import inbound, outbound, side, stage

__all__ = ["inbound", "outbound", "side", "stage"]

H = b"Host: payments\r\n"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: payments\r\n\r\n"
POST = b"POST / HTTP/1.1\r\n" + H

# name -> (bytes, status)
BAD_REQUESTS = {
    "length and chunked": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "two equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "plus": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "minus": (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    "hexadecimal": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "underscore": (POST + b"Content-Length: 1_0\r\n\r\nhellohello", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "blank inside": (POST + b"Content-Length: 5 5\r\n\r\nhello", 400),
    "vertical tab": (POST + b"Content-Length: \x0b5\r\n\r\nhello", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "arabic digits": (POST + "Content-Length: \u0665\r\n\r\n".encode() + b"hello", 400),
    "alias of length": (POST + b"Content_Length: 5\r\n\r\nhello", 400),
    "alias of coding": (POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in two lines": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "chunked with parameter": (POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 400),
    "vertical tab before chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "coding in 1.0": (b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "blank before colon": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "tab before colon": (POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    "folded": (b"GET / HTTP/1.1\r\n" + H + b"X-A: 1\r\n 2\r\n\r\n", 400),
    "folded first line": (b"GET / HTTP/1.1\r\n X-A: 1\r\n" + H + b"\r\n", 400),
    "folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "bare lf": (b"GET / HTTP/1.1\nHost: payments\n\n", 400),
    "bare lf in a line": (b"GET / HTTP/1.1\r\n" + H + b"X: a\nY: b\r\n\r\n", 400),
    "bare cr": (b"GET / HTTP/1.1\r\n" + H + b"X: a\rY: b\r\n\r\n", 400),
    "nul": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", 400),
    "control": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x1bb\r\n\r\n", 400),
    "del": (b"GET / HTTP/1.1\r\n" + H + b"X: a\x7fb\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\n" + H + b"X\r\n\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n", 400),
    "name with blank": (b"GET / HTTP/1.1\r\n" + H + b"X Y: a\r\n\r\n", 400),
    "name with high byte": (b"GET / HTTP/1.1\r\n" + H + b"X\xff: a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    "two hosts in 1.0": (b"GET / HTTP/1.0\r\n" + H + H + b"\r\n", 400),
    "userinfo in host": (b"GET / HTTP/1.1\r\nHost: a@payments\r\n\r\n", 400),
    "path in host": (b"GET / HTTP/1.1\r\nHost: payments/x\r\n\r\n", 400),
    "port in letters": (b"GET / HTTP/1.1\r\nHost: payments:http\r\n\r\n", 400),
    "list of hosts": (b"GET / HTTP/1.1\r\nHost: payments, b\r\n\r\n", 400),
    "two blanks": (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "tab in request line": (b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "blank in target": (b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "blank at the end": (b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    "blank in front": (b" GET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "http/0.9": (b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    "http/2.0": (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    "http/1.2": (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    "http/1.10": (b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400),
    "lower-case version": (b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    "preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "high byte in target": (b"GET /\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "del in target": (b"GET /\x7f HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no slash": (b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    "other scheme": (b"GET ftp://payments/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "userinfo": (b"GET http://u@payments/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "empty authority": (b"GET http:///x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "star with get": (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    "bad method": (b"G@T / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "long method": (b"G" * 40 + b" / HTTP/1.1\r\n" + H + b"\r\n", 501),
    "connect without port": (b"CONNECT payments HTTP/1.1\r\n" + H + b"\r\n", 400),
    "connect with path": (b"CONNECT /x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "connect with a body": (b"CONNECT payments:443 HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nab", 400),
    "trace with a body": (b"TRACE / HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nab", 400),
    "other expectation": (b"POST / HTTP/1.1\r\n" + H + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nab", 417),
    "bad connection": (b"GET / HTTP/1.1\r\n" + H + b"Connection: a b\r\n\r\n", 400),
    "three empty lines": (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "long target": (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "long head": (b"GET / HTTP/1.1\r\n" + H + (b"X: " + b"a" * 16000 + b"\r\n") * 4 + b"\r\n", 431),
    "long line": (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 65000 + b"\r\n\r\n", 431),
    "many fields": (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n" * 101 + b"\r\n", 431),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_malformed_request_is_refused_and_nothing_behind_it_served(side: Side, name: str) -> None:
    """RFC 9112 §11.2; threats G1 and G4."""
    sent, status = BAD_REQUESTS[name]

    answer = side.refused(sent + SECOND)

    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert len(re.findall(rb"HTTP/1\.[01] [0-9]", answer)) == 1
    assert b"Connection: close\r\n" in answer
    assert (b"X-Ambassador-Detail: " in answer) is (side.direction == "outbound")


@pytest.mark.parametrize(
    "name", ["length and chunked", "folded", "bare lf", "http/2.0", "many fields"]
)
def test_a_malformed_request_is_refused_byte_by_byte(side: Side, name: str) -> None:
    """However TCP cuts it."""
    sent, status = BAD_REQUESTS[name]
    client = side.connect()
    try:
        for at in range(len(sent)):
            client.send(sent[at : at + 1])
    except OSError:
        pass  # refused before the end

    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    assert side.no_upstream()


BAD_CHUNKS = {
    "no digits": b"\r\nabc\r\n0\r\n\r\n",
    "letters": b"g\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "blank in front": b" 3\r\nabc\r\n0\r\n\r\n",
    "17 digits": b"00000000000000003\r\nabc\r\n0\r\n\r\n",
    "bare lf": b"3\nabc\r\n0\r\n\r\n",
    "bare cr": b"3\rabc\r\n0\r\n\r\n",
    "too short": b"2\r\nabc\r\n0\r\n\r\n",
    "too long": b"4\r\nabc\r\n0\r\n\r\n",
    "lf behind data": b"3\r\nabc\n0\r\n\r\n",
    "bad extension": b"3;=\r\nabc\r\n0\r\n\r\n",
    "open quote": b'3;a="b\r\nabc\r\n0\r\n\r\n',
    "long extension": b"3;" + b"a" * 17000 + b"\r\nabc\r\n0\r\n\r\n",
    "bad trailer": b"3\r\nabc\r\n0\r\nX Y: 1\r\n\r\n",
    "folded trailer": b"3\r\nabc\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    "nul in trailer": b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n",
    "bare lf in trailer": b"3\r\nabc\r\n0\r\nX: 1\n\r\n",
    "many trailers": b"3\r\nabc\r\n0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_malformed_chunk_ends_the_request_and_the_connection(side: Side, name: str) -> None:
    """RFC 9112 §7.1; threats G4: never a clean last chunk upstream, never the request behind it."""
    client = side.connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n")
    up = side.upstream()
    up.read_until(b"xyz")

    client.send(BAD_CHUNKS[name] + SECOND)
    answer = client.read_to_end()

    status = 431 if name == "many trailers" else 400
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(re.findall(rb"HTTP/1\.[01] [0-9]", answer)) == 1
    assert b"Connection: close\r\n" in answer
    assert up.is_ended() or not up.read_to_end().count(b"0\r\n\r\n")
    assert b"0\r\n\r\n" not in up.received
    assert b"smuggled" not in up.received
    assert side.no_upstream()


R = b"HTTP/1.1 200 OK\r\n"
BAD_RESPONSES = {
    "length and chunked": R + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": R + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "equal lengths": R + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": R + b"Content-Length: 2, 2\r\n\r\nok",
    "plus": R + b"Content-Length: +2\r\n\r\nok",
    "huge": R + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "gzip": R + b"Transfer-Encoding: gzip\r\n\r\nok",
    "gzip, chunked": R + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": R + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank before colon": R + b"Content-Length : 2\r\n\r\nok",
    "folded": R + b"X: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "bare lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare cr": R + b"X: a\rY: b\r\nContent-Length: 2\r\n\r\nok",
    "nul": R + b"X: a\x00\r\nContent-Length: 2\r\n\r\nok",
    "control": R + b"X: a\x1b[0m\r\nContent-Length: 2\r\n\r\nok",
    "no colon": R + b"X\r\nContent-Length: 2\r\n\r\nok",
    "empty name": R + b": a\r\nContent-Length: 2\r\n\r\nok",
    "alias": R + b"Content_Length: 2\r\n\r\nok",
    "204 with length": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    "204 chunked": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "101 to h2c": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "100 with length": b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok",
    "interim flood": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 11,
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\n\r\n",
    "status 099": b"HTTP/1.1 099 X\r\n\r\n",
    "plus in status": b"HTTP/1.1 +20 X\r\n\r\n",
    "http/2": b"HTTP/2 200 OK\r\n\r\n",
    "http/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "http/0.9": b"<html>hello</html>\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "empty line in front": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "control in reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "many fields": R + b"X: a\r\n" * 101 + b"Content-Length: 2\r\n\r\nok",
    "long head": R + (b"X: " + b"a" * 16000 + b"\r\n") * 4 + b"Content-Length: 2\r\n\r\nok",
    "endless head": R + b"X: " + b"a" * 70000,
    "tls in clear": b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_a_malformed_response_becomes_502_and_its_connection_ends(side: Side, name: str) -> None:
    """Threats G3; house §7 "Responses are read as strictly"."""
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n")
    up = side.upstream()
    up.read_until(b"\r\n\r\n")

    up.send(BAD_RESPONSES[name])

    answer = client.read_until(b"\r\n\r\n")
    while answer.startswith(b"HTTP/1.1 1"):  # interim ones before it were well-formed
        answer = client.read_until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 "), answer
    assert (b"X-Ambassador-Flags: UPE\r\n" in answer) is (side.direction == "outbound")
    assert b"Connection: close" not in answer
    assert up.is_ended()


BAD_BODIES = {
    "bad size": b"zz\r\n",
    "short": b"2\r\nabc\r\n0\r\n\r\n",
    "plus": b"+2\r\nab\r\n",
    "bare lf": b"2\nab\n0\n\n",
    "huge size": b"ffffffffffffffff\r\n",
    "bad trailer": b"0\r\nX Y: 1\r\n\r\n",
    "nul in trailer": b"0\r\nX: \x00\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_malformed_body_of_a_response_cuts_without_a_last_chunk(side: Side, name: str) -> None:
    """House §4: after the head only truncation can tell; threats G4: never a clean last chunk."""
    client = side.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n")
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(R + b"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n")
    client.read_until(b"xyz\r\n")

    up.send(BAD_BODIES[name])

    assert is_truncated(client)
    assert b"0\r\n\r\n" not in client.received
    assert up.is_ended()
