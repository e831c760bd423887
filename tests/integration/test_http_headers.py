"""What the app and the peers are told, and what is taken out first (threats A1-A9, F1-F3, H1, H7; config.md §5)."""

from __future__ import annotations

import re

import pytest

from tests.support.peers import parse_request
from tests.support.stage import Side, plain_request
from tests.support.stage_fixtures import inbound, outbound, side, stage

__all__ = ["inbound", "outbound", "side", "stage"]

CONFIG = {"service": {"hosts": ["pay.example.org"]}}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(
    *lines: bytes, target: bytes = b"/", host: bytes = b"payments", method: bytes = b"GET"
) -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: " + host, *lines, b"", b""])


FORGED = [
    b"X-Forwarded-Client-Cert", b"Client-Cert", b"Client-Cert-Chain", b"Forwarded", b"X-Forwarded-For",
    b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Forwarded-Port", b"X-Real-Ip", b"X-Ambassador-Flags", b"Proxy",
    b"X-Client-Ip", b"True-Client-Ip", b"X-Ssl-Client-Cert",
]  # fmt: skip


def spellings(name: bytes) -> list[bytes]:
    """Give the ways in which a gateway interface reads the same name."""
    return [
        name,
        name.lower(),
        name.upper(),
        name.replace(b"-", b"_"),
        name.replace(b"-", b"."),
        name.replace(b"-", b"_", 1),
    ]


@pytest.mark.parametrize("name", FORGED)
def test_forged_identity_never_arrives(side: Side, name: bytes) -> None:
    """Threats A1: in any spelling, doubled, and nominated by Connection (A3)."""
    lines = [spelt + b": forged" for spelt in spellings(name) for _ in (1, 2)]
    received, _ = side.exchange(get(*lines, b"Connection: " + name, b"X-Kept: 1"), OK)

    assert b"forged" not in received
    assert b"X-Kept: 1\r\n" in received
    request = parse_request(received)
    ours = request.values("x-forwarded-client-cert")
    if side.direction == "inbound":
        assert len(ours) == 1
        assert ours[0].startswith(b"By=spiffe://example.org/web;Hash=")
        assert ours[0].endswith(b";URI=spiffe://example.org/payments;DNS=payments")
        assert request.value("x-forwarded-for") == b"127.0.0.1"
        assert request.value("x-forwarded-proto") == b"https"
        assert request.value("x-forwarded-host") == b"payments"
        assert request.value("forwarded") == b"for=127.0.0.1;host=payments;proto=https"
    else:
        assert not ours
        assert not request.values("x-forwarded-for")
        assert not request.values("forwarded")


@pytest.mark.parametrize(
    "name",
    [
        b"Host",
        b"Authorization",
        b"Cookie",
        b"traceparent",
        b"X-Request-Id",
        b"Content-Type",
        b"Cache-Control",
        b"Via",
        b"Origin-Free",
    ],
)
def test_connection_cannot_take_away_what_is_for_all(side: Side, name: bytes) -> None:
    """Threats A3; RFC 9110 §7.6.1."""
    value = {
        b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"X-Request-Id": b"my-id",
        b"Via": b"1.1 other",
    }.get(name, b"v")
    line = () if name == b"Host" else (name + b": " + value,)
    received, _ = side.exchange(get(*line, b"Connection: " + name + b", close"), OK)

    values = parse_request(received).values(name.decode())
    if name == b"Origin-Free":
        assert not values
    elif name == b"Host":
        assert values == [b"payments"]
    elif name == b"traceparent":
        assert values[0][3:35] == b"0af7651916cd43dd8448eb211c80319c"
    elif name == b"Via":
        assert values[0] == b"1.1 other"
        assert len(values) == 2
    else:
        assert values == [value]


def test_a_forged_answer_of_upstream_never_arrives(side: Side) -> None:
    """Threats A9: our names are ours."""
    client = side.connect()
    client.send(get())
    up = side.upstream()
    up.read_message()
    up.send(
        b"HTTP/1.1 200 OK\r\nX-Ambassador-Flags: UF\r\nx_ambassador_detail: y\r\n"
        b"X-Ambassador-New: 1\r\nContent-Length: 0\r\n\r\n"
    )

    answer = client.read_message()
    assert b"mbassador-" not in re.sub(rb"Via: 1.1 ambassador-\S+", b"", answer).lower()
    assert b"mbassador_" not in answer.lower()


def test_via_names_us_behind_the_others(side: Side) -> None:
    """RFC 9110 §7.6.3."""
    received, _ = side.exchange(get(b"Via: 1.0 fred, 1.1 p.example"), OK)

    values = parse_request(received).values("via")
    assert values[0] == b"1.0 fred, 1.1 p.example"
    assert re.fullmatch(rb"1\.1 ambassador-[0-9a-z]+", values[1])


