"""Keep the environment's hands off OpenSSL: imported before anything that loads the library.

OpenSSL reads `OPENSSL_CONF` when it initialises; measured, such a file moves the groups and versions of every
context, and may load a provider that sees our key (threats D5). So the variables are hidden while
`cryptography` initialises its OpenSSL and put back afterwards, since they may be meant for a child process.
There is no key-log callback in this package, and no build of `cryptography` obeys `SSLKEYLOGFILE`.
"""

from __future__ import annotations

import os
from typing import Final

HIDDEN_VARIABLES: Final = (
    "OPENSSL_CONF",
    "OPENSSL_CONF_INCLUDE",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
)


def _initialise_openssl() -> None:
    """Load OpenSSL while it cannot see its own variables."""
    hidden = {name: os.environ.pop(name) for name in HIDDEN_VARIABLES if name in os.environ}
    try:
        from cryptography.hazmat.bindings.openssl import binding  # noqa: PLC0415  # after the variables are gone

        binding.Binding()
    finally:
        os.environ.update(hidden)


_initialise_openssl()
