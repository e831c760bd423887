"""Reason strings of OpenSSL, and our words for them."""

from __future__ import annotations

import pytest

from ambassador.identity.openssl_errors import reason_of
from ambassador.identity.refusal import PresentedPeer, TlsRefused, classify


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        (
            "peer did not return a certificate",
            "no_certificate",
            "peer_did_not_return_a_certificate",
        ),
        ("http request", "not_tls", "http_request"),
        ("wrong version number", "not_tls", "wrong_version_number"),
        ("unsupported protocol", "protocol_version", "unsupported_protocol"),
        ("no shared cipher", "no_shared_cipher", "no_shared_cipher"),
        ("no suitable key share", "no_shared_group", "no_suitable_key_share"),
        ("no application protocol", "no_application_protocol", "no_application_protocol"),
        ("bad signature", "bad_signature", "bad_signature"),
        ("excessive message size", "chain_too_large", "excessive_message_size"),
        ("certificate verify failed", "certificate_verify_failed", ""),
        ("tlsv1 alert unknown ca", "peer_refused_us", "unknown_ca"),
        ("tlsv13 alert certificate required", "peer_refused_us", "certificate_required"),
        ("ssl/tls alert bad certificate", "peer_refused_us", "bad_certificate"),
        ("tls alert handshake failure", "peer_refused_us", "handshake_failure"),
        ("sslv3 alert certificate revoked", "peer_refused_us", "certificate_revoked"),
        ("tlsv1 alert protocol version", "protocol_version", "protocol_version"),
        (
            "tlsv1 alert no application protocol",
            "no_application_protocol",
            "no_application_protocol",
        ),
        ("bad extension", "malformed", "bad_extension"),
    ],
)
def test_every_reason_string_has_its_word(text: str, reason: str, detail: str) -> None:
    """RFC 8446 §6.2 for the alerts."""
    assert classify([text]) == (reason, detail)


def test_the_first_entry_that_says_something_decides() -> None:
    """OpenSSL pushes the cause first and what followed from it later."""
    assert classify(["unknown thing", "no shared cipher"]) == (
        "no_shared_cipher",
        "no_shared_cipher",
    )
    assert classify([]) == ("malformed", "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(104, "x"), "reset"),
        (BrokenPipeError(32, "x"), "reset"),
        (OSError(110, "x"), "timeout"),
        (ValueError("x"), "internal_error"),
    ],
)
def test_what_is_not_openssls_has_a_word_too(error: Exception, reason: str) -> None:
    """Rule 9: an exception inside a decision is a refusal."""
    assert reason_of(error)[0] == reason


def test_a_refusal_reads_as_reason_and_detail() -> None:
    """House §8: reason words, no prose."""
    assert str(TlsRefused("wrong_peer", "expected x")) == "wrong_peer: expected x"
    assert str(TlsRefused("closed")) == "closed"
    assert TlsRefused("closed").presented == PresentedPeer()
