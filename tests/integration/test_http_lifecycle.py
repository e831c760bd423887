"""How connections live and end: keep-alive, pipelining, early answers, half-close, tunnels.

RFC 9112 §9, RFC 9110 §7.8.
"""

from __future__ import annotations

import re
import threading

import pytest

from tests.support.peers import PeerConnection, is_truncated
from tests.support.stage import Side, Stage, plain_request, plain_response
from tests.support.stage_fixtures import inbound, outbound, side, stage

__all__ = ["inbound", "outbound", "side", "stage"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] [0-9]{3}")


def get(path: bytes, *lines: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return b"\r\n".join(
        [b"%b %b HTTP/%b" % (method, path, version), b"Host: payments", *lines, b"", b""]
    )


def answered(client: PeerConnection) -> bytes:
    """Read a response with Content-Length or chunks."""
    return client.read_message()


# --- HTTP/1.0


def test_an_old_client_gets_one_answer_and_the_end(side: Side) -> None:
    """RFC 9112 §9.3: HTTP/1.0 without keep-alive."""
    client = side.connect()
    client.send(get(b"/", version=b"1.0"))
    up = side.upstream()
    up.read_message()
    up.send(OK)

    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"ok")


def test_an_old_client_may_keep_its_connection(side: Side) -> None:
    """RFC 9112 §9.3: HTTP/1.0 with keep-alive."""
    client = side.connect()
    up = None
    for path in (b"/a", b"/b"):
        client.send(get(path, b"Connection: keep-alive", version=b"1.0"))
        up = up or side.upstream()
        assert up.read_message().startswith(b"GET %b HTTP/1.1" % path)
        up.send(OK)

        assert b"Connection: keep-alive\r\n" in answered(client)


@pytest.mark.parametrize("lines", [(), (b"Connection: keep-alive",)])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    ],
)
def test_an_old_client_never_gets_chunks(
    side: Side, lines: tuple[bytes, ...], response: bytes
) -> None:
    """RFC 9112 §6.1: the end of the connection is the end of the body."""
    client = side.connect()
    client.send(get(b"/", *lines, version=b"1.0"))
    up = side.upstream()
    up.read_message()
    up.send(response)
    up.close()

    head, _, body = client.read_to_end().partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
    assert body == b"ok"


def test_an_old_client_gets_no_interim_response(side: Side) -> None:
    """RFC 9110 §15.2."""
    client = side.connect()
    client.send(get(b"/", version=b"1.0"))
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)

    assert client.read_to_end().startswith(b"HTTP/1.1 200 ")


def test_an_old_client_that_expects_100_gets_the_answer(side: Side) -> None:
    """RFC 9110 §10.1.1: the expectation of an HTTP/1.0 client is ignored."""
    client = side.connect()
    client.send(
        get(b"/", b"Expect: 100-continue", b"Content-Length: 2", version=b"1.0", method=b"POST")
        + b"ab"
    )
    up = side.upstream()
    received = up.read_message()
    up.send(OK)

    assert b"Expect:" not in received
    assert received.endswith(b"ab")
    assert client.read_to_end().startswith(b"HTTP/1.1 200 ")


