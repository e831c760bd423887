"""Open-loop load at a constant rate, latency counted from the time when a request was due.

A program of its own (`python -m benchmarks.load.open_loop`), one thread, epoll and a timerfd: the timer of epoll
itself is too coarse (milliseconds). A request that finds no free connection waits, and the wait counts. What the
generator itself adds is the same for the direct way, and falls out of the difference.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.errors import LoadError
from benchmarks.load.place import LOOPBACK, SERVICE, SMALL_BYTES, SMALL_PATH
from benchmarks.load.processes import environment, pinned

CONNECTIONS = 16
_GRACE_S = 10.0
_NS = 1_000_000_000
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)\r\n", re.IGNORECASE)
_REQUEST = (
    f"GET {SMALL_PATH} HTTP/1.1\r\nHost: {SERVICE}\r\nUser-Agent: open-loop\r\n\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Latency:
    """What a constant rate showed.

    Units: milliseconds, from due to the last byte of the response; `late_p99`: from due to sent.
    """

    p50: float
    p99: float
    late_p99: float


def run(name: str, port: int, core: int, rate: int, seconds: float, warm_up_s: float) -> Latency:
    """Run the generator as a process on its core.

    Units: requests/s, seconds.
    Errors: LoadError when a response was wrong or did not come.
    """
    arguments = [str(port), str(rate), str(seconds), str(warm_up_s)]
    command = [sys.executable, "-m", "benchmarks.load.open_loop", *arguments]
    done = subprocess.run(
        pinned(core, command), capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode:
        raise LoadError(f"{name} at {rate} requests/s: {done.stderr.strip()[-400:]}")
    return Latency(**json.loads(done.stdout))


class _Generator:
    """One run: connections, a queue of due times, the samples."""

    def __init__(self, port: int, rate: int, seconds: float, warm_up_s: float) -> None:
        self._interval_ns = _NS // rate
        self._total = int(rate * (seconds + warm_up_s))
        self._first_sample = int(rate * warm_up_s)
        self._sockets: dict[int, socket.socket] = {}
        self._free: deque[int] = deque()
        self._due: dict[
            int, tuple[int, int]
        ] = {}  # descriptor -> number and due time of its request
        self._received: dict[int, bytes] = {}
        self._poll = select.epoll()
        for _ in range(CONNECTIONS):
            self._connect(port)
        self.latency_ns: list[int] = []
        self.late_ns: list[int] = []

    def run(self) -> None:
        start = time.monotonic_ns() + _NS // 20
        timer = _timer(start, self._interval_ns)
        self._poll.register(timer, select.EPOLLIN)
        give_up = start + self._total * self._interval_ns + int(_GRACE_S * _NS)
        waiting: deque[tuple[int, int]] = deque()
        fired = finished = 0
        while finished < self._total:
            if time.monotonic_ns() > give_up:
                raise LoadError(f"{self._total - finished} of {self._total} responses never came")
            for descriptor, _ in self._poll.poll(1.0):
                if descriptor == timer:
                    for _ in range(int.from_bytes(os.read(timer, 8), sys.byteorder)):
                        if fired < self._total:
                            waiting.append((fired, start + fired * self._interval_ns))
                            fired += 1
                else:
                    finished += self._readable(descriptor)
            while waiting and self._free:
                self._send(*waiting.popleft())
        os.close(timer)

    def _connect(self, port: int) -> None:
        one = socket.create_connection((LOOPBACK, port), timeout=5.0)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        self._sockets[one.fileno()] = one
        self._free.append(one.fileno())
        self._poll.register(one.fileno(), select.EPOLLIN)

    def _send(self, number: int, due_ns: int) -> None:
        descriptor = self._free.popleft()
        if number >= self._first_sample:
            self.late_ns.append(time.monotonic_ns() - due_ns)
        self._due[descriptor] = number, due_ns
        self._received[descriptor] = b""
        self._sockets[descriptor].send(_REQUEST)

    def _readable(self, descriptor: int) -> int:
        piece = self._sockets[descriptor].recv(65536)
        if not piece or descriptor not in self._due:
            raise LoadError(f"a connection was closed or spoke unasked: {piece[:80]!r}")
        received = self._received[descriptor] = self._received[descriptor] + piece
        if not _complete(received):
            return 0
        number, due_ns = self._due.pop(descriptor)
        if number >= self._first_sample:
            self.latency_ns.append(time.monotonic_ns() - due_ns)
        self._free.append(descriptor)
        return 1


def _complete(received: bytes) -> bool:
    """Say whether the whole response is there.

    Errors: LoadError when its status or its length is not what the application sends.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(received, 0, end + 2)
    if not received.startswith(b"HTTP/1.1 200 ") or not length or int(length[1]) != SMALL_BYTES:
        raise LoadError(f"wrong response: {received[: min(end, 200)]!r}")
    surplus = len(received) - end - 4 - SMALL_BYTES
    if surplus > 0:
        raise LoadError(f"{surplus} bytes too many")
    return surplus == 0


class _Spec(ctypes.Structure):
    """struct itimerspec of timerfd_settime(2)."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


def _timer(first_ns: int, every_ns: int) -> int:
    """Open a timer of the kernel (Python has it from 3.13 only), absolute on the monotonic clock."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    spec = _Spec(*divmod(every_ns, _NS), *divmod(first_ns, _NS))
    absolute = 1  # TFD_TIMER_ABSTIME
    if descriptor < 0 or libc.timerfd_settime(descriptor, absolute, ctypes.byref(spec), None):
        raise LoadError(f"no timer: {os.strerror(ctypes.get_errno())}")
    return descriptor


def _percentile_ms(samples_ns: list[int], fraction: float) -> float:
    return sorted(samples_ns)[int(len(samples_ns) * fraction)] / 1e6


def _main(port: int, rate: int, seconds: float, warm_up_s: float) -> None:
    gc.disable()
    Path("/proc/self/timerslack_ns").write_text("1")
    generator = _Generator(port, rate, seconds, warm_up_s)
    generator.run()
    result = {
        "p50": _percentile_ms(generator.latency_ns, 0.5),
        "p99": _percentile_ms(generator.latency_ns, 0.99),
        "late_p99": _percentile_ms(generator.late_ns, 0.99),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    try:
        _main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    except (LoadError, OSError) as error:
        sys.exit(str(error))