def test_a_loop_is_refused(side: Side) -> None:
    """RFC 9110 §7.6.3; RFC 5842 §7.2."""
    received, _ = side.exchange(get(), OK)
    ours = parse_request(received).values("via")[-1]

    client = side.connect()
    client.send(get(b"Via: 1.1 other", b"Via: " + ours + b" (comment)", b"Connection: close"))
    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 508 ")
    assert (b"X-Ambassador-Flags: LD\r\n" in answer) is (side.direction == "outbound")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"abc-1", True),
        (b"a b", False),
        (b"a" * 129, False),
        (b"", False),
        (b'a"b', False),
        (b"a\xffb", False),
    ],
)
def test_a_well_formed_request_id_goes_on(side: Side, sent: bytes, kept: bool) -> None:
    """Config §5."""
    received, _ = side.exchange(get(b"X-Request-Id: " + sent), OK)

    value = parse_request(received).value("x-request-id")
    assert (value == sent) is kept
    assert kept or re.fullmatch(rb"[0-9a-f-]{36}", value)


def test_a_doubled_request_id_is_made_anew(side: Side) -> None:
    """Two readers would see two ids."""
    received, _ = side.exchange(get(b"X-Request-Id: a", b"X-Request-Id: b", b"x_request_id: c"), OK)

    assert re.fullmatch(rb"[0-9a-f-]{36}", parse_request(received).value("x-request-id"))
    assert b"x_request_id" not in received


def test_a_trace_is_continued_or_begun(side: Side) -> None:
    """W3C Trace Context §3.2."""
    trace = b"0af7651916cd43dd8448eb211c80319c"
    first, _ = side.exchange(
        get(b"traceparent: 00-" + trace + b"-b7ad6b7169203331-01", b"tracestate: a=1"), OK
    )
    request = parse_request(first)
    parent = request.value("traceparent")
    assert parent.startswith(b"00-" + trace + b"-")
    assert b"b7ad6b7169203331" not in parent
    assert parent.endswith(b"-01")
    assert request.value("tracestate") == b"a=1"


