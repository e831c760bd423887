"""A dnsmasq with records that change, and traffic that hears of it."""

from __future__ import annotations

import getpass
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.foreign import Program
from tests.support.peers import App, exchange, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, running_ambassador
from tests.support.programs import require_program
from tests.support.waiting import eventually

HOST = "127.0.0.9"  # whose UDP port is free: `reserve_port` holds that of 127.0.0.1
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


class Dnsmasq:
    """Has all names below `test.`; addresses change at once, SRV records when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._hosts, self._lines = folder / "hosts", folder / "dnsmasq.conf"
        self.port = reserve_port()
        self._hosts.write_text("", encoding="ascii")
        self._lines.write_text("", encoding="ascii")
        command = [
            require_program("dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--pid-file",
            f"--conf-file={self._lines}", "--local-ttl=1", "--local=/test/", "--bind-interfaces",
            f"--listen-address={HOST}", f"--user={getpass.getuser()}", f"--port={self.port}",
            f"--addn-hosts={self._hosts}",
        ]  # fmt: skip
        self.program = Program(command, folder, ports=[])
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it takes a connection."""
        eventually(self._takes, "dnsmasq")

    def _takes(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0

    def say(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Let names have these addresses, and others none, from now on."""
        lines = [f"{address} {name}\n" for name, found in addresses.items() for address in found]
        self._hosts.write_text("".join(lines), encoding="ascii")
        if self.program.process.poll() is None:
            self.program.process.send_signal(signal.SIGHUP)

    def restart(self, *services: str) -> None:
        """End it without a word, and start it with these SRV records: `NAME,TARGET,PORT,PRIORITY,WEIGHT`."""
        lines = [f"srv-host={service}\n" for service in services]
        self._lines.write_text("".join(lines), encoding="ascii")
        self.program.kill()
        self.program.restart()
        self.wait_until_ready()


def answering(name: bytes, host: str, port: int) -> App:
    """Give an application whose answers end with its name, one letter."""
    return App(lambda _: _OK + name, host=host, port=port)


def who_answers(sidecar: Ambassador) -> bytes:
    """Ask once."""
    return exchange(sidecar.outbound, request(host="a"))[-1:]


@contextmanager
def traffic(sidecar: Ambassador) -> Iterator[bytearray]:
    """Ask without a pause; give the last byte of every answer, which is who answered."""
    answers = bytearray()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.extend(who_answers(sidecar) or b"!")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join(10)


@contextmanager
def ready(folder: Path, settings: dict[str, Any]) -> Iterator[Ambassador]:
    """Run a sidecar that knows its endpoints."""
    with running_ambassador(settings, folder) as sidecar:
        eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")
        yield sidecar
