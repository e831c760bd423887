"""The files around the package: what the image, the lock and the commands promise without being run here."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from ambassador.config.load import load

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("requirements.lock", "requirements-build.lock")


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    return [(word.upper(), rest) for word, rest in pairs]


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """Name -> version and number of hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z0-9_.-]+)==(\S+)(.*)", line):
            found[_normal(match[1])] = (Version(match[2]), match[3].count("--hash=sha256:"))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_the_image_copies_is_there_and_not_ignored() -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    ]

    assert {"ambassador", "requirements.lock", "pyproject.toml"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    assert all(any(fnmatch.fnmatch(source, each) for each in allowed) for source in sources)


def test_the_image_runs_as_nobody_in_particular() -> None:
    last_stage = instructions()
    last_stage = last_stage[max(i for i, (word, _) in enumerate(last_stage) if word == "FROM") :]

    assert ("USER", "65532:65532") in last_stage
    assert ("ENTRYPOINT", '["ambassador"]') in last_stage
    assert ("CMD", '["run"]') in last_stage
    assert "root" not in {rest for word, rest in last_stage if word == "USER"}


def test_the_image_is_built_from_a_pinned_python_that_we_support() -> None:
    (argument,) = [rest for word, rest in instructions() if word == "ARG"]

    match = re.fullmatch(r"PYTHON=python:(\d+\.\d+)\.\d+-slim-\w+", argument)
    assert match, argument
    assert f"Programming Language :: Python :: {match[1]}" in PROJECT["classifiers"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_hash_for_everything_and_names_no_place(name: str) -> None:
    lock = locked(name)

    assert lock
    assert all(hashes > 0 for _, hashes in lock.values())
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("dependency", PROJECT["dependencies"])
def test_the_lock_satisfies_every_dependency(dependency: str) -> None:
    requirement = Requirement(dependency)

    version, _ = locked("requirements.lock")[_normal(requirement.name)]

    assert requirement.specifier.contains(version)
    assert requirement.specifier, "a dependency has a floor"


def test_the_tools_that_can_fail_the_build_are_pinned() -> None:
    requirements = [Requirement(each) for each in PROJECT["optional-dependencies"]["test"]]
    tools = {
        each.name: str(each.specifier)
        for each in requirements
        if each.name.startswith(("mypy", "ruff", "pytest", "types-", "envoy"))
    }

    assert len(tools) >= 8
    assert all(specifier.startswith("==") for specifier in tools.values()), tools


def test_no_private_key_lies_in_the_tree() -> None:
    marker = "PRIVATE KEY" + "-----"
    folders = [ROOT / name for name in ("ambassador", "config", "certs", "tests", "benchmarks")]

    found = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in {".pyc", ".py"}
        and marker in path.read_text(errors="replace")
    ]

    assert not found


def test_the_readme_s_example_is_the_smallest_of_the_examples() -> None:
    """Those are loaded by `tests/unit/config/test_load.py`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    comment, _, smallest = (ROOT / "config/smallest.yaml").read_text().partition("\n")

    assert comment.startswith("#")
    assert example == smallest


def test_the_readme_s_service_belongs_into_such_a_file(tmp_path: Path) -> None:
    """What stands there is loaded, beside the smallest file."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    smallest, services, *more = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    file = tmp_path / "ambassador.yaml"
    file.write_text(smallest.partition("services:")[0] + services, encoding="utf-8")

    config = load(file, {})

    assert not more
    assert config.services["payments"].discovery is not None
    assert config.outbound[0].service_settings["payments"].retry is not None


def test_every_command_that_the_readme_names_is_there() -> None:
    """Targets of make and commands of ambassador."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = {path.stem for path in (ROOT / "ambassador" / "cli").glob("*.py")}

    assert targets
    assert set(re.findall(r"make ([a-z-]+)", readme)) <= set(targets[1].split())
    assert set(re.findall(r"`ambassador ([a-z]+)", readme)) <= commands
