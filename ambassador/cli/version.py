"""`ambassador version`: what runs here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Any

import click

from ambassador import __version__


@click.command()
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def command(*, output: str) -> None:
    """Example: ambassador version -o json

    Prints the version, the event loop, the linked OpenSSL and the groups offered for key exchange.
    """
    facts = versions()
    if output == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"ambassador {facts['version']}")
    for name in ("python", "loop", "openssl", "groups"):
        value = facts[name]
        click.echo(f"{name:<10} {', '.join(value) if isinstance(value, list) else value}")


def versions() -> dict[str, Any]:
    """Give the facts that a report of a fault needs."""
    from ambassador.config.model import TlsConfig  # noqa: PLC0415  # imported when called
    from ambassador.identity import tls  # noqa: PLC0415  # OpenSSL is slow to import

    libraries = tls.versions()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "loop": _loop(),
        "openssl": libraries["OpenSSL"],
        "libraries": libraries,
        "groups": list(TlsConfig().groups),
    }


def _loop() -> str:
    """Give the event loop that `run` would take."""
    if os.environ.get("AMBASSADOR_LOOP") == "asyncio":
        return "asyncio"
    try:
        return f"uvloop {importlib.metadata.version('uvloop')}"
    except importlib.metadata.PackageNotFoundError:
        return "asyncio"
