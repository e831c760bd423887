"""Records that carry no application byte: they are followed, keep nobody alive and hold up nobody (threats D4, E2)."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.foreign import Credentials, credentials
from tests.support.peers import App
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.programs import require_program
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop


@contextmanager
def storming(
    sidecar: Ambassador, files: Credentials, *, pause_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """An s_client that sends KeyUpdate after KeyUpdate (RFC 8446 §4.6.3) until somebody ends it."""
    assert isinstance(sidecar.inbound, tuple)
    process = subprocess.Popen(
        [require_program("openssl"), "s_client", "-quiet", "-no_ign_eof", "-tls1_3",
         "-connect", "{}:{}".format(*sidecar.inbound),
         "-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.trusted)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    over = threading.Event()

    def storm() -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            while not over.wait(pause_s):
                process.stdin.write(b"k\n")  # one for each read of its
                process.stdin.flush()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield process
    finally:
        over.set()
        thread.join()
        process.kill()
        process.communicate()


def test_key_updates_do_not_put_off_the_idle_deadline(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """Only application bytes count as progress; the slot is free although the peer never rested."""
    shop = Pod("shop", authority, tmp_path)
    web = credentials(tmp_path / "web", authority, "web")
    config = shop.config(
        inbound=shop.inbound(app.port, idle_timeout="1s", head_timeout="1s"),
    )
    with running_ambassador(config, tmp_path) as sidecar:
        with storming(sidecar, web, pause_s=0.02) as peer:
            eventually(lambda: sidecar.metric("connections", direction="inbound") == 1, "it is in")

            eventually(lambda: peer.poll() is not None, "it is ended")

        eventually(lambda: sidecar.metric("connections", direction="inbound") == 0, "a free slot")
        assert not app.requests
        assert not sidecar.records


def test_a_storm_of_key_updates_ends_its_connection(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """OpenSSL takes all that lie in the socket within one read, as long as more come: nobody else gets a turn."""
    shop = Pod("shop", authority, tmp_path)
    web = credentials(tmp_path / "web", authority, "web")
    config = shop.config(inbound=shop.inbound(app.port, idle_timeout="60s", head_timeout="60s"))
    with running_ambassador(config, tmp_path) as sidecar:
        with storming(sidecar, web, pause_s=0.001) as peer:
            eventually(lambda: sidecar.metric("connections", direction="inbound") == 1, "it is in")

            def is_ended() -> bool:
                with sidecar.stopped(), contextlib.suppress(subprocess.TimeoutExpired):
                    peer.wait(0.5)  # they lie in the socket together
                with contextlib.suppress(subprocess.TimeoutExpired):
                    peer.wait(0.5)
                return peer.poll() is not None

            eventually(is_ended, "it is ended")

        eventually(lambda: sidecar.metric("connections", direction="inbound") == 0, "a free slot")
        assert not app.requests
