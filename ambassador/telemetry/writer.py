"""Writes pieces of text to a file descriptor from a thread of its own, so that nobody waits for a disk or a pipe.

Knows descriptors and how much may wait; must not know what the pieces mean. One thread calls `put`, `reopen` and
`close` (the event loop's), the other one writes: each counter is changed by one of them only, so there is no lock.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from queue import SimpleQueue
from typing import Final

MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
_STDOUT: Final = 1
_RETRY_S: Final = 0.01
_NEWLINE: Final = 0x0A


class ThreadedWriter:
    """Appends pieces to `path`, or to the descriptor `standard` (1: standard output) for "-".

    Units: bytes; `dropped` counts lines.
    Errors: OSError at construction when the file cannot be opened; later failures are counted in `dropped` and
    named in `error`, never raised: a full disk or a closed pipe must not end the proxy.
    """

    def __init__(
        self, path: str, *, max_waiting_bytes: int = MAX_WAITING_BYTES, standard: int = _STDOUT
    ) -> None:
        self._path = path
        self._standard = standard
        self._max_waiting_bytes = max_waiting_bytes
        self._queue: SimpleQueue[tuple[bytes, int] | str] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._put_bytes = 0  # the caller's side
        self._put_lines = 0
        self._refused_lines = 0
        self._done_bytes = 0  # the thread's side
        self._done_lines = 0
        self._failed_lines = 0
        self.error = ""  # errno's name of the last failed write, empty since the last good one
        self._torn = False  # a write failed inside a line
        self._fd = self._open()

    def __repr__(self) -> str:
        return (
            f"ThreadedWriter({self._path!r}, waiting={self.waiting_bytes}, dropped={self.dropped})"
        )

    @property
    def waiting_bytes(self) -> int:
        """Bytes handed over and not written yet."""
        return self._put_bytes - self._done_bytes

    @property
    def dropped(self) -> int:
        """Lines that were refused for want of room, or lost to a failed write."""
        return self._refused_lines + self._failed_lines

    def put(self, piece: bytes, lines: int) -> None:
        """Hand over a piece of whole lines; dropped and counted when too much waits already."""
        if self._closed or self.waiting_bytes + len(piece) > self._max_waiting_bytes:
            self._refused_lines += lines
            return
        self._put_bytes += len(piece)
        self._put_lines += lines
        self._queue.put((piece, lines))
        if self._thread is None:  # not before: start-up needs no thread, and a fork would lose it
            self._thread = self._started()

    def reopen(self) -> None:
        """Open the path anew after what waits is written, for whoever rotates files by renaming."""
        if not self._closed:
            self._queue.put("reopen")
            if self._thread is None:
                self._thread = self._started()

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most so long; what is left then is dropped and counted."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put("stop")
            self._thread.join(timeout_s)
        self._refused_lines += self._put_lines - self._done_lines
        # A thread that is stuck in a write keeps the descriptor until the process ends.
        if self._thread is None or not self._thread.is_alive():
            self._release()

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, name=f"writer {self._path}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a ceiling on processes: the next piece tries again
            self.error = str(error)
            return None
        return thread

    def _open(self) -> int:
        if self._path == "-":
            return self._standard
        return _open(self._path)

    def _release(self) -> None:
        if self._path != "-":
            os.close(self._fd)

    def _run(self) -> None:
        while True:
            match self._queue.get():
                case (bytes(piece), lines):
                    self._write(piece, lines)
                case "reopen":
                    self._reopen_now()
                case _:
                    return

    def _write(self, piece: bytes, lines: int) -> None:
        try:
            self._write_all(piece)
            self.error = ""
        except OSError as error:
            self._failed(error)
            self._failed_lines += lines
        self._done_bytes += len(piece)
        self._done_lines += lines

    def _write_all(self, piece: bytes) -> None:
        # Half a line is ended before the next one begins (threats I5).
        if self._torn:
            piece = b"\n" + piece
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Somebody who shares our terminal or pipe made it non-blocking; only this thread waits.
                threading.Event().wait(_RETRY_S)
            except OSError:
                written = len(piece) - len(rest)
                self._torn = piece[written - 1] != _NEWLINE if written else self._torn
                raise
        self._torn = False

    def _reopen_now(self) -> None:
        try:
            fresh = self._open()
        except OSError as error:
            self._failed(error)  # the old file goes on
            return
        self._release()
        self._fd = fresh
        self._torn = False

    def _failed(self, error: OSError) -> None:
        self.error = type(error).__name__ if error.errno is None else os.strerror(error.errno)


def unwritable_kind(mode: int) -> str:
    """Say why lines cannot go to what has this `st_mode`; empty when they can."""
    if stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "is a folder"
    # /dev/stdout is one under systemd, and no path opens it.
    return 'is a socket; "-" is standard output' if stat.S_ISSOCK(mode) else "is no file"


def _open(path: str) -> int:
    """Open to append: a file, a device such as /dev/stdout, or a FIFO that somebody reads.

    Errors: OSError with a sentence as `strerror`.
    """
    # Not blocking: opening a FIFO would wait for a reader, and the start hang.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o640)
    except OSError as error:
        if error.errno == errno.ENXIO:
            kind = unwritable_kind(os.stat(path).st_mode)
            raise OSError(errno.ENXIO, kind or "nobody reads it", path) from None
        raise
    kind = unwritable_kind(os.fstat(descriptor).st_mode)
    if kind:
        os.close(descriptor)
        raise OSError(errno.EINVAL, kind, path)
    os.set_blocking(descriptor, True)  # from here on only the writer's thread waits
    return descriptor
