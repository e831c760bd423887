"""Nobody waits for a disk or a pipe."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from ambassador.telemetry.writer import ThreadedWriter, unwritable_kind


class Pipe:
    """A pipe in place of the writer's file."""

    def __init__(self, tmp_path: Path, **limits: int) -> None:
        self.writer = ThreadedWriter(str(tmp_path / "unused"), **limits)
        os.close(self.writer._fd)
        self.read, self.writer._fd = os.pipe()

    def drain(self, size: int) -> bytes:
        received = b""
        while len(received) < size and (piece := os.read(self.read, 65536)):
            received += piece
        return received


def test_a_reader_that_stands_still_costs_memory_up_to_the_ceiling(tmp_path: Path) -> None:
    """The first piece fills the pipe and never ends; the writer takes 1 MiB, the rest is dropped."""
    pipe = Pipe(tmp_path, max_waiting_bytes=1 << 20)
    piece = b"x" * 131_072
    for _ in range(64):
        pipe.writer.put(piece, 10)

    assert pipe.writer.waiting_bytes == 1 << 20
    assert pipe.writer.dropped == 560
    assert len(pipe.drain(1 << 20)) == 1 << 20
    pipe.writer.close(5.0)
    assert pipe.writer.dropped == 560
    os.close(pipe.read)


def test_closing_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path)
    pipe.writer.put(b"x" * 200_000, 7)
    pipe.writer.put(b"y", 1)

    pipe.writer.close(0.01)

    assert pipe.writer.dropped == 8
    thread = pipe.writer._thread
    assert thread is not None
    os.close(pipe.read)  # lets the thread go: EPIPE
    thread.join()
    os.close(pipe.writer._fd)


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = ThreadedWriter(str(path))
    writer.put(b"line\n", 1)

    writer.close(5.0)
    writer.close(5.0)
    writer.reopen()

    assert path.read_bytes() == b"line\n"


def test_no_thread_runs_before_there_is_something_to_write(tmp_path: Path) -> None:
    """Start-up needs none, and a fork would lose it."""
    before = threading.active_count()
    writer = ThreadedWriter(str(tmp_path / "log"))

    assert threading.active_count() == before
    writer.close(1.0)


def test_reopening_before_the_first_line_makes_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = ThreadedWriter(str(path))
    path.unlink()

    writer.reopen()
    writer.close(5.0)

    assert path.exists()


def test_when_reopening_fails_the_old_file_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "log"
    writer = ThreadedWriter(str(path))
    writer.put(b"one\n", 1)
    while writer.waiting_bytes:
        os.sched_yield()
    moved = tmp_path / "moved"
    folder.rename(moved)

    writer.reopen()
    writer.put(b"two\n", 1)
    writer.close(5.0)

    assert (moved / "log").read_bytes() == b"one\ntwo\n"
    assert writer.dropped == 0


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O_NONBLOCK belongs to the open file, which a terminal or pipe shares with others."""
    pipe = Pipe(tmp_path)
    os.set_blocking(pipe.writer._fd, False)
    full = threading.Event()
    write = os.write

    def noticing(fd: int, piece: memoryview) -> int:
        try:
            return write(fd, piece)
        except BlockingIOError:
            full.set()
            raise

    monkeypatch.setattr(os, "write", noticing)
    pipe.writer.put(b"x" * 300_000, 1)
    assert full.wait(10.0)

    received = pipe.drain(300_000)

    pipe.writer.close(5.0)
    assert len(received) == 300_000
    assert pipe.writer.dropped == 0
    os.close(pipe.read)


def test_standard_output_is_never_closed(capfd: pytest.CaptureFixture[str]) -> None:
    writer = ThreadedWriter("-")
    writer.put(b"line\n", 1)

    writer.close(5.0)

    os.fstat(1)
    assert capfd.readouterr().out == "line\n"


def test_an_error_without_a_number_has_its_class_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ThreadedWriter(str(tmp_path / "log"))

    def fail(*_: object) -> int:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        writer.put(b"line\n", 1)
        writer.close(5.0)

    assert writer.error == "OSError"
    assert writer.dropped == 1


def test_without_a_thread_lines_wait_and_the_next_piece_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ceiling on processes (pids cgroup) must not fail an exchange."""
    path = tmp_path / "log"
    writer = ThreadedWriter(str(path))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        writer.put(b"one\n", 1)
    assert writer.error == "can't start new thread"

    writer.put(b"two\n", 1)

    writer.close(5.0)
    assert path.read_bytes() == b"one\ntwo\n"
    assert (writer.error, writer.dropped) == ("", 0)


def test_lines_that_never_got_a_thread_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ThreadedWriter(str(tmp_path / "log"))
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    writer.put(b"one\n", 1)

    writer.close(5.0)

    assert writer.dropped == 1


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# --- what may be written to ---


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    """Opening it would wait for one, and a start would hang."""
    os.mkfifo(tmp_path / "log")

    with pytest.raises(OSError, match="nobody reads it"):
        ThreadedWriter(str(tmp_path / "log"))


def test_a_pipe_with_a_reader_is_written_to_by_blocking_writes(tmp_path: Path) -> None:
    """Only the writer's thread waits; polling a full pipe a hundred times a second would cost."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    writer = ThreadedWriter(str(path))
    writer.put(b"line\n", 1)
    blocking = os.get_blocking(writer._fd)
    writer.close(5.0)
    line = os.read(reader, 100)
    os.close(reader)

    assert blocking
    assert line == b"line\n"


def test_a_socket_is_told_from_a_pipe_without_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under systemd /dev/stdout is one, and open(2) says ENXIO to both."""
    monkeypatch.chdir(tmp_path)  # the name of a Unix socket must be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("log")

        with pytest.raises(OSError, match='is a socket; "-" is standard output'):
            ThreadedWriter("log")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (stat.S_IFREG, ""),
        (stat.S_IFCHR, ""),
        (stat.S_IFIFO, ""),
        (stat.S_IFDIR, "is a folder"),
        (stat.S_IFSOCK, 'is a socket; "-" is standard output'),
        (stat.S_IFBLK, "is no file"),
    ],
)
def test_lines_go_to_files_devices_and_pipes(mode: int, words: str) -> None:
    """The full table; a block device (a disk) would be overwritten."""
    assert unwritable_kind(mode | 0o644) == words


def test_what_opens_but_takes_no_lines_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk: root may open it."""
    disk = os.stat_result((stat.S_IFBLK, *[0] * 9))
    opened = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", lambda _: disk)

        with pytest.raises(OSError, match="is no file"):
            ThreadedWriter(str(tmp_path / "log"))

    assert len(os.listdir("/proc/self/fd")) == len(opened)
