"""`${VAR}`, `${VAR:-default}` and `${file:PATH}` in one parsed scalar, replaced once.

Knows the spelling and where the values lie; must not know YAML: what is replaced is text that stays text, so a
value with line ends or colons in it can never become a key (threats I4). The result says that something was
replaced, because nobody may print it afterwards (threats I3).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

MASK = "***"

_MAX_SECRET = 64 * 1024
_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Substituted(str):
    """Text of which a part was replaced: use it, never show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


def substitute(text: str, *, environ: Mapping[str, str], folder: Path) -> str:
    """Give `text` with every `${…}` replaced, as `Substituted` when there was one; `$${` gives `${`.

    Errors: ValueError with a sentence that never quotes a value.
    """
    replaced = False

    def one(match: re.Match[str]) -> str:
        nonlocal replaced
        if match[0] == "$${":
            return "${"
        replaced = True
        if not match[2]:
            raise ValueError('"${" is never closed; for a literal one write "$${"')
        return _value(match[1], environ=environ, folder=folder)

    result = _TOKEN.sub(one, text)
    return Substituted(result) if replaced else result


def _value(name: str, *, environ: Mapping[str, str], folder: Path) -> str:
    if name.startswith("file:"):
        return _read(folder / name.removeprefix("file:"))
    match = _VARIABLE.fullmatch(name)
    if match is None:
        raise ValueError(
            f'expected ${{VAR}}, ${{VAR:-default}} or ${{file:PATH}}, got "${{{name}}}"'
        )
    value = environ.get(match[1], "")
    # As in a shell, `:-` also stands in for a variable that is set to nothing.
    if not value and match[2] is not None:
        return match[2]
    if match[1] not in environ:
        raise ValueError(f"${{{match[1]}}} is not set; set it, or write ${{{match[1]}:-default}}")
    # The system hands bytes that are no UTF-8 over as lone surrogates, which no log could write.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"${{{match[1]}}} is not UTF-8")
    return value


def _read(path: Path) -> str:
    try:
        # Not blocking: a FIFO in place of the secret must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} is not a regular file")
            content = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_SECRET:
        raise ValueError(f"{path} is larger than 64KiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
