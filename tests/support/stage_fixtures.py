"""Fixtures of tests over `tests.support.stage`: `from tests.support.stage_fixtures import stage, side`.

One process per module and loop; the loop is uvloop unless the module says `LOOPS`, its configuration is the
module's `CONFIG`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.stage import DIRECTIONS, Side, Stage, staged


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A running sidecar with both directions."""
    loop = getattr(request.module, "LOOP", "uvloop")
    config = getattr(request.module, "CONFIG", {})
    with staged(authority, tmp_path_factory.mktemp("stage"), loop, **config) as running:
        yield running


@pytest.fixture(params=DIRECTIONS)
def side(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Side]:
    """Both directions of it, one after the other; afterwards nothing is left open."""
    running = stage.sides[request.param]
    yield running
    running.finish()


@pytest.fixture
def outbound(stage: Stage) -> Iterator[Side]:
    """The direction from the app to a peer."""
    running = stage.sides["outbound"]
    yield running
    running.finish()


@pytest.fixture
def inbound(stage: Stage) -> Iterator[Side]:
    """The direction from a peer to the app."""
    running = stage.sides["inbound"]
    yield running
    running.finish()
