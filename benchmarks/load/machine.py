"""Where and with what a result was measured."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.load.targets import DIRECT, KINDS


def facts(targets: list[str], arguments: list[str]) -> dict[str, str]:
    """Give the facts that belong beside every figure. No name of the machine, no path."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "benchmarks.load", *arguments]),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "targets": ", ".join(KINDS[name].version() for name in targets if name != DIRECT),
        "generators": f"{_first_line(['h2load', '--version'])}, Python {sys.version_info[0]}.{sys.version_info[1]}",
        "application": KINDS["nginx"].version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: list[str]) -> str:
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    return printed.stdout.splitlines()[0]