def test_an_old_upstream_without_length_becomes_chunks(side: Side) -> None:
    """RFC 9112 §6.3 item 8."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.0 200 OK\r\n\r\nhel")
    up.send(b"lo")
    up.close()

    answer = client.read_message()
    assert b"Transfer-Encoding: chunked\r\n" in answer
    assert b"".join(re.findall(rb"\r\n(hel|lo|hello)\r\n", answer)) == b"hello"
    client.send(GET)
    assert side.upstream().read_message().startswith(b"GET / ")


def test_an_old_upstream_may_keep_its_connection(side: Side) -> None:
    """RFC 9112 §9.3."""
    client = side.connect()
    up = None
    for _ in range(2):
        client.send(GET)
        up = up or side.upstream()
        up.read_message()
        up.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        assert answered(client).endswith(b"ok")
    assert side.no_upstream()


# --- Connection: close


def test_a_client_that_says_close_gets_close(side: Side) -> None:
    """RFC 9112 §9.6."""
    client = side.connect()
    client.send(get(b"/", b"Connection: close"))
    up = side.upstream()
    received = up.read_message()
    up.send(OK)

    answer = client.read_to_end()
    assert b"Connection" not in received
    assert answer.count(b"Connection: close\r\n") == 1


def test_what_follows_close_is_not_served(side: Side) -> None:
    """RFC 9112 §9.6: the server MUST NOT process any further requests."""
    client = side.connect()
    client.send(get(b"/", b"Connection: close") + get(b"/never"))
    up = side.upstream()
    up.read_message()
    up.send(OK)

    assert len(STATUS.findall(client.read_to_end())) == 1
    assert b"never" not in up.received
    assert side.no_upstream()


def test_an_upstream_that_says_close_is_not_used_again(side: Side) -> None:
    """RFC 9112 §9.6."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    answer = answered(client)

    client.send(GET)
    second = side.upstream()
    second.read_message()
    second.send(OK)

    assert b"Connection" not in answer
    assert answered(client).endswith(b"ok")
    assert up.is_ended()


# --- pipelining


def test_pipelined_requests_are_answered_in_order(side: Side) -> None:
    """RFC 9112 §9.3.2; also behind a slow answer and a refusal."""
    client = side.connect()
    client.send(
        get(b"/1")
        + get(b"/2", b"Content-Length: 3", method=b"POST")
        + b"abc"
        + get(b"/3")
        + get(b"/4")
    )
    up = side.upstream()

    for number in b"1234":
        received = up.read_message()
        assert received.split(b" ")[1] == b"/%c" % number
        assert side.no_upstream(), "one at a time"
        up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%c" % number)

    assert [answered(client)[-1:] for _ in range(4)] == [b"1", b"2", b"3", b"4"]


def test_a_request_may_be_split_behind_a_pipelined_one(side: Side) -> None:
    """What arrives while an answer is on its way stays in order."""
    client = side.connect()
    client.send(get(b"/1") + b"GET /2 HT")
    up = side.upstream()
    up.read_message()
    up.send(OK)
    client.send(b"TP/1.1\r\nHost: pay")
    answered(client)
    client.send(b"ments\r\n\r\n")

    assert up.read_message().startswith(b"GET /2 HTTP/1.1\r\nHost: payments\r\n")


def test_thousands_of_pipelined_requests_are_answered(side: Side) -> None:
    """Threats E3: no recursion; the last one is answered too, whatever the buffer held."""
    client = side.connect()
    threading.Thread(target=client.send, args=(GET * 3000,), daemon=True).start()
    up = side.upstream()

    def serve() -> None:
        for _ in range(3000):
            up.read_until(b"\r\n\r\n")
            up.send(OK)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    for _ in range(3000):
        client.read_message()
    serving.join(10)
    client.send(GET)
    assert up.read_message().startswith(b"GET ")


def test_refused_pipelined_requests_do_not_fill_memory(outbound: Side) -> None:
    """Threats E3: a reader that sleeps gets no more answers than fit its direction."""
    before = outbound.sidecar.resident_bytes()
    client = outbound.connect()
    request = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
    count = 8000
    sending = threading.Thread(target=client.send, args=(request * count,), daemon=True)
    sending.start()
    sending.join(1)
    asleep = outbound.sidecar.resident_bytes()

    for _ in range(count):
        assert client.read_message().startswith(b"HTTP/1.1 404 ")
    assert asleep - before < 4 * 1024 * 1024
    sending.join(10)


# --- half-close and departure


