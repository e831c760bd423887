"""`ambassador demo`: two Pods on loopback, which talk to each other through two sidecars, and an intruder.

The sidecars are real: child processes of `ambassador run` with files that a user could have written (`--write`
leaves them as a start). The two apps and their callers live in this process, because they are what stays as it is
when a sidecar is added. Everything that is printed is read from outside: the identity as the app saw it, the reason
of the refusal from the event log of the sidecar that refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import ssl  # noqa: TID251  # the intruder is somebody else's program and must not profit from ours
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ambassador.cli.main import OutputFailed
from ambassador.core.clock import SystemClock
from ambassador.core.errors import AmbassadorError
from ambassador.identity.authority import Authority, LeafRequest
from ambassador.net.tasks import TaskGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ambassador.identity.authority import Issued

ROUNDS: Final = 50
PATIENCE_S: Final = 20.0
_NAMES: Final = ("web", "payments")
_PATHS: Final = {"payments": "/pay", "web": "/stock"}

_FILE = """\
version: 1
name: {name}
identity: {{directory: certs}}
inbound:                        # mutual TLS; nobody but {other} may call the app
  listen: "127.0.0.1:{inbound}"
  app: "127.0.0.1:{app}"
  allow: [{{spiffe: "spiffe://demo/{other}"}}]
services:
  {other}:                      # the app calls http://localhost:{outbound}
    listen: "127.0.0.1:{outbound}"
    endpoints: ["127.0.0.1:{other_inbound}"]
    peer: {{spiffe: "spiffe://demo/{other}"}}
