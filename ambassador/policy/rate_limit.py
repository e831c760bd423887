"""How many requests may begin: a token bucket for all, or one for each peer.

Knows counts and moments; must not know what a request is. Each bucket is one number, the moment at which it would be
full again (the generic cell rate algorithm): nothing has to be filled up in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Peers that are told apart; beyond, those with a full bucket are forgotten, which changes nothing for them.
_MAX_PEERS: Final = 10_000
_ALL: Final = ""
_ROUNDING_S: Final = 1e-9  # of sums of intervals


@dataclass(frozen=True, slots=True, eq=False)
class RateLimit:
    """The settings of one place of the file: two places that say the same are two limits.

    Units: `rate` is requests per second, `burst` requests.
    """

    rate: float
    burst: int
    by_peer: bool = False


class RateLimiter:
    """The buckets of one place."""

    __slots__ = ("_full_at", "_interval_s", "_room_s", "by_peer")

    def __init__(self, settings: RateLimit) -> None:
        self._interval_s = 1 / settings.rate
        self._room_s = (settings.burst - 1) * self._interval_s
        self.by_peer = settings.by_peer
        self._full_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"RateLimiter({1 / self._interval_s:g}/s, {len(self._full_at)} buckets)"

    def take(self, peer: str, now: float) -> float:
        """Take a token: 0 when there was one, else how long until the next one.

        Units: seconds; `now` is monotonic.
        Source: ITU-T I.371 (GCRA); Envoy's local rate limit.
        """
        key = peer if self.by_peer else _ALL
        if key not in self._full_at:
            key = self._new(key, now)
        full_at = max(self._full_at.get(key, now), now)
        missing_s = full_at - now - self._room_s
        if missing_s > _ROUNDING_S:
            return missing_s
        self._full_at[key] = full_at + self._interval_s
        return 0.0

    def _new(self, key: str, now: float) -> str:
        """Give the key of a bucket for a peer that is not known yet: the common one when there are too many."""
        if len(self._full_at) >= _MAX_PEERS:
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
            if len(self._full_at) >= _MAX_PEERS:
                return _ALL
        return key