def test_a_half_closed_client_gets_its_answer(outbound: Side) -> None:
    """House §7: EOF behind a whole request is a half-close in the clear."""
    client = outbound.connect()
    client.send(GET)
    client.half_close()
    up = outbound.upstream()
    up.read_message()
    up.send(OK)

    answer = client.read_to_end()
    assert answer.endswith(b"ok")
    assert b"Connection: close\r\n" in answer


def test_a_half_closed_client_gets_all_pipelined_answers(outbound: Side) -> None:
    """What was whole before the FIN is answered (printf … | nc)."""
    client = outbound.connect()
    client.send(get(b"/1") + get(b"/2") + get(b"/3"))
    client.half_close()
    up = outbound.upstream()
    for _ in range(3):
        up.read_message()
        up.send(OK)

    assert client.read_to_end().count(b"\r\n\r\nok") == 3


def test_a_half_closed_client_with_an_unfinished_second_request_gets_a_400(outbound: Side) -> None:
    """RFC 9112 §8: an incomplete request."""
    client = outbound.connect()
    client.send(get(b"/1") + b"GET /2 HTTP/1.1\r\nHo")
    client.half_close()
    up = outbound.upstream()
    up.read_message()
    up.send(OK)

    assert [s[-3:] for s in STATUS.findall(client.read_to_end())] == [b"200", b"400"]


def test_empty_lines_behind_the_last_request_are_nothing(outbound: Side) -> None:
    """RFC 9112 §2.2."""
    client = outbound.connect()
    client.send(get(b"/1") + b"\r\n")
    client.half_close()
    up = outbound.upstream()
    up.read_message()
    up.send(OK)

    assert len(STATUS.findall(client.read_to_end())) == 1


def test_a_half_close_while_the_answer_waits(outbound: Side) -> None:
    """The FIN may come later than the request."""
    client = outbound.connect()
    client.send(get(b"/1"))
    up = outbound.upstream()
    up.read_message()
    client.half_close()
    up.send(OK)

    assert client.read_to_end().endswith(b"ok")


def test_close_notify_of_a_tls_client_is_a_departure(inbound: Side) -> None:
    """House §7: on TLS an end is a departure; upstream's connection is not used again."""
    client = inbound.connect()
    client.send(get(b"/departed"))
    up = inbound.upstream()
    up.read_message()
    client.half_close()

    assert up.is_ended()
    record = inbound.sidecar.wait_for_record(
        path="/departed", flags="DC", detail="downstream_closed"
    )
    assert (record["status"], record["phase"]) == (0, "wait")


@pytest.mark.parametrize("how", ["close", "reset", "cut"])
def test_a_client_that_goes_in_the_body_takes_the_request_with_it(side: Side, how: str) -> None:
    """RFC 9112 §8: what is incomplete stays incomplete, never a clean last chunk."""
    client = side.connect()
    client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"3\r\nabc\r\n")
    up = side.upstream()
    up.read_until(b"abc\r\n")

    getattr(client, how)()

    assert up.is_ended()
    assert b"0\r\n\r\n" not in up.received


