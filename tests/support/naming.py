"""A dnsmasq with records that change."""

from __future__ import annotations

import getpass
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.foreign import Program
from tests.support.ports import reserve_port
from tests.support.programs import require_program
from tests.support.waiting import eventually

HOST = "127.0.0.9"  # whose UDP port is free: `reserve_port` holds that of 127.0.0.1


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
