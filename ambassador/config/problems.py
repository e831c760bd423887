"""What pydantic found, as sentences with key path, line and column.

Knows pydantic's error types and the schema's classes. Takes places from the document and never an input from
pydantic, which would print secrets (threats I3).
"""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import ValidationError

from ambassador.config import plugins, schema
from ambassador.config.document import Document, KeyPath
from ambassador.config.substitute import MASK
from ambassador.config.words import NOT_BUILT, nearest, show
from ambassador.core.errors import ConfigError

_KINDS = f"{', '.join(plugins.BUILT_IN[:-1])} or {plugins.BUILT_IN[-1]}"
#: What to write when a required key is absent.
_CURES = {
    "version": "write version: 1",
    "listen": 'write listen: "IP:PORT", such as "0.0.0.0:8443"',
    "app": "write app: and the port on which the app listens, such as app: 8080",
    "address": 'write address: "IP:PORT"',
    "endpoints": 'write endpoints: ["IP:PORT"]',
    "rate": "write rate: such as 100/s",
    "path": "write path: and the file's name",
    "name": "write name: payments.internal",
    "port": "write port: 8443",
    "service": "write service: and its name",
    "urls": 'write urls: ["https://etcd.internal:2379"]',
    "prefix": "write prefix: /services/payments/",
}
#: Keys that `none` switches off.
_OR_NONE = {("retry",), ("fault",), ("rate_limit",), ("health_check",), ("outlier_detection",)}


def translate(error: ValidationError, document: Document) -> list[ConfigError]:
    """Give one `ConfigError` for each thing that pydantic refused."""
    found = error.errors(include_url=False, include_input=False)
    return [problem for one in found if (problem := _problem(dict(one), document)) is not None]


def _problem(error: dict[str, Any], document: Document) -> ConfigError | None:
    loc: tuple[str | int, ...] = error["loc"]
    path, value = locate(document, loc)
    match error["type"]:
        case "extra_forbidden":
            return document.error(path, _unknown(loc), of_key=True)
        case "missing":
            cure = _CURES[str(loc[-1])]
            return document.error((*path, loc[-1]), f"missing; {cure}", of_key=True)
        case "union_tag_not_found" | "union_tag_invalid" if isinstance(value, dict):
            return document.error((*path, "kind"), _about_kind(value), of_key="kind" not in value)
        case "value_error":
            of_key = loc[-1] == "[key]"
            text = str(error["ctx"]["error"])
            if loc[-1] in _CURES:  # a key that cannot be left out
                text = text.replace("name at least one, or leave the key out", _CURES[str(loc[-1])])
            return document.error(path, text, of_key=of_key)
        case "dict_type" | "model_type" | "model_attributes_type" | "union_tag_not_found":
            return document.error(path, f"expected {_wanted(path, value)}, got {show(value)}")
        case _:  # list_type: there are no other types of ours
            # One URL in place of a list has not been judged, so it may hold a password (threats I3).
            shown = MASK if path[-1:] == ("urls",) else show(value)
            return document.error(path, f"expected a list, got {shown}")


def _about_kind(discovery: dict[str, Any]) -> str:
    if "kind" not in discovery:
        return f"missing; write kind: {_KINDS}"
    return f"expected {_KINDS}, got {show(discovery['kind'])}"


def _wanted(path: KeyPath, value: Any) -> str:
    if path[-1:] == ("peer",) and isinstance(value, str):
        near = " (did you mean that?)" if nearest(value, ["any_verified"]) else ""
        return f'{{spiffe: "spiffe://…"}}, a list of such, or any_verified{near}'
    if path[-1:] == ("hash",):
        return "{header: NAME}, {cookie: NAME} or peer"
    return "a mapping or none" if path[-1:] in _OR_NONE else "a mapping"


def locate(document: Document, loc: tuple[str | int, ...]) -> tuple[KeyPath, Any]:
    """Give the key path of pydantic's location, and what stands there.

    Steps that our annotations added (a list around one, a mapping around a scalar) are not in the file; a
    missing key is not either.
    """
    path: KeyPath = ()
    value = document.root
    for step in loc:
        inside = (
            isinstance(value, list)
            if isinstance(step, int)
            else (isinstance(value, dict) and step in value)
        )
        if inside:
            path = (*path, step)
            value = value[step]
    return path, value


def _unknown(loc: tuple[str | int, ...]) -> str:
    section = section_at(schema.File, loc[:-1]) or schema.File
    word = str(loc[-1])
    if word in section.later:
        return f"{NOT_BUILT}; leave it out"
    known = sorted(section.model_fields)
    near = nearest(word, known)
    if near:
        return f"unknown key; did you mean {near}?"
    return f"unknown key; {_belongs(word) or 'known here: ' + ', '.join(known)}"


def _belongs(word: str) -> str:
    """Say in which section a key would be at home, when it is known at all."""
    homes = (
        ("inbound", schema.Inbound),
        ("outbound", schema.Outbound),
        ("services.NAME", schema.Service),
        ("the top level", schema.File),
    )
    for name, section in homes:
        if word in section.model_fields:
            return f"it belongs into {name}"
    return ""


def section_at(annotation: Any, loc: tuple[str | int, ...]) -> type[schema.Section] | None:
    """Give the schema's class of the mapping at a location."""
    if isinstance(annotation, type) and issubclass(annotation, schema.Section):
        if issubclass(annotation, schema.Discovery):  # pydantic names the chosen kind on the way
            if loc[:1] != (annotation.chosen_by,):
                return None
            loc = loc[1:]
        if not loc:
            return annotation
        field = annotation.model_fields.get(str(loc[0]))
        return section_at(field.annotation, loc[1:]) if field else None
    parts = get_args(annotation)
    if get_origin(annotation) in {list, dict}:
        return section_at(parts[-1], loc[1:]) if loc else None
    found = (section_at(part, loc) for part in parts)  # a union or an Annotated
    return next((section for section in found if section is not None), None)
