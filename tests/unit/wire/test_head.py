from __future__ import annotations

import pytest

from ambassador.core.model import EXPECT, HOP_BY_HOP, HOST, RequestHead, ResponseHead
from ambassador.wire.framing import CHUNKED, LENGTH, NO_BODY, TUNNEL, UNTIL_EOF
from ambassador.wire.head import (
    HeadError,
    HeadLimits,
    find_head_end,
    head_too_large,
    parse_request_head,
    parse_response_head,
    shape_of,
    skip_empty_lines,
    status_of,
)
from tests.support.transcripts import MessageReader, line_cache, pairs, splits

LIMITS = HeadLimits()


def request(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> tuple[RequestHead, int, bool]:
    return parse_request_head(b"\r\n".join([start, *lines]), line_cache(), LIMITS)


def request_error(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> tuple[int, str]:
    with pytest.raises(HeadError) as caught:
        request(*lines, start=start)
    return caught.value.status, caught.value.detail


def response(
    *lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET"
) -> tuple[ResponseHead, int, bool]:
    return parse_response_head(b"\r\n".join([start, *lines]), line_cache(), LIMITS, method)


def response_error(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> str:
    with pytest.raises(HeadError) as caught:
        response(*lines, start=start, method=method)
    return caught.value.detail


# --- where a head begins and ends ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "begin"),
    [(b"", 0), (b"GET", 0), (b"\r\nGET", 2), (b"\r\n\r\nGET", 4), (b"\r\n\r", 2), (b"\r", 0)],
)
def test_two_empty_lines_before_a_request_are_skipped(received: bytes, begin: int) -> None:
    """RFC 9112 §2.2: at least one SHOULD be ignored."""
    assert skip_empty_lines(received) == begin


def test_more_empty_lines_are_refused() -> None:
    """Threat E5: a flood of CRLF."""
    with pytest.raises(HeadError, match="empty_lines"):
        skip_empty_lines(b"\r\n\r\n\r\nGET / HTTP/1.1")


@pytest.mark.parametrize(
    ("received", "detail"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: a\n", "bare_lf"),
        (b"\nGET / HTTP/1.1\r\n", "bare_lf"),
        (b"GET / HTTP/1.1\rHost: a\r\r", "bare_cr"),
        (b"GET / HTTP/1.1\r\r\n", "bare_cr"),
        (b"\x16\x03\x01\x00", "nul"),
    ],
)
def test_an_unfinished_head_that_cannot_become_valid_is_refused_at_once(
    received: bytes, detail: str
) -> None:
    """RFC 9112 §2.2; no waiting for a deadline, in whatever pieces it arrives."""
    for pieces in splits(received):
        assert MessageReader().run(pieces) == [("error", 400, detail)]


@pytest.mark.parametrize("start", [13, 14, 15, 16])
def test_a_search_that_goes_on_between_cr_and_lf_sees_no_bare_lf(start: int) -> None:
    """`start` may stand in the midst of a CRLF, with its CR before it."""
    assert find_head_end(bytearray(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), start) == -1


def test_the_end_of_a_head_is_found_from_where_the_last_search_left_off() -> None:
    """Threat E4: each byte is looked at once."""
    received = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"

    assert find_head_end(received, len(received) - 7 - 3) == received.index(b"\r\n\r\n")


def test_a_too_large_head_is_a_too_long_uri_if_its_first_line_is_not_whole() -> None:
    """RFC 9112 §3 wants 414 for the target, RFC 6585 §5 431 for the rest."""
    limits = HeadLimits(max_uri=20)

    assert head_too_large(b"GET / HTTP/1.1\r\nX: ", 0, limits).status == 431
    assert head_too_large(b"GET /" + b"a" * 30, 0, limits).status == 414


# --- Host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "lines", "expected"),
    [
        (b"GET / HTTP/1.1", (), (400, "no_host")),
        (b"GET http://a/ HTTP/1.1", (), (400, "no_host")),
        (b"GET / HTTP/1.1", (b"Host: a", b"Host: a"), (400, "two_hosts")),
        (b"GET / HTTP/1.1", (b"Host: a", b"hOST: b"), (400, "two_hosts")),
        (b"GET / HTTP/1.0", (b"Host: a", b"Host: b"), (400, "two_hosts")),
        (b"GET http://a/ HTTP/1.1", (b"Host: a", b"Host: b"), (400, "two_hosts")),
        (b"GET / HTTP/1.1", (b"Host: a b",), (400, "bad_host")),
        (b"GET / HTTP/1.1", (b"Host: u@a",), (400, "bad_host")),
        (b"GET / HTTP/1.0", (b"Host: a/b",), (400, "bad_host")),
        (b"GET http://a/ HTTP/1.1", (b"Host: a/b",), (400, "bad_host")),
    ],
)
def test_a_request_without_exactly_one_valid_host_is_refused(
    start: bytes, lines: tuple[bytes, ...], expected: tuple[int, str]
) -> None:
    """RFC 9112 §3.2: MUST be answered with 400; threat F3."""
    assert request_error(*lines, start=start) == expected


@pytest.mark.parametrize(
    ("start", "lines", "authority"),
    [
        (b"GET / HTTP/1.1", (b"Host: A.ex.org:80",), b"A.ex.org:80"),
        (b"GET / HTTP/1.1", (b"Host:",), b""),
        (b"GET / HTTP/1.0", (), b""),
        (b"GET / HTTP/1.0", (b"Host: a",), b"a"),
        (b"GET http://b/ HTTP/1.1", (b"Host: a",), b"b"),
        (b"GET http://b/ HTTP/1.0", (), b"b"),
        (b"OPTIONS * HTTP/1.1", (b"Host: a",), b"a"),
    ],
)
def test_the_authority_is_the_targets_or_else_host(
    start: bytes, lines: tuple[bytes, ...], authority: bytes
) -> None:
    """RFC 9112 §3.2.2: a proxy MUST ignore Host when the target is absolute."""
    assert request(*lines, start=start)[0].authority == authority


# --- framing of requests -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "framing", "length"),
    [
        ((), NO_BODY, 0),
        ((b"Content-Length: 0",), LENGTH, 0),
        ((b"Content-Length: 5",), LENGTH, 5),
        ((b"content-length:\t007 ",), LENGTH, 7),
        ((b"Content-Length: 999999999999999999",), LENGTH, 999999999999999999),
        ((b"Transfer-Encoding: chunked",), CHUNKED, None),
        ((b"Transfer-Encoding: CHUNKED",), CHUNKED, None),
    ],
)
def test_a_request_has_one_framing(
    lines: tuple[bytes, ...], framing: int, length: int | None
) -> None:
    """RFC 9112 §6.3 items 4 to 7."""
    head, found, persists = request(b"Host: a", *lines)

    assert (found, head.content_length, persists) == (framing, length, True)
    assert head.fields == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"Content-Length: 5", b"Content-Length: 5"), (400, "two_content_lengths")),
        ((b"Content-Length: 5", b"Content-Length: 6"), (400, "two_content_lengths")),
        ((b"Content-Length: 5, 5",), (400, "bad_content_length")),
        ((b"Content-Length: +5",), (400, "bad_content_length")),
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), (400, "length_and_coding")),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 0"), (400, "length_and_coding")),
        ((b"Transfer-Encoding: chunked, chunked",), (400, "bad_transfer_encoding")),
        (
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (400, "bad_transfer_encoding"),
        ),
        ((b"Transfer-Encoding: chunked, gzip",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: chunked, identity",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: gzip",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: identity",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: xchunked",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding:",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: ,chunked",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: chunked,",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: chunked;q=1",), (400, "bad_transfer_encoding")),
        ((b'Transfer-Encoding: "chunked"',), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: \xe4, chunked",), (400, "bad_transfer_encoding")),
        ((b"Transfer-Encoding: \x0bchunked",), (400, "bad_field_value")),
        ((b"Transfer-Encoding : chunked",), (400, "space_before_colon")),
        ((b"Transfer-Encoding:\r\n chunked",), (400, "obs_fold")),
        ((b"Transfer_Encoding: chunked",), (400, "framing_alias")),
        ((b"Transfer-Encoding: gzip, chunked",), (501, "unknown_transfer_coding")),
        (
            (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
            (501, "unknown_transfer_coding"),
        ),
    ],
)
def test_an_ambiguous_framing_is_refused(
    lines: tuple[bytes, ...], expected: tuple[int, str]
) -> None:
    """RFC 9112 §6.1, §6.3, §11.2; threat G1."""
    assert request_error(b"Host: a", *lines) == expected


