"""One line per exchange, whatever is in the record and whoever reads the log."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ambassador.core.record import ExchangeRecord
from ambassador.telemetry import access_log, writer
from ambassador.telemetry.access_log import BATCH_RECORDS, AccessLog, envoy_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANYTHING = st.text(alphabet=st.characters(), max_size=60)


class Timers:
    """Takes what `call_later` takes; `fire` is the time passing."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.set.append((delay_s, callback))

    def fire(self) -> None:
        due, self.set = self.set, []
        for _, callback in due:
            callback()


@dataclass(frozen=True)
class Settings:
    """`config.model.AccessLogConfig`, which lies floors above."""

    path: str
    format: str = "json"
    sample: float = 1.0
    query: bool = False


@dataclass
class Opened:
    log: AccessLog
    timers: Timers
    path: Path

    def lines(self) -> list[dict[str, object]]:
        """Close the log and give what it wrote."""
        self.log.close()
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    timers = Timers()
    path = tmp_path / "access.log"
    log = AccessLog(Settings(path=str(path)), call_later=timers.call_later)
    yield Opened(log, timers, path)
    log.close()


def open_log(
    path: Path, *, chance: Callable[[], float] | None = None, **settings: object
) -> Opened:
    timers = Timers()
    config = Settings(path=str(path), **settings)  # type: ignore[arg-type]
    return Opened(AccessLog(config, call_later=timers.call_later, chance=chance), timers, path)


def record(**fields: object) -> ExchangeRecord:
    return ExchangeRecord(
        **{"time": "2026-01-31T12:00:00.310Z", "method": "GET", "path": "/", "status": 200} | fields  # type: ignore[arg-type]
    )


# --- JSON ---


def test_a_line_is_the_record(opened: Opened) -> None:
    written = record(peer="spiffe://example.org/web", duration_ms=1.5, upstream_duration_ms=None)

    opened.log.write(written)

    (line,) = opened.lines()
    assert line == {name: getattr(written, name) for name in written.__struct_fields__}


