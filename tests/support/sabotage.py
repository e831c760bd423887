"""Bugs on demand in the real program: a function of ours raises once, when the test says so.

    with sabotage(tmp_path) as fuse:          # before the process is started
        ...
        fuse.lay("ambassador.proxy.exchange:Exchange.body_received")
        eventually(lambda: fuse.has_blown)

A child that inherits the environment imports `sitecustomize` from a folder of ours, which wraps every function of
`PLACES`; `constants` are set there too, for what no key of the file makes small. The file of the fuse names the
function that raises next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MARK = "sabotage of "

_SITECUSTOMIZE = """
import importlib, json, os, sys


def plant(place, fuse):
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    original = getattr(owner, name)
    # Below a decorator of ours, which is there to catch what is raised.
    inner = getattr(original, "__wrapped__", None)
    cell = next((each for each in original.__closure__ or () if inner and each.cell_contents is inner), None)
    original = inner or original

    def planted(*args, **kwargs):
        if os.path.exists(fuse):
            with open(fuse) as file:
                if file.read() == place:
                    os.unlink(fuse)
                    raise RuntimeError({mark!r} + place)
        return original(*args, **kwargs)

    if cell is not None:
        cell.cell_contents = planted
    else:
        setattr(owner, name, planted)


if "ambassador" in sys.orig_argv:
    with open(os.path.join(os.path.dirname(__file__), "plan.json")) as file:
        plan = json.load(file)
    if plan["places"]:
        importlib.import_module("ambassador.app")  # in the order that has no circles
    for place in plan["places"]:
        plant(place, plan["fuse"])
    for place, value in plan["constants"].items():
        module, _, name = place.partition(":")
        module = importlib.import_module(module)
        assert hasattr(module, name), place
        setattr(module, name, value)
"""


class Fuse:
    """What makes one function fail once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lay(self, place: str) -> None:
        """Let the next call of `place` raise."""
        new = self._path.with_suffix(".new")
        new.write_text(place, encoding="ascii")
        new.rename(self._path)

    @property
    def has_blown(self) -> bool:
        """Whether the function was called, and raised."""
        return not self._path.exists()

    def remove(self) -> None:
        """Let nothing fail any more."""
        self._path.unlink(missing_ok=True)


@contextmanager
def sabotage(
    folder: Path,
    places: Sequence[str] = (),
    *,
    constants: Mapping[str, float | str | list[str]] | None = None,
    optimize: bool = False,
) -> Iterator[Fuse]:
    """Prepare the environment of the processes that are started inside."""
    folder.mkdir(parents=True, exist_ok=True)
    fuse = folder / "fuse"
    plan = {"places": list(places), "constants": dict(constants or {}), "fuse": str(fuse)}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="ascii")
    source = _SITECUSTOMIZE.replace("{mark!r}", repr(MARK))
    (folder / "sitecustomize.py").write_text(source, encoding="ascii")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    wanted = {"PYTHONPATH": path} | ({"PYTHONOPTIMIZE": "1"} if optimize else {})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield Fuse(fuse)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
