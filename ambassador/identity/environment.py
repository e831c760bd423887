"""Keep the environment's hands off OpenSSL, and give it our file instead: imported before anything that loads it.

OpenSSL reads `OPENSSL_CONF` when it initialises; measured, such a file moves the groups and versions of every
context, and may load a provider that sees our key (threats D5). So the variables are hidden while
`cryptography` initialises its OpenSSL and put back afterwards, since they may be meant for a child process.
Ours, `openssl.cnf` beside this module, says what the binding has no function for.
There is no key-log callback in this package, and no build of `cryptography` obeys `SSLKEYLOGFILE`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_OURS: Final = Path(__file__).with_name("openssl.cnf")
HIDDEN_VARIABLES: Final = (
    "OPENSSL_CONF",
    "OPENSSL_CONF_INCLUDE",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
)


def _initialise_openssl() -> None:
    """Load OpenSSL while it sees our file and none of its own variables."""
    hidden = {name: os.environ.pop(name) for name in HIDDEN_VARIABLES if name in os.environ}
    os.environ["OPENSSL_CONF"] = str(_OURS)
    try:
        from cryptography.hazmat.bindings.openssl import binding  # noqa: PLC0415  # after the variables are gone

        binding.Binding()
    finally:
        del os.environ["OPENSSL_CONF"]
        os.environ.update(hidden)


_initialise_openssl()
