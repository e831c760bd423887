"""Keys that are built in part, accepted by the processes of a test: `schema.UNFINISHED` is empty there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import reserve_port
from tests.support.sabotage import sabotage


@pytest.fixture(autouse=True)
def unfinished(tmp_path: Path) -> Iterator[None]:
    """Import it into a module: all of its tests are behind the gate."""
    with sabotage(tmp_path / "gate", constants={"ambassador.config.schema:UNFINISHED": []}):
        yield


def discovering(**discovery: Any) -> dict[str, Any]:
    """Give a configuration whose service `a` is found by discovery, in the clear on loopback."""
    return {
        "version": 1,
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"a": {"discovery": discovery, "plaintext": "loopback"}},
    }
