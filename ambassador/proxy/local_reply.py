"""Our own answers: error -> response.

The local app gets flag, detail and a sentence; a remote peer the bare status, because a stranger learns nothing
about our routes, rules and services (house §4).
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from ambassador.core.errors import (
    AccessDenied,
    ConnectFailed,
    DownstreamProtocolError,
    FaultInjected,
    NoHealthyUpstream,
    Overflow,
    Overloaded,
    PeerRefusedUs,
    Phase,
    RateLimited,
)
from ambassador.core.model import ResponseHead

if TYPE_CHECKING:
    from ambassador.core.errors import ExchangeError

#: RFC 9110 §15 has newer names for two of them than Python's library.
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
}
#: Flags whose cause passes by itself: say when to come again. Units: seconds.
_RETRY_AFTER: Final = {"UO": 1, "OM": 1}


class DateLine:
    """`Date` as one line, rendered once a second (RFC 9110 §6.6.1)."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def at(self, wall: float) -> bytes:
        """Give the line for a moment. Units: Unix time in seconds."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self._line = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


def local_reply(
    error: ExchangeError, *, remote: bool, mark: str = ""
) -> tuple[ResponseHead, bytes, bytes]:
    """Give head, extra header lines and body of the answer to a failed exchange; `mark` is one more flag."""
    status = error.status
    reason = _REASONS.get(status, b"")
    flag = error.flag.value
    later = b""
    if isinstance(
        error, RateLimited
    ):  # also a remote peer hears when, or it comes again at once (RFC 6585 §4)
        later = b"Retry-After: %d\r\n" % error.retry_after_s
    if remote:
        return ResponseHead(status, reason, [], 0), later, b""
    if flag in _RETRY_AFTER:
        later = b"Retry-After: %d\r\n" % _RETRY_AFTER[flag]
    body = (error.message or reason.decode() or error.detail).encode(
        "utf-8", "backslashreplace"
    ) + b"\n"
    extra = (
        b"X-Ambassador-Flags: %b\r\nX-Ambassador-Detail: %b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        % (
            (f"{flag},{mark}" if mark else flag).encode(),
            error.detail.encode(),
        )
    )
    return ResponseHead(status, reason, [], len(body)), extra + later, body


def overloaded() -> Overloaded:
    """Give the refusal of a process that is full of bytes for slow peers."""
    return Overloaded("buffers", "Too many bytes wait for slow peers; see limits.buffers.")


def check_length(ceiling: int | None, length: int | None) -> None:
    """Refuse a request by what it says of its body: raises `too_large`."""
    if ceiling is not None and length is not None and length > ceiling:
        raise too_large(ceiling)


def too_large(ceiling: int) -> DownstreamProtocolError:
    """Give the refusal of a request's body. Units: bytes."""
    return DownstreamProtocolError(
        "body_too_large", f"The body may have {ceiling} bytes.", status=413
    )


def phase_before_head(
    error: ExchangeError, *, understood: bool, routed: bool, connected: bool, uploading: bool
) -> Phase:
    """Say where an exchange failed that no response head has left: by the error, else by how far it had come."""
    if isinstance(error, AccessDenied | RateLimited | Overflow | FaultInjected):
        return Phase.ADMIT
    if not routed:
        return Phase.ROUTE if understood else Phase.HEAD
    refused_us = isinstance(error, PeerRefusedUs)
    if not connected or (isinstance(error, ConnectFailed | NoHealthyUpstream) and not refused_us):
        return Phase.CONNECT
    return Phase.SEND if uploading else Phase.WAIT
