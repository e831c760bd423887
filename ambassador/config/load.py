"""From a path to a `Config`, or every error of the file at once.

Knows the order: read, parse, schema, rules, build. The schema and the rules both judge the parsed file, so that
one mistake does not hide another.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ambassador.config import document as documents
from ambassador.config import problems, references, rules, schema
from ambassador.config.build import build
from ambassador.config.document import BROKEN, Document
from ambassador.config.findings import Findings
from ambassador.config.reading import Content, read
from ambassador.config.words import nearest, quote
from ambassador.core.errors import ConfigError, ConfigErrors, CredentialError

if TYPE_CHECKING:
    from ambassador.config.model import Config, IdentityConfig

#: Reasons of a `CredentialError` that speak of one file alone.
_FILE_REASONS = frozenset({"file_missing", "file_unreadable", "file_strange"})
PLACES = ("ambassador.yaml", "/etc/ambassador/ambassador.yaml")

_PREFIX = "AMBASSADOR_"
_VARIABLES = ("AMBASSADOR_CONFIG", "AMBASSADOR_SOCKET", "AMBASSADOR_LOG_LEVEL", "AMBASSADOR_LOOP")
_CHOICES = {
    "AMBASSADOR_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "AMBASSADOR_LOOP": ("uvloop", "asyncio"),
}
_SMALLEST = "a file begins with version: 1, then identity, inbound or outbound, and services"
_EMPTY_SECTIONS = {
    "inbound": 'inbound: {listen: "0.0.0.0:8443", app: 8080, allow: [{spiffe: "spiffe://example.org/web"}]}',
    "outbound": 'outbound: {listen: "127.0.0.1:9000"}',
    "services": 'services: {payments: {endpoints: ["10.0.0.7:8443"], peer: {spiffe: "spiffe://example.org/payments"}}}',
    "identity": "identity: {directory: PATH}",
    "allow": 'allow: [{spiffe: "spiffe://example.org/web"}]',
}


def find_config(option: str | None, environ: Mapping[str, str]) -> Path:
    """Give the file to load: the option, `AMBASSADOR_CONFIG`, or the first of the usual places that is there.

    Errors: ConfigErrors that names the places where there is none.
    """
    chosen = option or environ.get("AMBASSADOR_CONFIG")
    if chosen:
        return Path(chosen)
    for place in PLACES:
        if Path(place).exists():
            return Path(place)
    looked = ", ".join(("$AMBASSADOR_CONFIG", f"./{PLACES[0]}", *PLACES[1:]))
    raise ConfigErrors(
        (ConfigError("", f"no configuration found; looked at {looked}; write --config FILE"),)
    )


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    content: Content | None = None,
    check_files: bool = False,
) -> Config:
    """Give the meaning of a file; with `check_files` also of the certificates and keys that it names.

    `content` is what has been read from it already: a pipe can be read only once.
    Errors: ConfigErrors with everything that is wrong, by line.
    """
    wrong = tuple(_wrong_variables(environ))
    try:
        content = content or read(path)
        document, file, found = _checked(path, content, environ)
    except ConfigErrors as errors:
        raise ConfigErrors((*wrong, *errors.errors)) from None
    if wrong:
        raise ConfigErrors(wrong)
    warnings = tuple(str(one) for one in _by_line(found.warnings)) + tuple(
        _strange_variables(environ)
    )
    config = build(file, source=path, folder=content.folder, warnings=warnings)
    return _with_files(config, document) if check_files else config


def effective(
    path: Path, environ: Mapping[str, str], *, content: Content | None = None
) -> list[tuple[str, str, str]]:
    """Give key path, value as a file would spell it (masked) and origin of every setting in force.

    Errors: ConfigErrors, as `load`.
    """
    from ambassador.config.effective import settings  # noqa: PLC0415  # only for `validate --show`

    content = content or read(path)
    document, file, _ = _checked(path, content, environ)
    return settings(document, build(file, source=path, folder=content.folder, warnings=()))


def _checked(
    path: Path, content: Content, environ: Mapping[str, str]
) -> tuple[Document, schema.File, Findings]:
    document = _parse(path, content, environ)
    file, found = _judge(document)
    if file is None or found.errors:
        raise ConfigErrors(_by_line(found.errors))
    return document, file, found


def _parse(path: Path, content: Content, environ: Mapping[str, str]) -> Document:
    document = documents.parse(
        content.content, file=str(path), folder=content.folder, environ=environ
    )
    if document.problems and document.root is None:
        raise ConfigErrors(_by_line(document.problems))
    if not isinstance(document.root, dict):
        what = "the file is empty" if document.root is None else "expected a mapping"
        document.problems.append(document.error((), f"{what}; {_SMALLEST}"))
        raise ConfigErrors(_by_line(document.problems))
    _empty_values(document, document.root, ())
    return document


def _judge(document: Document) -> tuple[schema.File | None, Findings]:
    """Hold a parsed file against schema and rules; the findings contain what parsing found."""
    found = rules.check(document)
    references.check(document, found)
    file = None
    refused: list[ConfigError] = []
    schema.build_validator()
    try:
        file = schema.File.model_validate(document.root)
    except ValidationError as error:
        refused = problems.translate(error, document)
    # An unknown key is said once, whatever else is wrong with its value.
    unknown = [
        one
        for one in (*refused, *found.errors)
        if one.problem.startswith(("unknown key", "not built"))
    ]
    errors = [*unknown, *document.problems, *refused, *found.errors]
    misspelt = {_meant(one) for one in unknown}
    found.errors = _once(
        one
        for one in errors
        if one.key_path not in misspelt or not one.problem.startswith("missing")
    )
    return file, found


def _meant(unknown: ConfigError) -> str:
    """Give the key path that an unknown key should have been: it is not missing as well, only misspelt."""
    parent = unknown.key_path.rpartition(".")[0]
    word = unknown.problem.partition("did you mean ")[2].removesuffix("?")
    return f"{parent}.{word}" if parent else word


def _empty_values(document: Document, value: Any, path: documents.KeyPath) -> None:
    """Say of each key that was left empty what to write, and take the emptiness out of the way."""
    steps: Iterable[tuple[str | int, Any]] = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for step, inner in list(steps):
        inner_path = (*path, step)
        if inner is None:
            cure = _EMPTY_SECTIONS.get(str(step), "")
            cure = (
                f"write {cure}, or leave the key out" if cure else "write one, or leave the key out"
            )
            document.problems.append(
                document.error(inner_path, f"has no value; {cure}", of_key=True)
            )
            value[step] = BROKEN
        _empty_values(document, inner, inner_path)


def _once(errors: Iterable[ConfigError]) -> list[ConfigError]:
    """Keep the first error about each key path."""
    first: dict[str, ConfigError] = {}
    unnamed = []
    for error in errors:
        if error.key_path:
            first.setdefault(error.key_path, error)
        else:
            unnamed.append(error)
    return [*first.values(), *unnamed]


def _by_line(errors: Iterable[ConfigError]) -> tuple[ConfigError, ...]:
    return tuple(sorted(errors, key=lambda error: (error.line, error.column)))


def _wrong_variables(environ: Mapping[str, str]) -> Iterable[ConfigError]:
    """Say what is wrong with variables of ours: they are configuration as the file is."""
    for name, choices in _CHOICES.items():
        value = environ.get(name)
        if value and value not in choices:
            yield ConfigError(
                "", f"{name}: expected one of {', '.join(choices)}, got {quote(value)}"
            )


def _strange_variables(environ: Mapping[str, str]) -> Iterable[str]:
    for name in sorted(environ):
        # Kubernetes makes AMBASSADOR_SERVICE_HOST and AMBASSADOR_PORT_… for a Service of that name.
        kubernetes = name.startswith(("AMBASSADOR_SERVICE_", "AMBASSADOR_PORT"))
        if not name.startswith(_PREFIX) or name in _VARIABLES or kubernetes:
            continue
        # Without what they all begin with, which would make every name similar.
        near = nearest(
            name.removeprefix(_PREFIX), [one.removeprefix(_PREFIX) for one in _VARIABLES]
        )
        cure = f"did you mean {_PREFIX}{near}?" if near else f"known are {', '.join(_VARIABLES)}"
        yield f"environment variable {name}: it has no effect; {cure}"


def _with_files(config: Config, document: Document) -> Config:
    """Check the files that a configuration names, and add their warnings to its own."""
    errors: list[ConfigError] = []
    warnings = config.warnings
    if config.identity is not None:
        place = document.error(("identity",), "", of_key=True)
        found = _credential_problems(config.identity, document, errors)
        warnings += tuple(f"{place}{warning}" for warning in found)
    if config.access_log is not None and config.access_log.path != "-":
        problem = _unwritable(Path(config.access_log.path))
        if problem:
            errors.append(document.error(("access_log", "path"), problem))
    if errors:
        raise ConfigErrors(_by_line(errors))
    return dataclasses.replace(config, warnings=warnings)


def _credential_problems(
    identity: IdentityConfig, document: Document, errors: list[ConfigError]
) -> tuple[str, ...]:
    """Add what is wrong with a set of credentials to `errors`; give its warnings."""
    from ambassador.identity import credentials  # noqa: PLC0415  # cryptography is slow to import

    try:
        return credentials.load(identity).warnings
    except CredentialError as error:
        if error.reason in _FILE_REASONS:
            errors += _once(_unreadable(identity, document))
        else:
            errors.append(_about_file(str(error), identity, document))
        return ()


def _identity_keys(
    identity: IdentityConfig, document: Document
) -> list[tuple[Path, documents.KeyPath]]:
    """Give each file of the credentials, and the key that names it."""
    root = document.root
    given = root.get("identity") if isinstance(root, dict) else None
    keys = given if isinstance(given, dict) else {}
    files = [("certificate", identity.certificate), ("private_key", identity.private_key)]
    files += [("trust_bundle", path) for path in identity.trust_bundles.values()]
    files += [("crl", path) for path in identity.crl]
    return [(path, ("identity", key) if key in keys else ("identity",)) for key, path in files]


def _unreadable(identity: IdentityConfig, document: Document) -> Iterable[ConfigError]:
    """Say of every file that cannot be read why, at the key that names it."""
    from ambassador.identity.credentials import MAX_CRL_BYTES  # noqa: PLC0415  # only to check files
    from ambassador.identity.reading import FileReader  # noqa: PLC0415

    with FileReader() as reader:
        for path, key in _identity_keys(identity, document):
            try:
                reader.read(path, max_bytes=MAX_CRL_BYTES)
            except CredentialError as error:
                yield document.error(key, str(error), of_key=True)


def _about_file(text: str, identity: IdentityConfig, document: Document) -> ConfigError:
    """Give what is wrong with a set of credentials, at the key of the file that the sentence begins with."""
    for path, key in _identity_keys(identity, document):
        if text.startswith(f"{path}:"):
            return document.error(key, text, of_key=True)
    return document.error(("identity",), text, of_key=True)


def _unwritable(path: Path) -> str:
    """Say why nothing can be written there; empty when it can.

    Looks without opening: a file would be made, and whoever reads a FIFO would see it end.
    """
    from ambassador.telemetry.writer import unwritable_kind  # noqa: PLC0415  # `run` asks the writer itself

    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK):
            return ""
        return f"expected a path in a folder that can be written to, {path.parent} is none"
    except OSError as error:
        return f"cannot write {path}: {(error.strerror or 'failed').lower()}"
    kind = unwritable_kind(mode)
    if not kind and not os.access(path, os.W_OK):
        kind = "permission denied"
    return f"cannot write {path}: {kind}" if kind else ""
