"""A copy of a request's body, kept as long as the request may have to be sent again.

Knows bytes and a cap; must not know why they are sent again.
"""

from __future__ import annotations


class ReplayBuffer:
    """The body so far. Past its cap it frees itself, and the request can be sent only once.

    Units: bytes.
    """

    __slots__ = ("_cap", "content", "is_whole")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.is_whole = True
        self.content = bytearray()  # one, for a thousand small pieces cost twenty times their bytes

    def __repr__(self) -> str:
        return f"ReplayBuffer({len(self.content)} of {self._cap} bytes, whole={self.is_whole})"

    def add(self, piece: bytes) -> None:
        """Keep one more piece, or nothing any more."""
        if self.is_whole and len(self.content) + len(piece) > self._cap:
            self.is_whole = False
            self.content.clear()
        elif self.is_whole:
            self.content += piece

    def hold(self, piece: bytes) -> None:
        """Keep a piece that has been sent to nobody yet: without it the body would have a hole."""
        self.content += piece
