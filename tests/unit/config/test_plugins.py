"""Kinds of discovery of other distributions: how their keys are judged, and what a broken one costs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ambassador.config import model
from ambassador.config.json_schema import json_schema
from ambassador.config.load import effective
from tests.unit.config.make import BASES, loaded, problems

NOMAD = """
    from dataclasses import dataclass, field

    @dataclass(frozen=True)
    class Settings:
        job: str
        port: int = 1
        share: float = 0.5
        tls: bool = False
        tags: tuple[str, ...] = ("a",)
        region: str | None = None
        token: str = field(default="", repr=False)
        computed: str = field(default="", init=False)

        def __post_init__(self) -> None:
            if self.job == "bad" or self.token == "bad":
                raise ValueError(f"no job {self.job} {self.token}")

    def factory(settings, *, zone, chance):
        return settings, zone, chance

    factory.Settings = Settings
"""
KINDS = "static, file, dns, dns_srv, kubernetes, consul or etcd"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give what installs a distribution that brings a kind, as pip would lay it."""
    modules: list[str] = []
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(source: str = NOMAD, *, kind: str = "nomad", name: str = "nomad-discovery") -> None:
        module = name.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        metadata = tmp_path / f"{module}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8"
        )
        (metadata / "entry_points.txt").write_text(
            f"[ambassador.discovery]\n{kind} = {module}:factory\n", encoding="utf-8"
        )

    yield add
    for module in modules:
        sys.modules.pop(module, None)


def _file(discovery: str) -> str:
    return BASES["services"] + f"  a: {{discovery: {discovery}, peer: {{dns: a}}}}\n"


def _found(discovery: str, environ: dict[str, str] | None = None) -> model.DiscoveryConfig:
    found = loaded(_file(discovery), environ).services["a"].discovery
    assert found is not None
    return found


def test_a_kind_brings_its_settings_and_its_factory(install: Install) -> None:
    """house §6."""
    install()

    found = _found(
        "{kind: nomad, job: pay, port: 2, share: 1, tls: true, tags: [b, c], region: eu, token: t,"
        " on_empty: drop, allowed_networks: [10.0.0.0/8], max_endpoints: 5}"
    )

    assert isinstance(found.settings, model.PluginDiscovery)
    settings: Any = found.settings.settings
    assert (settings.job, settings.port, settings.share, settings.tls) == ("pay", 2, 1.0, True)
    assert (settings.tags, settings.region, settings.token) == (("b", "c"), "eu", "t")
    assert (found.kind, found.on_empty, found.max_endpoints) == ("nomad", "drop", 5)
    assert found.settings.factory(settings, zone="z", chance=None) == (settings, "z", None)


def test_what_is_not_written_has_the_plugins_default(install: Install) -> None:
    install()

    found = _found("{kind: nomad, job: pay}")

    assert isinstance(found.settings, model.PluginDiscovery)
    settings: Any = found.settings.settings
    assert (settings.port, settings.tags, settings.region) == (1, ("a",), None)


def test_the_same_keys_are_equal_settings(install: Install) -> None:
    """A reload that changes nothing must not make the service anew."""
    install()

    assert _found("{kind: nomad, job: pay}") == _found("{kind: nomad, job: pay}")
    assert _found("{kind: nomad, job: pay}") != _found("{kind: nomad, job: other}")


def test_replaced_text_may_be_a_number_or_a_boolean(install: Install) -> None:
    """A variable is always text."""
    install()
    environ = {"P": "-7", "S": "1.5", "T": "true", "J": "j"}

    found = _found('{kind: nomad, job: "${J}", port: "${P}", share: "${S}", tls: "${T}"}', environ)

    assert isinstance(found.settings, model.PluginDiscovery)
    settings: Any = found.settings.settings
    assert (settings.job, settings.port, settings.share, settings.tls) == ("j", -7, 1.5, True)


@pytest.mark.parametrize(
    ("discovery", "lines"),
    [
        ("{kind: nomad}", ["6:7 services.a.discovery.job: missing; nomad-discovery 1.2 needs it"]),
        ("{kind: nomad, jib: a}",
         ["6:32 services.a.discovery.jib: unknown key; did you mean job?"]),
        ("{kind: nomad, job: a, computed: b, xyzzy: c}",
         ["6:40 services.a.discovery.computed: unknown key; known are job, port, share, tls, tags, region, token",
          "6:53 services.a.discovery.xyzzy: unknown key; known are job, port, share, tls, tags, region, token"]),
        ("{kind: nomad, job: 1, port: a, share: b, tls: 1, tags: c, region: [d], token: 4711}",
         ['6:37 services.a.discovery.job: expected text, got 1; quote it: "1"',
          '6:46 services.a.discovery.port: expected a whole number, got "a"',
          '6:56 services.a.discovery.share: expected a number, got "b"',
          "6:64 services.a.discovery.tls: expected true or false, got 1",
          '6:73 services.a.discovery.tags: expected a list, got "c"',
          "6:84 services.a.discovery.region: expected text, got a list",
          "6:96 services.a.discovery.token: nomad-discovery 1.2 expects another value, got ***"]),
        ("{kind: nomad, job: a, port: true, share: false, tags: [1]}",
         ["6:46 services.a.discovery.port: expected a whole number, got true",
          "6:59 services.a.discovery.share: expected a number, got false",
          '6:72 services.a.discovery.tags: expected text, got 1; quote it: "1"']),
        ("{kind: nomad, job: a, on_empty: x, max_endpoints: 0}",
         ['6:50 services.a.discovery.on_empty: expected keep or drop, got "x"',
          "6:68 services.a.discovery.max_endpoints: expected a whole number from 1 to 1000000, got 0"]),
        ("{kind: nomad, job: bad}",
         ["6:7 services.a.discovery: nomad-discovery 1.2 refuses these settings: ValueError: no job bad "]),
        ("{kind: nomad, job: a, token: bad}",
         ["6:7 services.a.discovery: nomad-discovery 1.2 refuses these settings: ValueError"]),
        ("{kind: nomed, job: a}",
         [f'6:25 services.a.discovery.kind: expected {KINDS}, got "nomed"']),
    ],
)  # fmt: skip
def test_a_wrong_key_has_its_place_and_sentence(
    install: Install, discovery: str, lines: list[str]
) -> None:
    """house §6: `Settings` is checked strictly like ours; threats I3: what its class does not print is a secret."""
    install()

    assert problems(_file(discovery)) == lines


