"""Write key and certificate files so that nobody can read, redirect or half-see them.

Knows descriptors and links (threats K4): a folder is opened once and never through a link, a file is made under a
random name with its final mode and owner, and appears whole by rename; without leave to replace, by a hard link,
which fails where a file is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambassador.core.errors import CredentialError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


@dataclass(frozen=True, slots=True)
class Owner:
    """Who shall own what is written; -1 leaves it as it is."""

    uid: int = -1
    gid: int = -1


SAME_OWNER: Final = Owner()


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to come: name within the folder, content, mode."""

    name: str
    content: bytes
    mode: int

    def __repr__(self) -> str:
        return f"NewFile({self.name!r}, {len(self.content)} bytes, {self.mode:04o})"


def write_files(
    folder: Path,
    files: tuple[NewFile, ...],
    *,
    replace: bool,
    owner: Owner = SAME_OWNER,
    mode: int = 0o755,
) -> None:
    """Write a set of files into one folder, which is made with `mode` if absent.

    Errors: CredentialError `file_exists` (nothing is written then), `cannot_write`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(folder, error) from None
    try:
        if not replace:
            _refuse_existing(folder, descriptor, files)
        for file in files:
            _write(descriptor, file, owner, replace=replace)
        if owner != SAME_OWNER:
            os.fchown(descriptor, owner.uid, owner.gid)
        os.fsync(descriptor)
    except FileExistsError as error:
        raise _exists(folder / str(error.filename2 or error.filename)) from None
    except OSError as error:
        raise _cannot(folder, error) from None
    finally:
        os.close(descriptor)


def _refuse_existing(folder: Path, descriptor: int, files: tuple[NewFile, ...]) -> None:
    """Look before writing anything; the hard link still decides, should one appear meanwhile."""
    for file in files:
        try:
            os.stat(file.name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        raise _exists(folder / file.name)


def _write(folder: int, file: NewFile, owner: Owner, *, replace: bool) -> None:
    temporary = f".{file.name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, PRIVATE, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.content)
            stream.flush()
            if owner != SAME_OWNER:
                os.fchown(descriptor, owner.uid, owner.gid)
            os.fchmod(descriptor, file.mode)  # whatever the umask is
            os.fsync(descriptor)
        if replace:
            os.rename(temporary, file.name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        os.link(temporary, file.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.unlink(temporary, dir_fd=folder)
    except BaseException:
        _remove(folder, temporary)
        raise


def _remove(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _exists(path: Path) -> CredentialError:
    return CredentialError("file_exists", f"{path}: is already there; --force replaces it")


def _cannot(folder: Path, error: OSError) -> CredentialError:
    reason = os.strerror(error.errno or 0).lower()
    return CredentialError(
        "cannot_write", f"{folder}: cannot be written by uid {os.geteuid()}: {reason}"
    )