def test_a_coding_in_an_old_request_is_refused() -> None:
    """RFC 9112 §6.1: MUST be treated as if the framing is faulty."""
    error = request_error(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")

    assert error == (400, "coding_in_http10")


@pytest.mark.parametrize("start", [b"CONNECT a:1 HTTP/1.1", b"TRACE / HTTP/1.1"])
@pytest.mark.parametrize("line", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
def test_methods_without_content_are_refused_with_it(start: bytes, line: bytes) -> None:
    """RFC 9110 §9.3.6, §9.3.8; threat G2: bytes behind CONNECT belong to nobody yet."""
    assert request_error(b"Host: a", line, start=start) == (400, "content_refused")


def test_connect_may_say_that_it_has_no_content() -> None:
    """A length of zero is no content."""
    head, framing, _ = request(b"Host: a", b"Content-Length: 0", start=b"CONNECT a:1 HTTP/1.1")

    assert (head.authority, head.path, framing) == (b"a:1", b"", LENGTH)


# --- the connection ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "connection", "persists"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"close", False),
        (b"GET / HTTP/1.1", b"Close", False),
        (b"GET / HTTP/1.1", b"foo, ,\tCLOSE", False),
        (b"GET / HTTP/1.1", b"keep-alive, close", False),
        (b"GET / HTTP/1.1", b"closed", True),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Keep-Alive", True),
        (b"GET / HTTP/1.0", b"keep-alive, close", False),
        (b"GET http://a/ HTTP/1.0", b"keep-alive", False),
        (b"GET http://a/ HTTP/1.1", b"keep-alive", True),
    ],
)
def test_a_connection_persists_by_version_and_option(
    start: bytes, connection: bytes, persists: bool
) -> None:
    """RFC 9112 §9.3; a proxy MUST NOT keep a connection with an HTTP/1.0 client."""
    assert request(b"Host: a", b"Connection: " + connection, start=start)[2] is persists


