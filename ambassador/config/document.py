"""YAML text to plain values, each with its place in the file; the traps of YAML get their own sentences.

Knows YAML and nothing of our keys. The events are composed here instead of by PyYAML, because aliases, anchors,
tags, `<<` and deep nesting are to be refused where they stand (threats I4), and because YAML 1.1 reads `no`,
`0600` and `22:30` as something that nobody meant. What is wrong is noted and replaced by `BROKEN`, so that
the rest of the file is still judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from ambassador.config.substitute import substitute
from ambassador.config.words import printable
from ambassador.core.errors import ConfigError

MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32

_LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml where the wheel has it: ten times faster

KeyPath = tuple[str | int, ...]

#: Keys whose values are secrets, also when nobody wrote them as `${…}` (threats I3).
_SECRETS: Final = frozenset({"token", "password"})
_SECRET_LINE = re.compile(r"\b(?:token|password)\b")
_NOT_TEXT: Final = "YAML does not read this as text; write it in quotes, or as ${file:PATH}"


class Place(NamedTuple):
    """Where something stands in the file.

    Units: counted from 1, columns in characters.
    """

    line: int
    column: int


class Broken:
    """Stands for a value about which everything has been said."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN: Final = Broken()


@dataclass(slots=True)
class Document:
    """A parsed file: plain values, where keys and values stand, which were replaced, what is wrong so far."""

    file: str
    root: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    replaced: dict[KeyPath, str] = field(default_factory=dict)  # key path -> the text with its ${…}
    problems: list[ConfigError] = field(default_factory=list)

    def place(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Give where the value (or its key) stands, or the nearest thing around it that stands in the file."""
        first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
        for length in range(len(path), 0, -1):
            key = path[:length]
            if key in first:
                return first[key]
            if key in second:
                return second[key]
            first, second = (
                self.keys,
                self.values,
            )  # around a missing key, its section's key is the place
        return Place(1, 1)

    def error(self, path: KeyPath, problem: str, *, of_key: bool = False) -> ConfigError:
        """Give the error about this key path, at its place."""
        return self.error_at(self.place(path, of_key=of_key), spell(path), problem)

    def error_at(self, place: Place, key_path: str, problem: str) -> ConfigError:
        """Give the error at this place; nothing foreign in it moves a terminal's cursor (threats I5)."""
        return ConfigError(
            printable(key_path),
            printable(problem),
            line=place.line,
            column=place.column,
            file=self.file,
        )


def spell(path: KeyPath) -> str:
    """Give `inbound[0].allow[1].spiffe` for a key path."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def parse(content: bytes, *, file: str, folder: Path, environ: Mapping[str, str]) -> Document:
    """Give the document of a file's bytes; everything wrong is in its `problems`, `root` is None then at worst."""
    document = Document(file)
    if len(content) > MAX_BYTES:
        document.problems.append(ConfigError("", "the file is larger than 1MiB", file=file))
        return document
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        document.problems.append(document.error_at(Place(line, 1), "", "the file is not UTF-8"))
        return document
    _Composer(document, text, folder, environ).compose()
    return document


class _Composer:
    """Walks the parser's events once and fills the document."""

    def __init__(
        self, document: Document, text: str, folder: Path, environ: Mapping[str, str]
    ) -> None:
        self._document = document
        self._text = text
        self._folder = folder
        self._environ = environ
        self._muted = 0  # inside something that is refused as a whole
        self._events: Iterator[Any] = iter(())

    def compose(self) -> None:
        document = self._document
        try:
            self._events = yaml.parse(self._text, Loader=_LOADER)
            next(self._events)  # the stream's start
            if isinstance(next(self._events), yaml.StreamEndEvent):
                return
            document.root = self._node(next(self._events), ())
            next(self._events)  # the document's end
            event = next(self._events)
            if not isinstance(event, yaml.StreamEndEvent):
                self._problem((), "a second document begins here; one file is one document", event)
        except yaml.MarkedYAMLError as error:
            document.root = None
            place, sentence = explain(error, self._text)
            document.problems.append(
                ConfigError("", sentence, line=place.line, column=place.column, file=document.file)
            )
        except yaml.YAMLError:
            # The reader's: it counts characters or bytes, as it was compiled; so look ourselves.
            document.root = None
            place, sentence = _refused_character(self._text)
            document.problems.append(document.error_at(place, "", sentence))
        except _TooDeep as error:
            document.root = None
            self._problem((), f"nested deeper than {_MAX_DEPTH} levels", error.event)

    def _node(self, event: Any, path: KeyPath) -> Any:
        if not self._muted:
            self._document.values.setdefault(path, _place(event.start_mark))
        if isinstance(event, yaml.AliasEvent):
            self._about_value(path, _star(f"*{event.anchor}"), event)
            return BROKEN
        unwanted = self._unwanted(event)
        if unwanted:
            self._about_value(path, unwanted, event)
        if len(path) + self._muted > _MAX_DEPTH:
            raise _TooDeep(event)
        if isinstance(event, yaml.ScalarEvent):
            return BROKEN if unwanted else self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _unwanted(self, event: Any) -> str:
        if event.anchor is not None:
            return f"anchors and aliases (&{event.anchor}) are refused; write the value twice"
        if event.tag is not None:
            return f"tags ({event.tag}) are refused; write the value alone"
        return ""

    def _sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            refusal = self._key_refusal(event, path, mapping)
            if refusal:
                self._problem(
                    path if refusal.unnamed else (*path, event.value), refusal.sentence, event
                )
                self._skip(event, path)
                continue
            key_path = (*path, event.value)
            if not self._muted:
                self._document.keys[key_path] = _place(event.start_mark)
            mapping[event.value] = self._node(next(self._events), key_path)
        return mapping

    def _key_refusal(self, event: Any, path: KeyPath, mapping: dict[str, Any]) -> _Refusal | None:
        if not isinstance(event, yaml.ScalarEvent):
            return _Refusal("expected a name as key", unnamed=True)
        if event.value == "<<" and event.implicit[0]:
            return _Refusal("merge keys (<<) are refused; write the values twice", unnamed=True)
        unwanted = self._unwanted(event)
        if unwanted:
            return _Refusal(unwanted, unnamed=False)
        if "${" in event.value:
            return _Refusal("keys are not substituted; write the name itself", unnamed=True)
        if event.value in mapping:
            # `keys` may lack it inside something refused, but then nothing is reported either.
            first = self._document.keys.get((*path, event.value), Place(0, 0))
            return _Refusal(f"given twice, first in line {first.line}; keep one", unnamed=False)
        return None

    def _skip(self, event: Any, path: KeyPath) -> None:
        """Take what remains of a refused key, and its value."""
        self._muted += 1
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, path)
        self._node(next(self._events), path)
        self._muted -= 1

    def _scalar(self, event: Any, path: KeyPath) -> Any:
        text = event.value
        if "${" in text:
            return self._substituted(text, path, event)
        if not event.implicit[0]:
            return text  # quoted or a block: always text
        trap = _trap(text)
        if trap:
            self._about_value(path, trap, event)
            return BROKEN
        return _plain(text)

    def _substituted(self, text: str, path: KeyPath, event: Any) -> Any:
        if self._muted:
            return BROKEN
        try:
            value = substitute(text, environ=self._environ, folder=self._folder)
        except ValueError as error:
            # Names of variables and files are told; what only resembles one is quoted.
            if str(error).startswith("expected"):
                self._about_value(path, str(error), event)
            else:
                self._problem(path, str(error), event)
            return BROKEN
        if value.__class__ is not str:
            self._document.replaced[path] = text
        return value

    def _about_value(self, path: KeyPath, sentence: str, event: Any) -> None:
        """Note what is wrong with a value; the sentence quotes it, so a secret gets another one."""
        self._problem(path, _NOT_TEXT if path[-1:] and path[-1] in _SECRETS else sentence, event)

    def _problem(self, path: KeyPath, sentence: str, event: Any) -> None:
        if self._muted:
            return
        error = self._document.error_at(_place(event.start_mark), spell(path), sentence)
        self._document.problems.append(error)


