"""SIGHUP: new handshakes use the new set, old connections go on, a bad set changes nothing."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Issued, client_context, server_context
from tests.support.peers import (
    App,
    PeerConnection,
    ScriptedPeer,
    connect,
    exchange,
    request,
    response,
)
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.waiting import eventually

GOOD = request("/", "Connection: close")


@contextlib.contextmanager
def _shop(authority: Authority, app: App, folder: Path) -> Iterator[tuple[Ambassador, Pod, Pod]]:
    shop, web = Pod("shop", authority, folder), Pod("web", authority, folder)
    with running_ambassador(shop.config(inbound=shop.inbound(app.port, [web])), folder) as sidecar:
        yield sidecar, shop, web


def _shown(sidecar: Ambassador, context: ssl.SSLContext) -> bytes | None:
    with connect(sidecar.inbound, context) as connection:
        connection.send(GOOD)
        assert connection.read_message().startswith(b"HTTP/1.1 200 ")
        return connection.tls.getpeercert(True)


def _reloads(sidecar: Ambassador, result: str) -> float:
    return sidecar.metric("reloads_total", what="credentials", result=result)


def test_new_handshakes_use_the_new_set_and_old_connections_go_on(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    with _shop(authority, app, tmp_path) as (sidecar, shop, web):
        context = client_context(authority, web.identity)
        with connect(sidecar.inbound, context) as old:
            old.send(request("/"))
            old.read_message()
            fresh = authority.issue(spiffe=shop.spiffe)
            fresh.write(shop.folder, authority.pem)

            sidecar.reload()

            event = sidecar.wait_for_event("credentials_reloaded")
            assert event["generation"] == 2
            assert _shown(sidecar, context) == fresh.der
            assert old.tls.getpeercert(True) == shop.identity.der
            old.send(request("/"))
            assert old.read_message().startswith(b"HTTP/1.1 200 ")
        assert _reloads(sidecar, "ok") == 1
        expiry = fresh.certificate.not_valid_after_utc.timestamp()
        assert sidecar.metric("certificate_expiry_timestamp_seconds") == pytest.approx(expiry)


def test_a_new_trust_bundle_lets_its_peers_in_and_the_old_ones_not(
    authority: Authority, stranger: Authority, app: App, tmp_path: Path
) -> None:
    with _shop(authority, app, tmp_path) as (sidecar, shop, web):
        old = client_context(authority, web.identity)
        new = client_context(authority, stranger.issue(spiffe=web.spiffe))
        assert _shown(sidecar, old)
        (shop.folder / "ca.crt").write_bytes(stranger.pem)

        sidecar.reload()

        sidecar.wait_for_event("credentials_reloaded")
        assert _shown(sidecar, new)
        with pytest.raises(ssl.SSLError):
            _shown(sidecar, old)


def _break(case: str, folder: Path, authority: Authority, shop: Pod) -> str:  # noqa: PLR0911  # a table of ways to spoil files
    """Spoil the files; give the reason word."""
    match case:
        case "mismatch":
            (folder / "tls.key").write_bytes(authority.issue(spiffe=shop.spiffe).key_pem)
            return "key_mismatch"
        case "expired":
            authority.issue(spiffe=shop.spiffe, begin_days=-2, end_days=-1).write(
                folder, authority.pem
            )
            return "certificate_expired"
        case "half":
            (folder / "tls.crt").write_bytes(shop.identity.certificate_pem[:200])
            return "certificate_unreadable"
        case "empty bundle":
            (folder / "ca.crt").write_bytes(b"")
            return "bundle_unreadable"
        case "leaf as bundle":
            (folder / "ca.crt").write_bytes(shop.identity.certificate_pem)
            return "bundle_entry_not_authority"
        case "writable":
            os.chmod(folder / "tls.key", 0o666)
            return "key_writable"
        case "missing":
            (folder / "tls.key").unlink()
            return ""
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    ["mismatch", "expired", "half", "empty bundle", "leaf as bundle", "writable", "missing"],
)
def test_a_bad_set_keeps_the_old_with_an_event_and_a_counter(
    authority: Authority, app: App, tmp_path: Path, case: str
) -> None:
    """Threat K1: nothing of a set that does not fit together is used."""
    with _shop(authority, app, tmp_path) as (sidecar, shop, web):
        reason = _break(case, shop.folder, authority, shop)

        sidecar.reload()

        event = sidecar.wait_for_event("credentials_kept")
        assert not reason or event["reason"] == reason
        assert str(shop.folder) in event["problem"] or "tls" in event["problem"]
        assert _reloads(sidecar, "kept") == 1
        assert _shown(sidecar, client_context(authority, web.identity)) == shop.identity.der
        assert sidecar.get("/ready")[0] == 200

        shop.identity.write(shop.folder, authority.pem)
        os.chmod(shop.folder / "tls.key", 0o600)
        sidecar.reload()
        sidecar.wait_for_event("credentials_reloaded")


def test_rotation_under_load_fails_no_request(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Fresh and kept connections, while certificate and key are replaced again and again."""
    failures: list[object] = []
    served = []
    with _shop(authority, app, tmp_path) as (sidecar, shop, web):
        stop = threading.Event()
        context = client_context(authority, web.identity)

        def load() -> None:
            while not stop.is_set():
                try:
                    with connect(sidecar.inbound, context) as connection:
                        for _ in range(5):
                            connection.send(request("/"))
                            answer = connection.read_message()
                            served.append(1)
                            if not answer.startswith(b"HTTP/1.1 200 "):
                                failures.append(answer)
                except (OSError, EOFError) as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for generation in range(2, 8):
            authority.issue(spiffe=shop.spiffe).write(shop.folder, authority.pem)
            sidecar.reload()
            sidecar.wait_for_event("credentials_reloaded", generation=generation)
            already = len(served)
            eventually(
                lambda already=already: len(served) > already + 20 or failures, "load goes on"
            )
        stop.set()
        for thread in threads:
            thread.join(10)

    assert failures == []


