"""`ambassador`: finds the command, imports its file and turns errors into exit codes.

Knows names and one line of each command, so that `--help` imports none of them and `run` only itself.
Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 configuration or credentials.
"""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130
if sys.argv[1:2] == ["run"]:
    # Before the imports below, which take longer than all before: a reload that comes too early must not kill us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
try:
    import importlib
    import os
    from typing import IO, Any, Final, NoReturn

    import click

    from ambassador import __version__
    from ambassador.core.errors import AmbassadorError, ConfigErrors, CredentialError
except KeyboardInterrupt:  # ^C at once is no reason for a traceback
    sys.exit(INTERRUPTED)

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


class OutputFailed(AmbassadorError):
    """Standard output takes no more; the text says why. For commands whose other OSErrors mean something else."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit code."""
    try:
        open_standard_descriptors()
        code = run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def open_standard_descriptors() -> None:
    """Put /dev/null where the process was started with descriptor 0, 1 or 2 closed (`2>&-`).

    The next thing opened would get such a number: a socket or epoll would be written log lines to, and libuv ends
    the process when it is asked to close one of the three.
    """
    streams = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
    for descriptor, (name, mode) in enumerate(streams):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is given, and those below are open by now.
            if os.open(os.devnull, os.O_RDWR) == descriptor:
                os.set_inheritable(descriptor, True)  # as the three always are
            if getattr(sys, name) is None:
                stream: IO[str] = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  # for ever
                setattr(sys, name, stream)


def run(arguments: list[str] | None = None) -> int:
    """Run a command and give its exit code; what is wrong with the configuration is never a traceback."""
    try:
        result: Any = group.main(arguments, prog_name="ambassador", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # click makes an Abort of it
            return INTERRUPTED
        click.echo("ended", err=True)
        return FAILED
    except (ConfigErrors, CredentialError) as error:
        click.echo(str(error), err=True)
        return BAD_CONFIGURATION
    except (OutputFailed, OSError) as error:
        return _output_failed(error)
    return result if isinstance(result, int) else 0


def _output_failed(error: OutputFailed | OSError) -> int:
    """Say that a result could not be written, and give the exit code.

    Errors: an OSError that speaks of something else, which a command should have said itself, is raised again.
    """
    cause = error.__cause__ if isinstance(error, OutputFailed) else error
    assert isinstance(cause, OSError)  # noqa: S101  # for the type checker
    if not isinstance(cause, BrokenPipeError):
        if cause.filename is not None or isinstance(cause, (ConnectionError, TimeoutError)):
            raise error
        problem = (cause.strerror or "failed").lower()
        click.echo(f"ambassador: cannot write the result to standard output: {problem}", err=True)
    # `ambassador schema | head`: whoever reads has seen enough. Python would complain again at its end.
    sys.stdout = None
    return FAILED
