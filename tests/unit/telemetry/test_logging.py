"""Events on standard error."""

from __future__ import annotations

import io
import json
import logging as stdlib_logging
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ambassador.telemetry import logging
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

ANYTHING = st.recursive(
    st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
    max_leaves=10,
)
log = logging.get_logger("test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The setup and the root logger are the process's."""
    setup, handlers = logging._current.setup, stdlib_logging.root.handlers[:]
    yield
    logging._current.setup = setup
    stdlib_logging.root.handlers[:] = handlers


def configured(
    level: str = "info", fmt: str = "json", stream: io.StringIO | None = None
) -> io.StringIO:
    stream = stream or io.StringIO()
    logging.configure(level, fmt, clock=FakeClock(wall=1_700_000_000.310), stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_time_first() -> None:
    stream = configured()

    log.info("proxy_ready", listeners=2)

    assert stream.getvalue() == (
        '{"time":"2023-11-14T22:13:20.310Z","level":"info","event":"proxy_ready","logger":"test","listeners":2}\n'
    )


def test_the_instance_is_in_every_event_those_of_libraries_too() -> None:
    """config.md §3: `name` is "in logs"; an event's own `name` stays what it is about."""
    stream = io.StringIO()
    logging.configure("info", "json", stream=stream, instance="web\x1b")

    log.info("proxy_ready", name="other")
    stdlib_logging.getLogger("asyncio").warning("slow")

    assert [event["instance"] for event in events(stream)] == ["web\\x1b"] * 2
    assert events(stream)[0]["name"] == "other"
    assert list(events(stream)[0])[:4] == ["time", "level", "event", "instance"]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_what_is_written(level: str, written: list[str]) -> None:
    stream = configured(level)

    log.debug("one_happened")
    log.info("one_happened")
    log.warning("one_happened")
    log.error("one_happened")

    assert [event["level"] for event in events(stream)] == written


@hypothesis_settings(max_examples=60)
@given(ANYTHING)
def test_no_field_breaks_out_of_its_line(value: object) -> None:
    """Threats I5."""
    stream = configured()

    log.warning("handshake_refused", sni=value)

    (line,) = stream.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert json.loads(line)["event"] == "handshake_refused"


@hypothesis_settings(max_examples=60)
@given(st.text())
def test_no_field_breaks_out_of_its_line_on_a_terminal(value: str) -> None:
    """Threats I5."""
    stream = configured(fmt="console")

    log.warning("handshake_refused", sni=value)

    (line,) = stream.getvalue().split("\n")[:-1]
    assert line.isprintable()


def test_a_field_may_be_any_object_and_many_things() -> None:
    stream = configured()

    log.info(
        "names_seen",
        names=["x" * 2000] * 100,
        problem=ValueError("a\x1bb"),
        seen={"k\n": (1, None)},
    )

    (event,) = events(stream)
    assert event["names"] == ["x" * 1021 + "..."] * 32
    assert event["problem"] == "a\\x1bb"
    assert event["seen"] == {"k\\x0a": [1, None]}


def test_an_exception_is_logged_with_its_traceback() -> None:
    stream = configured()
    try:
        raise ValueError("from outside: \x1b[2J\u2028")
    except ValueError:
        log.exception("exchange_crashed")

    (event,) = events(stream)
    assert event["level"] == "error"
    assert str(event["exception"]).startswith("Traceback (most recent call last):\n")
    assert str(event["exception"]).endswith("ValueError: from outside: \\x1b[2J\\u2028")


def test_the_exception_can_be_handed_in() -> None:
    stream = configured()

    log.error("task_failed", exc_info=ValueError("later"))

    assert [event["exception"] for event in events(stream)] == ["ValueError: later"]


def test_what_libraries_complain_about_is_an_event_too() -> None:
    """asyncio reports exceptions of callbacks through the standard library's logging."""
    stream = configured()

    stdlib_logging.getLogger("asyncio").error("bad %s", "\x1b", exc_info=ValueError("x"))
    stdlib_logging.getLogger("asyncio").warning("slow")
    stdlib_logging.getLogger("asyncio").info("quiet")
    stdlib_logging.getLogger("asyncio").warning("%d wrong", "arguments")

    first, second, third = events(stream)
    assert first == {
        "time": "2023-11-14T22:13:20.310Z",
        "level": "error",
        "event": "library_complained",
        "logger": "asyncio",
        "message": "bad \\x1b",
        "exception": "ValueError: x",
    }
    assert (second["level"], second["message"]) == ("warning", "slow")
    assert third["message"] == "%d wrong"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_words_and_colours_unless_told(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://no-color.org: when present and not empty."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = configured(fmt="auto", stream=Terminal())

    log.info("proxy_ready", listeners=2)

    assert not stream.getvalue().startswith("{")
    assert "proxy_ready" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) is coloured


def test_json_is_json_on_a_terminal_too() -> None:
    stream = configured(fmt="json", stream=Terminal())

    log.info("proxy_ready")

    assert [event["event"] for event in events(stream)] == ["proxy_ready"]


def test_whoever_is_no_terminal_gets_json() -> None:
    stream = configured(fmt="auto")

    log.info("proxy_ready")

    assert [event["event"] for event in events(stream)] == ["proxy_ready"]


def test_a_console_traceback_keeps_its_lines() -> None:
    stream = configured(fmt="console")
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("exchange_crashed")

    lines = stream.getvalue().splitlines()
    assert "exchange_crashed" in lines[0]
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: x"


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_nobody_reading_is_no_reason_to_fail(error: Exception) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    configured(stream=Broken())

    log.error("proxy_failed")


def test_a_logger_names_itself() -> None:
    assert repr(log) == "Logger('test')"


def test_before_the_setup_events_at_info_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging._current.setup = logging._Current().setup

    log.debug("not_seen")
    log.info("seen_early")

    assert json.loads(capsys.readouterr().err)["event"] == "seen_early"


def test_structlog_is_imported_with_the_first_event_and_rich_not_at_all() -> None:
    """`ambassador run` starts within 350 ms; rich is the CLI's (house §10)."""
    program = (
        "import sys\n"
        "from ambassador.telemetry.logging import configure, get_logger\n"
        "configure()\n"
        "get_logger('x').debug('not_seen')\n"
        "assert 'structlog' not in sys.modules\n"
        "get_logger('x').info('proxy_ready')\n"
        "assert 'structlog' in sys.modules\n"
        "assert 'rich' not in sys.modules\n"
        "import rich.console\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout) == (0, "")
    assert json.loads(ran.stderr)["event"] == "proxy_ready"


def test_rich_stays_where_somebody_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    already = types.ModuleType("rich")
    monkeypatch.setitem(sys.modules, "rich", already)
    stream = configured()

    log.info("proxy_ready")

    assert sys.modules["rich"] is already
    assert len(events(stream)) == 1