def test_what_was_replaced_is_not_in_a_plugins_sentence(install: Install) -> None:
    """Threats I3: foreign code may quote what it got."""
    install()

    lines = problems(_file('{kind: nomad, job: "${S}"}'), {"S": "bad"})
    others = problems(_file('{kind: nomad, job: a, port: "${S}", tags: "${S}"}'), {"S": "hunter2"})

    assert lines == [
        "6:7 services.a.discovery: nomad-discovery 1.2 refuses these settings: ValueError"
    ]
    assert others
    assert "hunter2" not in str(others)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import no_such_module_anywhere",
         "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("x = 1", "cannot be loaded: AttributeError: module 'nomad_discovery' has no attribute 'factory'"),
        ("raise KeyError('x')", "cannot be loaded: KeyError: 'x'"),
        ("factory = 1", "brings no factory with a class Settings"),
        ("def factory(): ...", "brings no factory with a class Settings"),
        ("class factory:\n    class Settings: ...", "brings a class Settings that is no dataclass"),
        (NOMAD.replace("port: int = 1", "port: bytes = b''"), "brings Settings whose port no file can spell"),
        (NOMAD.replace("port: int = 1", "port: int | str = 1"), "brings Settings whose port no file can spell"),
        (NOMAD.replace("port: int = 1", "port: 'Nowhere' = 1"),
         "brings Settings without types: name 'Nowhere' is not defined"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_an_error_with_its_name(
    install: Install, source: str, sentence: str
) -> None:
    """Whoever installed it has to know which one to mend."""
    install(source)

    assert problems(_file("{kind: nomad, job: a}")) == [
        f"6:25 services.a.discovery.kind: nomad-discovery 1.2 {sentence}"
    ]


def test_two_plugins_of_one_kind_are_an_error(install: Install) -> None:
    """Neither is right by chance."""
    install()
    install(name="other")

    assert problems(_file("{kind: nomad, job: a}")) == [
        "6:25 services.a.discovery.kind: nomad-discovery 1.2 and other 1.2 both bring the kind nomad; uninstall one"
    ]


def test_a_built_in_kind_cannot_be_shadowed(install: Install) -> None:
    """house §6; threats K6: it is not even imported."""
    install("raise SystemExit(9)", kind="consul")

    found = _found("{kind: consul, service: a}")

    assert found.settings == model.ConsulDiscovery("a")
    assert "nomad_discovery" not in sys.modules


def test_a_plugin_that_no_file_names_is_not_imported(install: Install) -> None:
    """Threats K6: no plugin by surprise."""
    install("raise SystemExit(9)")

    assert problems(BASES["service"]) == []
    assert "nomad_discovery" not in sys.modules


def test_a_variable_cannot_choose_code(install: Install) -> None:
    """Threats K6: plugins only by name in the file."""
    install()

    lines = problems(_file('{kind: "${K}", job: a}'), {"K": "nomad"})

    assert lines == [f"6:25 services.a.discovery.kind: expected {KINDS}, got ***"]


def test_a_variable_may_choose_a_built_in_kind() -> None:
    assert _found('{kind: "${K}", service: a}', {"K": "consul"}).kind == "consul"


def test_what_is_in_force_is_shown_without_secrets(install: Install, tmp_path: Path) -> None:
    """`validate --show`; threats I3."""
    install()
    path = tmp_path / "a.yaml"
    path.write_text(_file("{kind: nomad, job: pay, token: hunter2}"), encoding="utf-8")

    shown = effective(path, {})

    prefix = "services.a.discovery"
    assert (f"{prefix}.kind", "nomad", f"{path}:6") in shown
    assert (f"{prefix}.job", "pay", f"{path}:6") in shown
    assert (f"{prefix}.token", "***", f"{path}:6") in shown
    assert (f"{prefix}.tags", "[a]", "default") in shown
    assert (f"{prefix}.on_empty", "keep", "default") in shown
    assert "hunter2" not in str(shown)
    assert "hunter2" not in repr(_found("{kind: nomad, job: pay, token: hunter2}"))


def test_an_editor_accepts_a_kind_that_it_does_not_know() -> None:
    """Which are installed, the JSON Schema cannot know."""
    document = yaml.safe_load(_file("{kind: nomad, job: a}"))
    broken = yaml.safe_load(_file("{kind: consul, job: a}"))

    jsonschema.validate(document, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema())
