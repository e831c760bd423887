"""The tools of the other tests: a peer that lies would make their results worthless."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support import peers
from tests.support.certificates import (
    DNS,
    URI,
    Authority,
    client_context,
    server_context,
)
from tests.support.invariants import nothing_left, nothing_left_on_loop
from tests.support.peers import (
    App,
    PeerConnection,
    ScriptedPeer,
    Truncated,
    connect,
    exchange,
    send_raw,
)
from tests.support.ports import reserve_port
from tests.support.virtual_time import Stuck, run_virtual, virtual_time

WEB = "spiffe://example.org/web"


@virtual_time
async def test_an_hour_passes_without_waiting() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()

    await asyncio.sleep(3600)

    assert loop.time() - begin == pytest.approx(3600)


@virtual_time
async def test_a_deadline_passes_in_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.Event().wait()


def test_a_wait_that_cannot_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.virtual_time.PATIENCE_S", 0.01)

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtual(wait())


def test_a_task_left_behind_is_an_error() -> None:
    kept = []

    async def leave() -> None:
        kept.append(asyncio.ensure_future(asyncio.sleep(3600)))

    with pytest.raises(AssertionError, match="tasks left behind"):
        run_virtual(leave())


def test_reserved_ports_are_distinct_and_free() -> None:
    ports = [reserve_port() for _ in range(20)]

    assert len(set(ports)) == 20
    with App(port=ports[0]) as app:
        assert app.port == ports[0]


def test_an_app_answers_on_a_kept_connection_and_remembers_what_it_got() -> None:
    with nothing_left(), App() as app, connect(app.address) as client:
        client.send(peers.request("/a") + peers.request("/b", method="POST", body=b"123"))
        first, second = client.read_message(), client.read_message()

        assert first == second == peers.OK
        assert [(each.target, each.body) for each in app.requests] == [
            (b"/a", b""),
            (b"/b", b"123"),
        ]


def test_a_chunked_message_is_read_whole() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"

    with App(lambda request: raw + b"more") as app, connect(app.address) as client:
        client.send(peers.request())

        assert client.read_message() == raw
        assert client.read_exactly(4) == b"more"


def test_a_reset_is_seen_as_a_reset() -> None:
    def script(connection: PeerConnection) -> None:
        connection.read_exactly(1)
        connection.reset()

    with ScriptedPeer(script) as peer, connect(peer.address) as client:
        client.send(b"x")

        with pytest.raises(ConnectionResetError):
            client.read_to_end()


def test_a_bug_in_a_script_fails_the_test() -> None:
    def script(connection: PeerConnection) -> None:
        raise KeyError("bug")

    peer = ScriptedPeer(script)
    with connect(peer.address) as client:
        client.read_to_end()

    with pytest.raises(AssertionError, match="a script failed"):
        peer.close()


def test_a_script_that_waits_is_woken_when_its_peer_is_closed() -> None:
    with nothing_left(), ScriptedPeer(peers.silent) as peer, connect(peer.address):
        peer.wait_for_connection()


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")

    with App(path=path) as app:
        answer = send_raw(app.address, peers.request("/", "Connection: close"))

    assert answer == peers.OK


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mutual_tls_between_issued_certificates(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    server = server_context(authority, authority.issue(spiffe=WEB))
    client = client_context(authority, authority.issue(spiffe=WEB), version=version)

    with App(tls=server) as app:
        answer = exchange(app.address, peers.request(), client)

    assert answer == peers.OK


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_half_closed_tls_connection_still_receives(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    def script(connection: PeerConnection) -> None:
        connection.send(connection.read_exactly(4).upper())
        connection.read_to_end()

    server = server_context(authority, authority.issue(spiffe=WEB))
    with (
        ScriptedPeer(script, tls=server) as peer,
        connect(
            peer.address, client_context(authority, authority.issue(), version=version)
        ) as client,
    ):
        client.send(b"ping")
        client.half_close()

        assert client.read_exactly(4) == b"PING"


def test_a_cut_tls_connection_is_truncated(authority: Authority) -> None:
    """RFC 8446 §6.1: an end without close_notify is no end of the message."""
    server = server_context(authority, authority.issue(spiffe=WEB))
    with (
        ScriptedPeer(lambda connection: connection.cut(), tls=server) as peer,
        connect(peer.address, client_context(authority, authority.issue())) as client,
        pytest.raises(Truncated),
    ):
        client.read_to_end()


def test_no_client_certificate_is_refused(authority: Authority) -> None:
    server = server_context(authority, authority.issue(spiffe=WEB))

    with App(tls=server) as app, pytest.raises(ssl.SSLError):
        exchange(app.address, peers.request(), client_context(authority))


def test_an_intermediate_is_sent_along(authority: Authority) -> None:
    intermediate = Authority("intermediate", parent=authority, path_length=0)
    server = server_context(authority, authority.issue(spiffe=WEB))
    client = client_context(authority, intermediate.issue(spiffe=WEB))

    with App(tls=server) as app:
        assert exchange(app.address, peers.request(), client) == peers.OK


def test_names_of_any_bytes_can_be_issued(authority: Authority) -> None:
    issued = authority.issue(
        uris=["spiffe://a/b"], raw_sans=[(URI, b"spiffe://a/\xff"), (DNS, b"a\x00b")]
    )

    assert b"spiffe://a/\xff" in issued.der
    assert b"a\x00b" in issued.der


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ({"extended_key_usage": None}, x509.ExtendedKeyUsage),
        ({"key_usage": None}, x509.KeyUsage),
        ({}, x509.SubjectAlternativeName),
    ],
)
def test_extensions_can_be_left_out(
    authority: Authority, arguments: dict[str, Any], missing: type[x509.ExtensionType]
) -> None:
    issued = authority.issue(**arguments)

    with pytest.raises(x509.ExtensionNotFound):
        issued.certificate.extensions.get_extension_for_class(missing)


def test_an_expired_certificate_is_expired(authority: Authority) -> None:
    issued = authority.issue(begin_days=-10, end_days=-1)

    assert issued.certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC)


def test_a_revoked_certificate_is_on_the_list(authority: Authority) -> None:
    issued = authority.issue()

    crl = x509.load_pem_x509_crl(authority.revoke(issued))

    assert crl.get_revoked_certificate_by_serial_number(issued.certificate.serial_number)


def test_an_old_list_is_old(authority: Authority) -> None:
    crl = x509.load_pem_x509_crl(authority.revoke(hours=-1))

    assert crl.next_update_utc is not None
    assert crl.next_update_utc < datetime.datetime.now(datetime.UTC)


async def test_a_left_task_is_found() -> None:
    task = None

    with pytest.raises(AssertionError, match="tasks are left"):
        async with nothing_left_on_loop(patience_s=0.05):
            task = asyncio.ensure_future(asyncio.sleep(3600))

    assert task is not None
    task.cancel()