def test_date_is_added_once(side: Side) -> None:
    """RFC 9110 §6.6.1."""
    client = side.connect()
    client.send(get())
    up = side.upstream()
    up.read_message()
    up.send(b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n")
    assert re.findall(rb"Date: .*\r\n", client.read_message()) == [
        b"Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
    ]
    client.send(get())
    up.read_message()
    up.send(OK)
    assert len(re.findall(rb"Date: \w{3}, \d{2} .* GMT\r\n", client.read_message())) == 1


# --- which service is meant


@pytest.mark.parametrize(
    ("request_", "line", "host"),
    [
        (get(host=b"payments"), b"GET / HTTP/1.1", b"payments"),
        (get(host=b"PAYMENTS"), b"GET / HTTP/1.1", b"PAYMENTS"),
        (get(host=b"payments.localhost:9000"), b"GET / HTTP/1.1", b"payments.localhost:9000"),
        (get(host=b"Payments.LocalHost."), b"GET / HTTP/1.1", b"Payments.LocalHost."),
        (get(host=b"pay.example.org"), b"GET / HTTP/1.1", b"pay.example.org"),
        (get(target=b"http://payments/x?y", host=b"payments"), b"GET /x?y HTTP/1.1", b"payments"),
        (get(target=b"http://payments:80", host=b"other"), b"GET / HTTP/1.1", b"payments:80"),
        (get(target=b"HTTP://payments?q", host=b"other"), b"GET /?q HTTP/1.1", b"payments"),
        (
            get(target=b"http://payments", host=b"a", method=b"OPTIONS"),
            b"OPTIONS * HTTP/1.1",
            b"payments",
        ),
        (get(target=b"*", method=b"OPTIONS"), b"OPTIONS * HTTP/1.1", b"payments"),
    ],
)
def test_the_authority_selects_the_service(
    outbound: Side, request_: bytes, line: bytes, host: bytes
) -> None:
    """RFC 9112 §3.2.2; threats F3: one authority, which goes on as it was."""
    received, _ = outbound.exchange(request_, OK)

    assert received.split(b"\r\n")[0] == line
    assert parse_request(received).value("host") == host


@pytest.mark.parametrize(
    "host",
    [
        b"nobody",
        b"127.0.0.1:9901",
        b"localhost",
        b"169.254.169.254",
        b"[::ffff:127.0.0.1]",
        b"0",
        b"2130706433",
        b"payments.evil.example",
        b"xpayments",
        b"payments.localhost.evil",
        b"evil.localhost",
        b"web",
    ],
)
@pytest.mark.parametrize("form", ["host", "absolute"])
def test_unknown_authorities_are_404_and_never_dialled(
    outbound: Side, host: bytes, form: str
) -> None:
    """Threats H1."""
    sent = (
        get(b"Connection: close", host=host)
        if form == "host"
        else get(b"Connection: close", target=b"http://" + host + b"/")
    )

    answer = outbound.refused(sent)

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"X-Ambassador-Flags: NR\r\n" in answer


def test_an_unknown_service_is_told_what_could_be_meant(outbound: Side) -> None:
    """Issue: in words, never to a request with an Origin."""
    words = outbound.refused(get(b"Connection: close", host=b"payment"))
    silent = outbound.refused(get(b"Connection: close", b"Origin: http://payment", host=b"payment"))

    assert b'No service "payment" here; did you mean payments?' in words
    assert b"payments" not in silent


@pytest.mark.parametrize(
    "lines",
    [
        (b"Origin: http://evil.example",),
        (b"Origin: null",),
        (b"Origin: http://payments, http://evil",),
        (b"Origin: http://payments", b"Origin: http://evil"),
        (b"Origin: http://localhost:3000",),
        (b"Sec-Fetch-Site: cross-site",),
        (b"Sec-Fetch-Site: same-site",),
        (b"Sec-Fetch-Site: odd",),
        (b"Origin: http://evil", b"Connection: upgrade", b"Upgrade: websocket"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
def test_pages_of_others_are_refused(
    outbound: Side, lines: tuple[bytes, ...], method: bytes
) -> None:
    """Threats H7: no CORS answer either."""
    client = outbound.connect()
    client.send(get(*lines, method=method))

    answer = client.read_message()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"Access-Control" not in answer
    assert outbound.no_upstream()


@pytest.mark.parametrize(
    "lines",
    [(b"Origin: http://payments",), (b"Sec-Fetch-Site: same-origin",), (b"Sec-Fetch-Site: none",)],
)
def test_own_pages_pass(outbound: Side, lines: tuple[bytes, ...]) -> None:
    """Threats H7."""
    assert outbound.exchange(get(*lines), OK)[1].startswith(b"HTTP/1.1 200 ")


# --- local replies


def test_a_local_reply_says_why_to_the_app_alone(outbound: Side, inbound: Side) -> None:
    """Config §5: flag, detail and a sentence; a remote peer gets the bare status."""
    for side_, host in ((outbound, b"nobody"), (inbound, b"payments")):
        client = side_.connect()
        client.send(get(b"Content-Length: x", host=host))
        answer = client.read_to_end()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert re.search(rb"\r\nDate: \w{3}, ", head)
        if side_ is outbound:
            assert b"X-Ambassador-Flags: DPE\r\nX-Ambassador-Detail: bad_content_length" in head
            assert body == b"Content-Length is not one decimal number.\n"
        else:
            assert sorted(line.split(b":")[0] for line in head.split(b"\r\n")[1:]) == [
                b"Connection",
                b"Content-Length",
                b"Date",
            ]
            assert body == b""


def test_a_local_reply_to_head_has_no_body(outbound: Side) -> None:
    """RFC 9110 §9.3.2; its length is that of the GET."""
    client = outbound.connect()
    client.send(get(host=b"nobody", method=b"HEAD") + get(host=b"nobody"))
    first = client.read_until(b"\r\n\r\n")
    second = client.read_message()

    length = re.search(rb"Content-Length: (\d+)", first)
    assert length is not None
    assert second.endswith(b".\n")
    assert len(second.partition(b"\r\n\r\n")[2]) == int(length[1]) > 0


# --- Max-Forwards


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
def test_max_forwards_is_counted_down(side: Side, method: bytes) -> None:
    """RFC 9110 §7.6.2."""
    received, _ = side.exchange(get(b"Max-Forwards: 5", method=method), OK)

    assert parse_request(received).value("max-forwards") == b"4"


@pytest.mark.parametrize(("method", "status"), [(b"OPTIONS", b"200"), (b"TRACE", b"501")])
def test_max_forwards_zero_ends_here(side: Side, method: bytes, status: bytes) -> None:
    """RFC 9110 §7.6.2: MUST NOT forward, MUST respond as the final recipient; an echo would show too much (§9.3.8)."""
    client = side.connect()
    client.send(get(b"Max-Forwards: 0", b"Cookie: secret", method=method))

    answer = client.read_message()
    assert side.no_upstream()
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")
    assert b"secret" not in answer


def test_max_forwards_of_other_methods_goes_on(side: Side) -> None:
    """RFC 9110 §7.6.2: MAY ignore it for others."""
    received, _ = side.exchange(get(b"Max-Forwards: 0"), OK)

    assert parse_request(received).value("max-forwards") == b"0"


def test_a_body_keeps_its_bytes(side: Side) -> None:
    """No byte of a body has a meaning."""
    body = bytes(range(256)) * 40
    received, _ = side.exchange(get(b"Content-Length: %d" % len(body), method=b"POST") + body, OK)

    assert plain_request(received).endswith(b"\r\n\r\n" + body)
