"""`ambassador`: finds the command, imports its file and turns errors into exit codes.

Knows names and one line of each command, so that `--help` imports none of them and `run` only itself.
Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 configuration or credentials.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, NoReturn

import click

from ambassador import __version__
from ambassador.core.errors import ConfigErrors, CredentialError

FAILED: Final = 1
BAD_CONFIGURATION: Final = 3

COMMANDS: Final = {
    "run": "The proxy, in the foreground.",
    "validate": "Every error of a configuration, certificates too.",
    "schema": "JSON Schema of the configuration, for editors.",
    "demo": "Two Pods on loopback that call each other through sidecars.",
    "certs": "Certificates: for development, to issue, to inspect.",
    "version": "Version, event loop, linked OpenSSL, groups.",
}
LATER: Final = (
    *("bench", "exec", "wait", "drain", "check", "kubernetes", "compose"),
    *("tap", "top", "status", "policy", "diff", "reload", "logs"),
)


class Commands(click.Group):
    """The group whose commands are files beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER:
            ctx.fail(f"{cmd_name} is not built yet.")
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ambassador.cli.{cmd_name}")
        command: click.Command = module.group if hasattr(module, "group") else module.command
        example_first(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and name not in LATER and not name.startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415  # only for a typing error

            near = get_close_matches(name, COMMANDS, 1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def example_first(command: click.Command) -> None:
    """Let `--help` open with the paragraph of a command's docstring that begins with "Example:".

    Done here for all of them, so that each file stays a plain click command.
    """
    paragraphs = (command.help or "").split("\n\n")
    example = next((one.strip() for one in paragraphs if one.strip().startswith("Example:")), "")
    if example:
        command.help = "\n\n".join(one for one in paragraphs if one.strip() != example)
        get_help = command.get_help
        command.get_help = lambda ctx: f"{example}\n\n{get_help(ctx)}"  # type: ignore[method-assign]
    for inner in getattr(command, "commands", {}).values():
        example_first(inner)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ambassador", message="%(prog)s %(version)s")
def group() -> None:
    """Example: ambassador demo

    A sidecar proxy that gives an application mutual TLS, in and out, without a change to it.
    """


example_first(group)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command and give its exit code; what is wrong with the configuration is never a traceback."""
    try:
        result: Any = group.main(arguments, prog_name="ambassador", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("ended", err=True)
        return FAILED
    except (ConfigErrors, CredentialError) as error:
        click.echo(str(error), err=True)
        return BAD_CONFIGURATION
    except BrokenPipeError:
        # `ambassador schema | head`: whoever reads has seen enough. Python would complain again at its end.
        sys.stdout = None
        return FAILED
    return result if isinstance(result, int) else 0
