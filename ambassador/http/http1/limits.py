"""Numbers of a downstream connection: its phases, its deadlines, and what it keeps or throws away at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambassador.wire.field import HeadLimits

HTTP_1_1: Final = 11  # as heads have it

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
WAIT: Final = 3
LINGER: Final = 4
CLOSED: Final = 5

CR: Final = 13
CONTINUE: Final = 100
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 64 * 1024
#: How long a connection beyond its age waits for one more request.
AGED_IDLE_S: Final = 1.0
#: Pipelined bytes that are kept while an answer is on its way; above it reading stops.
PIPELINE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Deadlines of a downstream connection.

    Units: seconds; `body_min_rate` bytes per second, None: no minimum; `max_age_s` None: no end.
    """

    head: HeadLimits
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    body_min_rate: float | None = 500.0
    max_age_s: float | None = 3600.0
