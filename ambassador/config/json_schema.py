"""The JSON Schema of the file, for editors; never imported by `run`.

It says what a key looks like; what keys say about each other, only `validate` knows.
"""

from __future__ import annotations

from typing import Any

from ambassador.config.schema import File


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a configuration file.

    Source: https://json-schema.org/draft/2020-12/schema
    """
    schema = File.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ambassador configuration, version 1",
        **{key: value for key, value in schema.items() if key != "title"},
    }
    _tidy(schema)
    return schema


def _tidy(node: Any) -> None:
    """Take away what pydantic adds and no editor needs: titles made of names, null as a value and as default."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
        return
    if not isinstance(node, dict):
        return
    for inner in (node.get("properties") or {}).values():
        inner.pop("title", None)
        if "default" in inner and inner["default"] is None:
            del inner["default"]
    if "patternProperties" in node:
        # Names are keys, and keys are never substituted.
        named = node["patternProperties"].items()
        node["patternProperties"] = {name.partition("|")[0]: inner for name, inner in named}
        node["additionalProperties"] = False
    if isinstance(node.get("anyOf"), list):
        node["anyOf"] = [branch for branch in node["anyOf"] if branch != {"type": "null"}]
        if len(node["anyOf"]) == 1:
            (only,) = node.pop("anyOf")
            node.update({**only, **node})
    for key, inner in node.items():
        if key != "default":
            _tidy(inner)
