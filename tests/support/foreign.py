"""Programs that are not ours, as child processes: nginx, HAProxy, Envoy; and an application behind any of them.

    with nginx(folder, "server { … }", ports=[port]) as program:
        program.restart()

A program is ready when all its ports take connections. It is ended by its process id; what it printed is in `log`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.certificates import Authority, Issued
from tests.support.peers import App, PeerConnection, parse_request, response
from tests.support.programs import require_program
from tests.support.waiting import eventually

END_WITHIN_S = 10.0
READY_WITHIN_S = 20.0
LOOPBACK = "127.0.0.1"
_ENVOY = "type.googleapis.com/envoy."

Json = dict[str, Any]


class Program:
    """A running program; use as a context manager."""

    def __init__(self, command: Sequence[str], folder: Path, *, ports: Sequence[int]) -> None:
        self._command = list(command)
        self._ports = ports
        self._folder = folder
        self.log = folder / "printed.log"
        self.process = self._start()

    def wait_until_ready(self) -> None:
        """Wait until every port takes a connection; AssertionError with what it printed when it ends before."""
        for port in self._ports:
            eventually(partial(self._takes, port), f"port {port}", patience_s=READY_WITHIN_S)

    def stop(self) -> None:
        """Send SIGTERM and wait; without success kill."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it without a word to its peers."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_WITHIN_S)

    def restart(self) -> None:
        """Start it again, after `stop` or `kill`."""
        self.stop()
        self.process = self._start()
        self.wait_until_ready()

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )

    def _takes(self, port: int) -> bool:
        assert self.process.poll() is None, f"{self._command[0]} ended: {self.log.read_text()}"
        try:
            socket.create_connection((LOOPBACK, port), timeout=1.0).close()
        except OSError:
            return False
        return True


def nginx(folder: Path, http: str, *, ports: Sequence[int]) -> Program:
    """Start nginx with the given inside of its `http` block; its error log is `error.log`."""
    program = require_program("nginx")
    folder.mkdir(parents=True, exist_ok=True)
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    # One process, so that its id is all there is to end; never another user, who could not read our folder.
    config.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log notice;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {folders} types {{ text/plain txt; }} default_type application/octet-stream;\n"
        f"{http}\n}}\n"
    )
    return Program(
        [program, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)],
        folder,
        ports=ports,
    )


def haproxy(folder: Path, proxies: str, *, ports: Sequence[int]) -> Program:
    """Start HAProxy with the given frontends and backends below sound defaults."""
    program = require_program("haproxy")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 256\n  log stdout format raw local0\n"
        "defaults\n  mode http\n  log global\n  option httplog\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"{proxies}\n"
    )
    return Program([program, "-db", "-f", str(config)], folder, ports=ports)


