"""Why a handshake was refused, as one word for metrics and a detail for the log.

Knows the reason strings of OpenSSL, the numbers of its chain verification, and TLS alerts; must not know
pyOpenSSL, so that the tables are tested without a handshake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ambassador.core.errors import AmbassadorError


@dataclass(frozen=True, slots=True)
class PresentedPeer:
    """What a peer showed before it was refused, unverified and **raw**: clean it before it reaches a log.

    Units: `not_after` is Unix time in seconds, None when no certificate was seen.
    """

    sni: str = ""
    subject: str = ""
    sans: tuple[str, ...] = ()
    issuer: str = ""
    not_after: float | None = None


NOBODY: Final = PresentedPeer()


class TlsRefused(AmbassadorError):
    """A handshake that ends here. `reason` is a word of the tables below; `detail` is raw foreign text or ours."""

    def __init__(self, reason: str, detail: str = "", presented: PresentedPeer = NOBODY) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.presented = presented

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


#: X509_V_ERR_UNSPECIFIED: our own judgement failed, a bug. OpenSSL makes it the alert `internal_error`.
UNJUDGED: Final = 1
#: X509_V_ERR_* -> word. What is not here is `bad_certificate`.
VERIFY_REASONS: Final = {
    UNJUDGED: "internal_error",
    2: "unknown_issuer",
    3: "crl_missing",
    4: "bad_signature",
    5: "crl_invalid",
    7: "bad_signature",
    8: "crl_invalid",
    9: "not_yet_valid",
    10: "expired",
    11: "crl_not_yet_valid",
    12: "crl_expired",
    15: "crl_invalid",
    16: "crl_invalid",
    18: "unknown_issuer",
    19: "unknown_issuer",
    20: "unknown_issuer",
    21: "unknown_issuer",
    22: "chain_too_long",
    23: "revoked",
    24: "bad_issuer",
    25: "bad_issuer",
    26: "bad_purpose",
    32: "bad_issuer",
    33: "crl_missing",
    35: "crl_invalid",
    36: "crl_invalid",
    37: "bad_purpose",
    39: "bad_purpose",
    44: "crl_invalid",
    47: "name_constraint",
    48: "name_constraint",
    54: "crl_invalid",
    66: "weak_key",
    67: "weak_key",
    68: "weak_key",
    79: "bad_issuer",
}

#: Word of our own judgement -> X509_V_ERR_*, for the alert that OpenSSL makes of it (`x509table` in its
#: ssl/statem/statem_lib.c). A peer of a stranger's trust domain has, for us, an unknown CA.
_VERIFY_NUMBERS: Final = {
    "expired": 10,  # certificate_expired
    "not_yet_valid": 9,  # bad_certificate
    "revoked": 23,  # certificate_revoked
    "bad_purpose": 26,  # unsupported_certificate
    "bad_issuer": 24,  # unknown_ca
    "wrong_trust_domain": 20,  # unknown_ca
    "not_judgeable": 20,
    "crl_missing": 3,  # unknown_ca
    "crl_not_yet_valid": 11,  # bad_certificate
    "crl_expired": 12,  # certificate_expired
    "crl_invalid": 8,  # decrypt_error
}
_REJECTED: Final = 28  # X509_V_ERR_CERT_REJECTED: bad_certificate


def verify_number(reason: str) -> int:
    """Give the number by which OpenSSL picks the alert for a word of our own judgement; never 0, which is `ok`."""
    return _VERIFY_NUMBERS.get(reason, _REJECTED)


#: Reason strings of OpenSSL that are our own verdict -> word. What is not here is `malformed`.
_REASONS: Final = {
    "peer did not return a certificate": "no_certificate",
    "http request": "not_tls",
    "https proxy request": "not_tls",
    "wrong version number": "not_tls",
    "unknown protocol": "not_tls",
    "unsupported protocol": "protocol_version",
    "version too low": "protocol_version",
    "version too high": "protocol_version",
    "wrong ssl version": "protocol_version",
    "no protocols available": "protocol_version",
    "tls illegal exporter label": "malformed",
    "no shared cipher": "no_shared_cipher",
    "wrong cipher returned": "no_shared_cipher",
    "unknown cipher returned": "no_shared_cipher",
    "no ciphers available": "no_shared_cipher",
    "no suitable key share": "no_shared_group",
    "no shared groups": "no_shared_group",
    "no suitable groups": "no_shared_group",
    "wrong curve": "no_shared_group",
    "no application protocol": "no_application_protocol",
    "bad alpn extension": "no_application_protocol",
    "bad signature": "bad_signature",
    "wrong signature type": "bad_signature",
    "no shared signature algorithms": "bad_signature",
    "no suitable signature algorithm": "bad_signature",
    "excessive message size": "chain_too_large",
    "unexpected eof while reading": "closed",
    "inappropriate fallback": "protocol_version",
    "no renegotiation": "malformed",
}

_ALERT: Final = re.compile(r"(?:tlsv1|tlsv13|tls|sslv3|ssl/tls) alert (.+)", re.ASCII)
#: Alerts that speak of the negotiation and not of us.
_NEGOTIATION_ALERTS: Final = {
    "protocol_version": "protocol_version",
    "no_application_protocol": "no_application_protocol",
}


def classify(reasons: list[str]) -> tuple[str, str]:
    """Give the word and the detail for the error queue of a failed call, oldest entry first.

    `certificate_verify_failed` means: look at what the verify callback recorded.
    """
    for reason in reasons:
        text = reason.lower()
        if text == "certificate verify failed":
            return "certificate_verify_failed", ""
        alert = _ALERT.fullmatch(text)
        if alert is not None:
            name = alert[1].replace(" ", "_")
            return _NEGOTIATION_ALERTS.get(name, "peer_refused_us"), name
        if text in _REASONS:
            return _REASONS[text], text.replace(" ", "_")
    return "malformed", reasons[0].replace(" ", "_") if reasons else ""
