"""The environment has no say in TLS (threats D5)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CONFIG = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
Groups = P-521
MinProtocol = TLSv1.3
"""

# A context with nothing set: what it offers is what the library's configuration says.
_HELLO_LENGTH = """
{first}
from OpenSSL import SSL
import os
connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
connection.set_connect_state()
try:
    connection.do_handshake()
except SSL.WantReadError:
    pass
print(len(connection.bio_read(65536)), os.environ.get("OPENSSL_CONF", ""))
"""


def _hello(first: str, environment: dict[str, str]) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", _HELLO_LENGTH.format(first=first)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return result.stdout.split()


def test_a_configuration_file_of_openssl_is_not_read(tmp_path: Path) -> None:
    """`OPENSSL_CONF` moves pyOpenSSL's contexts, but not ours; a child process still sees the variable."""
    (tmp_path / "openssl.cnf").write_text(_CONFIG)
    variable = {"OPENSSL_CONF": str(tmp_path / "openssl.cnf")}

    plain = _hello("", {})
    moved = _hello("", variable)
    ours = _hello("import ambassador.identity", variable)

    assert moved[0] != plain[0], "the variable does nothing any more: this test proves nothing"
    assert ours == [plain[0], variable["OPENSSL_CONF"]]


def test_a_full_handshake_brings_one_ticket() -> None:
    """Our own file is read in place of the system's; OpenSSL's default is two, each a NewSessionTicket of its own."""
    code = (
        "import ambassador.identity\n"
        "import pathlib, sys, tempfile\n"
        "from OpenSSL import SSL\n"
        "from tests.support.certificates import Authority\n"
        "from tests.support.handshakes import Service, store\n"
        "ca = Authority()\n"
        "own = store(pathlib.Path(tempfile.mkdtemp()), ca.issue(spiffe='spiffe://a/b'), ca.pem)\n"
        "server = own.server('in', ()).new_connection(None)\n"
        "client = own.client(Service()).new_connection(None, 'in')\n"
        "sent = b''\n"
        "for side, other in ((client, server), (server, client)) * 2:\n"
        "    try:\n"
        "        side.do_handshake()\n"
        "    except SSL.WantReadError:\n"
        "        pass\n"
        "    sent = side.bio_read(65536)\n"
        "    other.bio_write(sent)\n"
        "records = 0\n"
        "while sent:\n"
        "    records, sent = records + 1, sent[5 + int.from_bytes(sent[3:5]):]\n"
        "print(records)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["1"]


def test_no_key_log_is_written(tmp_path: Path) -> None:
    """`SSLKEYLOGFILE` would give away every session."""
    log = tmp_path / "keys.log"
    code = (
        "import pathlib, tempfile, sys\n"
        "from tests.support.certificates import Authority\n"
        "from tests.support.handshakes import Service, shaking, store, exchange\n"
        "ca = Authority()\n"
        "own = store(pathlib.Path(sys.argv[1]), ca.issue(spiffe='spiffe://a/b'), ca.pem)\n"
        "with shaking(own.server('in', ()), own.client(Service())) as both:\n"
        "    exchange(both)\n"
    )

    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "set")],
        env={**os.environ, "SSLKEYLOGFILE": str(log), "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        timeout=30,
    )

    assert not log.exists()
