"""`certs inspect HOST:PORT` against a server that is not ours."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from ambassador.cli.certs import group
from tests.support.certificates import Authority, Issued, server_context

CONFIG = """\
version: 1
identity: {{directory: web}}
outbound: {{listen: "127.0.0.1:9000"}}
services: {{payments: {{endpoints: ["127.0.0.1:{port}"], peer: {{spiffe: "spiffe://example.org/{wanted}"}}}}}}
"""


@contextmanager
def _serving(context: ssl.SSLContext) -> Iterator[int]:
    """Shake hands with whoever comes, then hang up; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with (
                connection,
                suppress(OSError),
                context.wrap_socket(connection, server_side=True) as secure,
            ):
                secure.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _inspect(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(group, ["inspect", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def payments(authority: Authority) -> Issued:
    """The server's identity."""
    return authority.issue(spiffe="spiffe://example.org/payments", dns=["payments"])


def test_a_server_is_shown_without_any_configuration(
    authority: Authority, payments: Issued
) -> None:
    """On TLS 1.3 it can refuse us only after it has shown itself."""
    with _serving(server_context(authority, payments)) as port:
        code, output = _inspect(f"127.0.0.1:{port}")

    assert code == 0
    assert output.startswith(
        "spiffe://example.org/payments, dns payments, issuer CN=test CA, expires in 30 days, TLSv1.3 "
    )


def test_a_server_that_refuses_us_early_is_shown_too(
    authority: Authority, payments: Issued
) -> None:
    """TLS 1.2: the certificate comes before the refusal."""
    context = server_context(authority, payments, version=ssl.TLSVersion.TLSv1_2)
    with _serving(context) as port:
        code, output = _inspect(f"127.0.0.1:{port}")

    assert code == 0
    assert output.startswith("spiffe://example.org/payments, payments, issuer CN=test CA")
    assert "it refused us without a certificate" in output


@pytest.mark.parametrize(
    ("wanted", "code", "verdict"),
    [
        ("payments", 0, "✓ service payments takes it"),
        ("*", 0, "✓ service payments takes it"),
        (
            "stock",
            1,
            "✗ service payments refuses it: wrong_peer, expected spiffe://example.org/stock,"
            " spiffe://example.org/payments answered",
        ),
    ],
)
def test_a_configuration_says_whether_it_would_take_the_server(  # noqa: PLR0917  # parameters and fixtures
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    authority: Authority,
    payments: Issued,
    wanted: str,
    code: int,
    verdict: str,
) -> None:
    """Config §4, the sample."""
    monkeypatch.chdir(tmp_path)
    authority.issue(spiffe="spiffe://example.org/web").write(tmp_path / "web", authority.pem)
    with _serving(server_context(authority, payments)) as port:
        Path("ambassador.yaml").write_text(CONFIG.format(port=port, wanted=wanted))
        outcome = _inspect(f"127.0.0.1:{port}", "-c", "ambassador.yaml")

    assert outcome[0] == code
    assert outcome[1].splitlines()[-1] == verdict


def test_a_server_of_an_unknown_authority_is_shown_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """One looks at a certificate exactly when something is wrong with it."""
    monkeypatch.chdir(tmp_path)
    authority.issue(spiffe="spiffe://example.org/web").write(tmp_path / "web", authority.pem)
    other = Authority("elsewhere").issue(spiffe="spiffe://example.org/payments")
    with _serving(server_context(authority, other)) as port:
        Path("ambassador.yaml").write_text(CONFIG.format(port=port, wanted="payments"))
        code, output = _inspect(f"127.0.0.1:{port}", "-c", "ambassador.yaml")

    assert code == 1
    assert "issuer CN=elsewhere" in output
    assert "✗ service payments refuses it: unknown_issuer" in output