admin: {{listen: "127.0.0.1:{admin}"}}
drain: {{delay: 0s, timeout: 5s}}
"""


class DemoError(AmbassadorError):
    """The demo did not show what it promises; the text is one sentence."""


@click.command(
    name="demo",
    help="""Example: ambassador demo --keep

    Starts two apps with a sidecar each on loopback, lets them call each other over mutual TLS, and shows how an
    intruder without a certificate is refused.""",
)
@click.option("--keep", is_flag=True, help="Go on until ^C.")
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Leave configuration and certificates in this directory, as a start.",
)
def command(*, keep: bool, folder: Path | None) -> None:
    """Show what the proxy does, and end."""
    raise SystemExit(run_demo(keep=keep, folder=folder))


def run_demo(*, keep: bool = False, folder: Path | None = None) -> int:
    """Run the demo and give the exit code: 0 when everything was as promised, 1 if not, 130 when interrupted."""
    try:
        with _workplace(folder) as place:
            asyncio.run(_demo(place, keep=keep, written=folder is not None))
    except DemoError as error:
        click.echo(f"ambassador demo: {error}", err=True)
        return 1
    except TimeoutError:
        click.echo(f"ambassador demo: no answer within {PATIENCE_S:.0f} s", err=True)
        return 1
    except (ConnectionError, EOFError) as error:
        click.echo(f"ambassador demo: a connection ended too early: {error}", err=True)
        return 1
    except (
        OSError
    ) as error:  # nobody below calls something else than files and sockets of this machine
        click.echo(f"ambassador demo: {error}", err=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("\ninterrupted, everything ended", err=True)
        return 130
    return 0


@contextlib.contextmanager
def _workplace(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ambassador-demo-") as temporary:
            yield Path(temporary)
        return
    try:
        is_used = folder.exists() and any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None
    if is_used:
        raise DemoError(f"{folder} is not empty, and keys are never overwritten; name another")
    yield folder.resolve()


def _unwritable(error: OSError) -> DemoError:
    return DemoError(f"cannot write {error.filename}: {(error.strerror or 'failed').lower()}")


def _say(line: str) -> None:
    """Print a line of the result, and tell a reader that is gone from a connection that is."""
    try:
        click.echo(line)
    except OSError as error:
        raise OutputFailed(str(error)) from error


# --- the play ----------------------------------------------------------------------------------------------------


async def _demo(place: Path, *, keep: bool, written: bool) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time
    demo = asyncio.current_task()
    assert demo is not None  # noqa: S101  # for the type checker
    loop.add_signal_handler(signal.SIGTERM, demo.cancel)  # as ^C does: no sidecar outlives us
    async with _pods(place) as pods:
        begin = now()
        async with _sidecars(place) as sidecars:
            where = str(place) if written else "a temporary directory"
            _say(f"CA and 2 certificates in {where}, two sidecars up in {now() - begin:.1f} s")
            web, payments = (pods[name] for name in _NAMES)
            await _show_call(web, payments)
            await _show_call(payments, web)
            await _show_intruder(place, payments, sidecars["payments"])
            if keep:
                await _stay(web, payments)
        for sidecar in sidecars.values():
            sidecar.check_end()
    hints = [] if keep else ["go on: --keep"]
    hints += [f"start your own: {place}" if written else "start your own: --write DIR"]
    _say(f"done, everything ended; {'; '.join(hints)}")


async def _show_call(caller: Pod, callee: Pod) -> None:
    """Call `callee` directly and through both sidecars, in turns, so that both medians saw the same machine."""
    path = _PATHS[callee.name]
    direct, relayed = [], []
    answer = Answer(0, "", "nobody", 0.0)
    async with _client(callee.app) as plain, _client(caller.outbound) as mesh:
        for _ in range(ROUNDS):
            direct.append((await plain.get(path, callee.name)).seconds)
            answer = await mesh.get(path, callee.name)
            relayed.append(answer.seconds)
    if answer.status != 200 or answer.caller != f"spiffe://demo/{caller.name}":  # noqa: PLR2004  # OK
        raise DemoError(
            f"{caller.name} -> {callee.name}: {answer.status} {answer.detail}, seen as {answer.caller}"
        )
    median = statistics.median(direct)
    added = statistics.median(relayed) - median
    _say(
        f"{f'{caller.name} -> {callee.name}':<17} GET {path:<7} {answer.status}  seen as {answer.caller:<22}  "
        f"direct {median * 1000:.1f} ms  added {added * 1000:.1f} ms"
    )


async def _show_intruder(place: Path, victim: Pod, sidecar: Sidecar) -> None:
    """Call without a certificate, and read what the sidecar noted about it."""
    context = ssl.create_default_context(cafile=place / victim.name / "certs" / "ca.crt")
    context.check_hostname = False  # it carries a SPIFFE ID, no host name
    path = _PATHS[victim.name]
    try:
        async with _client(victim.inbound, context) as client:
            # TLS 1.3 refuses a client only after its handshake is over, with the first read.
            answer = await client.get(path, victim.name)
    except TimeoutError:
        raise DemoError("the intruder got neither an answer nor a refusal") from None
    except (OSError, EOFError):
        event = await sidecar.wait_for("handshake_refused")
        _say(f"{'intruder':<17} GET {path:<7} refused in the handshake: {event.get('reason')}")
    else:
        raise DemoError(f"the intruder got {answer.status}")


async def _stay(*pods: Pod) -> None:
    """Say where everything is, and wait for ^C."""
    for pod, other in (pods, pods[::-1]):
        _say(
            f"as {pod.name}: curl http://127.0.0.1:{pod.outbound}{_PATHS[other.name]}   "
            f"mTLS on 127.0.0.1:{pod.inbound}   metrics: curl http://127.0.0.1:{pod.admin}/metrics"
        )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    _say("^C ends it")
    await ended.wait()
    _say("")


# --- Pods: an app each -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pod:
    """One app and the ports of its sidecar, all on loopback."""

    name: str
    app: int
    inbound: int
    outbound: int
    admin: int


@contextlib.asynccontextmanager
async def _pods(place: Path) -> AsyncIterator[dict[str, Pod]]:
    """Start the apps and lay down files and certificates of both Pods."""
    async with contextlib.AsyncExitStack() as stack:
        pods = {}
        for name in _NAMES:
            app = await stack.enter_async_context(
                await asyncio.start_server(_serve_app, "127.0.0.1", 0)
            )
            port = app.sockets[0].getsockname()[1]
            pods[name] = Pod(name, port, *await _free_ports(3))
        try:
            _write_files(place, pods)
        except OSError as error:
            raise _unwritable(error) from None
        yield pods
        await _hang_up()


def _write_files(place: Path, pods: dict[str, Pod]) -> None:
    now = SystemClock().wall()
    authority = Authority.create("demo CA", wall_now=now)
    for pod, other in zip(pods.values(), reversed(pods.values()), strict=True):
        certs = place / pod.name / "certs"
        certs.mkdir(parents=True)
        issued = authority.issue(LeafRequest(spiffe=f"spiffe://demo/{pod.name}"), wall_now=now)
        _write_identity(certs, issued, authority)
        text = _FILE.format(
            name=pod.name,
            other=other.name,
            inbound=pod.inbound,
            app=pod.app,
            outbound=pod.outbound,
            admin=pod.admin,
            other_inbound=other.inbound,
        )
        (place / pod.name / "ambassador.yaml").write_text(text, encoding="utf-8")


def _write_identity(folder: Path, issued: Issued, authority: Authority) -> None:
    (folder / "ca.crt").write_bytes(authority.issued.certificate_pem)
    (folder / "tls.crt").write_bytes(issued.certificate_pem)
    key = folder / "tls.key"
    key.touch(mode=0o600)  # before the first byte of it is there
    key.write_bytes(issued.key_pem)


async def _free_ports(count: int) -> list[int]:
    """Give ports that were free a moment ago, from below the range that outgoing connections use."""
    chance = random.SystemRandom()
    ports: list[int] = []
    while len(ports) < count:
        port = chance.randrange(10_000, 32_000)
        try:
            server = await asyncio.start_server(_serve_app, "127.0.0.1", port)
        except OSError:
            continue  # taken
        server.close()
        await server.wait_closed()
        ports.append(port)
    return ports


_open: Final[dict[asyncio.Task[Any] | None, asyncio.StreamWriter]] = {}


async def _serve_app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that knows no TLS: answers every request with the identity that its sidecar tells it."""
    task = asyncio.current_task()
    _open[task] = writer
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            found = re.search(rb"(?im)^x-forwarded-client-cert:.*?\bURI=([^;,\r\n]*)", head)
            body = found[1] if found else b"nobody"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        del _open[task]
        writer.close()


