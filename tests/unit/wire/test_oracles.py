"""Differential tests: h11 and httptools (llhttp) read what we read, and what we write.

Three laws. What we accept both accept and read alike. What both accept and read alike we accept, but for the
refusals in `STRICTER`. What we write anew is read by both as one message, with our method, target, fields and
body, and nothing behind it.
"""

from __future__ import annotations

import h11
import httptools
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ambassador.core.model import Field, RequestHead
from ambassador.wire.chunked import ChunkedReader
from ambassador.wire.framing import CHUNKED, LENGTH
from ambassador.wire.head import (
    HeadError,
    HeadLimits,
    find_head_end,
    parse_request_head,
    parse_response_head,
)
from ambassador.wire.render import render_request_head, render_response_head
from tests.support.transcripts import line_cache, pairs

# More than elsewhere: most examples are refused early, and what differs is rare.
EXAMPLES = max(200, settings.default.max_examples if settings.default else 0)

Message = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]  # method, target, fields, body

# Refusals of ours where both oracles accept, each with the section that permits or demands it.
STRICTER = {
    # RFC 9110 §15.6.6, §6.2: another major version is not what these bytes are.
    "bad_version",
    # RFC 9112 §3.2: a request with an invalid Host value MUST be answered with 400.
    "bad_host",
    # RFC 9112 §3.2.4: asterisk-form belongs to OPTIONS alone; §3.2.2: the forms of a target.
    "bad_target",
    # RFC 9110 §4.2.1 (empty host MUST be rejected), §4.2.4 (userinfo SHOULD be an error).
    "bad_authority",
    # RFC 9110 §7.1: the target has no fragment; threat F1.
    "fragment_in_target",
    # RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0 MUST be treated as faulty framing.
    "coding_in_http10",
    # RFC 9110 §10.1.1: 417 for an expectation that is not 100-continue.
    "unknown_expectation",
    # RFC 9110 §7.6.1, §7.8: Connection and Upgrade are lists of tokens and protocols.
    "bad_connection",
    "bad_upgrade",
    # RFC 9110 §9.3.8: no content in TRACE.
    "content_refused",
    # RFC 9112 §11.2, threat G1: a name that gateways fold into a framing field.
    "framing_alias",
    # RFC 9112 §2.2: control characters; h11 and llhttp leave some to the application.
    "bad_field_value",
}

