"""Events of the process: what happened to it, not what it served (that is the access log).

Knows structlog and standard error; must not know who logs. An event is a `noun_verb` constant with fields, no prose.
Every text in a field is cleaned here, so callers may hand in what a stranger wrote.

Known ugliness: structlog imports rich where it is installed, for tracebacks that we do not use; that is 25 of its 50 ms
and 4 MB, so rich is hidden while structlog is imported. It can go once structlog imports rich lazily.
Writes go straight to standard error, until `write_from_thread`: from then on a reader that has stopped reading
costs events and never the event loop.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, TextIO

import msgspec

from ambassador.core.clock import Clock, SystemClock
from ambassador.telemetry.text import clean, rfc3339
from ambassador.telemetry.writer import ThreadedWriter

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.dev import ConsoleRenderer

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_ITEMS: Final = 32
_MAX_TRACEBACK_LINES: Final = 100
_MAX_WAITING_BYTES: Final = 1024 * 1024
_STDERR: Final = 2


class _Bound(Protocol):
    """What structlog gives."""

    def debug(self, event: str, **fields: object) -> object: ...

    def info(self, event: str, **fields: object) -> object: ...

    def warning(self, event: str, **fields: object) -> object: ...

    def error(self, event: str, **fields: object) -> object: ...


class _Setup:
    """How events are written, and the structlog logger once there was one to write."""

    __slots__ = ("bound", "clock", "fmt", "instance", "stream", "threshold", "writer")

    def __init__(
        self, threshold: int, fmt: str, *, clock: Clock, stream: TextIO | None, instance: str = ""
    ) -> None:
        self.threshold = threshold
        self.instance = clean(instance)
        self.fmt = fmt
        self.clock = clock
        self.stream = stream  # None: what sys.stderr is when the first event comes
        self.bound: _Bound | None = None
        self.writer: ThreadedWriter | None = None


class Logger:
    """Writes events under a name; costs a comparison when the level is off, and nothing at import."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"Logger({self._name!r})"

    def debug(self, event: str, **fields: object) -> None:
        """Write what only a developer wants to see."""
        if _current.setup.threshold <= logging.DEBUG:
            _structlog().debug(event, logger=self._name, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Write what happened as planned."""
        if _current.setup.threshold <= logging.INFO:
            _structlog().info(event, logger=self._name, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write what somebody should look at soon."""
        if _current.setup.threshold <= logging.WARNING:
            _structlog().warning(event, logger=self._name, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Write what does not work; always on."""
        _structlog().error(event, logger=self._name, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """Write an error with the traceback of the exception being handled, or of `exc_info`."""
        fields.setdefault("exc_info", True)
        _structlog().error(event, logger=self._name, **fields)


def get_logger(name: str) -> Logger:
    """Give a logger that may be used at once; until `configure` the level is info, the format auto."""
    return Logger(name)


def configure(
    level: str = "info",
    fmt: str = "auto",
    *,
    clock: Clock | None = None,
    stream: TextIO | None = None,
    instance: str = "",
) -> None:
    """Decide how all events are written from now on, those of libraries at warning and above too.

    `level` is debug, info, warning or error; `fmt` json, console or auto: console on a terminal. `instance` stands
    in every event, unless it is empty: not called `name`, which events have for what they are about.
    """
    _current.setup = _Setup(
        _LEVELS[level], fmt, clock=clock or SystemClock(), stream=stream, instance=instance
    )
    logging.root.handlers[:] = [_LibraryEvents(logging.WARNING)]


def write_from_thread() -> None:
    """Let no event wait for who reads standard error; call it before the first event, and `close` at the end."""
    setup = _current.setup
    if setup.stream is None:
        setup.writer = ThreadedWriter("-", max_waiting_bytes=_MAX_WAITING_BYTES, standard=_STDERR)


def close(timeout_s: float) -> None:
    """Write the events that wait, for at most so long; later ones are dropped."""
    if _current.setup.writer is not None:
        _current.setup.writer.close(timeout_s)


class _Current:
    """The one setup of the process."""

    __slots__ = ("setup",)

    def __init__(self) -> None:
        self.setup = _Setup(logging.INFO, "auto", clock=SystemClock(), stream=None)


_current = _Current()


class _LibraryEvents(logging.Handler):
    """Turns what libraries log (asyncio above all) into events, so that standard error stays one event a line."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"message": _message(record)}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        write = _structlog().error if record.levelno >= logging.ERROR else _structlog().warning
        write("library_complained", logger=record.name, **fields)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (
        TypeError,
        ValueError,
    ):  # arguments that do not fit are a library's mistake, not a reason to fail
        return str(record.msg)


# --- structlog ---------------------------------------------------------------------------------------------------


def _structlog() -> _Bound:
    setup = _current.setup
    if setup.bound is None:
        setup.bound = _build(setup)
    return setup.bound


def _build(setup: _Setup) -> _Bound:
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails (see Known ugliness)
    try:
        import structlog  # noqa: PLC0415  # slow: only when there is an event
    finally:
        if hidden:
            del sys.modules["rich"]
    stream = setup.stream or sys.stderr
    console = setup.fmt == "console" or (setup.fmt == "auto" and stream.isatty())
    bound: _Bound = structlog.wrap_logger(
        _Stream(stream) if setup.writer is None else _ThreadedStream(setup.writer),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _Finish(setup.clock, setup.instance),
            _console(stream) if console else structlog.processors.JSONRenderer(_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(setup.threshold),
        cache_logger_on_first_use=True,
    )
    return bound


def _console(stream: TextIO) -> ConsoleRenderer:
    from structlog import dev  # noqa: PLC0415  # with structlog, see above

    # NO_COLOR counts when it is not empty: https://no-color.org
    colors = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return dev.ConsoleRenderer(
        colors=colors,
        timestamp_key="time",
        exception_formatter=dev.plain_traceback,
        sort_keys=False,
    )


class _Stream:
    """Writes a line in one piece and survives that nobody reads it any more."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (
            OSError,
            ValueError,
        ):  # closed pipe, full disk, closed file: an event is not worth the proxy
            return

    debug = info = warning = error = msg


class _ThreadedStream:
    """Hands a line to the thread that writes; when too much waits already the event is dropped."""

    __slots__ = ("_writer",)

    def __init__(self, writer: ThreadedWriter) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.put(line.encode("utf-8", "backslashreplace") + b"\n", 1)

    debug = info = warning = error = msg


class _Finish:
    """Gives an event its time and the order of its keys, and cleans every text in it."""

    __slots__ = ("_clock", "_constant")

    def __init__(self, clock: Clock, instance: str) -> None:
        self._clock = clock
        self._constant = {"instance": instance} if instance else {}

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, object]
    ) -> MutableMapping[str, object]:
        finished: dict[str, object] = {
            "time": rfc3339(self._clock.wall()),
            "level": event.pop("level"),
            "event": event.pop("event"),
            **self._constant,
        }
        for key, value in event.items():
            finished[key] = _traceback(value) if key == "exception" else _cleaned(value)
        return finished


def _cleaned(value: object) -> object:
    match value:
        case str() | bytes():
            return clean(value)
        case bool() | int() | float() | None:
            return value
        case dict():
            return {
                clean(str(key)): _cleaned(item) for key, item in list(value.items())[:_MAX_ITEMS]
            }
        case list() | tuple() | set() | frozenset():
            return [_cleaned(item) for item in list(value)[:_MAX_ITEMS]]
        case _:
            return clean(str(value))  # an exception, an address, a path


def _traceback(value: object) -> str:
    """Clean line by line: the ends of lines are ours, the messages in them may not be."""
    lines = str(value).split("\n")[-_MAX_TRACEBACK_LINES:]
    return "\n".join([clean(line) for line in lines])


def _to_json(event: object, **_: object) -> str:
    return msgspec.json.encode(event).decode()
