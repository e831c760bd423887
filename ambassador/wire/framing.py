"""Which framing a message has, as small integers (RFC 9112 §6.3).

Knows the names only; `head` decides, `render` spells. Integers and not an enum: they are compared for every
message and every piece of a body.
"""

from __future__ import annotations

from typing import Final

NO_BODY: Final = 0  # ends with its head
LENGTH: Final = 1  # Content-Length bytes follow, possibly none
CHUNKED: Final = 2  # chunked transfer coding
UNTIL_EOF: Final = 3  # responses only: the body ends with the connection
TUNNEL: Final = 4  # after 101, and after 2xx to CONNECT: no longer HTTP

NAMES: Final = ("no_body", "length", "chunked", "until_eof", "tunnel")

BODILESS: Final = frozenset({204, 304})
