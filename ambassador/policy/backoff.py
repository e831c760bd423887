"""How long to pause before trying again.

Knows numbers; chance comes in.
"""

from __future__ import annotations

_MAX_DOUBLINGS = 32


def pause_s(attempt: int, *, base_s: float, max_s: float, chance: float) -> float:
    """Give a pause with full jitter: evenly out of 0 to `base_s` doubled per attempt, at most `max_s`.

    Units: seconds; `attempt` is 0 for the first pause, `chance` out of [0, 1).
    Source: AWS, "Exponential Backoff And Jitter" (full jitter); Envoy's retry back-off.
    """
    return chance * min(max_s, base_s * 2.0 ** min(attempt, _MAX_DOUBLINGS))
