"""Processes that this run started: pinned to a core, read for CPU and memory, ended by pid.

Knows /proc; must not know what the processes do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.errors import LoadError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_END_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Core of the generator and the origin, and core of both proxies of the target under test."""

    generator: int
    proxies: int


def choose_cores() -> Cores:
    """Take the first two cores that we may use; with a single one everything shares it."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[min(1, len(cores) - 1)])


def pinned(core: int, command: list[str]) -> list[str]:
    """Give the command that runs on one core only and gets SIGTERM when we die, however we die."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU of a process tree so far.

    Units: seconds; `total` is exact (scheduler clock), `user` and `system` are sampled by the kernel at each tick.
    """

    total: float
    user: float
    system: float

    def since(self, earlier: Cpu) -> Cpu:
        """Give what was used since then, `user` and `system` scaled so that they add up to the exact total."""
        total = self.total - earlier.total
        user, system = self.user - earlier.user, self.system - earlier.system
        share = user / (user + system) if user + system > 0 else 0.0
        return Cpu(total, total * share, total * (1 - share))


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process tree.

    Units: MiB; `rss` counts shared pages in full, `pss` by their part, `private` not at all.
    """

    rss: float
    pss: float
    private: float


class Process:
    """One started program, its output in a file."""

    def __init__(self, name: str, core: int, command: list[str], output: Path) -> None:
        self.name = name
        self._output = output
        with output.open("wb") as sink:
            self._child = subprocess.Popen(
                pinned(core, command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment(),
            )

    @property
    def running(self) -> bool:
        """Say whether it has not ended."""
        return self._child.poll() is None

    def last_words(self) -> str:
        """Give the end of what it printed, for a sentence about its failure."""
        text = self._output.read_text(errors="replace").strip()
        return " | ".join(text.splitlines()[-4:])[-600:] or "it printed nothing"

    def cpu(self) -> Cpu:
        """Read the CPU of the process and its children.

        Errors: LoadError when it has ended.
        """
        parts = [self._cpu_of(pid) for pid in self._tree()]
        return Cpu(*(sum(part[i] for part in parts) for i in range(3)))

    def memory(self) -> Memory:
        """Read the memory of the process and its children.

        Errors: LoadError when it has ended.
        """
        parts = [self._rollup_of(pid) for pid in self._tree()]
        return Memory(*(sum(part[i] for part in parts) / 1024 for i in range(3)))

    def stop(self) -> None:
        """End it: terminate, and kill what is left after five seconds."""
        if not self.running:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _tree(self) -> list[int]:
        if not self.running:
            raise LoadError(f"{self.name} ended with {self._child.returncode}: {self.last_words()}")
        pids = [self._child.pid]
        for pid in pids:  # grows while we walk it
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return pids

    @staticmethod
    def _cpu_of(pid: int) -> tuple[float, float, float]:
        # clock_getcpuclockid(3) is not in Python's library; its formula is fixed by the kernel's ABI.
        total = time.clock_gettime((~pid << 3) | 2)
        # proc_pid_stat(5): utime and stime are fields 14 and 15; the name in field 2 may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return total, int(fields[11]) / _TICKS_PER_SECOND, int(fields[12]) / _TICKS_PER_SECOND

    @staticmethod
    def _rollup_of(pid: int) -> tuple[int, int, int]:
        kib: dict[str, int] = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, amount = line.split()[:2]
            kib[name] = int(amount)
        return kib["Rss:"], kib["Pss:"], kib["Private_Clean:"] + kib["Private_Dirty:"]


def environment() -> dict[str, str]:
    """Give the environment of every child: ours, without what could change TLS or turn a proxy on."""
    dropped = {"SSLKEYLOGFILE", "OPENSSL_CONF", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in dropped and not name.startswith("AMBASSADOR_")
    }
