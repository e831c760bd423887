"""How a connection breaks: what a transport says to its receiver besides the system's own errors."""

from __future__ import annotations

from typing import Final

#: TLS 1.3: level, description and content type under a tag of 16 bytes, all as application data.
_ALERT_HEADER: Final = b"\x17\x03\x03\x00\x13"
_ALERT_RECORD: Final = 5 + 19


class TlsFailure(ConnectionError):
    """TLS ended the connection: a bad record, or an alert of the peer; `reason` is a word of `identity.refusal`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class WriteRefused(ConnectionError):
    """A TLS peer takes nothing more; `unread` is what it sent before, still encrypted."""

    def __init__(self, unread: bytes) -> None:
        super().__init__("write refused")
        self.unread = unread

    refusal = (
        "The peer closed with an alert before it had answered anything: it refuses our certificate."
    )

    @property
    def looks_like_alert(self) -> bool:
        """Say whether one record with the size of an alert, and nothing else, lies there (RFC 8446 §5.2, §6)."""
        return len(self.unread) == _ALERT_RECORD and self.unread.startswith(_ALERT_HEADER)


class Truncated(ConnectionError):
    """A TLS peer closed the socket without close_notify (RFC 8446 §6.1)."""
