"""`discovery: {kind: file}`: every way in which files change, with traffic, a real file system and real sockets."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovering import discovering
from tests.support.peers import App, PeerConnection, ScriptedPeer, connect, exchange, request
from tests.support.process import Ambassador, running_ambassador
from tests.support.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


def app(name: bytes) -> App:
    return App(lambda _: OK + name)


def config(path: str, **discovery: Any) -> dict[str, Any]:
    allowed = {"interval": "50ms", "allowed_networks": ["127.0.0.0/8"]}
    return discovering(kind="file", path=path, **{**allowed, **discovery})


def spelled(*peers: ScriptedPeer) -> str:
    return json.dumps([f"127.0.0.1:{peer.port}" for peer in peers])


def who_answers(sidecar: Ambassador) -> bytes:
    return exchange(sidecar.outbound, request(host="a"))[-1:]


@contextmanager
def serving(folder: Path, text: str, **discovery: Any) -> Iterator[Ambassador]:
    """Run a sidecar over the file `eps`; it is ready once the file was read."""
    (folder / "eps").write_text(text, encoding="utf-8")
    with running_ambassador(config("eps", **discovery), folder) as sidecar:
        eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")
        yield sidecar


def edit(folder: Path, text: str) -> None:
    (folder / "eps").write_text(text, encoding="utf-8")


def rename(folder: Path, text: str) -> None:
    (folder / "new").write_text(text, encoding="utf-8")
    (folder / "new").rename(folder / "eps")


@pytest.mark.parametrize("change", [edit, rename])
def test_a_change_is_seen_and_no_request_is_lost_over_it(
    tmp_path: Path, change: Callable[[Path, str], None]
) -> None:
    with app(b"1") as one, app(b"2") as two, serving(tmp_path, spelled(one)) as sidecar:
        answers = bytearray()
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                answers.extend(who_answers(sidecar))

        asking = threading.Thread(target=ask)
        asking.start()
        eventually(lambda: b"1" in answers, "the first")
        change(tmp_path, spelled(two))
        eventually(lambda: answers.endswith(b"22"), "the second")
        over.set()
        asking.join(10)

        assert set(answers) == set(b"12")
        assert sidecar.metric("endpoints", service="a") == 1
        assert sidecar.metric("discovery_last_success_timestamp_seconds", kind="file") > 0


def test_the_swap_of_a_mounted_volume_is_seen(tmp_path: Path) -> None:
    """Kubernetes: eps -> ..data/eps, ..data -> ..1; the link ..data is replaced by a rename."""
    with app(b"1") as one, app(b"2") as two:
        for name, peer in (("..1", one), ("..2", two)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "eps").write_text(spelled(peer), encoding="utf-8")
        (tmp_path / "..data").symlink_to("..1")
        (tmp_path / "eps").symlink_to("..data/eps")
        with running_ambassador(config("eps"), tmp_path) as sidecar:
            eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")
            assert who_answers(sidecar) == b"1"
            (tmp_path / "..data_tmp").symlink_to("..2")
            os.rename(tmp_path / "..data_tmp", tmp_path / "..data")

            eventually(lambda: who_answers(sidecar) == b"2", "the second")


@pytest.mark.parametrize("text", ["", "[", "{}", "- nonsense", None], ids=str)
def test_a_file_that_is_broken_or_gone_takes_nothing_away(tmp_path: Path, text: str | None) -> None:
    with app(b"1") as one, app(b"2") as two, serving(tmp_path, spelled(one)) as sidecar:
        if text is None:
            (tmp_path / "eps").unlink()
        else:
            edit(tmp_path, text)
        reason = "file_missing" if text is None else "file_malformed"
        event = sidecar.wait_for_event("endpoints_kept", service="a", reason=reason)

        assert "eps" in event["detail"]
        assert who_answers(sidecar) == b"1"
        assert sidecar.get("/ready")[0] == 200
        edit(tmp_path, spelled(two))
        eventually(lambda: who_answers(sidecar) == b"2", "mended")


def test_without_a_first_answer_requests_say_so_and_we_are_not_ready(tmp_path: Path) -> None:
    """House §4: DF; config.md §5: `discovery_pending`."""
    with app(b"1") as one, running_ambassador(config("eps"), tmp_path) as sidecar:
        sidecar.wait_for_event("endpoints_kept", reason="file_missing")
        answer = exchange(sidecar.outbound, request(host="a"))

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"X-Ambassador-Flags: DF\r\nX-Ambassador-Detail: discovery_pending" in answer
        assert sidecar.get("/ready") == (503, "discovery_pending:a\n")
        edit(tmp_path, spelled(one))
        eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")
        assert who_answers(sidecar) == b"1"


@pytest.mark.parametrize(("on_empty", "status"), [("keep", b"200"), ("drop", b"503")])
def test_an_empty_list_is_believed_only_with_drop(
    tmp_path: Path, on_empty: str, status: bytes
) -> None:
    with app(b"1") as one, serving(tmp_path, spelled(one), on_empty=on_empty) as sidecar:
        edit(tmp_path, "[]")
        if on_empty == "keep":
            sidecar.wait_for_event("endpoints_kept", reason="empty")
        else:
            sidecar.wait_for_event("endpoints_changed", endpoints=0)

        assert exchange(sidecar.outbound, request(host="a")).startswith(b"HTTP/1.1 " + status)


def test_addresses_outside_the_allowed_networks_are_ignored_with_an_event(tmp_path: Path) -> None:
    """By default nothing on loopback: who writes the list is not to choose a port of this machine."""
    with app(b"1") as one:
        (tmp_path / "eps").write_text(spelled(one), encoding="utf-8")
        settings = config("eps")
        del settings["services"]["a"]["discovery"]["allowed_networks"]
        with running_ambassador(settings, tmp_path) as sidecar:
            event = sidecar.wait_for_event("endpoints_ignored", service="a", count=1)
            answer = exchange(sidecar.outbound, request(host="a"))

            assert event["addresses"] == [f"127.0.0.1:{one.port}"]
            assert b"X-Ambassador-Flags: UH" in answer
    assert not one.requests


def test_a_removed_endpoint_ends_its_exchange_and_takes_no_other(tmp_path: Path) -> None:
    """It is drained; when it comes again it begins afresh."""
    going_on = threading.Event()

    def slow(connection: PeerConnection) -> None:
        connection.read_message()
        going_on.wait(10)
        connection.send(OK + b"1")
        connection.read_to_end()

    with (
        ScriptedPeer(slow) as one,
        app(b"2") as two,
        serving(tmp_path, spelled(one)) as sidecar,
        connect(sidecar.outbound) as client,
    ):
        client.send(request(host="a"))
        one.wait_for_connection()
        edit(tmp_path, spelled(two))
        eventually(
            lambda: sum(event["event"] == "endpoints_changed" for event in sidecar.events) == 2,
            "the second change",
        )
        assert who_answers(sidecar) == b"2"
        going_on.set()

        assert client.read_message().endswith(b"1")
        eventually(lambda: one.connections[0].received.endswith(b"\r\n\r\n"), "one request")
        eventually(
            lambda: sidecar.metric("upstream_connections", service="a", state="busy") == 0,
            "drained",
        )
        assert sidecar.metric("upstream_connections", service="a") == 1
        assert len(one.connections) == 1


def test_what_discovery_brings_is_never_called_in_the_clear_beyond_loopback(tmp_path: Path) -> None:
    """config.md §3, plaintext: `loopback` is checked at each dial; threats H2."""
    with serving(tmp_path, '["192.0.2.7:80"]', allowed_networks=["0.0.0.0/0"]) as sidecar:
        answer = exchange(sidecar.outbound, request(host="a"))

    assert b"X-Ambassador-Detail: not_loopback\r\n" in answer
