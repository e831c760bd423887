"""One line per exchange: JSON (the record as it is) or Envoy's text format.

Knows the formats, sampling, and when lines leave for the writer; must not know how a record is filled. A record
belongs to the log once it is handed over: lines are encoded together at the next flush, which costs 0.6 us a line
where one by one costs 0.9 (benchmarks/micro/telemetry_access_log.py), and with warm caches instead of cold ones.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ambassador.telemetry.logging import get_logger
from ambassador.telemetry.text import MAX_FIELD_BYTES, clean, rfc3339
from ambassador.telemetry.writer import MAX_WAITING_BYTES, ThreadedWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ambassador.core.record import ExchangeRecord

__all__ = ["AccessLog", "AccessLogSettings", "clean", "envoy_line", "rfc3339"]

_log = get_logger("access_log")
#: About 64 KiB of usual lines.
BATCH_RECORDS: Final = 128
#: Each piece wakes the writer's thread, which costs more than its line: not one per line. Units: seconds.
FLUSH_AFTER_S: Final = 0.05
_FIRST_FAILURE: Final = 500
_DELETE: Final = 0x7F


class AccessLogSettings(Protocol):
    """What of the configuration is obeyed here; `config.model.AccessLogConfig` has this shape."""

    @property
    def path(self) -> str:
        """A file, or "-" for standard output."""

    @property
    def format(self) -> str:
        """The word json or envoy."""

    @property
    def sample(self) -> float:
        """The fraction of good exchanges that is logged; failures always are."""

    @property
    def query(self) -> bool:
        """Whether paths keep their query."""


class AccessLog:
    """Takes records, gives lines to a writer thread; never blocks and never raises for what a record holds.

    `call_later` is the event loop's; `chance` gives numbers in [0, 1) for sampling.

    Units: seconds, lines.
    Errors: OSError at construction when the file cannot be opened.
    """

    __slots__ = (
        "_armed",
        "_batch",
        "_call_later",
        "_chance",
        "_encode",
        "_lost",
        "_query",
        "_reported",
        "_sample",
        "_writer",
    )

    def __init__(
        self,
        settings: AccessLogSettings,
        *,
        call_later: Callable[[float, Callable[[], None]], object],
        chance: Callable[[], float] | None = None,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._writer = ThreadedWriter(settings.path, max_waiting_bytes=max_waiting_bytes)
        self._encode = _encode_envoy if settings.format == "envoy" else _encode_json
        self._sample = settings.sample
        self._query = settings.query
        self._call_later = call_later
        self._chance = chance or random.Random().random  # noqa: S311  # decides nothing but a sample
        self._batch: list[ExchangeRecord] = []
        self._armed = False
        self._lost = 0
        self._reported = ""

    def __repr__(self) -> str:
        return f"AccessLog({self._writer!r}, collected={len(self._batch)})"

    @property
    def dropped(self) -> int:
        """Lines lost so far: too much waited, or the file could not be written."""
        return self._writer.dropped + self._lost

    @property
    def error(self) -> str:
        """Why the last write failed, empty when it did not."""
        return self._writer.error

    def write(self, *records: ExchangeRecord) -> None:
        """Take the records of ended exchanges; nobody may change them afterwards."""
        batch = self._batch
        batch += records if self._sample >= 1.0 else filter(self._is_chosen, records)
        if len(batch) >= BATCH_RECORDS:
            self.flush()
        elif batch and not self._armed:
            self._armed = True
            self._call_later(FLUSH_AFTER_S, self._time_passed)

    def _is_chosen(self, record: ExchangeRecord) -> bool:
        is_failure = record.flags != "-" or record.status >= _FIRST_FAILURE
        return is_failure or self._chance() < self._sample

    def flush(self) -> None:
        """Encode what is collected and hand it to the writer."""
        batch = self._batch
        if not batch:
            return
        self._batch = []
        for record in batch:
            # Three cheap looks a record; the rest only for the few that need it.
            if (
                "?" in record.path
                or len(record.path) > MAX_FIELD_BYTES
                or len(record.authority) > MAX_FIELD_BYTES
            ):
                self._shorten(record)
        lines, lost = self._encode(batch)
        self._lost += lost
        self._notice()  # before the next piece, whose success would hide the failure of the last one
        self._writer.put(lines, len(batch) - lost)

    def reopen(self) -> None:
        """Open the file anew, after the lines collected so far."""
        self.flush()
        self._writer.reopen()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write everything that is collected, waiting at most so long; later records are dropped and counted."""
        self.flush()
        self._writer.close(timeout_s)
        self._notice()

    def _time_passed(self) -> None:
        # The timer is never cancelled, so at any rate there is one in 0.05 s: cancelling costs more than it saves.
        self._armed = False
        self.flush()

    def _notice(self) -> None:
        error = self._writer.error
        if error == self._reported:
            return
        self._reported = error
        if error:
            _log.warning("access_log_failed", error=error)
        else:
            _log.info("access_log_recovered", dropped=self.dropped)

    def _shorten(self, record: ExchangeRecord) -> None:
        path = record.path
        if not self._query:
            path = path.partition("?")[0]
        record.path = clean(path)
        record.authority = clean(record.authority)


