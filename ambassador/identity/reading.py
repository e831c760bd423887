"""Read credential files so that one generation is never mixed from two.

Knows directories, links and modes; must not know what is in the files. Kubernetes swaps a whole folder by its
link `..data`: each folder is opened once, `..data` is followed once, and every file is read below that one
descriptor (threats K1). Checks are made on the opened file, so a swap after them does not matter (K4).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ambassador.core.errors import CredentialError

_MAX_BYTES: Final = 1024 * 1024
_DATA_LINK: Final = "..data"


class OpenedFile:
    """The bytes of one file and what its descriptor said."""

    __slots__ = ("content", "mode", "name", "owner")

    def __init__(self, name: str, content: bytes, mode: int, owner: int) -> None:
        self.name = name
        self.content = content
        self.mode = mode
        self.owner = owner

    def __repr__(self) -> str:
        return f"OpenedFile({self.name!r}, {len(self.content)} bytes, {self.mode:04o})"


class FileReader:
    """Opens each folder once and reads files below it; a context manager that closes the folders."""

    __slots__ = ("_folders",)

    def __init__(self) -> None:
        self._folders: dict[
            Path, tuple[int, int]
        ] = {}  # path -> its descriptor and that of `..data`, or -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptors in self._folders.values():
            for descriptor in descriptors:
                if descriptor >= 0:
                    os.close(descriptor)

    def read(self, path: Path, *, max_bytes: int = _MAX_BYTES) -> OpenedFile:
        """Read one regular file whole.

        Units: `max_bytes` in bytes.
        Errors: CredentialError `file_missing`, `file_unreadable`, `file_strange`.
        """
        try:
            folder, data = self._open_folder(path.parent)
            descriptor = _open_below(path.name, data, folder)
        except OSError as error:
            raise _explain(path, error) from None
        try:
            return _read_whole(descriptor, path, max_bytes)
        finally:
            os.close(descriptor)

    def _open_folder(self, path: Path) -> tuple[int, int]:
        descriptors = self._folders.get(path)
        if descriptors is None:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            descriptors = self._folders[path] = (folder, _open_data(folder))
        return descriptors


def _open_data(folder: int) -> int:
    try:
        return os.open(_DATA_LINK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return -1


def _open_below(name: str, data: int, folder: int) -> int:
    """Open a file in `..data` if it is there, else in the folder; O_NONBLOCK, for it could be a FIFO."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if data >= 0:
        try:
            return os.open(name, flags, dir_fd=data)
        except FileNotFoundError:
            pass
    return os.open(name, flags, dir_fd=folder)


def _read_whole(descriptor: int, path: Path, max_bytes: int) -> OpenedFile:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise CredentialError("file_strange", f"{path}: is no regular file")
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise CredentialError("file_strange", f"{path}: is larger than {max_bytes // 1024} KiB")
    return OpenedFile(str(path), content, stat.S_IMODE(status.st_mode), status.st_uid)


def _explain(path: Path, error: OSError) -> CredentialError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return CredentialError(
            "file_missing",
            f"{path}: there is no such file; ambassador certs dev makes a set to try",
        )
    if isinstance(error, PermissionError):
        return CredentialError(
            "file_unreadable", f"{path}: uid {os.geteuid()} may not read it{_modes(path)}"
        )
    return CredentialError(
        "file_unreadable", f"{path}: cannot be read, {os.strerror(error.errno or 0)}"
    )


def _modes(path: Path) -> str:
    """Name mode, owner and cure as far as they can be seen."""
    try:
        status = path.stat()
    except OSError:
        return "; its folder is closed to this user"
    mode, owner = stat.S_IMODE(status.st_mode), f"{status.st_uid}:{status.st_gid}"
    return (
        f" (mode {mode:04o}, owner {owner}); chown {os.geteuid()} {path},"
        " or give it mode 0440 and a group of this user"
    )