def test_a_client_that_resets_while_waiting_frees_everything(side: Side) -> None:
    """Threats E9."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()

    client.reset()

    assert up.is_ended()


# --- early answers


def test_an_early_refusal_reaches_a_client_that_still_sends(side: Side) -> None:
    """RFC 9112 §9.5, §9.6: 413 and close from the app, while the client uploads."""
    client = side.connect()
    client.send(get(b"/", b"Content-Length: 100000000", method=b"POST") + b"x" * 1000)
    up = side.upstream()
    up.read_until(b"x" * 1000)
    up.send(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
    up.close()

    answer = client.read_until(b"big")
    client.send(b"x" * 30000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close\r\n" in answer
    assert client.read_to_end() == b""


def test_a_whole_early_answer_ends_an_upload(side: Side) -> None:
    """The response ends before the upload: delivered, and neither connection is used again."""
    client = side.connect()
    client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"3\r\nabc\r\n")
    up = side.upstream()
    up.read_until(b"abc\r\n")
    up.send(OK)

    answer = client.read_to_end()
    assert answer.endswith(b"ok")
    assert b"Connection: close\r\n" in answer
    assert up.is_ended()
    assert b"0\r\n\r\n" not in up.received


def test_a_full_duplex_echo_streams_both_ways(side: Side) -> None:
    """An early head does not stop the upload while the response goes on."""
    client = side.connect()
    client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    for number in range(5):
        client.send(b"2\r\n#%d\r\n" % number)
        up.read_until(b"#%d\r\n" % number)
        up.send(b"2\r\n#%d\r\n" % number)
        assert client.read_until(b"#%d\r\n" % number) == b"2\r\n#%d\r\n" % number
    client.send(b"0\r\n\r\n")
    up.read_until(b"0\r\n\r\n")
    up.send(b"0\r\n\r\n")

    assert client.read_to_end() == b"0\r\n\r\n"


def test_server_sent_events_are_not_held_back(side: Side) -> None:
    """Each piece goes on at once."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    for number in range(3):
        up.send(b"data: %d\n\n" % number)
        assert client.read_until(b"\n\n").endswith(b"data: %d\n\n" % number)
        client.read_until(b"\r\n")


# --- 100-continue


def test_an_expectation_is_passed_on_and_met(side: Side) -> None:
    """RFC 9110 §10.1.1."""
    client = side.connect()
    client.send(get(b"/", b"Expect: 100-Continue", b"Content-Length: 2", method=b"PUT"))
    up = side.upstream()
    head = up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    interim = client.read_until(b"\r\n\r\n")
    client.send(b"ab")
    body = up.read_exactly(2)
    up.send(OK)

    assert b"Expect: 100-continue\r\n" in head
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert body == b"ab"
    assert answered(client).endswith(b"ok")


def test_a_refused_expectation_ends_the_connection(side: Side) -> None:
    """RFC 9110 §10.1.1: the client may or may not send its body now, so nothing may follow."""
    client = side.connect()
    client.send(get(b"/", b"Expect: 100-continue", b"Content-Length: 2", method=b"PUT"))
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close\r\n" in answer
    assert up.is_ended()


def test_interim_responses_are_passed_on(side: Side) -> None:
    """RFC 9110 §15.2: also unasked ones, and in order."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: x\r\nX: 1\r\n\r\n")
    first = client.read_until(b"\r\n\r\n")
    up.send(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)

    assert first == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 102 Processing\r\n\r\n"
    assert plain_response(answered(client)) == OK


# --- upstream's end


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upstream_that_ends_before_its_answer(side: Side, how: str) -> None:
    """House §4: 503; the client's connection goes on."""
    client = side.connect()
    client.send(get(b"/", b"Content-Length: 2", method=b"POST") + b"ab")
    up = side.upstream()
    up.read_message()

    getattr(up, how)()

    answer = client.read_until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Connection" not in answer
    if side.direction == "outbound":
        assert (b"Flags: UC\r\n" if how == "close" else b"Flags: UR\r\n") in answer
    assert side.no_upstream(), "sent once"


