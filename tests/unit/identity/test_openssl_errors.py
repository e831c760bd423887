"""Exceptions of pyOpenSSL as reason words."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from ambassador.identity.openssl_errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]),
            ("peer_refused_us", "unknown_ca"),
        ),
        (SSL.Error([("SSL routines", "", "bad length")]), ("malformed", "bad_length")),
        (SSL.SysCallError(-1, "Unexpected EOF"), ("closed", "eof")),
        (SSL.SysCallError(104, "ECONNRESET"), ("reset", "econnreset")),
        (SSL.ZeroReturnError(), ("closed", "close_notify")),
        (TimeoutError(), ("timeout", "")),
        (ValueError(), ("internal_error", "ValueError")),
    ],
)
def test_an_exception_has_its_word(error: BaseException, reason: tuple[str, str]) -> None:
    """House §4: foreign exceptions are mapped once, at the lowest floor that knows them."""
    assert reason_of(error) == reason


@pytest.mark.parametrize("queue", [[], [("system library", "", "")]])
def test_an_error_without_a_reason_is_the_system_s_and_nobody_s_malformed_record(
    queue: list[tuple[str, str, str]],
) -> None:
    """What Envoy and HAProxy showed: a read after a failed write raises one of these with OpenSSL 4."""
    assert reason_of(SSL.Error(queue))[0] == "reset"