# --- JSON ------------------------------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder()
#: Lone surrogates, and what a mistake of ours may have put into a field.
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)


def _encode_json(batch: list[ExchangeRecord]) -> tuple[bytes, int]:
    """Give the lines and how many records could not be encoded.

    msgspec escapes C0, but leaves DEL, C1 and bidi controls as they are (threats I5). The fields were cleaned
    where the record was filled; that no line can break a terminal must not depend on nobody forgetting it.
    """
    try:
        lines = _encoder.encode_lines(batch)
    except _UNENCODABLE:
        return _encode_each(batch)
    if lines.isascii() and _DELETE not in lines:
        return lines, 0
    return _encode_each(batch)


def _encode_each(batch: list[ExchangeRecord]) -> tuple[bytes, int]:
    lines: list[bytes] = []
    for record in batch:
        try:
            lines.append(_encode_one(record))
        except _UNENCODABLE:  # whatever one record holds, the others of its batch are logged
            continue
    lines.append(b"")
    return b"\n".join(lines), len(batch) + 1 - len(lines)


def _encode_one(record: ExchangeRecord) -> bytes:
    try:
        line = _encoder.encode(record)
        harmless = line.decode().isprintable()
    except UnicodeError:  # a lone surrogate
        line, harmless = b"", False
    if harmless:
        return line
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            setattr(record, name, clean(value))
    return _encoder.encode(record)


# --- Envoy's text ----------------------------------------------------------------------------------------------


def _encode_envoy(batch: list[ExchangeRecord]) -> tuple[bytes, int]:
    return "".join([envoy_line(record) for record in batch]).encode(), 0


def envoy_line(record: ExchangeRecord) -> str:
    """Give the line that Envoy writes by default, with its end.

    Units: whole milliseconds, as Envoy has them.
    Source: Envoy 1.40, "Default format string" of its access logging.
    """
    upstream_ms = record.upstream_duration_ms
    return (
        f'[{record.time}] "{_quotable(record.method)} {_quotable(record.path)} {_quotable(record.protocol)}"'
        f" {record.status} {record.flags} {record.bytes_received} {record.bytes_sent} {int(record.duration_ms)}"
        f' {"-" if upstream_ms is None else int(upstream_ms)} "{_quotable(record.forwarded_for)}"'
        f' "{_quotable(record.user_agent)}" "{_quotable(record.request_id)}" "{_quotable(record.authority)}"'
        f' "{_quotable(record.endpoint)}"\n'
    )


def _quotable(text: str) -> str:
    """Give the text as it may stand between quotes: Envoy escapes nothing there, which is how its lines are forged."""
    text = clean(text)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text or "-"