@pytest.mark.parametrize("value", [b"a b", b"a;b", b'"close"', b"close\xe4", b"(x)"])
def test_a_connection_field_that_is_no_list_of_tokens_is_refused(value: bytes) -> None:
    """RFC 9110 §7.6.1: Connection = #connection-option."""
    assert request_error(b"Host: a", b"Connection: " + value) == (400, "bad_connection")


def test_nominated_fields_are_removed_but_never_protected_ones() -> None:
    """RFC 9110 §7.6.1; threat A3: nomination removes received fields only, never those that protect."""
    head, _, _ = request(
        b"Host: a",
        b"X-Hop: 1",
        b"Content-Length: 0",
        b"Authorization: secret",
        b"X-Forwarded-Client-Cert: x",
        b"Cache-Control: no-cache",
        b"X-End: 2",
        b"Connection: x-HOP, host, authorization",
        b"Connection: x-forwarded-client-cert, cache-control, content-length",
    )

    assert sorted(field.name for field in head.fields) == [
        b"authorization",
        b"cache-control",
        b"x-end",
        b"x-forwarded-client-cert",
    ]
    assert head.authority == b"a"


def test_hop_by_hop_fields_end_here_and_stay_in_the_roles() -> None:
    """RFC 9110 §7.6.1; `roles` is the union over all fields read."""
    head, _, _ = request(
        b"Host: a", b"Keep-Alive: timeout=5", b"TE: trailers", b"Proxy-Connection: close", b"X: 1"
    )

    assert pairs(head.fields) == [(b"x", b"1")]
    assert head.roles == HOST | HOP_BY_HOP


@pytest.mark.parametrize(
    ("start", "lines", "upgrade"),
    [
        (b"GET / HTTP/1.1", (b"Connection: Upgrade", b"Upgrade: websocket"), b"websocket"),
        (b"GET / HTTP/1.1", (b"Connection: close, upgrade", b"Upgrade: a/1, b"), b"a/1, b"),
        (b"GET / HTTP/1.1", (b"Connection: upgrade", b"Upgrade: a", b"Upgrade: b"), b"a, b"),
        (b"GET / HTTP/1.1", (b"Upgrade: websocket",), b""),
        (b"GET / HTTP/1.1", (b"Connection: close", b"Upgrade: websocket"), b""),
        (b"GET / HTTP/1.1", (b"Connection: upgrade",), b""),
        (b"GET / HTTP/1.1", (b"Connection: upgrade", b"Upgrade:"), b""),
        (b"GET / HTTP/1.0", (b"Connection: upgrade", b"Upgrade: websocket"), b""),
    ],
)
def test_an_upgrade_counts_only_when_connection_names_it(
    start: bytes, lines: tuple[bytes, ...], upgrade: bytes
) -> None:
    """RFC 9110 §7.8: also, MUST be ignored in HTTP/1.0."""
    head, _, _ = request(b"Host: a", *lines, start=start)

    assert (head.upgrade, head.fields) == (upgrade, [])


