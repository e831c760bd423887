from __future__ import annotations

import pytest

from ambassador.wire.field import HeadError
from ambassador.wire.head import HeadLimits, parse_request_head
from tests.support.transcripts import line_cache


def target_of(line: bytes, *, max_uri: int = 16384) -> tuple[bytes, bytes, bytes, bytes, int]:
    head, _, _ = parse_request_head(
        line + b"\r\nHost: received", line_cache(), HeadLimits(max_uri=max_uri)
    )
    return head.method, head.scheme, head.authority, head.path, head.version


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"http", b"received", b"/", 11)),
        (b"GET / HTTP/1.0", (b"GET", b"http", b"received", b"/", 10)),
        (
            b"M!#$%&'*+-.^_`|~9 /a?b HTTP/1.1",
            (b"M!#$%&'*+-.^_`|~9", b"http", b"received", b"/a?b", 11),
        ),
        (
            b'GET //x/%2e?a=b&"<>\\^`{|} HTTP/1.1',
            (b"GET", b"http", b"received", b'//x/%2e?a=b&"<>\\^`{|}', 11),
        ),
        (b"get / HTTP/1.1", (b"get", b"http", b"received", b"/", 11)),
        (b"GET http://a HTTP/1.1", (b"GET", b"http", b"a", b"/", 11)),
        (b"GET HTTP://a:80/x?y HTTP/1.1", (b"GET", b"http", b"a:80", b"/x?y", 11)),
        (b"GET https://a/ HTTP/1.1", (b"GET", b"https", b"a", b"/", 11)),
        (b"GET http://a?q HTTP/1.1", (b"GET", b"http", b"a", b"/?q", 11)),
        (b"GET http://[::1]:8/x HTTP/1.0", (b"GET", b"http", b"[::1]:8", b"/x", 10)),
        (b"OPTIONS * HTTP/1.1", (b"OPTIONS", b"http", b"received", b"*", 11)),
        (b"OPTIONS http://a HTTP/1.1", (b"OPTIONS", b"http", b"a", b"*", 11)),
        (b"OPTIONS http://a/ HTTP/1.1", (b"OPTIONS", b"http", b"a", b"/", 11)),
        (b"CONNECT a:443 HTTP/1.1", (b"CONNECT", b"http", b"a:443", b"", 11)),
        (b"CONNECT [::1]:443 HTTP/1.1", (b"CONNECT", b"http", b"[::1]:443", b"", 11)),
    ],
)
def test_the_four_forms_of_a_target_are_read(
    line: bytes, expected: tuple[bytes, bytes, bytes, bytes, int]
) -> None:
    """RFC 9112 §3.2.1 to §3.2.4; the authority of a target wins over Host (§3.2.2)."""
    assert target_of(line) == expected


@pytest.mark.parametrize(
    ("line", "status", "detail"),
    [
        (b"", 400, "bad_request_line"),
        (b"GET", 400, "bad_request_line"),
        (b"GET /", 400, "bad_request_line"),
        (b"GET  / HTTP/1.1", 400, "bad_request_line"),
        (b"GET /  HTTP/1.1", 400, "bad_request_line"),
        (b"GET\t/ HTTP/1.1", 400, "bad_request_line"),
        (b" GET / HTTP/1.1", 400, "bad_request_line"),
        (b"GET / HTTP/1.1 ", 400, "bad_request_line"),
        (b"GET / x HTTP/1.1", 400, "bad_request_line"),
        (b"GET /\x00 HTTP/1.1", 400, "bad_request_line"),
        (b"GET /\x7f HTTP/1.1", 400, "bad_request_line"),
        (b"GET /\xc3\xa4 HTTP/1.1", 400, "bad_request_line"),
        (b"GET /\r HTTP/1.1", 400, "bad_request_line"),
        (b"GET /\x0b HTTP/1.1", 400, "bad_request_line"),
        (b"G(T / HTTP/1.1", 400, "bad_request_line"),
        (b"G\xc3\xa4T / HTTP/1.1", 400, "bad_request_line"),
        (b"GET / http/1.1", 400, "bad_request_line"),
        (b"GET / HTTP/1", 400, "bad_request_line"),
        (b"GET / HTTP/1.10", 400, "bad_request_line"),
        (b"GET / HTTP/11.1", 400, "bad_request_line"),
        (b"GET / HTTP/1,1", 400, "bad_request_line"),
        (b"GET / HTTP/+1.1", 400, "bad_request_line"),
        (b"GET / HTTP /1.1", 400, "bad_request_line"),
        (b"GET / XTTP/1.1", 400, "bad_request_line"),
        (b"GET / HTTP/\xd9\xa1.1", 400, "bad_request_line"),
        (b"GET /a#b HTTP/1.1", 400, "fragment_in_target"),
        (b"GET # HTTP/1.1", 400, "fragment_in_target"),
        (b"GET http://a/#b HTTP/1.1", 400, "fragment_in_target"),
        (b"GET / HTTP/0.9", 505, "bad_version"),
        (b"GET / HTTP/1.2", 505, "bad_version"),
        (b"GET / HTTP/2.0", 505, "bad_version"),
        (b"GET / HTTP/3.0", 505, "bad_version"),
        (b"PRI * HTTP/2.0", 400, "http2_preface"),
        (b"GET * HTTP/1.1", 400, "bad_target"),
        (b"GET a HTTP/1.1", 400, "bad_target"),
        (b"GET a:80 HTTP/1.1", 400, "bad_target"),
        (b"GET ?x HTTP/1.1", 400, "bad_target"),
        (b"GET \\x HTTP/1.1", 400, "bad_target"),
        (b"GET ftp://a/ HTTP/1.1", 400, "bad_target"),
        (b"GET http:/a HTTP/1.1", 400, "bad_target"),
        (b"OPTIONS *x HTTP/1.1", 400, "bad_target"),
        (b"GET http:///x HTTP/1.1", 400, "bad_authority"),
        (b"GET http://u@a/ HTTP/1.1", 400, "bad_authority"),
        (b"GET http://a:b/ HTTP/1.1", 400, "bad_authority"),
        (b"GET http://a\\b/ HTTP/1.1", 400, "bad_authority"),
        (b"GET http://a:65536/ HTTP/1.1", 400, "bad_authority"),
        (b"CONNECT / HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT * HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT a HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT a: HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT a:0 HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT a:65536 HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT http://a:1/ HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT u@a:1 HTTP/1.1", 400, "bad_connect_target"),
        (b"CONNECT :1 HTTP/1.1", 400, "bad_connect_target"),
        (b"M" * 33 + b" / HTTP/1.1", 501, "method_too_long"),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1", 414, "uri_too_long"),
        (b"GET http://a/" + b"a" * 100 + b" HTTP/1.1", 414, "uri_too_long"),
        (b"GET /" + b"\xe4" * 100 + b" HTTP/1.1", 414, "uri_too_long"),
    ],
)
def test_a_faulty_request_line_is_refused(line: bytes, status: int, detail: str) -> None:
    """RFC 9112 §3: 400 for what does not parse, 414, 501; RFC 9110 §15.6.6 for 505; threats F1, F3."""
    with pytest.raises(HeadError) as caught:
        target_of(line, max_uri=100)

    assert (caught.value.status, caught.value.detail) == (status, detail)


def test_a_target_at_its_limit_passes() -> None:
    """The limit is the last length that is good."""
    path = b"/" + b"a" * 99

    assert target_of(b"GET " + path + b" HTTP/1.1", max_uri=100)[3] == path
