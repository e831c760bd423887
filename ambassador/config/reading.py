"""The bytes of a configuration file, without ever waiting for somebody who may not be there.

Knows descriptors; must not know what is in the file. A regular file is read; so is a pipe that somebody writes to
(`-c /dev/stdin`, `-c <(command)`), for a while. Everything else, a terminal and a FIFO without writer above all,
would let a start hang, which a supervisor sees as "starting" for ever.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Final, NamedTuple

from ambassador.config.document import MAX_BYTES
from ambassador.core.clock import SystemClock
from ambassador.core.errors import ConfigError, ConfigErrors

#: How long whoever writes to a pipe may take: long enough for a tool that decrypts. Units: seconds.
PATIENCE_S: Final = 30.0
_DESCRIPTORS: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_PIECE: Final = 64 * 1024
_RETRY_S: Final = 0.01


class Content(NamedTuple):
    """What a file holds, and the folder from which its relative paths count."""

    content: bytes
    folder: Path


def read(path: Path, *, patience_s: float = PATIENCE_S) -> Content:
    """Give the content, at most one byte more than a file may have.

    What comes through a descriptor counts its paths from the working directory: /dev holds nobody's certificates.
    Errors: ConfigErrors with one sentence.
    """
    try:
        # Not blocking: opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                with open(descriptor, "rb", closefd=False) as file:
                    folder = Path() if str(path).startswith(_DESCRIPTORS) else path.parent
                    return Content(file.read(MAX_BYTES + 1), folder)
            if stat.S_ISFIFO(mode):
                return Content(_read_pipe(descriptor, path, patience_s), Path())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _error(f"cannot read {path}: {error.strerror}") from None
    what = "a folder" if stat.S_ISDIR(mode) else "a device" if stat.S_ISCHR(mode) else "neither"
    raise _error(f"cannot read {path}: expected a file, or a pipe that is written to, got {what}")


def _read_pipe(descriptor: int, path: Path, patience_s: float) -> bytes:
    """Read until whoever writes has closed it."""
    now = SystemClock().monotonic
    ends_at = now() + patience_s
    content = b""
    while len(content) <= MAX_BYTES:
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            if now() >= ends_at:
                sentence = f"its writer did not end within {patience_s:.0f} s"
                raise _error(f"cannot read {path}: {sentence}") from None
            threading.Event().wait(_RETRY_S)
            continue
        if not piece:
            break
        content += piece
    if not content:
        raise _error(f"cannot read {path}: nobody writes to this pipe, or nothing was written")
    return content[: MAX_BYTES + 1]


def _error(sentence: str) -> ConfigErrors:
    return ConfigErrors((ConfigError("", sentence),))
