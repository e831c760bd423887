"""`discovery: {kind: NAME}` of another distribution, installed as a folder on the path of Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.discovering import discovering
from tests.support.ports import reserve_port
from tests.support.process import running_ambassador
from tests.support.traffic import app, ready, traffic, who_answers
from tests.support.waiting import eventually

_MODULE = '''
import asyncio
from dataclasses import dataclass
from pathlib import Path

from ambassador.core.model import Address, Endpoint


class Folder:
    """An endpoint for every file, named like its address; a file `bug` is one."""

    longest_pause_s = 0.1

    @dataclass(frozen=True)
    class Settings:
        folder: str
        port: int
        pause: float = 0.05

    def __init__(self, settings, *, zone, chance):
        self._settings = settings
        self._zone = zone

    async def watch(self):
        while True:
            names = sorted(path.name for path in Path(self._settings.folder).iterdir())
            if "bug" in names:
                raise ZeroDivisionError("a bug of theirs")
            yield tuple(Endpoint(Address(name, self._settings.port), zone=self._zone) for name in names)
            await asyncio.sleep(self._settings.pause)
'''
ALLOWED = ["127.0.0.0/8"]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay what an installer would lay."""
    site = tmp_path / "site"
    info = site / "folders-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "folders.py").write_text(_MODULE, encoding="ascii")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folders\nVersion: 1.0\n", "ascii")
    (info / "entry_points.txt").write_text(
        "[ambassador.discovery]\nfolder = folders:Folder\n", encoding="ascii"
    )
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    folder.mkdir()
    return folder


def test_a_kind_of_another_distribution_finds_endpoints(tmp_path: Path, folder: Path) -> None:
    port = reserve_port()
    (folder / "127.0.0.1").touch()
    settings = discovering(kind="folder", folder=str(folder), port=port, allowed_networks=ALLOWED)
    with app(b"1", "127.0.0.1", port), app(b"2", "127.0.0.2", port):
        with ready(tmp_path, settings) as sidecar, traffic(sidecar) as answers:
            eventually(lambda: b"1" in answers, "the first")
            (folder / "127.0.0.2").touch()
            eventually(lambda: b"2" in answers, "the second")
            (folder / "127.0.0.1").unlink()
            eventually(lambda: answers.endswith(b"2" * 50), "only the second")
        assert set(answers) == set(b"12")


def test_its_bug_takes_no_endpoint_away_and_is_named(tmp_path: Path, folder: Path) -> None:
    port = reserve_port()
    (folder / "127.0.0.1").touch()
    settings = discovering(kind="folder", folder=str(folder), port=port, allowed_networks=ALLOWED)
    with (
        app(b"1", "127.0.0.1", port),
        app(b"2", "127.0.0.2", port),
        ready(tmp_path, settings) as sidecar,
    ):
        (folder / "bug").touch()
        event = sidecar.wait_for_event("endpoints_kept", service="a", reason="plugin_failed")
        during = who_answers(sidecar)
        (folder / "127.0.0.1").rename(folder / "127.0.0.2")
        (folder / "bug").unlink()
        eventually(lambda: who_answers(sidecar) == b"2", "the second")

    assert event["detail"] == "folder: ZeroDivisionError: a bug of theirs"
    assert during == b"1"


def test_its_endpoints_are_bound_by_the_allowed_networks(tmp_path: Path, folder: Path) -> None:
    """Threats H2: loopback is nobody's to give but the file's."""
    (folder / "127.0.0.1").touch()
    settings = discovering(kind="folder", folder=str(folder), port=80)
    with running_ambassador(settings, tmp_path) as sidecar:
        event = sidecar.wait_for_event("endpoints_ignored", service="a")

    assert event["addresses"] == ["127.0.0.1:80"]