methods = st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"DELETE"])
targets = st.sampled_from(
    [
        *[b"/", b"/a?b=c", b"//a/../b", b"/%2e%00", b"/a#b", b"*", b"http://a", b"http://a:8/p?q"],
        *[
            b"http://u@a/",
            b"http://a/",
            b"HTTP://A/",
            b"/a b",
            b"/\xe4",
            b"/\x01",
            b'/"<>|',
            b"a",
            b"?x",
        ],
    ]
)
versions = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"])
hosts = st.sampled_from(
    [[b"Host: a"]] * 8
    + [[], [b"Host: a b"], [b"Host: a", b"Host: a"], [b"Host:"], [b"hOST:\ta:80 "]]
)
framings = st.sampled_from(
    [
        *[[], [b"Content-Length: 5"], [b"Transfer-Encoding: chunked"]] * 5,
        *[[b"Content-Length: 005"], [b"Content-Length: 0"], [b"Transfer-Encoding: CHUNKED"]],
        *[
            [b"Content-Length: 5", b"Content-Length: 5"],
            [b"Content-Length: 5, 5"],
            [b"Content-Length: +5"],
        ],
        *[[b"Content-Length: 5", b"Transfer-Encoding: chunked"], [b"Content-Length : 5"]],
        *[[b"Transfer-Encoding: gzip, chunked"], [b"Transfer-Encoding: chunked, chunked"]],
        *[
            [b"Transfer-Encoding: gzip"],
            [b"Transfer-Encoding:\x0bchunked"],
            [b"Transfer_Encoding: chunked"],
        ],
        *[[b"Transfer-Encoding : chunked"], [b"Content-Length: 5\r\n 5"], [b"Content_Length: 5"]],
    ]
)
others = st.lists(
    st.sampled_from(
        [
            *[b"Accept: */*", b"X:  a \t", b"X: \xe4", b"X:", b"x-Y_z: a:b", b"Cookie: a=b"],
            *[
                b"Connection: close",
                b"Connection: keep-alive, x",
                b"Connection: a b",
                b"Keep-Alive: 5",
            ],
            *[
                b"Expect: 100-continue",
                b"Expect: 1",
                b"X: a\r\n b",
                b"X : a",
                b": a",
                b"X",
                b"X: a\x00b",
            ],
            *[b"X: a\x01b", b"X: a\rb", b"X: a\nY: b", b"X(: a", b"X\xe4: a", b"TE: trailers"],
        ]
    ),
    max_size=4,
)
bodies = st.sampled_from(
    [
        *[b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n"] * 4,
        *[
            b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n",
            b"0\r\n\r\n",
            b'5;a="q;"\r\nhello\r\n0\r\n\r\n',
        ],
        *[
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5;\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
        ],
        *[
            b"5\r\nhello0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0\r\nHost: b\r\n\r\n",
            b"-0\r\n\r\n",
        ],
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are mostly nearly right."""
    start = b" ".join([draw(methods), draw(targets), draw(versions)])
    lines = draw(st.permutations([*draw(hosts), *draw(framings), *draw(others)]))
    newline = draw(st.sampled_from([b"\r\n"] * 9 + [b"\n"]))
    return newline.join([start, *lines, b"", b""]) + draw(bodies)


def ours(received: bytes) -> tuple[Message, RequestHead, int]:
    """What we read of one message that must be whole."""
    end = find_head_end(received, 0)
    if end < 0:
        raise HeadError(400, "unfinished")
    cache, limits = line_cache(), HeadLimits()
    head, framing, _ = parse_request_head(received[:end], cache, limits)
    body = received[end + 4 :]
    if framing == CHUNKED:
        reader = ChunkedReader(cache, limits)
        body = reader.feed(body) if body else b""
        if not reader.done:
            raise HeadError(400, "unfinished")
    elif len(body) < (head.content_length or 0):
        raise HeadError(400, "unfinished")
    else:
        body = body[: head.content_length]
    return (head.method, head.path, pairs(head.fields), body), head, framing


class _Callbacks:
    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers = False
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.trailers and not self.complete:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.trailers = True

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def by_httptools(received: bytes) -> Message | None:
    """What llhttp reads of the first message; None if it refuses or waits for more."""
    callbacks = _Callbacks()
    parser = httptools.HttpRequestParser(callbacks)
    try:
        parser.feed_data(received)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        if not callbacks.complete:
            return None
    if not callbacks.complete:
        return None
    return parser.get_method(), callbacks.url, callbacks.fields, callbacks.body


def by_h11(received: bytes) -> Message | None:
    """What h11 reads of the first message; None if it refuses or waits for more."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    connection.receive_data(received)
    body = b""
    request: h11.Request | None = None
    try:
        while True:
            found = connection.next_event()
            match found:
                case h11.Request():
                    request = found
                case h11.Data():
                    body += bytes(found.data)
                case h11.EndOfMessage():
                    assert request is not None
                    fields = [(bytes(name), bytes(value)) for name, value in request.headers]
                    return bytes(request.method), bytes(request.target), fields, body
                case _:
                    return None
    except h11.RemoteProtocolError:
        return None


def end_to_end(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the fields that we keep apart, which their owners spell differently."""
    apart = {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"te",
        b"expect",
    }
    nominated = {b"x"} if any(n == b"connection" and b"x" in v for n, v in fields) else set()
    return [pair for pair in fields if pair[0] not in apart | nominated]


def origin_target(target: bytes, method: bytes) -> bytes:
    """The target as it is forwarded (RFC 9112 §3.2.2, §3.2.4)."""
    if target[:4].lower() != b"http":
        return target
    path = target[target.index(b"//") + 2 :].partition(b"/")
    return b"/" + path[2] if path[1] else (b"*" if method == b"OPTIONS" else b"/")


@settings(max_examples=EXAMPLES)
@given(requests())
def test_what_we_accept_both_oracles_accept_and_read_alike(received: bytes) -> None:
    """Threat G1: a request that two readers read differently is smuggled."""
    try:
        (method, path, fields, body), _, _ = ours(received)
    except HeadError:
        return

    for oracle in (by_h11, by_httptools):
        theirs = oracle(received)

        assert theirs is not None, oracle
        assert theirs[0] == method
        assert origin_target(theirs[1], method) == path
        assert end_to_end(theirs[2]) == end_to_end(fields)
        assert theirs[3] == body


@settings(max_examples=EXAMPLES)
@given(requests())
def test_what_we_refuse_one_oracle_refuses_too_or_the_rfc_says_why(received: bytes) -> None:
    """House §9: each difference from both is explained by a section."""
    try:
        ours(received)
    except HeadError as error:
        event(error.detail)
        detail = error.detail
    else:
        return

    first, second = by_h11(received), by_httptools(received)

    both = first is not None and second is not None and first[3] == second[3]
    assert not both or detail in STRICTER, (detail, first, second)


@settings(max_examples=EXAMPLES)
@given(requests())
def test_what_we_write_both_oracles_read_as_the_same_one_message(received: bytes) -> None:
    """House §7: heads are written anew; RFC 9112 §11.2."""
    try:
        (method, path, fields, body), head, framing = ours(received)
    except HeadError:
        return
    written = render_request_head(head, framing=framing, extra=b"Via: 1.1 us\r\n")
    written += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if framing == CHUNKED and body else b""
    written += b"0\r\n\r\n" if framing == CHUNKED and not body else b""
    written += body if framing == LENGTH else b""

    for oracle in (by_h11, by_httptools):
        # A byte that belongs to nobody would be the begin of a second request.
        theirs = oracle(written)

        assert theirs is not None, oracle
        assert theirs[:2] == (method, path)
        assert end_to_end(theirs[2]) == [*end_to_end(fields), (b"via", b"1.1 us")]
        assert theirs[3] == body
        assert oracle(written[:-1]) is None


@settings(max_examples=EXAMPLES)
@given(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 ",
            b"HTTP/1.0 404 No",
            b"HTTP/1.1 304 NM",
            b"HTTP/1.1 204 NC",
        ]
    ),
    framings,
    others,
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_a_response_that_we_accept_is_written_so_that_h11_reads_its_framing(
    start: bytes, framing_lines: list[bytes], lines: list[bytes], method: bytes
) -> None:
    """Threat G3. h11 is told the method, as a client of ours would know it."""
    block = b"\r\n".join([start, *framing_lines, *lines])
    try:
        head, framing, _ = parse_response_head(block, line_cache(), HeadLimits(), method)
    except HeadError:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())

    client.receive_data(render_response_head(head, framing=framing))
    found = client.next_event()
    behind = client.next_event()

    assert isinstance(found, h11.Response)
    assert found.status_code == head.status
    assert [(bytes(n), bytes(v)) for n, v in found.headers][: len(head.fields)] == pairs(
        head.fields
    )
    whole = framing not in {LENGTH, CHUNKED, 3} or (framing == LENGTH and not head.content_length)
    assert isinstance(behind, h11.EndOfMessage) is whole


def test_a_field_written_by_policy_stands_as_it_is() -> None:
    """`extra` and fields are lines already checked; the writer adds only what separates them."""
    field = Field(b"x", b"1", 0, b"X: 1")
    head = RequestHead(b"GET", b"http", b"a", b"/", [field], 0)

    assert by_h11(render_request_head(head, framing=0)) == (
        b"GET",
        b"/",
        [(b"host", b"a"), (b"x", b"1")],
        b"",
    )
