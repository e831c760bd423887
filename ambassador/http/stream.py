"""Events and calls of one stream: one exchange's half on a connection, the same for either side.

Knows heads, body pieces and ends; no connection words. Both sides mirror each other: what one side hears, the
other is told. Heads carry no framing: Host, Content-Length, Transfer-Encoding and Connection are spelled by the
side that writes. `extra` is a block of complete header lines, rendered by policy, that goes out with a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError
    from ambassador.core.model import Field, RequestHead, ResponseHead
    from ambassador.http.http1.server import ServerConnection


class Owner(Protocol):
    """Who made a downstream connection: makes its exchanges and hears of its end."""

    def new_exchange(self, stream: ServerConnection) -> RequestEvents: ...

    def connection_closed(self, connection: ServerConnection) -> None: ...


class RequestEvents(Protocol):
    """What the exchange hears from downstream. After `stream_reset` nothing more comes."""

    def head_received(self, head: RequestHead, end: bool) -> None: ...  # noqa: FBT001

    def head_refused(self, error: ExchangeError) -> None:
        """There is no request that could be understood; the answer is a local reply."""

    def body_received(self, chunk: bytes, end: bool) -> None: ...  # noqa: FBT001

    def trailers_received(self, fields: list[Field]) -> None:
        """The end of the body, with trailers."""

    def stream_reset(self, error: ExchangeError) -> None: ...

    def read_finished(self) -> None:
        """A burst is over: what the other side corked may go out."""

    def writable(self) -> None: ...

    def deadline_passed(self) -> None: ...


class ResponseEvents(Protocol):
    """What the exchange hears from upstream: the same events under names of their own, since one object hears
    both sides. After `attempt_failed` nothing more comes.
    """

    def response_head(self, head: ResponseHead, end: bool) -> None: ...  # noqa: FBT001

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """Head and whole body at once: `response_head` and `response_body` in one step."""

    def response_interim(self, head: ResponseHead) -> None: ...

    def response_body(self, chunk: bytes, end: bool) -> None: ...  # noqa: FBT001

    def response_trailers(self, fields: list[Field]) -> None: ...

    def attempt_failed(self, error: ExchangeError) -> None: ...

    def response_burst_over(self) -> None: ...

    def upstream_writable(self) -> None: ...


class Stream(Protocol):
    """What both sides can be told; `write_…` cork until `flush` or the end."""

    def write_body(self, chunk: bytes, end: bool) -> bool:  # noqa: FBT001
        """False: the peer does not keep up, wait for `writable`."""

    def write_trailers(self, fields: list[Field]) -> None: ...

    def flush(self) -> bool:
        """Send what is corked; False as in `write_body`."""

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...


class RequestStream(Stream, Protocol):
    """Downstream, where the response goes."""

    def write_interim(self, head: ResponseHead) -> None: ...

    def write_head(self, head: ResponseHead, extra: bytes, end: bool) -> None: ...  # noqa: FBT001

    def write_whole(self, head: ResponseHead, extra: bytes, body: bytes) -> None:
        """Send a whole response with a body of known length: `write_head` and `write_body` in one step."""

    shows_heads: bool  # whether a local reply can be seen

    def take_back(self) -> bool:
        """Take back a response of which nothing has left yet; False when something has."""

    def reset(self) -> None:
        """End in the middle, so that truncation is seen."""

    def set_deadline(self, at: float) -> None:
        """Ask for `deadline_passed`; the last call counts. Units: seconds of the loop's clock."""

    def close_after_response(self) -> None:
        """This connection carries nothing more after this exchange (RFC 9112 §9.6)."""


class ResponseStream(Stream, Protocol):
    """Upstream, where the request goes."""

    def send_head(self, events: ResponseEvents, head: RequestHead, extra: bytes, end: bool) -> None:  # noqa: FBT001
        """Take the connection for one exchange and begin its request."""

    def abandon(self) -> None:
        """The exchange has ended on this side; a connection with unfinished business is not used again."""

    def release(self) -> None:
        """The exchange has seen the end of the response."""
