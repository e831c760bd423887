"""One generation is never mixed from two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ambassador.core.errors import CredentialError
from ambassador.identity.reading import FileReader


def _kubernetes(folder: Path) -> None:
    for generation in ("one", "two"):
        (folder / generation).mkdir(parents=True)
        for name in ("tls.crt", "tls.key"):
            (folder / generation / name).write_text(generation)
    (folder / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(f"..data/{name}")


def _swap(folder: Path) -> None:
    (folder / "..new").symlink_to("two")
    (folder / "..new").rename(folder / "..data")


def test_a_swap_between_two_reads_is_not_seen(tmp_path: Path) -> None:
    """Threats K1: Kubernetes swaps `..data` whole."""
    _kubernetes(tmp_path)

    with FileReader() as reader:
        first = reader.read(tmp_path / "tls.crt").content
        _swap(tmp_path)
        second = reader.read(tmp_path / "tls.key").content
    with FileReader() as reader:
        third = reader.read(tmp_path / "tls.key").content

    assert (first, second, third) == (b"one", b"one", b"two")


def test_a_folder_that_is_a_link_is_followed_once(tmp_path: Path) -> None:
    """A git checkout or release folder is swapped by a link above the files."""
    _kubernetes(tmp_path)
    (tmp_path / "current").symlink_to("one")

    with FileReader() as reader:
        first = reader.read(tmp_path / "current" / "tls.crt").content
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "current")
        second = reader.read(tmp_path / "current" / "tls.key").content

    assert (first, second) == (b"one", b"one")


def test_a_file_beside_the_swapped_folder_is_read_too(tmp_path: Path) -> None:
    """Not everything in the folder must come from `..data`."""
    _kubernetes(tmp_path)
    (tmp_path / "ca.crt").write_text("own")

    with FileReader() as reader:
        assert reader.read(tmp_path / "ca.crt").content == b"own"


@pytest.mark.parametrize("kind", ["fifo", "folder", "large"])
def test_only_regular_files_of_sane_size_are_read(tmp_path: Path, kind: str) -> None:
    """Threats R7: a FIFO in the way must not hang the start."""
    path = tmp_path / "x"
    make = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "large": lambda: path.write_bytes(b"x" * 2000),
    }
    make[kind]()

    with FileReader() as reader, pytest.raises(CredentialError) as caught:
        reader.read(path, max_bytes=1024)

    assert caught.value.reason == "file_strange"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Every scenario ends on invariants."""
    _kubernetes(tmp_path)
    before = len(os.listdir("/proc/self/fd"))

    with FileReader() as reader:
        reader.read(tmp_path / "tls.crt")

    assert len(os.listdir("/proc/self/fd")) == before
