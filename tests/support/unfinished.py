"""Keys that are built in part, accepted by the processes of a test: `schema.UNFINISHED` is empty there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sabotage import sabotage


@pytest.fixture(autouse=True)
def unfinished(tmp_path: Path) -> Iterator[None]:
    """Import it into a module: all of its tests are behind the gate."""
    with sabotage(tmp_path / "gate", constants={"ambassador.config.schema:UNFINISHED": []}):
        yield