async def _hang_up() -> None:
    """End connections that are still open, so that the servers can end."""
    serving = [task for task in _open if task is not None]
    for writer in _open.values():
        writer.close()
    if serving:
        await asyncio.wait(serving)


# --- a client ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and how long it took. `caller` is the body: who the app says has called."""

    status: int
    detail: str  # of a sidecar's own answer
    caller: str
    seconds: float


@dataclass(slots=True)
class Client:
    """An HTTP client on one kept connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    now: Callable[[], float]

    async def get(self, path: str, host: str) -> Answer:
        """Send one GET and read its response."""
        begin = self.now()
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = await self.reader.readexactly(int(_field(head, "content-length") or 0))
        return Answer(
            status=int(head.split()[1]),
            detail=_field(head, "x-ambassador-detail"),
            caller=body.decode("utf-8", "replace").strip(),
            seconds=self.now() - begin,
        )


def _field(head: bytes, name: str) -> str:
    found = re.search(rf"(?i)\r\n{name}: *([^\r]*)", head.decode("latin-1"))
    return found[1] if found else ""


@contextlib.asynccontextmanager
async def _client(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="" if context else None
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield Client(reader, writer, asyncio.get_running_loop().time)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# --- sidecars: child processes -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Sidecar:
    """A running `ambassador run`, and the events that it wrote to stderr."""

    name: str
    process: asyncio.subprocess.Process
    events: deque[dict[str, Any]] = field(
        default_factory=lambda: deque(maxlen=1000)
    )  # --keep runs for long
    text: deque[str] = field(default_factory=lambda: deque(maxlen=100))
    ended: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        """Take every line until the process ends."""
        assert self.process.stderr is not None  # noqa: S101  # for the type checker
        async for line in self.process.stderr:
            async with self.changed:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.text.append(line.decode("utf-8", "replace").rstrip())
                self.changed.notify_all()
        async with self.changed:
            self.ended = True
            self.changed.notify_all()

    async def wait_for(self, name: str) -> dict[str, Any]:
        """Give the first event of this name. Errors: DemoError when the process ends or time is up."""
        try:
            async with asyncio.timeout(PATIENCE_S), self.changed:
                while not (found := [each for each in self.events if each.get("event") == name]):
                    if self.ended:
                        raise DemoError(f"the sidecar of {self.name} ended: {self._last_words()}")
                    await self.changed.wait()
        except TimeoutError:
            raise DemoError(f"sidecar of {self.name} wrote no {name}") from None
        return found[0]

    def check_end(self) -> None:
        """Errors: DemoError unless it ended of itself, with 0."""
        code = self.process.returncode
        if code != 0:
            raise DemoError(f"the sidecar of {self.name} ended with {code}: {self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(self.text) or str(list(self.events)[-1:])

    def stop(self) -> None:
        """Ask it to end, as Kubernetes and compose do."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()


@contextlib.asynccontextmanager
async def _sidecars(place: Path) -> AsyncIterator[dict[str, Sidecar]]:
    """Run both sidecars until the block ends; they are up when it begins."""
    sidecars: dict[str, Sidecar] = {}
    reading = TaskGroup(_crashed)
    try:
        for name in _NAMES:
            sidecars[name] = sidecar = Sidecar(name, await _start(place / name / "ambassador.yaml"))
            reading.start(sidecar.read(), name=f"events of {name}")
        for sidecar in sidecars.values():
            await sidecar.wait_for("proxy_ready")
        yield sidecars
    finally:
        for sidecar in sidecars.values():
            sidecar.stop()
        for sidecar in sidecars.values():
            await sidecar.process.wait()
        await reading.close()


def _crashed(name: str, error: BaseException) -> None:
    click.echo(f"ambassador demo: {name}: {error!r}", err=True)


async def _start(config: Path) -> asyncio.subprocess.Process:
    # A session of its own: ^C is for us, and we end it in order.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ambassador",
        "run",
        "--config",
        str(config),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("AMBASSADOR_")},
    )
