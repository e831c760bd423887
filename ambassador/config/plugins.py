"""Kinds of discovery that other distributions bring, by the entry points `ambassador.discovery`.

Knows how one is found, and how its `Settings` judges keys; must not know the schema. Nothing of a distribution is
imported until a file names its kind, word for word: a variable cannot choose code (threats K6).
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ambassador.config import checks
from ambassador.config.annotations import Check
from ambassador.config.substitute import Substituted
from ambassador.config.words import nearest, wrong

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "ambassador.discovery"
#: In the order in which an error names them; nobody can bring another one of these names.
BUILT_IN: Final = ("static", "file", "dns", "dns_srv", "kubernetes", "consul", "etcd")
_check_built_in = checks.choice(*BUILT_IN)


class Problem(NamedTuple):
    """What is wrong with a plugin's own key, or with all of them together when `name` is empty."""

    name: str
    sentence: str
    is_about_key: bool = True


class Plugin(NamedTuple):
    """A kind that was found: who brings it, the class of its settings, and what makes a backend of them."""

    distribution: str
    settings: type[Any]
    factory: Callable[..., Any]
    checks: Mapping[str, Check]


def check_kind(value: Any) -> str:
    """Check that a kind is there: a built-in one or a plugin's."""
    if not isinstance(value, str) or value in BUILT_IN or find(value) is None:
        kind: str = _check_built_in(value)
        return kind
    return str(value)


def find(kind: str) -> Plugin | None:
    """Give the plugin that brings this kind; None when there is none.

    Errors: ValueError with a sentence that names the distribution, when it cannot be used.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  # only when a file names a plugin

    if isinstance(kind, Substituted):
        return None
    points = list(entry_points(group=GROUP, name=kind))
    if not points:
        return None
    if len(points) > 1:
        names = " and ".join(sorted(_distribution(point) for point in points))
        raise ValueError(f"{names} both bring the kind {kind}; uninstall one")
    return _load(points[0])


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(point: EntryPoint) -> Plugin:
    name = _distribution(point)
    try:
        loaded = point.load()
    except Exception as error:  # foreign code may raise anything
        sentence = f"{name} cannot be loaded: {type(error).__name__}: {error}"
        raise ValueError(sentence) from None
    settings = getattr(loaded, "Settings", None)
    if not callable(loaded) or not isinstance(settings, type):
        raise ValueError(f"{name} brings no factory with a class Settings")
    if not dataclasses.is_dataclass(settings):
        raise ValueError(f"{name} brings a class Settings that is no dataclass")
    return Plugin(name, settings, loaded, _checks(name, settings))


def _checks(name: str, settings: type[Any]) -> dict[str, Check]:
    """Give the check of each field.

    Errors: ValueError when a field has a type that no file can spell.
    """
    try:
        hints = typing.get_type_hints(settings)
    except Exception as error:  # a forward reference that leads nowhere
        raise ValueError(f"{name} brings Settings without types: {error}") from None
    found = {}
    for field in dataclasses.fields(settings):
        check = _BY_TYPE.get(_without_none(hints[field.name]))
        if check is None:
            raise ValueError(f"{name} brings Settings whose {field.name} no file can spell")
        if field.init:
            found[field.name] = check
    return found


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        others = [one for one in typing.get_args(hint) if one is not types.NoneType]
        return others[0] if len(others) == 1 else None
    return hint


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(
            "text", value, f'quote it: "{value}"' if isinstance(value, (int, float)) else ""
        )
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, Substituted) and re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong("a whole number", value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, Substituted) and re.fullmatch(
        r"-?[0-9]{1,18}(\.[0-9]+)?", value, re.ASCII
    ):
        return float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise wrong("a number", value)
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise wrong("a list", value)
    return tuple(_text(one) for one in value)


_BY_TYPE: Final[dict[Any, Check]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: checks.flag,
    tuple[str, ...]: _texts,
}


# --- keys ----------------------------------------------------------------------------------------------------


def is_secret(plugin: Plugin, name: str) -> bool:
    """Say whether a key is never shown: a field that its class does not print."""
    return any(one.name == name and not one.repr for one in dataclasses.fields(plugin.settings))


def defaults(plugin: Plugin) -> dict[str, Any]:
    """Give the plain defaults, for who shows what is in force."""
    given = {one.name: one.default for one in dataclasses.fields(plugin.settings) if one.init}
    return {
        name: list(one) if isinstance(one, tuple) else one
        for name, one in given.items()
        if one is not dataclasses.MISSING and one is not None
    }


def problems(plugin: Plugin, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Give everything that is wrong with a plugin's own keys."""
    found = [*_wrong_keys(plugin, given), *_missing_keys(plugin, given)]
    yield from found
    if found:
        return
    try:
        settings(plugin, given)
    except Exception as error:  # foreign code may raise anything
        # It may quote what it got.
        is_hidden = any(_is_hidden(plugin, name, value) for name, value in given.items())
        detail = type(error).__name__ if is_hidden else f"{type(error).__name__}: {error}"
        yield Problem("", f"{plugin.distribution} refuses these settings: {detail}")


def settings(plugin: Plugin, given: Mapping[str, Any]) -> Any:
    """Give the settings of keys without problems."""
    return plugin.settings(**{name: plugin.checks[name](value) for name, value in given.items()})


def _is_hidden(plugin: Plugin, name: str, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return is_secret(plugin, name) or any(isinstance(one, Substituted) for one in items)


def _wrong_keys(plugin: Plugin, given: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in given.items():
        if name not in plugin.checks:
            near = nearest(name, plugin.checks)
            cure = f"did you mean {near}?" if near else f"known are {', '.join(plugin.checks)}"
            yield Problem(name, f"unknown key; {cure}")
            continue
        try:
            plugin.checks[name](value)
        except ValueError as error:
            sentence = f"{plugin.distribution} expects another value, got ***"
            yield Problem(
                name, sentence if is_secret(plugin, name) else str(error), is_about_key=False
            )


def _missing_keys(plugin: Plugin, given: Mapping[str, Any]) -> Iterator[Problem]:
    missing = dataclasses.MISSING
    for one in dataclasses.fields(plugin.settings):
        required = one.init and one.default is missing and one.default_factory is missing
        if required and one.name not in given:
            yield Problem(one.name, f"missing; {plugin.distribution} needs it")