@pytest.mark.parametrize("value", [b"a b", b"a//b", b",a", b"a,,b", b"a/", b"\xe4"])
def test_a_malformed_upgrade_is_refused(value: bytes) -> None:
    """RFC 9110 §7.8: protocol = protocol-name ["/" protocol-version]."""
    error = request_error(b"Host: a", b"Connection: upgrade", b"Upgrade: " + value)

    assert error == (400, "bad_upgrade")


@pytest.mark.parametrize(
    ("start", "lines", "expects"),
    [
        (b"POST / HTTP/1.1", (b"Content-Length: 5",), True),
        (b"POST / HTTP/1.1", (b"Transfer-Encoding: chunked",), True),
        (b"POST / HTTP/1.1", (b"Content-Length: 0",), False),
        (b"POST / HTTP/1.1", (), False),
        (b"POST / HTTP/1.0", (b"Content-Length: 5",), False),
    ],
)
def test_continue_is_expected_only_for_content_and_by_new_clients(
    start: bytes, lines: tuple[bytes, ...], expects: bool
) -> None:
    """RFC 9110 §10.1.1: MUST be ignored in HTTP/1.0, and without content there is nothing to wait for."""
    head, _, _ = request(b"Host: a", b"Expect: 100-Continue", *lines, start=start)

    assert (head.expect_continue, head.fields, head.roles & EXPECT) == (expects, [], EXPECT)


@pytest.mark.parametrize("value", [b"", b"200-ok", b"100-continue, x", b"100-continue;a"])
def test_another_expectation_is_answered_with_417(value: bytes) -> None:
    """RFC 9110 §10.1.1."""
    error = request_error(b"Host: a", b"Content-Length: 5", b"Expect: " + value)

    assert error == (417, "unknown_expectation")


def test_fields_beyond_the_limit_are_refused() -> None:
    """RFC 6585 §5; threat E4."""
    lines = [b"X-%d: 1" % number for number in range(99)]

    head, _, _ = request(b"Host: a", *lines)

    assert len(head.fields) == 99
    assert request_error(b"Host: a", *lines, b"Y: 1") == (431, "too_many_fields")


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100, 431),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a", 414),
    ],
)
def test_a_whole_head_beyond_its_limit_is_refused_too(block: bytes, status: int) -> None:
    """One read may bring more than the limit at once; RFC 6585 §5, RFC 9112 §3."""
    with pytest.raises(HeadError) as caught:
        parse_request_head(block, line_cache(), HeadLimits(max_head=100, max_uri=50))

    assert caught.value.status == status


# --- responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "reason", "version"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", 11),
        (b"HTTP/1.1 200 ", 200, b"", 11),
        (b"HTTP/1.1 200", 200, b"", 11),
        (b"HTTP/1.0 599 a\tb \xe4", 599, b"a\tb \xe4", 10),
        (b"HTTP/1.1 299  two blanks", 299, b" two blanks", 11),
    ],
)
def test_a_status_line_is_read(line: bytes, status: int, reason: bytes, version: int) -> None:
    """RFC 9112 §4."""
    head, _, _ = response(b"Content-Length: 0", start=line)

    assert (head.status, head.reason, head.version) == (status, reason, version)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 a\rb",
        b"HTTP/1.1 200 a\nb",
        b"HTTP/1.1 200 a\x00b",
        b"HTTP/1.1 200 a\x7f",
        b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
    ],
)
def test_a_faulty_status_line_is_refused(line: bytes) -> None:
    """RFC 9112 §4, RFC 9110 §15; threat G3: control bytes would split what we forward."""
    assert response_error(start=line) == "bad_status_line"


