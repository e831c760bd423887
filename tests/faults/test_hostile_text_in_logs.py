"""Everything that strangers can put into a log line, at random: each line is one record, and obeyed by nobody (I5)."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.support.certificates import DNS, URI, Authority, client_context
from tests.support.peers import App, connect, exchange, request
from tests.support.process import Config, Pod, running_ambassador
from tests.support.waiting import eventually

#: What terminals, log viewers and line readers obey, as UTF-8.
EVIL = [
    "\r\n", "\n", "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\ufeff",
    "\x00", "\x7f", '"', "\\", '"}\n{"time":"', "[bold red]", "{0}", "%s", "\ud7ff", "\U0001f4a9", "\x08\x08",
]  # fmt: skip
REQUESTS = 300
BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def hostile(chance: random.Random) -> bytes:
    parts = [chance.choice(EVIL).encode(), bytes(chance.randrange(256) for _ in range(4)), b"text"]
    return b"".join(chance.choices(parts, k=chance.randrange(1, 8)))


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")


def is_harmless(text: str) -> bool:
    return all(" " <= char <= "~" or (char.isprintable() and char not in BIDI) for char in text)


def requests_of(chance: random.Random, host: bytes) -> list[bytes]:
    """Give requests that are understood, and many that are not."""
    made = []
    for _ in range(REQUESTS):
        evil = hostile(chance)
        made.append(
            chance.choice(
                [
                    b"GET / HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\n\r\n" % (host, evil),
                    b"GET /%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (evil, host),
                    b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % evil,
                    b"%b / HTTP/1.1\r\nHost: %b\r\n\r\n" % (evil, host),
                    b"GET / HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b\r\ntraceparent: %b\r\n\r\n"
                    % (host, evil, evil),
                    b"GET / HTTP/1.1\r\nHost: %b\r\nX-Forwarded-For: %b\r\nVia: %b\r\n\r\n"
                    % (host, evil, evil),
                    b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (evil, evil),
                    evil,
                ]
            )
        )
    return made


@pytest.mark.parametrize("format_", ["json", "envoy"])
def test_every_line_is_one_record_and_harmless(
    authority: Authority, app: App, tmp_path: Path, format_: str
) -> None:
    """Envoy CVE-2024-45808; msgspec leaves C1 and bidi as they are."""
    chance = random.Random(20260)
    web = Pod("web", authority, tmp_path)
    log = tmp_path / "access.log"
    config: Config = web.config(
        inbound=web.inbound(app.port, [web]),
        services={"payments": {"endpoints": [f"127.0.0.1:{app.port}"], "plaintext": "loopback"}},
        access_log={"path": str(log), "format": format_, "query": True},
    )
    context = client_context(authority, web.identity)
    with running_ambassador(config, tmp_path) as sidecar:
        for sent in requests_of(chance, b"payments"):
            for address, tls in ((sidecar.outbound, None), (sidecar.inbound, context)):
                if tls is not None and chance.random() < 0.8:
                    continue
                with contextlib.suppress(OSError, EOFError), connect(address, tls) as client:
                    client.send(sent)
                    if tls is None:
                        client.sock.shutdown(socket.SHUT_WR)
                    else:
                        client.half_close()
                    client.read_to_end()
        total = eventually(lambda: sidecar.metric("requests_total"), "records")
        eventually(lambda: len(lines_of(log)) == total + 1, f"{total} lines")

    *lines, last = lines_of(log)
    assert last == b""
    assert len(lines) == total > REQUESTS // 2
    for line in lines:
        assert is_harmless(line.decode("utf-8")), line
        if format_ == "json":
            record = json.loads(line)
            assert next(iter(record)) == "time"
            assert all(
                is_harmless(str(value)) and len(str(value)) <= 1100 for value in record.values()
            )


def test_certificates_with_hostile_names_leave_harmless_events(
    authority: Authority, stranger: Authority, app: App, tmp_path: Path
) -> None:
    """OpenSSL hands names over raw, of refused certificates too."""
    chance = random.Random(20261)
    shop = Pod("shop", authority, tmp_path)
    config = shop.config(inbound=shop.inbound(app.port, [shop]))
    with running_ambassador(config, tmp_path) as sidecar:
        for number in range(40):
            evil = hostile(chance)
            text = evil.decode("latin-1")[:60]
            names = [(URI, b"spiffe://example.org/" + evil)] if number % 2 else [(DNS, evil)]
            issued = chance.choice([authority, stranger]).issue(
                subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]), raw_sans=names
            )
            with contextlib.suppress(OSError, EOFError):
                exchange(
                    sidecar.inbound,
                    request("/", "Connection: close"),
                    client_context(authority, issued),
                )
        eventually(
            lambda: any(event["event"] == "handshake_refused" for event in sidecar.events),
            "an event",
        )
        assert not app.requests

    assert not sidecar.noise
    for entry in (*sidecar.events, *sidecar.records):
        assert is_harmless(json.dumps(entry, ensure_ascii=False)), entry


def test_a_hostile_server_name_leaves_a_harmless_event(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """SNI is bytes of whoever asks; the hello is made by hand, since no library sends such a name."""
    shop = Pod("shop", authority, tmp_path)
    chance = random.Random(20262)
    with running_ambassador(
        shop.config(inbound=shop.inbound(app.port, [shop])), tmp_path
    ) as sidecar:
        for _ in range(30):
            with contextlib.suppress(OSError), connect(sidecar.inbound) as client:
                client.send(hello(hostile(chance)))
                client.half_close()
                client.read_to_end()
        refused = sidecar.metric("handshakes_total", direction="inbound", result="refused")
        assert refused == 30
        sidecar.wait_for_event("handshake_refused")

    assert not sidecar.noise
    for entry in sidecar.events:
        assert is_harmless(json.dumps(entry, ensure_ascii=False)), entry


def hello(name: bytes) -> bytes:
    """Give a TLS 1.2 hello with this server name (RFC 6066 §3)."""
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    listed = len(entry).to_bytes(2, "big") + entry
    extension = b"\x00\x00" + len(listed).to_bytes(2, "big") + listed
    body = (
        b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x2b" + b"\x01\x00"
        + len(extension).to_bytes(2, "big") + extension
    )  # fmt: skip
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
