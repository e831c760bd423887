"""The error tree, the response flags, and the one table from error to flag, status and repeatability.

Knows how an exchange can fail and what its failure is called; must not know who reports it.
Flags are Envoy's letters, because people search for them; AD, LD, IE and HP (the service was in healthy panic: Envoy
only counts that) are ours.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class ResponseFlag(StrEnum):
    """Who was at fault, in Envoy's letters."""

    NONE = "-"
    DOWNSTREAM_PROTOCOL_ERROR = "DPE"
    STREAM_IDLE = "SI"
    DOWNSTREAM_CLOSED = "DC"
    ACCESS_DENIED = "AD"
    LOOP_DETECTED = "LD"
    NO_ROUTE = "NR"
    RATE_LIMITED = "RL"
    OVERFLOW = "UO"
    OVERLOADED = "OM"
    NO_HEALTHY_UPSTREAM = "UH"
    RESOLVE_FAILED = "DF"
    CONNECT_FAILED = "UF"
    UPSTREAM_RESET = "UR"
    UPSTREAM_CLOSED = "UC"
    UPSTREAM_TIMEOUT = "UT"
    UPSTREAM_PROTOCOL_ERROR = "UPE"
    RETRIES_EXHAUSTED = "URX"
    DELAY_INJECTED = "DI"
    FAULT_INJECTED = "FI"
    PANIC = "HP"
    INTERNAL_ERROR = "IE"


class Phase(StrEnum):
    """Where an exchange ended."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    ROUTE = "route"
    ADMIT = "admit"
    CONNECT = "connect"
    SEND = "send"
    WAIT = "wait"
    RELAY = "relay"


class Repeatable(StrEnum):
    """Which requests may be sent again after such a failure (RFC 9110 §9.2.2)."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"
    ALWAYS = "always"


class AmbassadorError(Exception):
    """Root of all that we raise ourselves."""


class ConfigError(AmbassadorError):
    """One thing wrong in the configuration file, with its place.

    Units: line and column count from 1; 0 means that the place is unknown.
    """

    def __init__(
        self,
        key_path: str,
        problem: str,
        *,
        line: int = 0,
        column: int = 0,
        file: str = "",
    ) -> None:
        super().__init__(key_path, problem)
        self.key_path = key_path
        self.problem = problem
        self.line = line
        self.column = column
        self.file = file

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column} " if self.line else f"{self.file} ".lstrip()
        return (
            f"{place}{self.key_path}: {self.problem}" if self.key_path else f"{place}{self.problem}"
        )


class ConfigErrors(AmbassadorError):
    """Every `ConfigError` of a file at once, in the order of its lines."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class CredentialError(AmbassadorError):
    """Certificate, key or trust bundle cannot be used; `reason` is a word for metrics."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ListenError(AmbassadorError):
    """An address cannot be bound; the text is one sentence for the user."""


class ExchangeError(AmbassadorError):
    """A failed exchange: class attributes say which flag, status and repeatability it has.

    `detail` is a snake_case word for logs and the local app, never sent to a remote peer; `message` is the
    sentence for the local app.
    """

    flag: ClassVar[ResponseFlag]
    status: ClassVar[int]
    repeatable: ClassVar[Repeatable] = Repeatable.NEVER
    detail: str
    message: str

    def __init__(self, detail: str, message: str = "") -> None:
        super().__init__(detail, message)
        self.detail = detail
        self.message = message


class DownstreamError(ExchangeError):
    """Whoever sends us the request is at fault."""


class LocalError(ExchangeError):
    """We refuse."""


class UpstreamError(ExchangeError):
    """Whoever gets the request from us is at fault."""


class DownstreamProtocolError(DownstreamError):
    """Malformed or ambiguous request; the instance's status is one of 400, 413, 414, 431, 501, 505."""

    flag = ResponseFlag.DOWNSTREAM_PROTOCOL_ERROR
    status = 400

    def __init__(self, detail: str, message: str = "", *, status: int = 400) -> None:
        super().__init__(detail, message)
        self.status = status  # type: ignore[misc]  # the one error whose status its detail decides


