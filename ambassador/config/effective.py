"""Every setting in force, as a file would spell it, with its origin: for `validate --show`.

Knows the schema and the parsed file; every replaced value is masked (threats I3).
"""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from ambassador.config import schema
from ambassador.config.document import Document, KeyPath, spell
from ambassador.config.substitute import MASK, Substituted

Setting = tuple[str, str, str]

_DEFAULT = re.compile(r":-[^}]*")


def settings(document: Document) -> list[Setting]:
    """Give key path, value and origin of every setting of a valid file, defaults included."""
    return _section(document, schema.File, document.root, ())


def _section(
    document: Document, section: type[schema.Section], given: Any, path: KeyPath
) -> list[Setting]:
    defaults: dict[str, Any] = {}
    if issubclass(section, schema.Listener) and given.get("protocol") == "tcp":
        defaults = section.tcp_defaults
    nearer = (
        section.http_only & set(schema.RouteSettings.model_fields)
        if _inherits(section)
        else frozenset()
    )
    found: list[Setting] = []
    for name, field in section.model_fields.items():
        default = defaults.get(name, field.default)
        if name in given:
            found += _value(document, field.annotation, given[name], (*path, name))
        elif defaults and name in section.http_only:
            continue  # tcp has no such setting
        elif default is None or default is PydanticUndefined or name in nearer:
            continue  # not there, or what the listener says is in force
        else:
            found += _value(document, field.annotation, default, (*path, name))
    return found


def _inherits(section: type[schema.Section]) -> bool:
    """Say whether route settings that are not written here come from somewhere else."""
    return issubclass(section, schema.RouteSettings) and not issubclass(section, schema.Listener)


def _value(document: Document, annotation: Any, value: Any, path: KeyPath) -> list[Setting]:
    sections = _sections(annotation)
    if sections and isinstance(value, dict):
        if _is_named(annotation):
            return [
                setting
                for name, one in value.items()
                for setting in _section(document, sections[0], one, (*path, name))
            ]
        return _section(document, sections[0], value, path)
    if sections and isinstance(value, list):
        return [
            setting
            for number, one in enumerate(value)
            for setting in _value(document, sections[0], one, (*path, number))
        ]
    return [(spell(path), _spelled(value), _origin(document, path))]


def _is_named(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _sections(annotation: Any) -> list[type[schema.Section]]:
    if isinstance(annotation, type) and issubclass(annotation, schema.Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _origin(document: Document, path: KeyPath) -> str:
    known = [key for key in document.values if key[: len(path)] == path]
    if path not in document.values:
        return "default"
    line = document.place(path).line
    # A default may be a secret too, so only the variable's name is shown.
    sources = [
        _DEFAULT.sub("", document.replaced[key]) for key in known if key in document.replaced
    ]
    return f"{document.file}:{line}" + (f" {' '.join(sources)}" if sources else "")


def _spelled(value: Any) -> str:
    match value:
        case Substituted():
            return MASK
        case bool():
            return "true" if value else "false"
        case dict():
            return "{" + ", ".join(f"{name}: {_spelled(one)}" for name, one in value.items()) + "}"
        case list():
            return f"[{', '.join(_spelled(one) for one in value)}]"
        case _:
            return str(value)
