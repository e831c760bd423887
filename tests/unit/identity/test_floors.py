"""Security floors of the TLS libraries."""

from __future__ import annotations

import pytest

from ambassador.core.errors import CredentialError
from ambassador.identity import floors, tls

GOOD = {"pyOpenSSL": "26.4.0", "cryptography": "50.0.2", "OpenSSL": "4.0.3"}


def test_what_is_installed_is_safe() -> None:
    """Threats B8, C6, K6."""
    floors.check(tls.versions())


@pytest.mark.parametrize(
    ("library", "version", "safe"),
    [
        ("pyOpenSSL", "25.3.0", False),
        ("pyOpenSSL", "26.0.0", True),
        ("cryptography", "46.0.6", False),
        ("cryptography", "46.0.7", True),
        ("cryptography", "", False),
        ("OpenSSL", "3.0.19", False),
        ("OpenSSL", "3.5.5", False),
        ("OpenSSL", "3.5.6", True),
        ("OpenSSL", "3.6.1", False),
        ("OpenSSL", "3.6.2", True),
        ("OpenSSL", "4.1.0-beta1", True),
    ],
)
def test_each_release_line_has_its_own_floor(library: str, version: str, safe: bool) -> None:
    """A fix is in 3.5.6 and 3.6.2, so 3.6.1 is not safe though it is higher than 3.5.6."""
    installed = {**GOOD, library: version}

    if safe:
        floors.check(installed)
    else:
        with pytest.raises(CredentialError, match=library) as caught:
            floors.check(installed)
        assert caught.value.reason == "library_too_old"