class DownstreamTimeout(DownstreamError):
    """Head, body or answer was not sent or taken in time."""

    flag = ResponseFlag.STREAM_IDLE
    status = 408


class DownstreamClosed(DownstreamError):
    """The peer went away; there is nobody to answer, the log says 0."""

    flag = ResponseFlag.DOWNSTREAM_CLOSED
    status = 0


class AccessDenied(LocalError):
    flag = ResponseFlag.ACCESS_DENIED
    status = 403


class LoopDetected(LocalError):
    flag = ResponseFlag.LOOP_DETECTED
    status = 508


class HopsEnded(LocalError):
    """No failure: `Max-Forwards` makes us the final recipient (RFC 9110 §7.6.2)."""

    flag = ResponseFlag.NONE
    status = 200


class TraceRefused(LocalError):
    """We are the last for a TRACE, and echo none: it would show what hops before us added (RFC 9110 §9.3.8)."""

    flag = ResponseFlag.NONE
    status = 501


class NoRoute(LocalError):
    flag = ResponseFlag.NO_ROUTE
    status = 404


class RateLimited(LocalError):
    """Too many requests; `retry_after_s` says when the next one has a chance. Units: whole seconds."""

    flag = ResponseFlag.RATE_LIMITED
    status = 429

    def __init__(self, detail: str, message: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(detail, message)
        self.retry_after_s = retry_after_s


class Overflow(LocalError):
    """A circuit breaker's ceiling is reached."""

    flag = ResponseFlag.OVERFLOW
    status = 503


class Overloaded(LocalError):
    """A ceiling of the process is reached."""

    flag = ResponseFlag.OVERLOADED
    status = 503


class FaultInjected(LocalError):
    """A fault on purpose; its status is the file's."""

    flag = ResponseFlag.FAULT_INJECTED
    status = 503

    def __init__(self, detail: str, message: str = "", *, status: int) -> None:
        super().__init__(detail, message)
        self.status = status  # type: ignore[misc]  # as `DownstreamProtocolError`


class InternalError(LocalError):
    """A bug of ours; its traceback is logged."""

    flag = ResponseFlag.INTERNAL_ERROR
    status = 500


class NoHealthyUpstream(UpstreamError):
    flag = ResponseFlag.NO_HEALTHY_UPSTREAM
    status = 503
    repeatable = Repeatable.ALWAYS


class DiscoveryError(AmbassadorError):
    """A source of endpoints failed or lied: the last ones are kept; `reason` is a word for logs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ResolveFailed(UpstreamError):
    flag = ResponseFlag.RESOLVE_FAILED
    status = 503
    repeatable = Repeatable.ALWAYS


class ConnectFailed(UpstreamError):
    """Refused, timed out, TLS failed or the wrong peer answered: nothing of the request was sent."""

    flag = ResponseFlag.CONNECT_FAILED
    status = 503
    repeatable = Repeatable.ALWAYS


class PeerRefusedUs(ConnectFailed):
    """A TLS 1.3 peer refused our certificate on the first read: it would do so again, so it is never repeated."""

    repeatable = Repeatable.NEVER


class UpstreamClosed(UpstreamError):
    """Orderly end before the response head."""

    flag = ResponseFlag.UPSTREAM_CLOSED
    status = 503
    repeatable = Repeatable.IDEMPOTENT


class UpstreamReset(UpstreamError):
    flag = ResponseFlag.UPSTREAM_RESET
    status = 503
    repeatable = Repeatable.IDEMPOTENT


class UpstreamTimeout(UpstreamError):
    flag = ResponseFlag.UPSTREAM_TIMEOUT
    status = 504
    repeatable = Repeatable.IDEMPOTENT


class UpstreamProtocolError(UpstreamError):
    flag = ResponseFlag.UPSTREAM_PROTOCOL_ERROR
    status = 502