@pytest.mark.parametrize(
    ("method", "start", "lines", "framing", "length"),
    [
        (b"GET", b"HTTP/1.1 200 OK", (b"Content-Length: 5",), LENGTH, 5),
        (b"GET", b"HTTP/1.0 200 OK", (b"Content-Length: 5",), LENGTH, 5),
        (b"GET", b"HTTP/1.1 200 OK", (b"Content-Length: 0", b"Keep-Alive: x"), LENGTH, 0),
        (b"GET", b"HTTP/1.1 200 OK", (b"Transfer-Encoding: chunked",), CHUNKED, None),
        (b"GET", b"HTTP/1.1 200 OK", (), UNTIL_EOF, None),
        (b"GET", b"HTTP/1.0 200 OK", (), UNTIL_EOF, None),
        (b"GET", b"HTTP/1.1 404 No", (b"Connection: close",), UNTIL_EOF, None),
        (b"HEAD", b"HTTP/1.1 200 OK", (b"Content-Length: 5",), NO_BODY, 5),
        (b"HEAD", b"HTTP/1.1 200 OK", (b"Transfer-Encoding: chunked",), NO_BODY, None),
        (b"HEAD", b"HTTP/1.1 200 OK", (), NO_BODY, None),
        (b"GET", b"HTTP/1.1 304 Not Modified", (b"Content-Length: 5",), NO_BODY, 5),
        (b"GET", b"HTTP/1.1 304 Not Modified", (b"Transfer-Encoding: chunked",), NO_BODY, None),
        (b"GET", b"HTTP/1.1 304 Not Modified", (), NO_BODY, None),
        (b"GET", b"HTTP/1.1 204 No Content", (), NO_BODY, 0),
        (b"GET", b"HTTP/1.1 204 No Content", (b"Content-Length: 0",), NO_BODY, 0),
        (b"GET", b"HTTP/1.1 100 Continue", (), NO_BODY, 0),
        (b"GET", b"HTTP/1.1 103 Early Hints", (b"Content-Length: 0",), NO_BODY, 0),
        (b"GET", b"HTTP/1.1 101 S", (b"Connection: upgrade", b"Upgrade: x"), TUNNEL, None),
        (b"CONNECT", b"HTTP/1.1 200 OK", (), TUNNEL, None),
        (b"CONNECT", b"HTTP/1.1 200 OK", (b"Content-Length: 5",), TUNNEL, None),
        (b"CONNECT", b"HTTP/1.1 299 OK", (b"Transfer-Encoding: chunked",), TUNNEL, None),
        (b"CONNECT", b"HTTP/1.1 403 No", (b"Content-Length: 5",), LENGTH, 5),
        (b"CONNECT", b"HTTP/1.1 300 No", (), UNTIL_EOF, None),
    ],
)
def test_a_response_has_one_framing(
    method: bytes, start: bytes, lines: tuple[bytes, ...], framing: int, length: int | None
) -> None:
    """RFC 9112 §6.3 items 1 to 8; the length of HEAD and 304 stays for the writer (RFC 9110 §8.6)."""
    head, found, _ = response(*lines, start=start, method=method)

    assert (found, head.content_length, head.fields) == (framing, length, [])


@pytest.mark.parametrize(
    ("start", "lines", "detail"),
    [
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5", b"Content-Length: 5"), "two_content_lengths"),
        (b"HTTP/1.1 304 NM", (b"Content-Length: 5", b"Content-Length: 6"), "two_content_lengths"),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5,5",), "bad_content_length"),
        (b"HTTP/1.1 200 OK", (b"Content-Length: -1",), "bad_content_length"),
        (
            b"HTTP/1.1 200 OK",
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            "length_and_coding",
        ),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: gzip",), "bad_transfer_encoding"),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: gzip, chunked",), "unknown_transfer_coding"),
        (b"HTTP/1.0 200 OK", (b"Transfer-Encoding: chunked",), "coding_in_http10"),
        (b"HTTP/1.1 204 NC", (b"Content-Length: 1",), "content_refused"),
        (b"HTTP/1.1 204 NC", (b"Transfer-Encoding: chunked",), "content_refused"),
        (b"HTTP/1.1 100 C", (b"Content-Length: 1",), "content_refused"),
        (b"HTTP/1.1 103 E", (b"Transfer-Encoding: chunked",), "content_refused"),
        (b"HTTP/1.1 101 S", (b"Connection: upgrade",), "bad_upgrade"),
        (b"HTTP/1.1 101 S", (b"Upgrade: x",), "bad_upgrade"),
        (b"HTTP/1.0 101 S", (b"Connection: upgrade", b"Upgrade: x"), "bad_upgrade"),
        (b"HTTP/1.1 200 OK", (b"X: a", b" folded"), "obs_fold"),
        (b"HTTP/1.1 200 OK", (b"X : a",), "space_before_colon"),
        (b"HTTP/1.1 200 OK", (b"X: a\rSet-Cookie: b",), "bad_field_value"),
        (b"HTTP/1.1 200 OK", (b"nothing",), "no_colon"),
        (b"HTTP/1.1 200 OK", (b"Connection: a b",), "bad_connection"),
    ],
)
def test_a_response_is_read_as_strictly_as_a_request(
    start: bytes, lines: tuple[bytes, ...], detail: str
) -> None:
    """Threat G3; RFC 9112 §5.1, §5.2, §6.1, §6.3; RFC 9110 §8.6."""
    assert response_error(*lines, start=start) == detail


