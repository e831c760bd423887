"""Security floors: the oldest versions of the TLS libraries that we start with.

Knows versions and why; must not know how they are found out (`tls.versions`).
"""

from __future__ import annotations

import re
from typing import Final

from ambassador.core.errors import CredentialError

_Version = tuple[int, int, int]

#: Library -> per release line the first safe version; lines that are not named are refused when older than the
#: oldest line, and taken when newer than the newest.
FLOORS: Final[dict[str, tuple[_Version, ...]]] = {
    # CVE-2026-27448: an exception in a callback let the handshake go on.
    "pyOpenSSL": ((26, 0, 0),),
    # CVE-2026-39892: overflow through non-contiguous buffers.
    "cryptography": ((46, 0, 7),),
    # X25519MLKEM768 came with 3.5; CVE-2026-28388 (delta CRL) ends in 3.5.6 and 3.6.2, 4.0 never had it.
    "OpenSSL": ((3, 5, 6), (3, 6, 2), (4, 0, 0)),
}


def check(installed: dict[str, str]) -> None:
    """Refuse to start on a library below its floor.

    Errors: CredentialError `library_too_old` with one sentence.
    """
    for library, lines in FLOORS.items():
        text = installed.get(library, "")
        if not _is_safe(_parse(text), lines):
            floor = ".".join(str(part) for part in lines[0])
            raise CredentialError(
                "library_too_old",
                f"{library} {text or 'of unknown version'} has known security faults;"
                f" install at least {floor} (pip install --upgrade ambassador)",
            )


def _is_safe(version: _Version, lines: tuple[_Version, ...]) -> bool:
    if version < lines[0]:
        return False
    same_line = [line for line in lines if line[:2] == version[:2]]
    return version >= same_line[0] if len(lines) > 1 and same_line else True


def _parse(text: str) -> _Version:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text, re.ASCII)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)
