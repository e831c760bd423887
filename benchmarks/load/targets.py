"""The targets of a run: both instances of each, started, known to answer, and stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import ambassador, closed_loop, envoy, haproxy, nginx
from benchmarks.load.certificates import Authority
from benchmarks.load.errors import LoadError
from benchmarks.load.origin import prepare_origin
from benchmarks.load.place import SMALL_BYTES, SMALL_PATH, Kind, Place, Ports, free_ports
from benchmarks.load.processes import Cores, Process

DIRECT = "direct"
KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (nginx.KIND, haproxy.KIND, envoy.KIND, ambassador.KIND)
}
NAMES = (DIRECT, *KINDS)
_START_TIMEOUT_S = 20.0
_LOG_LINES = 5  # the least that any choice of windows makes: a few requests


@dataclass(frozen=True, slots=True)
class Target:
    """One way to the application. The direct one has no proxies and no inbound port."""

    name: str
    port: int
    inbound_port: int
    outbound: Process | None
    inbound: Process | None

    @property
    def proxies(self) -> list[Process]:
        return [one for one in (self.outbound, self.inbound) if one]


class Arena:
    """Everything that one repetition needs alive: the application and all targets."""

    def __init__(self, folder: Path, cores: Cores, kinds: Mapping[str, Kind] = KINDS) -> None:
        self.cores = cores
        self._kinds = kinds
        folder.mkdir()
        authority = Authority(folder)
        self.place = Place(
            folder, authority.issue("web"), authority.issue("payments"), free_ports(1)[0]
        )
        self._processes: list[Process] = []
        self.targets: dict[str, Target] = {}

    def start(self, names: list[str]) -> None:
        """Start the application, then the targets, and wait until each answers.

        Errors: LoadError with the last words of what did not start.
        """
        self._start("app", self.cores.generator, prepare_origin(self.place))
        for name in names:
            self.targets[name] = self._target(name)
            self._wait(self.targets[name])

    def stop(self) -> None:
        """End every process of this arena, the newest first."""
        while self._processes:
            self._processes.pop().stop()

    def check_logs(self) -> None:
        """See that every proxy logged in JSON; to be called when they have ended and written all.

        Errors: LoadError, since a target without a log did less than the others.
        """
        for name, target in self.targets.items():
            for process in target.proxies:
                _check_log(
                    process.name, self.place.folder / (process.name + self._kinds[name].log_suffix)
                )

    def load(
        self, target: Target, path: str = SMALL_PATH, size: int = SMALL_BYTES
    ) -> closed_loop.Load:
        """Give what h2load needs to know of a target."""
        return closed_loop.Load(target.name, target.port, path, size, self.cores.generator)

    def _target(self, name: str) -> Target:
        if name == DIRECT:
            return Target(name, self.place.app_port, 0, None, None)
        ports = Ports(*free_ports(4))
        commands = self._kinds[name].prepare(self.place, ports)
        inbound = self._start(f"{name}-inbound", self.cores.proxies, commands.inbound)
        outbound = self._start(f"{name}-outbound", self.cores.proxies, commands.outbound)
        return Target(name, ports.outbound, ports.inbound, outbound, inbound)

    def _start(self, name: str, core: int, command: list[str]) -> Process:
        process = Process(name, core, command, self.place.folder / f"{name}.out")
        self._processes.append(process)
        return process

    def _wait(self, target: Target) -> None:
        """Ask until the application answers through the whole way."""
        give_up = time.monotonic_ns() + int(_START_TIMEOUT_S * 1e9)
        while True:
            for process in self._processes:
                if not process.running:
                    raise LoadError(f"{process.name} ended at start: {process.last_words()}")
            try:
                closed_loop.run(self.load(target), 1, 1)
            except LoadError as error:
                if time.monotonic_ns() > give_up:
                    words = " / ".join(f"{one.name}: {one.last_words()}" for one in target.proxies)
                    raise LoadError(f"{target.name} does not answer ({error}); {words}") from None
                time.sleep(0.1)
            else:
                return


def _check_log(name: str, path: Path) -> None:
    """See that the first line is a JSON object, and that there are many."""
    lines = 0
    try:
        with path.open("rb") as log:
            if not isinstance(json.loads(log.readline()), dict):
                raise ValueError("no object")
            lines = 1 + sum(1 for _ in log)
    except (OSError, ValueError) as error:
        raise LoadError(f"{name} has no JSON access log: {error}") from None
    if lines < _LOG_LINES:
        raise LoadError(f"{name} logged only {lines} exchanges")
