"""Programs that are not ours: found, or the test is skipped with the reason; in CI a missing one is a failure."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def require_program(name: str) -> str:
    """Give the path of `name`, from this environment's scripts, PATH or the sbin folders."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    )
    found = shutil.which(name, path=path)
    if found:
        return found
    reason = f"{name} is not installed; `make peers` as root installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