@pytest.mark.parametrize(
    ("start", "lines", "persists"),
    [
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5",), True),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5", b"Connection: close"), False),
        (b"HTTP/1.0 200 OK", (b"Content-Length: 5",), False),
        (b"HTTP/1.0 200 OK", (b"Content-Length: 5", b"Connection: keep-alive"), True),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: chunked",), True),
        (b"HTTP/1.1 204 NC", (), True),
        (b"HTTP/1.1 200 OK", (), False),
        (b"HTTP/1.1 200 OK", (b"Connection: keep-alive",), False),
        (b"HTTP/1.1 101 S", (b"Connection: upgrade", b"Upgrade: x"), False),
    ],
)
def test_an_upstream_connection_persists_by_version_option_and_framing(
    start: bytes, lines: tuple[bytes, ...], persists: bool
) -> None:
    """RFC 9112 §9.3."""
    assert response(*lines, start=start)[2] is persists


def test_a_response_loses_what_its_connection_nominates() -> None:
    """RFC 9110 §7.6.1 holds in both directions."""
    head, _, _ = response(b"Content-Length: 0", b"X: 1", b"Set-Cookie: c", b"Connection: x")

    assert pairs(head.fields) == [(b"set-cookie", b"c")]


def test_a_response_keeps_the_protocols_that_it_offers() -> None:
    """RFC 9110 §15.5.22: 426 names them."""
    head, _, _ = response(
        b"Content-Length: 0",
        b"Connection: upgrade",
        b"Upgrade: a/1",
        start=b"HTTP/1.1 426 Upgrade Required",
    )

    assert head.upgrade == b"a/1"


def test_a_response_with_too_many_fields_is_refused() -> None:
    """Threat E4 from upstream."""
    assert response_error(*[b"X: 1"] * 101) == "too_many_fields"


# --- what is remembered


def test_heads_that_a_stranger_makes_up_fill_no_memory() -> None:
    """Threat E4: shapes of heads and status lines are kept, but not without bound."""
    cache = line_cache()
    for number in range(1100):
        names = [b"X-Request-Id" if number >> bit & 1 else b"User-Agent" for bit in range(11)]
        block = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *(name + b": 1" for name in names)])
        parse_request_head(block, cache, LIMITS)
        head, _, _ = response(start=b"HTTP/1.1 200 %d" % number)
        assert head.reason == b"%d" % number

    assert len(shape_of) <= 1024
    assert len(status_of) <= 1024


def test_what_is_long_is_read_and_not_remembered() -> None:
    shapes, lines = len(shape_of), len(status_of)

    request(b"Host: a", *(b"X-Request-Id: 1" for _ in range(40)))
    head, _, _ = response(start=b"HTTP/1.1 200 " + b"x" * 200)

    assert head.reason == b"x" * 200
    assert (len(shape_of), len(status_of)) == (shapes, lines)


def test_a_shape_prints_its_size() -> None:
    assert repr(shape_of[HOST, 0]) == "Shape(2 lines)"


@pytest.mark.parametrize(("ceiling", "fits"), [(0, True), (-1, False)])
def test_the_end_of_a_head_counts_as_part_of_it(ceiling: int, fits: bool) -> None:
    """config.md §3: `max_head`, to the byte, its CRLFCRLF included."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 200
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: " + b"x" * 200
    for block, parse in (
        (request, lambda block, limits: parse_request_head(block, line_cache(), limits)),
        (response, lambda block, limits: parse_response_head(block, line_cache(), limits, b"GET")),
    ):
        limits = HeadLimits(max_head=len(block) + 4 + ceiling)
        if fits:
            assert parse(block, limits)
        else:
            with pytest.raises(HeadError) as caught:
                parse(block, limits)
            assert caught.value.status == 431
