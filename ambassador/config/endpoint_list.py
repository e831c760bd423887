"""A list of endpoints in a file of its own: ours, or the shape of Prometheus' file_sd.

Knows the spelling; must not know who asked. Nothing is substituted: who writes such a list is not who wrote the
configuration, and `${file:…}` would read him any file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ambassador.config import checks
from ambassador.config import document as documents
from ambassador.config.words import nearest, printable, quote
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Endpoint

MAX_BYTES: Final = documents.MAX_BYTES
_KEYS = ("address", "weight", "zone", "priority")
_weight = checks.integer(1, 1_000_000)
_priority = checks.integer(0, 100)


def parse(content: bytes, *, file: str) -> tuple[Endpoint, ...]:
    """Give the endpoints of a list, JSON or YAML; `file` is for the sentences.

    Entries: `"IP:PORT"`, `{address, weight, zone, priority}`, or `{targets: ["IP:PORT"], labels: {…}}` of file_sd,
    whose labels `weight`, `zone` and `priority` count and all others are ignored.
    Errors: DiscoveryError `file_malformed` with the first thing that is wrong.
    """
    root = _root(content, file)
    if not isinstance(root, list):
        what = (
            "it is empty; an empty list is []" if root is None else "expected a list of endpoints"
        )
        raise DiscoveryError("file_malformed", f"{file}: {what}")
    found: list[Endpoint] = []
    for number, entry in enumerate(root):
        try:
            found += _entry(entry)
        except ValueError as error:
            raise DiscoveryError(
                "file_malformed", printable(f"{file}: [{number}]: {error}")
            ) from None
    return tuple(found)


def _root(content: bytes, file: str) -> Any:
    if content.lstrip()[:1] == b"[":  # JSON may be indented by tabs, which YAML refuses
        # YAML's flow style looks alike, and its errors have the place.
        with suppress(ValueError, RecursionError):
            return json.loads(content)
    if b"${" in content:
        raise DiscoveryError(
            "file_malformed", f"{file}: nothing is substituted here: write the value"
        )
    document = documents.parse(content, file=file, folder=Path(), environ={})
    if document.problems:
        raise DiscoveryError("file_malformed", str(document.problems[0]))
    return document.root


def _entry(entry: Any) -> Iterator[Endpoint]:
    if not isinstance(entry, dict):
        yield Endpoint(checks.dial_address(entry))
        return
    if "targets" in entry:
        labels = entry.get("labels", {})
        if not isinstance(entry["targets"], list) or not isinstance(labels, dict):
            raise ValueError("expected targets: [ADDRESS, …] and labels: {NAME: TEXT}")
        known = {name: _number(labels[name]) for name in _KEYS[1:] if name in labels}
        for target in entry["targets"]:
            yield _endpoint({"address": target, **known})
        return
    for name in entry:
        if name not in _KEYS:
            near = nearest(str(name), _KEYS)
            cure = f"did you mean {near}?" if near else f"known are {', '.join(_KEYS)}"
            raise ValueError(f"unknown key {quote(str(name))}; {cure}")
    yield _endpoint(entry)


def _number(label: Any) -> Any:
    """Give the number of a label, whose values are text."""
    return int(label) if isinstance(label, str) and label.isascii() and label.isdigit() else label


def _endpoint(given: dict[str, Any]) -> Endpoint:
    if "address" not in given:
        raise ValueError('address missing; write address: "IP:PORT"')
    zone = given.get("zone")
    return Endpoint(
        checks.dial_address(given["address"]),
        _weight(given.get("weight", 1)),
        checks.text(str(zone) if isinstance(zone, int) else zone) if zone is not None else "",
        _priority(given.get("priority", 0)),
    )
