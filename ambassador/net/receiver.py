"""Who hears what a transport reads."""

from __future__ import annotations

from typing import Final, Protocol


class Receiver(Protocol):
    """What a transport calls."""

    def data_received(self, data: bytes) -> None: ...

    def read_finished(self) -> None: ...

    def eof_received(self) -> None:
        """The peer ended its direction in order (FIN, or close_notify on TLS); ours is still open."""

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None:
        """The socket is gone: None after our own close, else why. TLS truncation comes as an error."""


class _Nobody:
    """Hears nothing: the receiver of a detached transport."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None: ...

    def read_finished(self) -> None: ...

    def eof_received(self) -> None: ...

    def writable(self) -> None: ...

    def transport_closed(self, error: BaseException | None) -> None: ...


NOBODY: Final = _Nobody()
