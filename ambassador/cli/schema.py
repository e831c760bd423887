"""`ambassador schema`: the JSON Schema of the configuration file."""

from __future__ import annotations

import json

import click


@click.command()
@click.option(
    "-o", "--output", type=click.Choice(["json"]), default="json", help="There is only JSON."
)
def command(*, output: str) -> None:  # every command with a result takes it
    """Example: ambassador schema > ambassador.schema.json

    Prints the JSON Schema of the configuration file. Editors with a YAML language server obey a first line
    `# yaml-language-server: $schema=ambassador.schema.json` in the file.
    """
    from ambassador.config.json_schema import json_schema  # noqa: PLC0415  # pydantic is slow to import

    click.echo(json.dumps(json_schema(), indent=2))
