"""What the modules of the schema share: how a key is declared, and what a mapping of the file is.

Without `from __future__ import annotations`, as all of them: pydantic would have to compile strings back into types.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def key(description: str, default: Any = ...) -> Any:
    """Give pydantic's declaration of a key; the default is spelled as in a file, None is "not there"."""
    return Field(default, description=description, validate_default=default is not None)


class Section(BaseModel):
    """A mapping of the file. Strict: what is not declared is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,
        arbitrary_types_allowed=True,
    )
    later: ClassVar[frozenset[str]] = frozenset()
    chosen_by: ClassVar[str] = ""  # the `kind` that chooses it
    #: Keys that only HTTP knows; with `protocol: tcp` they are errors.
    http_only: ClassVar[frozenset[str]] = frozenset()
