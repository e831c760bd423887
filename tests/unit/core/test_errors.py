"""The table of house §4, written out once more: flags, statuses and repeatability are promises to users."""

from __future__ import annotations

import pytest

from ambassador.core import errors
from ambassador.core.errors import (
    AmbassadorError,
    ConfigError,
    ConfigErrors,
    CredentialError,
    DownstreamError,
    DownstreamProtocolError,
    ExchangeError,
    LocalError,
    NoRoute,
    Repeatable,
    ResponseFlag,
    UpstreamError,
)

NEVER, IDEMPOTENT, ALWAYS = Repeatable.NEVER, Repeatable.IDEMPOTENT, Repeatable.ALWAYS
TABLE = [
    ("DownstreamProtocolError", DownstreamError, "DPE", 400, NEVER),
    ("DownstreamTimeout", DownstreamError, "SI", 408, NEVER),
    ("DownstreamClosed", DownstreamError, "DC", 0, NEVER),
    ("AccessDenied", LocalError, "AD", 403, NEVER),
    ("LoopDetected", LocalError, "LD", 508, NEVER),
    ("HopsEnded", LocalError, "-", 200, NEVER),
    ("TraceRefused", LocalError, "-", 501, NEVER),
    ("NoRoute", LocalError, "NR", 404, NEVER),
    ("RateLimited", LocalError, "RL", 429, NEVER),
    ("Overflow", LocalError, "UO", 503, NEVER),
    ("Overloaded", LocalError, "OM", 503, NEVER),
    ("FaultInjected", LocalError, "FI", 503, NEVER),
    ("InternalError", LocalError, "IE", 500, NEVER),
    ("NoHealthyUpstream", UpstreamError, "UH", 503, ALWAYS),
    ("ResolveFailed", UpstreamError, "DF", 503, ALWAYS),
    ("ConnectFailed", UpstreamError, "UF", 503, ALWAYS),
    ("PeerRefusedUs", UpstreamError, "UF", 503, NEVER),
    ("UpstreamClosed", UpstreamError, "UC", 503, IDEMPOTENT),
    ("UpstreamReset", UpstreamError, "UR", 503, IDEMPOTENT),
    ("UpstreamTimeout", UpstreamError, "UT", 504, IDEMPOTENT),
    ("UpstreamProtocolError", UpstreamError, "UPE", 502, NEVER),
]


@pytest.mark.parametrize(("name", "side", "flag", "status", "repeatable"), TABLE)
def test_an_error_decides_flag_status_and_repeatability(
    name: str, side: type[ExchangeError], flag: str, status: int, repeatable: Repeatable
) -> None:
    its_own = {"status": 503} if name == "FaultInjected" else {}
    error = getattr(errors, name)("some_detail", "A sentence.", **its_own)

    assert isinstance(error, side)
    assert isinstance(error, AmbassadorError)
    assert (error.flag, error.status, error.repeatable) == (flag, status, repeatable)
    assert (error.detail, error.message) == ("some_detail", "A sentence.")


def test_the_table_has_every_error_of_an_exchange() -> None:
    sides = {"DownstreamError", "LocalError", "UpstreamError", "ExchangeError"}
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ExchangeError)
    }

    assert ours - sides == {row[0] for row in TABLE}


def test_every_flag_is_given_by_an_error_but_those_that_stand_beside_one() -> None:
    """Retries used up, a delay on purpose, a panic: no failures by themselves."""
    assert {flag.value for flag in ResponseFlag} - {row[2] for row in TABLE} == {"URX", "DI", "HP"}


@pytest.mark.parametrize("status", [400, 413, 414, 431, 501, 505])
def test_the_detail_of_a_malformed_request_decides_its_status(status: int) -> None:
    error = DownstreamProtocolError("some_detail", status=status)

    assert error.status == status
    assert DownstreamProtocolError.status == 400


def test_a_message_is_optional() -> None:
    assert not NoRoute("unknown_host").message


def test_a_configuration_error_names_file_line_column_and_key() -> None:
    error = ConfigError("inbound.alow", "unknown key", line=5, column=3, file="ambassador.yaml")

    assert str(error) == "ambassador.yaml:5:3 inbound.alow: unknown key"


def test_a_credential_error_has_a_word_and_a_sentence() -> None:
    error = CredentialError("expired", "The certificate expired yesterday.")

    assert (error.reason, str(error)) == ("expired", "The certificate expired yesterday.")


def test_configuration_errors_are_shown_together() -> None:
    error = ConfigErrors(
        (
            ConfigError("a", "first", line=1, column=1, file="f.yaml"),
            ConfigError("b", "second", line=2, column=1, file="f.yaml"),
        )
    )

    assert str(error) == "f.yaml:1:1 a: first\nf.yaml:2:1 b: second"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("a.b", "wrong"), "a.b: wrong"),
        (ConfigError("a.b", "wrong", file="f.yaml"), "f.yaml a.b: wrong"),
        (ConfigError("", "no such file", file="f.yaml"), "f.yaml no such file"),
    ],
)
def test_a_configuration_error_shows_only_what_is_known(error: ConfigError, text: str) -> None:
    assert str(error) == text