@pytest.mark.parametrize("how", ["close", "reset", "cut"])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ],
)
def test_a_truncated_response_is_truncated_downstream(
    side: Side, how: str, response: bytes
) -> None:
    """House §7: cut, never a clean last chunk."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(response)
    client.read_until(b"ab")

    getattr(up, how)()

    assert is_truncated(client)


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_a_body_that_ends_with_the_connection_may_be_truncated(outbound: Side, how: str) -> None:
    """RFC 9112 §9.8: without close_notify an EOF-framed body is incomplete."""
    client = outbound.connect()
    client.send(GET)
    up = outbound.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\n\r\nab")
    client.read_until(b"ab\r\n")

    getattr(up, how)()

    assert is_truncated(client)


def test_a_head_that_ends_early_is_a_502(side: Side) -> None:
    """House §4."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nConte")
    up.close()

    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "response",
    [
        OK + OK,
        OK + b"x",
        b"HTTP/1.1 204 No Content\r\n\r\nx",
        b"HTTP/1.1 304 Not Modified\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
)
def test_bytes_behind_a_response_end_its_connection(side: Side, response: bytes) -> None:
    """Threats G3: they would be the answer to somebody else's request."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(response)
    client.read_until(b"\r\n\r\n")

    client.send(GET)
    second = side.upstream()
    second.read_message()
    second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")

    client.read_until(b"mine")
    assert up.is_ended()


def test_bytes_on_an_idle_connection_end_it(side: Side) -> None:
    """Threats G3."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    answered(client)

    up.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert up.is_ended()
    client.send(GET)
    second = side.upstream()
    second.read_message()
    second.send(OK)

    assert answered(client).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_a_stale_connection_is_made_up_for_once(side: Side, method: bytes) -> None:
    """RFC 9112 §9.3.1; policy.retry: idempotent, without a body, once."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    answered(client)
    client.send(get(b"/again", method=method))
    up.read_message()
    up.close()
    second = side.upstream()
    assert second.read_message().startswith(method + b" /again ")
    second.close()

    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    assert side.no_upstream()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("heard", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 2"])
def test_a_connection_that_has_answered_something_was_not_stale(
    side: Side, heard: bytes, end: str
) -> None:
    """The request has been seen, so a second one would be a new request and not the making up for a race."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    answered(client)
    client.send(get(b"/again"))
    up.read_message()
    up.send(heard)
    if heard.endswith(b"\r\n"):
        client.read_until(b"\r\n\r\n")
    getattr(up, end)()

    assert client.read_until(b"\r\n\r\n").startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 503 "))
    assert side.no_upstream()


