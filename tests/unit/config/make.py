"""Small files to begin from, and a short way to load them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ambassador.config.load import load
from ambassador.config.model import Config
from ambassador.core.errors import ConfigErrors

VERSION = "version: 1\n"
IDENTITY = "identity: {directory: certs}\n"
INBOUND = """\
inbound:
  listen: 0.0.0.0:8443
  app: 8080
  allow: [{spiffe: "spiffe://example.org/web"}]
"""
OUTBOUND = """\
outbound:
  listen: 127.0.0.1:9000
"""
SERVICES = """\
services:
  payments:
    endpoints: ["10.0.0.7:8443"]
    peer: {spiffe: "spiffe://example.org/payments"}
"""

#: Beginnings, so that a case is only the lines that matter. Each ends where more keys of its section may follow.
BASES = {
    "": "",
    "top": VERSION + IDENTITY + INBOUND,  # 6 lines: the case begins at line 7
    "inbound": VERSION + IDENTITY + INBOUND,  # the same, indented by two: keys of the listener
    "tcp": VERSION + IDENTITY + "inbound:\n  protocol: tcp\n  listen: 0.0.0.0:8443\n",
    "bare": VERSION + IDENTITY + "inbound:\n  listen: 0.0.0.0:8443\n",
    "outbound": VERSION + IDENTITY + SERVICES + OUTBOUND,  # 8 lines
    "service": VERSION + IDENTITY + OUTBOUND + SERVICES,  # 8 lines, indented by four
    "services": VERSION + IDENTITY + OUTBOUND + "services:\n",
    "identity": VERSION + INBOUND + "identity:\n",
    "version": VERSION,
}


def loaded(text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
    """Give the configuration of a file `a.yaml` with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path, environ or {})


def problems(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """Give the lines of every error, as users see them, without the folder."""
    try:
        loaded(text, environ)
    except ConfigErrors as errors:
        return [_line(str(error)) for error in errors.errors]
    return []


def warnings(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Give the warnings of a valid file, without the folder."""
    return [_line(warning) for warning in loaded(text, environ).warnings]


def _line(text: str) -> str:
    head, found, tail = text.partition("a.yaml:")
    return tail if found and "/" in head else text
