"""Where a listener can be: both families of localhost, IPv6, Unix sockets with their mode."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.peers import App, exchange, request, send_raw
from tests.support.ports import reserve_port
from tests.support.process import Config, Pod, failed_start, running_ambassador

GOOD = request("/", "Connection: close", host="app")


def _to_app(app: int | str, listen: str, **outbound: object) -> Config:
    endpoint = app if isinstance(app, str) else f"127.0.0.1:{app}"
    return {
        "outbound": {"listen": listen, **outbound},
        "services": {"app": {"endpoints": [endpoint], "plaintext": "loopback"}},
    }


def test_localhost_binds_both_families(app: App, tmp_path: Path) -> None:
    port = reserve_port()
    with running_ambassador(_to_app(app.port, f"localhost:{port}"), tmp_path) as sidecar:
        for host in ("127.0.0.1", "::1"):
            assert exchange((host, port), GOOD).startswith(b"HTTP/1.1 200 ")
        assert sidecar.process.poll() is None


def test_an_endpoint_on_localhost_is_found_in_both_families(tmp_path: Path) -> None:
    with App(host="::1") as app:
        config = _to_app(f"localhost:{app.port}", f"127.0.0.1:{reserve_port()}")
        with running_ambassador(config, tmp_path) as sidecar:
            assert exchange(sidecar.outbound, GOOD).startswith(b"HTTP/1.1 200 ")


def test_ipv6_inbound_and_outbound(authority: Authority, tmp_path: Path) -> None:
    with App(host="::1") as app:
        shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
        port = reserve_port("::1")
        inbound = {**shop.inbound(f"[::1]:{app.port}", [web]), "listen": f"[::1]:{port}"}
        client = web.config(services={"shop": {**shop.endpoint(), "endpoints": [f"[::1]:{port}"]}})
        with (
            running_ambassador(shop.config(inbound=inbound), tmp_path) as server,
            running_ambassador(client, tmp_path) as sidecar,
        ):
            answer = exchange(sidecar.outbound, request("/", host="shop"))

            assert answer.startswith(b"HTTP/1.1 200 ")
            record = server.wait_for_record(status=200)
            assert record["peer_address"].startswith("[::1]:")
            assert app.requests[0].value("x-forwarded-for") == b"::1"


def test_the_wildcard_of_ipv6_takes_ipv4_too(
    authority: Authority, app: App, tmp_path: Path
) -> None:
    """config.md §1: `[::]` takes IPv4 too; its peers keep their IPv4 address."""
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    inbound = {**shop.inbound(app.port, [web]), "listen": f"[::]:{shop.port}"}
    with running_ambassador(shop.config(inbound=inbound), tmp_path) as sidecar:
        context = client_context(authority, web.identity)
        for host in ("127.0.0.1", "::1"):
            exchange((host, shop.port), GOOD, context)

        sources = {
            record["peer_address"].rpartition(":")[0] for record in sidecar.wait_for_records(2)
        }
        assert sources == {"127.0.0.1", "[::1]"}


def test_a_unix_listener_has_its_mode_and_goes_with_the_process(app: App, tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with running_ambassador(_to_app(app.port, f"unix:{path}", socket_mode="0660"), tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert exchange(str(path), GOOD).startswith(b"HTTP/1.1 200 ")

    assert not path.exists()
    assert list(tmp_path.glob("*.sock*")) + list(tmp_path.glob(".*")) == []


def test_a_unix_listener_is_private_by_default(app: App, tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with running_ambassador(_to_app(app.port, f"unix:{path}"), tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_endpoint_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with App(path=path):
        config = _to_app(f"unix:{path}", f"127.0.0.1:{reserve_port()}")
        with running_ambassador(config, tmp_path) as sidecar:
            assert exchange(sidecar.outbound, GOOD).startswith(b"HTTP/1.1 200 ")


def test_an_app_may_be_a_unix_socket(authority: Authority, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    shop, web = Pod("shop", authority, tmp_path), Pod("web", authority, tmp_path)
    with App(path=path):
        config = shop.config(inbound=shop.inbound(f"unix:{path}", [web]))
        with running_ambassador(config, tmp_path) as sidecar:
            context = client_context(authority, web.identity)
            assert exchange(sidecar.inbound, GOOD, context).startswith(b"HTTP/1.1 200 ")


def test_a_missing_unix_socket_is_said(tmp_path: Path) -> None:
    config = _to_app(f"unix:{tmp_path}/no.sock", f"127.0.0.1:{reserve_port()}")
    with running_ambassador(config, tmp_path) as sidecar:
        answer = send_raw(sidecar.outbound, GOOD)

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"X-Ambassador-Detail: socket_missing" in answer


def test_a_stale_socket_is_taken_over(app: App, tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()

    with running_ambassador(_to_app(app.port, f"unix:{path}"), tmp_path):
        assert exchange(str(path), GOOD).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_file_that_is_no_socket_is_never_removed(app: App, tmp_path: Path, kind: str) -> None:
    """Threat I2."""
    path, target = tmp_path / "out.sock", tmp_path / "precious"
    target.write_text("precious")
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)

    code, output = failed_start(_to_app(app.port, f"unix:{path}"), tmp_path)

    assert code == 1
    assert f"unix:{path}" in output
    assert "Traceback" not in output
    assert os.path.lexists(path)
    assert target.read_text() == "precious"


def test_a_socket_that_answers_is_not_taken(app: App, tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with App(path=str(path)):
        code, output = failed_start(_to_app(app.port, f"unix:{path}"), tmp_path)

        assert code == 1
        assert "another process answers there" in output
        assert path.exists()


def test_a_socket_of_a_successor_is_not_removed(app: App, tmp_path: Path) -> None:
    """Threat I2: unlink only our socket."""
    path = tmp_path / "out.sock"
    with running_ambassador(_to_app(app.port, f"unix:{path}"), tmp_path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))

    assert path.exists()


def test_a_path_of_the_greatest_length_is_bound_and_a_longer_one_is_an_error(
    app: App, tmp_path: Path
) -> None:
    """unix(7): 107 bytes and a NUL."""
    room = 107 - len(str(tmp_path)) - 1
    longest = f"{tmp_path}/{'s' * room}"
    with running_ambassador(_to_app(app.port, f"unix:{longest}"), tmp_path):
        assert exchange(longest, GOOD).startswith(b"HTTP/1.1 200 ")

    code, output = failed_start(_to_app(app.port, f"unix:{longest}s"), tmp_path)

    assert code in {1, 3}
    assert "107" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("spelling", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_our_own_listeners_are_never_dialled(app: App, tmp_path: Path, spelling: str) -> None:
    """Threat H1: a request that would come back to us, or reach admin, is refused at the dialer."""
    port = reserve_port()
    for target in (port, None):
        config = _to_app(app.port, f"127.0.0.1:{port}")
        admin = reserve_port()
        config["admin"] = {"listen": f"127.0.0.1:{admin}"}
        config["services"]["app"]["endpoints"] = [f"{spelling}:{target or admin}"]
        with running_ambassador(config, tmp_path) as sidecar:
            answer = send_raw(sidecar.outbound, GOOD)

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"X-Ambassador-Detail: own_listener" in answer
