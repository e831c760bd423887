"""What the rules between keys share: the list of findings, and questions that several of them ask.

Knows sentences about two keys of one mapping; which mappings there are, `rules.py` and its neighbours know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ambassador.config import addresses, checks, words
from ambassador.config.view import View
from ambassador.core.errors import ConfigError
from ambassador.core.model import Address
from ambassador.policy.patterns import KINDS

if TYPE_CHECKING:
    from ambassador.config.schema_base import Section

ONLY_HTTP: Final = "only with protocol: http"


@dataclass(slots=True)
class Findings:
    """What the rules found: errors refuse the file, warnings do not."""

    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)

    def refuse(self, view: View, problem: str) -> None:
        """Note an error at a key."""
        self.errors.append(view.error(problem, of_key=True))

    def refuse_value(self, view: View, problem: str) -> None:
        """Note an error about a value, where the value stands."""
        self.errors.append(view.error(problem))

    def warn(self, view: View, problem: str) -> None:
        """Note a warning at a key."""
        self.warnings.append(view.error(problem, of_key=True))


def is_tcp(view: View) -> bool:
    """Say whether this listener (or service with one) has protocol tcp."""
    return bool(view["protocol"].value == "tcp")


def says(view: View, key: str) -> bool:
    """Say whether a boolean key is true."""
    return bool(view[key].read(checks.flag, False))


def near_or_unsafe(listen: View, found: Findings, *, unsafe: bool, cure: str) -> None:
    """Refuse a plaintext listener outside loopback that nobody typed the unsafe key for."""
    address: Address | None = listen.read(checks.listen_address)
    if address is not None and not addresses.is_local(address) and not unsafe:
        found.refuse_value(
            listen,
            f"expected an address on loopback, got {words.show(listen.value)}; "
            f"write 127.0.0.1:{address.port if listen.value.__class__ is str else 'PORT'}"
            + (f", or {cure}" if cure else ""),
        )


def refuse_http(view: View, section: type[Section], found: Findings) -> None:
    """Refuse the keys of a section that only HTTP knows."""
    for name, value in view.items():
        if name in section.http_only:
            found.refuse(value, ONLY_HTTP)


def unique(name: object, view: View, names: dict[str, View], found: Findings) -> None:
    """Refuse a name that stands in `names` already; add it."""
    if not isinstance(name, str):
        return
    if name in names:
        line = view.document.place(names[name].path).line
        found.refuse(
            view["name"], f"expected a name of its own, got {words.show(name)} as in line {line}"
        )
    names.setdefault(name, view)


def exactly_one(view: View, names: tuple[str, ...], found: Findings, *, example: str) -> None:
    """Refuse a mapping that has none or several of these keys."""
    if not view.is_mapping:
        return
    given = [name for name in names if name in view]
    if not given:
        found.refuse(view, f"expected one of {', '.join(names)}; such as {example}")
    for name in given[1:]:
        found.refuse(
            view[name],
            f"excludes {given[0]}; write two entries"
            if names == KINDS
            else f"excludes {given[0]}; keep one",
        )


def ordered(  # noqa: PLR0917  # one sentence with six words
    view: View, low: str, high: str, defaults: tuple[float, float], found: Findings
) -> None:
    """Refuse a duration that is above another one; both have a default."""
    ends = view[low].read(checks.duration()), view[high].read(checks.duration())
    if (ends[0] or defaults[0]) > (ends[1] or defaults[1]):
        at = view[low] if ends[0] else view[high]
        found.refuse_value(at, f"expected {low} to be at most {high}")