class _Refusal(NamedTuple):
    sentence: str
    unnamed: bool


class _TooDeep(Exception):
    def __init__(self, event: Any) -> None:
        super().__init__()
        self.event = event


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


# --- plain scalars -------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+", re.ASCII)
_BOOLEAN_WORD = re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|True|TRUE|False|FALSE")
#: What YAML 1.1 also calls a number: octal, binary, hexadecimal, with `_` or `+`, and in base 60.
_ODD_NUMBER = re.compile(
    r"[-+]?(?:0b[0-1_]+|0[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*)",
    re.ASCII,
)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _trap(text: str) -> str:
    """Say what YAML makes of an unquoted scalar that nobody means so, or nothing."""
    if _BOOLEAN_WORD.fullmatch(text):
        meaning = "true" if text.lower() in {"yes", "on", "true"} else "false"
        return f'{text} is {meaning} in YAML; write {meaning}, or "{text}" for the word'
    if _ODD_NUMBER.fullmatch(text) and not _INTEGER.fullmatch(text):
        return f'{text} is the number {_number(text)} in YAML; for the text write "{text}"'
    return ""


def _number(text: str) -> int:
    digits = text.replace("_", "").lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if ":" in digits:
        total = 0
        for part in digits.split(":"):
            total = total * 60 + int(part)
        return sign * total
    if digits[:2] in {"0b", "0x"}:
        return sign * int(digits[2:] or "0", 2 if digits[1] == "b" else 16)
    octal = len(digits) > 1 and digits.startswith("0")
    return sign * int(digits or "0", 8 if octal else 10)


