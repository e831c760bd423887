"""Keys are written so that nobody can read, redirect or half-see them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ambassador.core.errors import CredentialError
from ambassador.identity.writing import PRIVATE, NewFile, write_files

KEY = (NewFile("tls.key", b"new", PRIVATE),)


def test_a_file_appears_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    """Threats K4: 0600."""
    old = os.umask(0)
    try:
        write_files(tmp_path / "made", KEY, replace=False)
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "made/tls.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "made") == ["tls.key"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_what_is_there_is_not_touched_without_leave(tmp_path: Path, kind: str) -> None:
    """Config §4: refuses to overwrite."""
    target = tmp_path / "target"
    make = {
        "file": lambda: (tmp_path / "tls.key").write_bytes(b"old"),
        "link": lambda: (target.write_bytes(b"old"), (tmp_path / "tls.key").symlink_to(target)),
        "dangling": lambda: (tmp_path / "tls.key").symlink_to(target),
    }
    make[kind]()

    with pytest.raises(CredentialError, match="--force") as caught:
        write_files(tmp_path, KEY, replace=False)

    assert caught.value.reason == "file_exists"
    assert b"new" not in {path.read_bytes() for path in tmp_path.iterdir() if path.exists()}


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    """Threats K4: link races on output files."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "tls.key").symlink_to(target)

    write_files(tmp_path, KEY, replace=True)

    assert target.read_bytes() == b"precious"
    assert not (tmp_path / "tls.key").is_symlink()
    assert (tmp_path / "tls.key").read_bytes() == b"new"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """O_NOFOLLOW."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(CredentialError) as caught:
        write_files(tmp_path / "link", KEY, replace=True)

    assert caught.value.reason == "cannot_write"


def test_nothing_of_a_set_is_written_when_one_is_in_the_way(tmp_path: Path) -> None:
    """A key without its certificate would be worse than none."""
    (tmp_path / "b").write_bytes(b"old")

    with pytest.raises(CredentialError):
        write_files(
            tmp_path, (NewFile("a", b"1", PRIVATE), NewFile("b", b"2", PRIVATE)), replace=False
        )

    assert os.listdir(tmp_path) == ["b"]


def test_content_is_in_no_text() -> None:
    """Threats I3."""
    assert "secret" not in repr(NewFile("a", b"secret", PRIVATE))
