"""Closed-loop load by h2load: a fixed number of requests over kept connections, each connection with one in flight.

A number, not a time: at the end of a time h2load drops what is in flight, and the proxies would pay for new
handshakes in the next window. Every response is checked: status 2xx, and the sum of the body bytes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from benchmarks.load.errors import LoadError
from benchmarks.load.place import LOOPBACK, SERVICE
from benchmarks.load.processes import pinned

_TIMEOUT_S = 120.0
_FINISHED = re.compile(r"^finished in ([0-9.]+)(us|ms|s|m)\b", re.MULTILINE)
_SUCCEEDED = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", re.MULTILINE)
_STATUS = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_BODY = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask of whom."""

    name: str
    port: int
    path: str
    body_bytes: int
    core: int


def run(load: Load, connections: int, requests: int) -> float:
    """Send the requests and give the seconds that they took.

    Units: seconds.
    Errors: LoadError unless every response has status 2xx and a body of the right length.
    """
    command = ["h2load", "--h1", "-t", "1", "-c", str(connections), "-n", str(requests)]
    command += [f"--connect-to={LOOPBACK}:{load.port}", f"http://{SERVICE}{load.path}"]
    try:
        printed = subprocess.run(
            pinned(load.core, command),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired:
        raise LoadError(
            f"{load.name}: {requests} requests over {connections} connections took longer than {_TIMEOUT_S:.0f} s"
        ) from None
    return _checked(load, requests, printed)


def missing() -> str:
    """Say in words why there is no closed loop here, or give ""."""
    absent = [name for name in ("h2load", "setpriv", "taskset") if not shutil.which(name)]
    return (
        f"not installed: {', '.join(absent)} (Debian: nghttp2-client, util-linux)" if absent else ""
    )


def _checked(load: Load, requests: int, printed: str) -> float:
    finished, succeeded = _FINISHED.search(printed), _SUCCEEDED.search(printed)
    status, body = _STATUS.search(printed), _BODY.search(printed)
    if not (finished and succeeded and status and body):
        raise LoadError(f"{load.name}: h2load gave no result: {printed[-300:]!r}")
    if int(succeeded[1]) != requests or int(status[1]) != requests:
        raise LoadError(
            f"{load.name}: of {requests} requests only {succeeded[1]} succeeded "
            f"({status[1]} with status 2xx, {succeeded[2]} failed, {succeeded[3]} errors)"
        )
    if int(body[1]) != requests * load.body_bytes:
        raise LoadError(
            f"{load.name}: {body[1]} body bytes came instead of {requests * load.body_bytes}"
        )
    return float(finished[1]) * _UNITS[finished[2]]