# --- syntax errors -------------------------------------------------------------------------------------------

_BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]*::?[0-9A-Fa-f:.]*\]:[0-9]+")
_VARIABLE = re.compile(r"(?<![\"'$])\$\{[^}\n]*\}")
_STARRED = re.compile(r"\*[^\s,\]}]*")


def _star(text: str) -> str:
    return f'a value that begins with * is an alias to YAML, and aliases are refused; for the text write "{text}"'


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[Place, str]:
    """Give place and sentence of what YAML could not parse, with the cure where it is a known trap."""
    mark: Any = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1)
    line = lines[number]
    if error.context == "while scanning an alias":
        start: Any = error.context_mark
        starred = _STARRED.search(lines[start.line], start.column)
        if _SECRET_LINE.search(lines[start.line]):
            starred = None
        return _place(start), _star(starred[0] if starred else "*")
    brackets = _BRACKETS.search(line)
    if brackets:
        return Place(
            number + 1, brackets.start() + 1
        ), f'{brackets[0]} must be quoted: "{brackets[0]}"'
    variable = _VARIABLE.search(line)
    if variable:
        quoted = f'inside {{…}} and […] a variable must be quoted: "{variable[0]}"'
        return Place(number + 1, variable.start() + 1), quoted
    problem = str(error.problem)
    if problem.startswith("mapping values are not allowed"):
        problem = 'a second ": " in this line; check the indentation, or quote the value'
    return Place(number + 1, mark.column + 1), f"not YAML: {problem}"


def _refused_character(text: str) -> tuple[Place, str]:
    refused = (
        (Place(number, column), f"the character U+{ord(character):04X} is not allowed in YAML")
        for number, line in enumerate(text.split("\n"), 1)
        for column, character in enumerate(line, 1)
        if not character.isprintable() and character not in "\t\r\x85\xa0"
    )
    return next(refused, (Place(1, 1), "not YAML: a character that is not allowed"))
