"""`ambassador run`: the proxy in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ambassador.app import Application
    from ambassador.config.model import Config

EXIT_DONE, EXIT_FAILED, EXIT_CONFIGURATION = 0, 1, 3
LEVELS = ("debug", "info", "warning", "error")
PR_SET_DUMPABLE = 4  # prctl(2)
#: How long the end waits for who reads the events. Units: seconds.
FLUSH_S = 1.0
#: What the garbage collector is told once everything is built; the default doubles p99 at 1000 requests/s.
GC_THRESHOLDS = (50_000, 20, 100)


@click.command(
    name="run",
    help="""Example: ambassador run --config ambassador.yaml

    Runs the proxy in the foreground. TERM drains and ends with 0, a second TERM ends at once with 1,
    HUP reads certificate, key and trust bundle anew.""",
)
@click.option("-c", "--config", "option", metavar="FILE", help="The configuration file.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="In place of log.level of the file.",
)
@click.option("--enable-faults", is_flag=True, help="Let the faults of the file happen: for tests.")
def command(option: str | None, log_level: str | None, *, enable_faults: bool) -> None:
    """Load, check, serve."""
    raise SystemExit(run(option, log_level, faults=enable_faults))


def run(option: str | None, log_level: str | None, *, faults: bool = False) -> int:
    """Give the exit code; every expected failure is one sentence on stderr, never a traceback."""
    _take_early_signals()
    _harden()
    from ambassador.config.load import find_config, load  # noqa: PLC0415  # only what is needed is imported
    from ambassador.core.errors import ConfigErrors, CredentialError, ListenError  # noqa: PLC0415
    from ambassador.telemetry import logging  # noqa: PLC0415

    try:
        config = load(find_config(option, os.environ), os.environ)
    except ConfigErrors as errors:
        count = len(errors.errors)
        print(
            f"{errors}\n{count} error{'s' if count != 1 else ''}", file=sys.stderr
        )  # the CLI's output
        return EXIT_CONFIGURATION
    level = log_level or os.environ.get("AMBASSADOR_LOG_LEVEL") or config.log.level
    logging.configure(level, config.log.format, instance=config.name)
    logging.write_from_thread()
    try:
        return _serve(config, faults=faults)
    except (ConfigErrors, CredentialError) as error:
        print(f"ambassador: {error}", file=sys.stderr)  # the CLI's output
        return EXIT_CONFIGURATION
    except (ListenError, OSError) as error:
        print(f"ambassador: {error}", file=sys.stderr)  # the CLI's output
        return EXIT_FAILED
    finally:
        logging.close(FLUSH_S)


def _take_early_signals() -> None:
    """Hear signals before the loop does: as PID 1 we would else lose them, elsewhere HUP would kill us (K5)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_before_start)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is read next is new anyway


def _end_before_start(_number: int, _frame: object) -> None:
    """Nothing is served yet and nothing is left on disk, so this is a whole drain."""
    os._exit(EXIT_DONE)


def _harden() -> None:
    """Keep the private key out of core dumps and of our uid's debuggers, and new files from others (K4)."""
    os.umask(0o027)
    import ctypes  # noqa: PLC0415  # Python has no prctl

    try:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: there is no such switch


def _serve(config: Config, *, faults: bool) -> int:
    from ambassador.app import serve  # noqa: PLC0415  # after the configuration is known to be good

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(serve(config, ready=_announce, faults=faults))
        finally:
            # The loop gives its signals back when it closes; an impatient third one must not change the exit code.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if os.environ.get("AMBASSADOR_LOOP", "uvloop") == "asyncio":
        return None
    import uvloop  # noqa: PLC0415  # 15 ms that asyncio's loop does not need

    return uvloop.Loop


def _announce(app: Application, took_s: float) -> None:
    """Tell that everything is up: words on a terminal, else the event `proxy_ready`."""
    import gc  # noqa: PLC0415  # used once, here

    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    for warning in app.config.warnings:
        app.log.warning("configuration_warning", problem=warning)
    if app.faults:
        app.log.warning("faults_enabled")
    if app.store is not None:
        for warning in app.store.credentials.warnings:
            app.log.warning("credentials_warning", problem=warning)
    if sys.stderr.isatty():
        from ambassador.cli.banner import banner  # noqa: PLC0415  # only for people

        print(banner(app, took_s), file=sys.stderr)  # the CLI's output
        return
    # An address is shown even when it came from a variable: it is what people look for here, and no secret, since
    # the system tells it to everybody (`ss -ltn`).
    addresses = {
        doors.name: [str(a) for a in listener.addresses]
        for doors, listener in zip(app.doors, app.listeners, strict=True)
    }
    app.log.info("proxy_ready", took_s=round(took_s, 3), listeners=addresses)