def test_a_post_that_was_sent_is_never_repeated(side: Side) -> None:
    """RFC 9110 §9.2.2."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    answered(client)
    client.send(get(b"/again", method=b"POST"))
    up.read_message()
    up.close()

    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    assert side.no_upstream()


def test_a_connection_that_died_while_idle_is_not_used(side: Side) -> None:
    """RFC 9112 §9.3.1: a POST gets a fresh one."""
    client = side.connect()
    client.send(GET)
    up = side.upstream()
    up.read_message()
    up.send(OK)
    answered(client)
    up.close()

    client.send(get(b"/", b"Content-Length: 2", method=b"POST") + b"ab")
    second = side.upstream()
    assert second.read_message().endswith(b"ab")
    second.send(OK)

    assert answered(client).endswith(b"ok")


# --- tunnels

UPGRADE = get(b"/ws", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: y\r\n\r\n"
)


@pytest.mark.parametrize("warm", [False, True])
def test_an_upgrade_opens_a_tunnel(side: Side, warm: bool) -> None:
    """RFC 9110 §7.8: opaque both ways after 101, also the early bytes, until both have ended."""
    client = side.connect()
    up = None
    if warm:
        client.send(GET)
        up = side.upstream()
        up.read_message()
        up.send(OK)
        answered(client)
    client.send(UPGRADE + b"early\x00")
    up = up or side.upstream()
    head = up.read_until(b"\r\n\r\n")
    assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in head
    up.send(SWITCH + b"first\xff")
    assert up.read_exactly(6) == b"early\x00"
    answer = client.read_until(b"\r\n\r\n")
    assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in answer
    assert b"Content-Length" not in answer
    assert client.read_exactly(6) == b"first\xff"
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert up.read_exactly(18) == b"GET / HTTP/1.1\r\n\r\n"
    client.half_close()
    assert up.read_to_end() == b""
    up.send(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.read_exactly(19) == b"HTTP/1.1 200 OK\r\n\r\n"
    up.close()

    assert client.read_to_end() == b""


def test_upstream_may_end_a_tunnel_first(side: Side) -> None:
    """Half-close in the other direction."""
    client = side.connect()
    client.send(UPGRADE)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(SWITCH + b"bye")
    up.half_close()
    client.read_until(b"\r\n\r\nbye")
    assert client.read_to_end() == b""
    client.send(b"late")
    assert up.read_exactly(4) == b"late"
    client.close()

    assert up.is_ended()


def test_a_reset_of_one_side_cuts_the_tunnel(side: Side) -> None:
    """Truncation is seen on the other side."""
    client = side.connect()
    client.send(UPGRADE)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(SWITCH)
    client.read_until(b"\r\n\r\n")

    client.reset()

    with pytest.raises(ConnectionError):
        up.read_to_end()


def test_a_refused_upgrade_is_an_ordinary_answer(side: Side) -> None:
    """RFC 9110 §7.8: the server may ignore it; the connections go on."""
    client = side.connect()
    client.send(UPGRADE)
    up = side.upstream()
    up.read_until(b"\r\n\r\n")
    up.send(
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    )
    answer = client.read_until(b"\r\n\r\n")
    client.send(GET)

    assert b"Upgrade: websocket\r\n" in answer
    assert up.read_message().startswith(b"GET / ")


@pytest.mark.parametrize("token", [b"h2c", b"HTTP/2.0", b"TLS/1.0", b"foo"])
def test_only_listed_protocols_can_be_asked_for(side: Side, token: bytes) -> None:
    """Threats F5."""
    received, _ = side.exchange(
        get(
            b"/",
            b"Connection: upgrade, http2-settings",
            b"Upgrade: " + token,
            b"HTTP2-Settings: AA",
        ),
        OK,
    )

    assert plain_request(received) == GET


def test_an_upgrade_of_http_1_0_is_ignored(side: Side) -> None:
    """RFC 9110 §7.8."""
    received, _ = side.exchange(
        get(b"/", b"Connection: upgrade", b"Upgrade: websocket", version=b"1.0"), OK
    )

    assert plain_request(received) == GET


def test_connect_opens_a_tunnel_to_a_configured_service(outbound: Side, stage: Stage) -> None:
    """RFC 9110 §9.3.6; threats G2: early bytes wait for our 200."""
    client = outbound.connect()
    client.send(b"CONNECT payments:%d HTTP/1.1\r\nHost: payments\r\n\r\nearly" % stage.peer_port)
    up = outbound.upstream()
    answer = client.read_until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length" not in answer
    assert b"Transfer-Encoding" not in answer
    assert up.read_exactly(5) == b"early"
    up.send(b"hello")
    assert client.read_exactly(5) == b"hello"
    client.half_close()
    assert up.read_to_end() == b""
    up.send(b"bye")
    up.close()

    assert client.read_to_end() == b"bye"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"payments:1", 403),
        (b"nobody:443", 404),
        (b"169.254.169.254:80", 404),
        (b"127.0.0.1:9901", 404),
        (b"[::1]:80", 404),
    ],
)
def test_connect_reaches_nothing_else(outbound: Side, target: bytes, status: int) -> None:
    """Threats H1."""
    answer = outbound.refused(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target) + GET)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(STATUS.findall(answer)) == 1


def test_connect_is_not_for_peers(inbound: Side) -> None:
    """Threats F4."""
    answer = inbound.refused(b"CONNECT payments:443 HTTP/1.1\r\nHost: payments:443\r\n\r\n" + GET)

    assert answer.startswith(b"HTTP/1.1 501 ")


# --- departures


def test_a_client_that_resets_behind_its_request_is_noticed_while_it_waits(outbound: Side) -> None:
    """uvloop forgets a descriptor with its error, and the request before it was read in one piece."""
    client = outbound.connect()
    client.send(get(b"/gone"))
    client.reset()

    record = outbound.sidecar.wait_for_record(path="/gone")
    assert (record["flags"], record["status"]) == ("DC", 0)
