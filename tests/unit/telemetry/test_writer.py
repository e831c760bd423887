"""Nobody waits for a disk or a pipe."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ambassador.telemetry.writer import ThreadedWriter


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
