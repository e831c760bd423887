"""Both halves of the stream interface (`http/stream.py`) as recorders: no loop, no socket.

`RecordingStream` stands where a connection would, of either side: it records what an exchange or attempt calls.
`RecordingReceiver` stands where an exchange or attempt would: it records the events of a connection.
Entries are tuples that begin with the name of the method, so that a test compares a whole conversation at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ambassador.core.errors import ExchangeError
from ambassador.core.model import Field, RequestHead, ResponseHead

Entry = tuple[Any, ...]


class RecordingStream:
    """A `RequestStream` and `ResponseStream` whose `calls` are recorded.

    `full = True` makes `write_body` and `flush` answer False, as for a peer that reads slowly. `call_back["flush"] =
    function` runs the function once during that call, as a connection does whose write fails at once.
    """

    shows_heads = True

    def __init__(self) -> None:
        self.calls: list[Entry] = []
        self.full = self.has_spoken = False
        self.deadline: float | None = None
        self.receiver: Any = None
        self.peer_text: tuple[str, str, str] | None = None
        self.call_back: dict[str, Callable[[], None]] = {}

    def write_interim(self, head: ResponseHead) -> None:
        self._note("write_interim", head)

    def write_head(self, head: Any, extra: bytes, end: bool) -> None:
        self._note("write_head", head, bytes(extra), end)

    def write_body(self, chunk: bytes, end: bool) -> bool:
        self._note("write_body", bytes(chunk), end)
        return not self.full

    def write_whole(self, head: ResponseHead, extra: bytes, body: bytes) -> None:
        """Note what it stands for: a head and the only piece of its body."""
        self._note("write_head", head, bytes(extra), False)
        self._note("write_body", bytes(body), True)

    def send_head(self, events: Any, head: RequestHead, extra: bytes, end: bool) -> None:
        """Note it as `write_head`; `events` is kept as `receiver`."""
        self.receiver = events
        self._note("write_head", head, bytes(extra), end)

    def write_trailers(self, fields: list[Field]) -> None:
        self._note("write_trailers", fields)

    def flush(self) -> bool:
        self._note("flush")
        return not self.full

    def pause_body(self) -> None:
        self._note("pause_body")

    def resume_body(self) -> None:
        self._note("resume_body")

    def take_back(self) -> bool:
        return False

    def reset(self) -> None:
        self._note("reset")

    def abandon(self) -> None:
        self._note("abandon")

    def release(self) -> None:
        self._note("release")

    def redirect(self, events: Any) -> None:
        """Keep who listens from now on; it is no call, for nothing goes out."""
        self.receiver = events

    def start(self, events: Any) -> None:
        """Note the begin of a tunnel's reading; `events` is kept as `receiver`."""
        self.receiver = events
        self._note("start")

    def close_after_response(self) -> None:
        self._note("close_after_response")

    def set_deadline(self, at: float) -> None:
        """Keep the deadline in `deadline`; it is no call, since it moves with every step."""
        self.deadline = at

    @property
    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    @property
    def head(self) -> Any:
        """The head that was written; AssertionError unless there is exactly one."""
        return self._head_call()[1]

    @property
    def extra(self) -> bytes:
        """The header lines that went out with the only head."""
        return bytes(self._head_call()[2])

    @property
    def body(self) -> bytes:
        """All body bytes written so far."""
        return b"".join(call[1] for call in self.calls if call[0] == "write_body")

    @property
    def ended(self) -> bool:
        """Whether the message was ended in an orderly way."""
        return any(
            call[0] == "write_trailers" or (call[0] in {"write_head", "write_body"} and call[-1])
            for call in self.calls
        )

    @property
    def was_cut(self) -> bool:
        """Whether the stream was reset or abandoned."""
        return "reset" in self.names or "abandon" in self.names

    def take(self) -> list[Entry]:
        """Give the calls since the last `take`."""
        calls, self.calls = self.calls, []
        return calls

    def _head_call(self) -> Entry:
        heads = [call for call in self.calls if call[0] == "write_head"]
        assert len(heads) == 1, f"expected one head, got {heads}"
        return heads[0]

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        answer = self.call_back.pop(call[0], None)
        if answer is not None:
            answer()


class RecordingReceiver:
    """`RequestEvents` and `ResponseEvents`; `events` is what came, without `read_finished` (counted in `bursts`)."""

    def __init__(self) -> None:
        self.events: list[Entry] = []
        self.bursts = 0

    def head_received(self, head: Any, end: bool) -> None:
        self.events.append(("head_received", head, end))

    def head_refused(self, error: ExchangeError) -> None:
        self.events.append(("head_refused", error))

    def interim_received(self, head: ResponseHead) -> None:
        self.events.append(("interim_received", head))

    def body_received(self, chunk: bytes, end: bool) -> None:
        self.events.append(("body_received", bytes(chunk), end))

    def trailers_received(self, fields: list[Field]) -> None:
        self.events.append(("trailers_received", fields))

    def stream_reset(self, error: ExchangeError) -> None:
        self.events.append(("stream_reset", error))

    def writable(self) -> None:
        self.events.append(("writable",))

    def deadline_passed(self) -> None:
        self.events.append(("deadline_passed",))

    def read_finished(self) -> None:
        """Count the burst."""
        self.bursts += 1

    @property
    def names(self) -> list[str]:
        """The names of the events, in order."""
        return [event[0] for event in self.events]

    @property
    def head(self) -> RequestHead | ResponseHead:
        """The head that came; AssertionError unless there is exactly one."""
        heads = [event[1] for event in self.events if event[0] == "head_received"]
        assert len(heads) == 1, f"expected one head, got {heads}"
        head: RequestHead | ResponseHead = heads[0]
        return head

    @property
    def error(self) -> ExchangeError:
        """The error of the only refusal or reset."""
        errors = [event[1] for event in self.events if event[0] in {"head_refused", "stream_reset"}]
        assert len(errors) == 1, f"expected one error, got {errors}"
        error: ExchangeError = errors[0]
        return error

    @property
    def body(self) -> bytes:
        """All body bytes received so far."""
        return b"".join(event[1] for event in self.events if event[0] == "body_received")

    @property
    def ended(self) -> bool:
        """Whether the message came to an orderly end."""
        return any(
            event[0] == "trailers_received"
            or (event[0] in {"head_received", "body_received"} and event[2])
            for event in self.events
        )

    def take(self) -> list[Entry]:
        """Give the events since the last `take`."""
        events, self.events = self.events, []
        return events


def plain(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    """Give name and value of each field, to compare with."""
    return [(field.name, field.value) for field in fields]


class EndReceiver:
    """A transport's receiver that hears nothing but the end."""

    def __init__(self) -> None:
        self.ended: list[BaseException | None] = []

    def data_received(self, data: bytes) -> None: ...

    def read_finished(self) -> None: ...

    def eof_received(self) -> None: ...

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None:
        self.ended.append(error)
