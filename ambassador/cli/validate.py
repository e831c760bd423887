"""`ambassador validate`: every error of a configuration at once, certificates too."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ambassador.cli.main import BAD_CONFIGURATION
from ambassador.core.errors import ConfigErrors

if TYPE_CHECKING:
    from ambassador.config.model import Config


@click.command()
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="Default: $AMBASSADOR_CONFIG, ./ambassador.yaml, /etc/ambassador/…",
)
@click.option(
    "--no-files", is_flag=True, help="Leave certificates and keys alone: for CI without secrets."
)
@click.option(
    "--show",
    is_flag=True,
    help="Print every setting in force and where it comes from, secrets masked.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def command(*, config: str | None, no_files: bool, show: bool, output: str) -> None:
    """Example: ambassador validate --config ambassador.yaml

    Prints every error with line, column and a suggestion, or one line when there is none. Exit 3 on errors;
    warnings alone are fine.
    """
    from ambassador.config import load, reading  # noqa: PLC0415  # pydantic is slow to import

    report: dict[str, Any] = {"file": "", "valid": False, "errors": [], "warnings": []}
    loaded: Config | None = None
    try:
        path = load.find_config(config, os.environ)
        report["file"] = str(path)
        content = reading.read(path)
        loaded = load.load(path, os.environ, content=content, check_files=not no_files)
        report |= {"valid": True, "warnings": list(loaded.warnings)}
        if show:
            report["settings"] = [
                {"key": key, "value": value, "origin": origin}
                for key, value, origin in load.effective(path, os.environ, content=content)
            ]
    except ConfigErrors as errors:
        report["errors"] = [
            {
                "file": error.file,
                "line": error.line,
                "column": error.column,
                "key": error.key_path,
                "problem": error.problem,
                "text": str(error),
            }
            for error in errors.errors
        ]
    if output == "json":
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, loaded)
    if not report["valid"]:
        sys.exit(BAD_CONFIGURATION)


def _print(report: dict[str, Any], loaded: Config | None) -> None:
    for setting in report.get("settings", ()):
        click.echo(f"{setting['key']}: {setting['value']}  # {setting['origin']}")
    for warning in report["warnings"]:
        click.echo(f"warning: {warning}")
    for error in report["errors"]:
        click.echo(error["text"])
    if loaded is None:
        click.echo(_count(len(report["errors"]), "error"))
        return
    parts = [
        f"{len(loaded.inbound)} inbound",
        f"{len(loaded.outbound)} outbound",
        _count(sum(not service.is_app for service in loaded.services.values()), "service"),
        _count(len(loaded.warnings), "warning"),
    ]
    click.echo(f"{report['file']} is valid: {', '.join(parts)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