def test_the_keys_of_a_line_are_a_promise(opened: Opened) -> None:
    """Issue 3: time, direction, listener … trace id, in this order."""
    opened.log.write(record())

    (line,) = opened.lines()
    assert " ".join(line) == (
        "time direction listener route service endpoint method authority path protocol status flags phase detail"
        " bytes_received bytes_sent duration_ms upstream_duration_ms attempts peer peer_address tls_version"
        " tls_group rule reason user_agent forwarded_for request_id trace_id instance not_retried"
    )


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    fields=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["path", "authority", "user_agent", "peer", "forwarded_for", "detail", "method"]
            ),
            ANYTHING,
        ),
        min_size=1,
        max_size=8,
    ),
    fmt=st.sampled_from(["json", "envoy"]),
)
def test_every_record_is_one_harmless_line(
    fields: list[dict[str, str]], fmt: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Threats I5: even if a field was never cleaned; one bad record takes nobody with it."""
    path = tmp_path_factory.mktemp("log") / "access.log"
    opened = open_log(path, format=fmt)
    for each in fields:
        opened.log.write(record(**each))
    opened.log.close()

    written = path.read_text(encoding="utf-8")
    lines = written.split("\n")
    assert opened.log.dropped == 0
    assert lines.pop() == ""
    assert len(lines) == len(fields)
    assert all(line.isprintable() for line in lines)
    categories = {unicodedata.category(char) for char in written if char not in "\n "}
    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    if fmt == "json":
        assert [json.loads(line)["status"] for line in lines] == [200] * len(fields)


def test_a_record_that_cannot_be_encoded_costs_only_itself(opened: Opened) -> None:
    """A mistake of ours must not lose the other lines of its batch."""
    opened.log.write(record(status=200))
    opened.log.write(record(detail=object()))
    opened.log.write(record(status=201))

    assert [line["status"] for line in opened.lines()] == [200, 201]
    assert opened.log.dropped == 1


def test_harmless_text_beyond_ascii_is_kept(opened: Opened) -> None:
    opened.log.write(record(user_agent="Zürich"))

    assert [line["user_agent"] for line in opened.lines()] == ["Zürich"]


@pytest.mark.parametrize(
    ("query", "logged"), [(False, "/search"), (True, "/search?q=secret")], ids=["default", "asked"]
)
def test_the_query_is_logged_only_if_asked(tmp_path: Path, query: bool, logged: str) -> None:
    """Threats I5."""
    opened = open_log(tmp_path / "log", query=query)

    opened.log.write(record(path="/search?q=secret"))

    assert [line["path"] for line in opened.lines()] == [logged]


@pytest.mark.parametrize("field", ["path", "authority"])
def test_a_long_target_takes_one_kibibyte(opened: Opened, field: str) -> None:
    """Threats I5; the wire allows 16 KiB."""
    opened.log.write(record(**{field: "/" + "a" * 16_000}))

    (line,) = opened.lines()
    assert line[field] == "/" + "a" * 1020 + "..."


# --- Envoy's format ---


def test_the_text_format_is_envoys_default() -> None:
    """Envoy 1.40, default format string."""
    written = record(
        protocol="HTTP/1.1", bytes_received=7, bytes_sent=1024, duration_ms=12.9, upstream_duration_ms=9.9,
        forwarded_for="10.0.0.1", user_agent="curl/8.5.0", request_id="af09", authority="payments",
        endpoint="10.0.0.7:8443", path="/pay",
    )  # fmt: skip

    assert envoy_line(written) == (
        '[2026-01-31T12:00:00.310Z] "GET /pay HTTP/1.1" 200 - 7 1024 12 9 "10.0.0.1" "curl/8.5.0" "af09"'
        ' "payments" "10.0.0.7:8443"\n'
    )


def test_what_is_absent_is_a_dash_in_the_text_format() -> None:
    assert envoy_line(record(method="", path="", status=0, flags="DC")) == (
        '[2026-01-31T12:00:00.310Z] "- - -" 0 DC 0 0 0 - "-" "-" "-" "-" "-"\n'
    )


def test_quotes_and_backslashes_cannot_end_a_field_of_the_text_format() -> None:
    """Envoy CVE-2024-45808: forged log lines."""
    line = envoy_line(record(user_agent='" 200 - "\\', path='/"'))

    assert '"\\" 200 - \\"\\\\"' in line
    assert '"GET /\\" -"' in line


def test_the_format_is_the_settings(tmp_path: Path) -> None:
    opened = open_log(tmp_path / "log", format="envoy")
    written = record()

    opened.log.write(written)
    opened.log.close()

    assert opened.path.read_text() == envoy_line(written)


# --- sampling ---


def test_a_sample_keeps_its_share(tmp_path: Path) -> None:
    chances = iter([0.0, 0.25, 0.24, 0.99])
    opened = open_log(tmp_path / "log", sample=0.25, chance=lambda: next(chances))

    for status in (200, 201, 202, 203):
        opened.log.write(record(status=status))

    assert [line["status"] for line in opened.lines()] == [200, 202]


@pytest.mark.parametrize(
    ("status", "flags", "logged"),
    [
        (200, "-", 0),
        (404, "-", 0),
        (499, "-", 0),
        (500, "-", 1),
        (503, "UF", 1),
        (0, "DC", 1),
        (200, "UPE", 1),
    ],
)
def test_failures_are_always_logged(tmp_path: Path, status: int, flags: str, logged: int) -> None:
    """config.md §3, access_log.sample."""
    opened = open_log(tmp_path / "log", sample=0.0, chance=lambda: 0.0)

    opened.log.write(record(status=status, flags=flags))

    assert len(opened.lines()) == logged


def test_without_a_chance_handed_in_the_sample_is_random(tmp_path: Path) -> None:
    opened = open_log(tmp_path / "log", sample=0.5)

    for _ in range(200):
        opened.log.write(record())

    assert 0 < len(opened.lines()) < 200


# --- when lines leave ---


def test_nothing_is_handed_over_before_the_time_or_the_batch(opened: Opened) -> None:
    opened.log.write(record())

    assert opened.log._writer._put_lines == 0
    assert [delay_s for delay_s, _ in opened.timers.set] == [0.05]


def test_the_timer_hands_over_what_is_collected(opened: Opened) -> None:
    opened.log.write(record(status=200))
    opened.log.write(record(status=201))

    opened.timers.fire()

    assert opened.log._writer._put_lines == 2
    assert opened.timers.set == []


def test_one_timer_runs_however_many_lines_come(opened: Opened) -> None:
    for _ in range(3 * BATCH_RECORDS):
        opened.log.write(record())

    assert len(opened.timers.set) == 1


def test_a_timer_without_lines_writes_nothing(opened: Opened) -> None:
    for _ in range(BATCH_RECORDS):
        opened.log.write(record())

    opened.timers.fire()

    assert opened.log._writer._put_lines == BATCH_RECORDS


def test_a_full_batch_is_handed_over_at_once(opened: Opened) -> None:
    for _ in range(BATCH_RECORDS + 1):
        opened.log.write(record())

    assert opened.log._writer._put_lines == BATCH_RECORDS
    assert len(opened.lines()) == BATCH_RECORDS + 1


def test_lines_keep_their_order(opened: Opened) -> None:
    for status in range(100, 700):
        opened.log.write(record(status=status))

    assert [line["status"] for line in opened.lines()] == list(range(100, 700))


def test_records_after_the_end_are_dropped_and_counted(opened: Opened) -> None:
    opened.log.close()

    opened.log.write(record())
    opened.timers.fire()

    assert opened.log.dropped == 1


def test_the_log_names_its_state(opened: Opened) -> None:
    opened.log.write(record())

    assert "collected=1" in repr(opened.log)
    assert "dropped=0" in repr(opened.log)


# --- the file ---


def test_the_file_is_appended_to_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    before = os.umask(0)
    try:
        open_log(path).log.close()
    finally:
        os.umask(before)
    path.write_text("before\n")
    opened = open_log(path)
    opened.log.write(record())
    opened.log.close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text().startswith("before\n{")


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "missing" / "log")


def test_reopening_follows_a_renamed_file(opened: Opened) -> None:
    rotated = opened.path.with_suffix(".1")
    opened.log.write(record(status=200))
    opened.path.rename(rotated)
    opened.log.reopen()
    opened.log.write(record(status=201))

    assert [line["status"] for line in opened.lines()] == [201]
    assert [json.loads(line)["status"] for line in rotated.read_bytes().splitlines()] == [200]


def test_a_reader_that_left_is_reported_once_and_counted(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed pipe must not end the proxy, nor flood standard error."""
    events: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(access_log, "_log", Recorder(events))
    read, write = os.pipe()
    os.close(read)
    opened.log._writer._release()
    opened.log._writer._fd = write
    for _ in range(3):
        opened.log.write(record())
        opened.log.flush()
        wait_until_written(opened.log)
    opened.log.flush()
    opened.log.write(record())
    opened.log.flush()

    assert events == [("access_log_failed", {"error": "Broken pipe"})]
    assert opened.log.dropped >= 3
    assert opened.log.error == "Broken pipe"


def test_a_log_that_works_again_says_what_was_lost(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(access_log, "_log", Recorder(events))
    failing = iter([OSError(28, "No space left on device")])
    good_write = os.write
    monkeypatch.setattr(
        writer.os, "write", lambda fd, piece: fail_or(failing, good_write, fd, piece)
    )
    for _ in range(3):
        opened.log.write(record())
        opened.log.flush()
        wait_until_written(opened.log)
    opened.log.write(record())
    opened.log.flush()

    assert events == [
        ("access_log_failed", {"error": "No space left on device"}),
        ("access_log_recovered", {"dropped": 1}),
    ]


class Recorder:
    def __init__(self, events: list[tuple[str, dict[str, object]]]) -> None:
        self.events = events

    def warning(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    info = warning


def fail_or(
    failing: Iterator[OSError], write: Callable[[int, bytes], int], fd: int, piece: bytes
) -> int:
    for error in failing:
        raise error
    return write(fd, piece)


def wait_until_written(log: AccessLog) -> None:
    """Wait for the condition, never for a time; the test's timeout is the deadline."""
    while log._writer.waiting_bytes:
        os.sched_yield()


@pytest.mark.parametrize(
    ("foreign", "visible"),
    [("\ud800", "\\ud800"), ("\x9b31m", "\\u009b31m"), ("a\x7f", "a\\x7f"), ("\u202e", "\\u202e")],
)
def test_what_was_not_cleaned_where_it_came_in_is_cleaned_here(
    opened: Opened, foreign: str, visible: str
) -> None:
    """Threats I5: msgspec leaves DEL, C1 and bidi, and refuses lone surrogates."""
    opened.log.write(record(detail=foreign, peer="Zürich"))

    assert [(line["detail"], line["peer"]) for line in opened.lines()] == [(visible, "Zürich")]


def test_nobody_reading_standard_output_ends_nothing() -> None:
    """Threats E8: EPIPE is counted; no signal, no traceback, exit 0."""
    program = (
        "import sys\n"
        "from ambassador.core.record import ExchangeRecord\n"
        "from ambassador.telemetry.access_log import AccessLog\n"
        "class Settings: path, format, sample, query = '-', 'json', 1.0, False\n"
        "log = AccessLog(Settings(), call_later=lambda *_: None)\n"
        "sys.stdin.read()\n"
        "log.write(ExchangeRecord())\n"
        "log.close(10.0)\n"
        "print(log.dropped, log.error, file=sys.stderr)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()

        event, *said = process.stderr.read().splitlines()

    assert (process.returncode, said) == (0, ["1 Broken pipe"])
    assert json.loads(event)["event"] == "access_log_failed"
