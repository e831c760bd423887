"""How pydantic is told to check and describe: annotations that hold one plain function each.

So pydantic never converts anything by rules of its own, and its messages, which quote inputs, are never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import core_schema

Check = Callable[[Any], Any]
JsonSchema = dict[str, Any]


class Leaf:
    """An annotation: check with this function, describe with this JSON Schema."""

    __slots__ = ("check", "schema")

    def __init__(self, check: Check, schema: JsonSchema) -> None:
        self.check = check
        self.schema = schema

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return dict(self.schema)


class OneOrMany:
    """An annotation of a list: a single mapping or scalar stands for a list of one."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list) else [value], handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        listed = next(
            branch for branch in _branches(handler(schema)) if branch.get("type") == "array"
        )
        return {"anyOf": [listed["items"], listed]}


class Named:
    """An annotation of a mapping: a scalar stands for the mapping with only this key."""

    __slots__ = ("key", "schema")

    def __init__(self, key: str, schema: JsonSchema) -> None:
        self.key = key
        self.schema = schema

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, (dict, list)) else {self.key: value},
            handler(source),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return {"anyOf": [self.schema, handler(schema)]}


class Filled:
    """An annotation of a list or mapping: with nothing in it, it is an error."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def check(value: Any) -> Any:
            if isinstance(value, (list, dict)) and not value:
                raise ValueError("empty; name at least one, or leave the key out")
            return value

        return core_schema.no_info_before_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        inner: JsonSchema = handler(schema)
        for branch in _branches(inner):
            if branch.get("type") == "array":
                branch["minItems"] = 1
            elif branch.get("type") == "object":
                branch["minProperties"] = 1
        return inner


class Or:
    """An annotation: this word instead of what is annotated."""

    __slots__ = ("meaning", "word")

    def __init__(self, word: str, meaning: Any = None) -> None:
        self.word = word
        self.meaning = meaning

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def choose(value: Any, inner: Any) -> Any:
            return self.meaning if isinstance(value, str) and value == self.word else inner(value)

        return core_schema.no_info_wrap_validator_function(choose, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return {"anyOf": [{"const": self.word}, handler(schema)]}


class ByKind:
    """An annotation of several mappings: their key `kind` says which, and only that one's keys are judged.

    `other` is for every other word.
    """

    __slots__ = ("other", "sections")

    def __init__(self, sections: dict[str, Any], *, other: Any) -> None:
        self.sections = sections
        self.other = other

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        sections = {**self.sections, self.other.chosen_by: self.other}
        choices = {kind: handler.generate_schema(one) for kind, one in sections.items()}
        return core_schema.tagged_union_schema(choices, discriminator=self._kind_of)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        branches = {kind: handler(choice) for kind, choice in schema["choices"].items()}
        for kind, branch in branches.items():
            spelled: JsonSchema = {"const": kind}
            if kind not in self.sections:
                spelled = {"type": "string", "not": {"enum": list(self.sections)}}
            branch["properties"]["kind"] = {**spelled, "description": "How to find them."}
        return {"oneOf": list(branches.values())}

    def _kind_of(self, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            return None
        return str(kind) if kind in self.sections else self.other.chosen_by


def _branches(schema: JsonSchema) -> list[JsonSchema]:
    """Give the alternatives of a schema, or itself when it has none."""
    branches: list[JsonSchema] = schema.get("anyOf", [schema])
    return branches