def test_the_outbound_side_shows_the_new_identity_at_once(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Idle upstream connections of the old identity are retired, and no old session is resumed (C4)."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    with (
        running_ambassador(shop.config(inbound=shop.inbound(app.port, [web])), tmp_path),
        running_ambassador(web.config(services={"shop": shop.endpoint()}), tmp_path) as sidecar,
    ):
        get = request("/", host="shop")
        for _ in range(2):
            assert exchange(sidecar.outbound, get).startswith(b"HTTP/1.1 200 ")
        fresh = authority.issue(spiffe=web.spiffe)
        fresh.write(web.folder, authority.pem)
        sidecar.reload()
        sidecar.wait_for_event("credentials_reloaded")

        for _ in range(3):
            assert exchange(sidecar.outbound, get).startswith(b"HTTP/1.1 200 ")

        hashes = [one.value("x-forwarded-client-cert").decode() for one in app.requests]
        assert [web.identity.fingerprint in each for each in hashes] == [True] * 2 + [False] * 3
        assert all(fresh.fingerprint in each for each in hashes[2:])


def test_a_connection_of_the_old_identity_gives_no_session_to_the_new_one(
    authority: Authority, tmp_path: Path
) -> None:
    """Threat C4: the busy connection closes after the reload; its session must not be resumed."""
    go = threading.Event()
    web = Pod("web", authority, tmp_path)
    peer = authority.issue(spiffe="spiffe://example.org/peer")
    resumed: list[bool] = []
    shown: list[bytes | None] = []

    def script(connection: PeerConnection) -> None:
        resumed.append(bool(connection.tls.session_reused))
        shown.append(connection.tls.getpeercert(True))
        connection.read_message()
        if len(resumed) == 1:
            assert go.wait(10)
        connection.send(response(b"", "200 OK", "Connection: close"))
        connection.read_to_end()

    with ScriptedPeer(script, tls=server_context(authority, peer)) as server:
        service = {
            "endpoints": [f"127.0.0.1:{server.port}"],
            "peer": {"spiffe": "spiffe://example.org/peer"},
        }
        with running_ambassador(web.config(services={"peer": service}), tmp_path) as sidecar:
            get = request("/", host="peer")
            with connect(sidecar.outbound) as first:
                first.send(get)
                server.wait_for_connection()
                fresh: Issued = authority.issue(spiffe=web.spiffe)
                fresh.write(web.folder, authority.pem)
                sidecar.reload()
                sidecar.wait_for_event("credentials_reloaded")
                go.set()
                first.read_message()
            for _ in range(2):
                assert exchange(sidecar.outbound, get).startswith(b"HTTP/1.1 200 ")

    assert shown == [web.identity.der, fresh.der, fresh.der]
    assert resumed == [False, False, True], "the last one shows that sessions are resumed at all"


def test_many_signals_at_once_read_the_last_state(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    with _shop(authority, app, tmp_path) as (sidecar, shop, web):
        for _ in range(10):
            last = authority.issue(spiffe=shop.spiffe)
            last.write(shop.folder, authority.pem)
            sidecar.reload()

        context = client_context(authority, web.identity)
        eventually(lambda: _shown(sidecar, context) == last.der, "the last set")
