"""One endpoint as a service sees it: its connections, and what has been seen of it.

Knows counts and moments; the decisions about them are `policy.health`, `policy.outlier`, `policy.eligibility` and
`policy.weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ambassador.policy.health import Health
from ambassador.policy.outlier import Outlier
from ambassador.policy.peak_ewma import PeakEwma
from ambassador.policy.weights import warm_up

if TYPE_CHECKING:
    from ambassador.core.model import Endpoint
    from ambassador.upstream.pool import Pool
    from ambassador.upstream.service import Service

#: How long an endpoint that refused a connection is tried only after the others; doubled up to the second number.
SHUNNED_S: Final = (1.0, 30.0)
_WRONG_PEER: Final = "wrong_peer"
_ALWAYS: Final = float("-inf")


class EndpointState:
    """See the module.

    `watched`: its good answers are of interest as well; `born_at`: when it began to take traffic, or did so again.
    Units: seconds of the loop's clock.
    """

    __slots__ = (
        "_refusals", "address_text", "born_at", "breaker", "endpoint", "health", "latency", "outlier",
        "outstanding", "pool", "priority", "reason", "service", "shunned_until", "unreachable", "watched",
        "weight", "zone",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, pool: Pool, service: Service) -> None:
        self.pool = pool
        self.service = service
        self.breaker = service.breaker
        self.address_text = str(endpoint)
        self.health = Health()
        self.outlier = Outlier()
        self.latency = PeakEwma()
        self.outstanding = 0
        self.watched = self.unreachable = False
        self.shunned_until = 0.0
        self.born_at = _ALWAYS
        self.reason = ""  # of the last failed connect
        self._refusals = 0
        self.weight: float
        self.take(endpoint)

    def __repr__(self) -> str:
        return f"EndpointState({self.address_text}, {self.outstanding} outstanding)"

    @property
    def key(self) -> str:
        """Its place on the ring of ring_hash."""
        return self.address_text

    @property
    def available(self) -> bool:
        """Healthy by its checks, and not ejected."""
        return self.health.is_healthy and not self.outlier.is_ejected

    @property
    def is_impostor(self) -> bool:
        """Somebody else answered there when it was dialled or checked last; a dial may ask again after a while."""
        return (self.unreachable and self.reason == _WRONG_PEER) or (
            self.health.reason == _WRONG_PEER
        )

    def take(self, endpoint: Endpoint) -> None:
        """Take what its source says of it now."""
        self.endpoint = endpoint
        self.weight = endpoint.weight
        self.priority = endpoint.priority
        self.zone = endpoint.zone

    def warm(self, now: float, window_s: float) -> bool:
        """Give it the weight of its age; False when it is warm."""
        age_s = now - self.born_at
        self.weight = warm_up(self.endpoint.weight, age_s=age_s, window_s=window_s)
        return age_s < window_s

    def connect_failed(self, reason: str, now: float) -> None:
        """Prefer the others for a while."""
        shortest, longest = SHUNNED_S
        self.reason = reason
        self.shunned_until = now + min(longest, shortest * 2**self._refusals)
        self.unreachable = True
        self._refusals = min(self._refusals + 1, 8)

    def connected(self) -> None:
        """It answers."""
        if self._refusals:
            self._refusals = 0
            self.shunned_until = 0.0
            self.unreachable = False
            self.reason = ""
            self.service.look_again()

    def state(self, now: float) -> str:
        """Give the word for metrics: healthy, unhealthy (by its checks), ejected (by its answers) or unreachable."""
        if not self.health.is_healthy:
            return "unhealthy"
        if self.outlier.is_ejected:
            return "ejected"
        return "unreachable" if self.shunned_until > now else "healthy"

    def why(self, now: float) -> str:
        """Give the reason for a state that is not healthy."""
        match self.state(now):
            case "unhealthy":
                return self.health.reason
            case "ejected":
                return self.outlier.reason
            case "unreachable":
                return self.reason
            case _:
                return ""
