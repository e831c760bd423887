"""The bytes of a configuration file; nobody is waited for who may not be there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ambassador.config.document import MAX_BYTES
from ambassador.config.reading import read
from ambassador.core.errors import ConfigErrors


@contextmanager
def _pipe(folder: Path) -> Iterator[tuple[Path, int]]:
    """Give a FIFO and the descriptor of one who writes to it, and closes it."""
    path = folder / "pipe"
    os.mkfifo(path)
    holder = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without a reader nobody could write
    yield path, os.open(path, os.O_WRONLY)
    os.close(holder)


def test_a_file_counts_its_paths_from_its_folder(tmp_path: Path) -> None:
    """config.md §1: relative to the file that names it."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"version: 1\n")

    assert read(path) == (b"version: 1\n", tmp_path)


def test_a_file_behind_a_descriptor_counts_from_the_working_directory(tmp_path: Path) -> None:
    """`-c /dev/stdin <ambassador.yaml`."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"version: 1\n")
    with path.open("rb") as file:
        found = read(Path(f"/dev/fd/{file.fileno()}"))

    assert found == (b"version: 1\n", Path())


def test_a_pipe_is_read_to_its_end_and_counts_from_the_working_directory(tmp_path: Path) -> None:
    with _pipe(tmp_path) as (path, writer):

        def write() -> None:
            for piece in (b"version", b": ", b"1\n"):
                os.write(writer, piece)
            os.close(writer)

        thread = threading.Thread(target=write)
        thread.start()
        found = read(path)
        thread.join()

    assert found == (b"version: 1\n", Path())


def test_of_a_pipe_no_more_is_kept_than_a_file_may_have(tmp_path: Path) -> None:
    """config.md §1: files over 1 MiB are refused; this one never ends."""
    with _pipe(tmp_path) as (path, writer):
        stopped = threading.Event()

        def write() -> None:
            while not stopped.is_set():
                with suppress(BlockingIOError):
                    os.write(writer, b"#" * 65536)
            os.close(writer)

        os.set_blocking(writer, False)
        thread = threading.Thread(target=write)
        thread.start()
        found = read(path)
        stopped.set()
        thread.join()

    assert found.content == b"#" * (MAX_BYTES + 1)


def test_a_writer_that_never_ends_is_left_in_the_end(tmp_path: Path) -> None:
    with _pipe(tmp_path) as (path, writer):
        os.write(writer, b"version: 1\n")

        with pytest.raises(ConfigErrors, match="its writer did not end within 0 s"):
            read(path, patience_s=0.01)
        os.close(writer)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/dev/null", "got a device"), ("/dev", "got a folder"), ("/nonexistent", "No such file")],
)
def test_what_is_neither_file_nor_pipe_is_refused(path: str, words: str) -> None:
    with pytest.raises(ConfigErrors, match=rf"^cannot read {path}: .*{words}"):
        read(Path(path))


def test_a_pipe_without_writer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigErrors, match="nobody writes to this pipe"):
        read(tmp_path / "pipe")