def envoy(
    folder: Path, listeners: Sequence[Json], clusters: Sequence[Json], *, ports: Sequence[int]
) -> Program:
    """Start Envoy with these listeners and clusters and one worker."""
    program = require_program("envoy")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "envoy.json"
    resources = {"listeners": list(listeners), "clusters": list(clusters)}
    config.write_text(json.dumps({"static_resources": resources}, indent=1))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return Program([program, "-c", str(config), *options], folder, ports=ports)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that a program is given: leaf, key, both in one file, the CA it trusts, and the names in the leaf."""

    spiffe: str
    dns: str
    issued: Issued
    certificate: Path
    key: Path
    both: Path
    trusted: Path


def credentials(
    folder: Path, authority: Authority, name: str, *, trusts: Authority | None = None
) -> Credentials:
    """Issue and lay the files for a workload of `example.org`."""
    spiffe, dns = f"spiffe://example.org/{name}", f"{name}.example.org"
    issued = authority.issue(spiffe=spiffe, dns=[dns], cn=name)
    issued.write(folder, (trusts or authority).pem)
    both = folder / "both.pem"
    both.touch(mode=0o600)
    both.write_bytes(issued.certificate_pem + issued.key_pem)
    return Credentials(
        spiffe, dns, issued, folder / "tls.crt", folder / "tls.key", both, folder / "ca.crt"
    )


# --- Envoy's configuration


def envoy_tls(kind: str, files: Credentials, **more: Any) -> Json:
    """Give a transport socket; `kind` is DownstreamTlsContext or UpstreamTlsContext, `more` its further fields.

    No protocol range is said: Envoy's own defaults are what people run.
    """
    tls = {
        "alpn_protocols": ["http/1.1"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(files.certificate)},
                "private_key": {"filename": str(files.key)},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(files.trusted)}},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_ENVOY}extensions.transport_sockets.tls.v3.{kind}",
            "common_tls_context": tls,
            **more,
        },
    }


def envoy_listener(
    port: int,
    cluster: str,
    *,
    tls: Json | None = None,
    route: Json | None = None,
    host: Json | None = None,
    **manager: Any,
) -> Json:
    """Give a listener that sends everything to `cluster`; `manager` are fields of its connection manager."""
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_ENVOY}extensions.filters.http.router.v3.Router"},
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster, **(route or {})}}]
    hosts = [{"name": "all", "domains": ["*"], "routes": routes, **(host or {})}]
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": f"{_ENVOY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": f"listener_{port}",
                    "codec_type": "HTTP1",
                    "http_filters": [router],
                    "route_config": {"name": "routes", "virtual_hosts": hosts},
                    **manager,
                },
            }
        ]
    }
    if tls is not None:
        chain["transport_socket"] = tls
    return {"name": f"port-{port}", "address": _address(port), "filter_chains": [chain]}


def envoy_cluster(name: str, *ports: int, tls: Json | None = None, **more: Any) -> Json:
    """Give a cluster of these ports of loopback."""
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    cluster: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **more,
    }
    if tls is not None:
        cluster["transport_socket"] = tls
    return cluster


def _address(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


# --- the application behind them

LARGE = bytes(range(251)) * 33_000  # 8 MB in which no two neighbouring buffers look alike


def digest(data: bytes) -> bytes:
    """Give what `/digest` answers for this body."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()


class Application(App):
    """Answers by path, as an HTTP/1.1 application does; says 100 to whoever waits for it.

    /echo the body · /digest its length and SHA-256 · /chunked · /large · /large-chunked · /trailers · /204 · /304 ·
    /until-eof · anything else: `hello`
    """

    def __init__(self, **where: Any) -> None:
        super().__init__(_answer, **where)

    def _run(self, connection: PeerConnection) -> None:
        while True:
            try:
                head = connection.read_until(b"\r\n\r\n")
            except EOFError:
                return
            request = parse_request(head)
            if request.values("expect") == [b"100-continue"]:
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = parse_request(head + _read_body(connection, head))
            self.requests.append(request)
            connection.send(self._respond(request))
            if request.target == b"/until-eof" or b"close" in request.values("connection"):
                return

    def request(self, target: str) -> Any:
        """Give the only request that came for `target`."""
        found = [each for each in self.requests if each.target == target.encode()]
        assert len(found) == 1, found
        return found[0]


def chunked(*pieces: bytes, trailers: bytes = b"", lines: bytes = b"") -> bytes:
    """Spell a 200 whose body comes in these chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        + lines
        + b"\r\n"
        + body
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


def _answer(request: Any) -> bytes:
    target = request.target.partition(b"?")[0]
    if target == b"/echo":
        return response(request.body)
    if target == b"/digest":
        return response(digest(request.body))
    if target in _FIXED:
        return _FIXED[target]
    if request.method == b"HEAD":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    return response(b"hello")


_FIXED = {
    b"/chunked": chunked(b"one,", b"two,", b"three"),
    b"/large": response(LARGE),
    b"/large-chunked": chunked(*(LARGE[at : at + 70_001] for at in range(0, len(LARGE), 70_001))),
    b"/trailers": chunked(b"body", trailers=b"X-Sum: 7\r\n", lines=b"Trailer: X-Sum\r\n"),
    b"/204": b"HTTP/1.1 204 No Content\r\n\r\n",
    b"/304": b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n',
    b"/until-eof": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
}


def _read_body(connection: PeerConnection, head: bytes) -> bytes:
    request = parse_request(head)
    if not request.values("transfer-encoding"):
        length = request.values("content-length")
        return connection.read_exactly(int(length[0])) if length else b""
    parts = []
    while True:
        line = connection.read_until(b"\r\n")
        parts.append(line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        parts.append(connection.read_exactly(size + 2))
    while line != b"\r\n":
        line = connection.read_until(b"\r\n")
        parts.append(line)
    return b"".join(parts)
