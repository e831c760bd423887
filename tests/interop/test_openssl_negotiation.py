"""What openssl s_client can agree on with our inbound listener: ciphers, groups, ALPN, sessions, new keys.

What the installed openssl is too old for (X25519MLKEM768 came with 3.5) is asked through our own OpenSSL.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.certificates import Authority
from tests.support.foreign import Application, Credentials, credentials
from tests.support.handshakes import foreign_client
from tests.support.process import Ambassador, Pod, running_ambassador
from tests.support.programs import require_program

pytestmark = pytest.mark.interop

REQUEST = b"GET /hello HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
HYBRID = "X25519MLKEM768"


@pytest.fixture(scope="module")
def openssl() -> str:
    return require_program("openssl")


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, app: Application
) -> Iterator[Ambassador]:
    folder = tmp_path_factory.mktemp("inbound")
    payments = Pod("payments", authority, folder)
    allow = [{"spiffe": "spiffe://example.org/web"}]
    config = payments.config(inbound=payments.inbound(app.port, allow=allow))  # type: ignore[arg-type]
    with running_ambassador(config, folder) as running:
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Credentials:
    return credentials(tmp_path_factory.mktemp("web"), authority, "web")


class Client:
    """A running s_client, fed by the test; `text` is all that it has printed."""

    def __init__(
        self, openssl: str, sidecar: Ambassador, files: Credentials | None, *arguments: str
    ) -> None:
        host, port = sidecar.inbound
        ours = [
            "-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.trusted),
            "-verify_return_error",
        ] if files else []  # fmt: skip
        self.process = subprocess.Popen(
            [openssl, "s_client", "-connect", f"{host}:{port}", "-servername", "payments.example.org",
             *ours, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        # It must end, whatever a broken peer does.
        self._guard = threading.Timer(20.0, self.process.kill)
        self._guard.start()
        self.text = ""

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: its text says why

    def read_until(self, mark: str) -> str:
        """Give the text so far, once it holds `mark`; AssertionError when s_client ends before."""
        assert self.process.stdout is not None
        while mark not in self.text:
            piece = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
            assert piece, f"no {mark!r} in {self.text}"
            self.text += piece.decode("latin-1")
        return self.text

    def end(self) -> str:
        """Close its input, wait for its end and give all its text."""
        rest, _ = self.process.communicate()
        self._guard.cancel()
        self._guard.join()
        self.text += rest.decode("latin-1")
        return self.text

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()


def ask(openssl: str, sidecar: Ambassador, files: Credentials | None, *arguments: str) -> str:
    """Send a request, and give what s_client printed until its end."""
    with Client(openssl, sidecar, files, "-ign_eof", *arguments) as client:
        client.send(REQUEST)
        return client.end()


def refused(sidecar: Ambassador, reason: str) -> float:
    return sidecar.metric("handshakes_total", result="refused", reason=reason)


@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_a_version_is_served(
    openssl: str, sidecar: Ambassador, web: Credentials, option: str, version: str
) -> None:
    """RFC 9325 §3.1.1."""
    text = ask(openssl, sidecar, web, option)

    assert f"New, {version}, Cipher is " in text
    assert "Verify return code: 0 (ok)" in text
    assert "Compression: NONE" in text
    assert text.rstrip().endswith("closed")
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_an_old_version_is_refused_with_its_alert(
    openssl: str, sidecar: Ambassador, web: Credentials, option: str
) -> None:
    """RFC 8996; RFC 8446 §6.2 protocol_version."""
    before = refused(sidecar, "protocol_version")
    text = ask(openssl, sidecar, web, option, "-cipher", "DEFAULT@SECLEVEL=0")

    assert "alert protocol version" in text
    assert "HTTP/1.1" not in text
    assert refused(sidecar, "protocol_version") == before + 1


@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
)
def test_a_cipher_with_forward_secrecy_and_aead_is_served(
    openssl: str, sidecar: Ambassador, web: Credentials, cipher: str
) -> None:
    """RFC 9325 §4.2; our key is on P-256."""
    text = ask(openssl, sidecar, web, "-tls1_2", "-cipher", cipher)

    assert f"Cipher is {cipher}" in text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-CCM8",
        "AES128-GCM-SHA256",
        "AES256-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "aNULL",
        "eNULL",
        "PSK",
    ],
)
def test_a_cipher_without_forward_secrecy_aead_or_certificate_is_refused(
    openssl: str, sidecar: Ambassador, web: Credentials, cipher: str
) -> None:
    """RFC 9325 §4.1."""
    before = refused(sidecar, "no_shared_cipher")
    more = ("-psk", "00") if cipher == "PSK" else ()
    text = ask(openssl, sidecar, web, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0", *more)

    assert "alert handshake failure" in text
    assert "HTTP/1.1" not in text
    assert refused(sidecar, "no_shared_cipher") == before + 1


@pytest.mark.parametrize(
    "suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
)
def test_every_suite_of_tls_1_3_is_served(
    openssl: str, sidecar: Ambassador, web: Credentials, suite: str
) -> None:
    """RFC 8446 §9.1."""
    text = ask(openssl, sidecar, web, "-tls1_3", "-ciphersuites", suite)

    assert f"Cipher is {suite}" in text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("group", "shown"), [("X25519", "X25519"), ("P-256", "ECDH, prime256v1")])
def test_a_group_of_ours_is_served(
    *, openssl: str, sidecar: Ambassador, web: Credentials, version: str, group: str, shown: str
) -> None:
    """Config tls.groups."""
    text = ask(
        openssl, sidecar, web, version, "-groups", "X25519:P-256" if group == "X25519" else group
    )

    assert f"Server Temp Key: {shown}" in text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("group", ["P-384", "P-521", "X448", "ffdhe2048"])
def test_a_group_that_is_not_ours_is_refused(
    openssl: str, sidecar: Ambassador, web: Credentials, group: str
) -> None:
    """RFC 8446 §4.1.1: handshake_failure."""
    before = refused(sidecar, "no_shared_group")
    text = ask(openssl, sidecar, web, "-tls1_3", "-groups", group)

    assert "alert handshake failure" in text
    assert refused(sidecar, "no_shared_group") == before + 1


def test_a_key_share_that_is_not_ours_costs_a_round_trip_only(
    openssl: str, sidecar: Ambassador, web: Credentials
) -> None:
    """RFC 8446 §4.1.4: HelloRetryRequest."""
    text = ask(openssl, sidecar, web, "-tls1_3", "-groups", "P-384:X25519", "-msg")

    assert text.count(", ClientHello") == 2
    assert "Server Temp Key: X25519" in text
    assert "HTTP/1.1 200 OK" in text


def test_the_hybrid_group_is_agreed_on(
    openssl: str, sidecar: Ambassador, web: Credentials, app: Application
) -> None:
    """House §1: the post-quantum hybrid when the peer offers it."""
    listed = subprocess.run(
        [openssl, "list", "-kem-algorithms"], capture_output=True, text=True, check=False
    )
    if HYBRID in listed.stdout:
        text = ask(openssl, sidecar, web, "-tls1_3", "-groups", HYBRID)
        assert HYBRID in text
        assert "HTTP/1.1 200 OK" in text
    else:
        assert own_openssl(sidecar, web, HYBRID).startswith(b"HTTP/1.1 200 ")
    record = sidecar.wait_for_record(tls_group=HYBRID)

    assert record["tls_version"] == "TLSv1.3"


def own_openssl(sidecar: Ambassador, files: Credentials, groups: str) -> bytes:
    """Send the request through the OpenSSL that pyOpenSSL carries, offering these groups alone."""
    context = foreign_client(files.issued, version=SSL.TLS1_3_VERSION, groups=groups.encode())
    with socket.create_connection(sidecar.inbound, timeout=10) as sock:  # type: ignore[arg-type]
        sock.settimeout(None)  # pyOpenSSL takes blocking sockets only
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        connection.sendall(REQUEST)
        return connection.recv(65536)


def test_a_request_without_application_protocol_is_served(
    openssl: str, sidecar: Ambassador, web: Credentials
) -> None:
    """RFC 7301 §3.1: the extension is optional."""
    text = ask(openssl, sidecar, web)

    assert "No ALPN negotiated" in text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_http_1_1_is_selected_among_others(
    openssl: str, sidecar: Ambassador, web: Credentials, version: str
) -> None:
    """RFC 7301 §3.2."""
    text = ask(openssl, sidecar, web, version, "-alpn", "h2,http/1.1")

    assert "ALPN protocol: http/1.1" in text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_h2_alone_is_refused_with_its_alert(
    openssl: str, sidecar: Ambassador, web: Credentials, version: str
) -> None:
    """RFC 7301 §3.2: no_application_protocol."""
    before = refused(sidecar, "no_application_protocol")
    text = ask(openssl, sidecar, web, version, "-alpn", "h2")

    assert "alert no application protocol" in text
    assert "HTTP/1.1" not in text
    assert refused(sidecar, "no_application_protocol") == before + 1


def test_reconnecting_resumes_the_session(
    openssl: str, sidecar: Ambassador, web: Credentials
) -> None:
    """RFC 5077: `-reconnect` connects five times more with the session of the first."""
    before = sidecar.metric("tls_sessions_total", direction="inbound", resumed="true")
    with Client(openssl, sidecar, web, "-tls1_2", "-reconnect") as client:
        text = client.end()

    assert text.count("Reused, TLSv1.2") == 5
    assert sidecar.metric("tls_sessions_total", direction="inbound", resumed="true") == before + 5


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_in_a_file_is_resumed_and_the_identity_is_the_same(
    *,
    openssl: str,
    sidecar: Ambassador,
    web: Credentials,
    app: Application,
    tmp_path: Path,
    version: str,
) -> None:
    """Issue: resumed sessions are judged like full ones, and the app sees the same peer."""
    app.requests.clear()
    session = tmp_path / "session"
    first = ask(openssl, sidecar, web, version, "-sess_out", str(session))
    second = ask(openssl, sidecar, web, version, "-sess_in", str(session))

    assert "New, TLSv" in first
    assert "Reused, TLSv" in second
    identities = [request.value("x-forwarded-client-cert") for request in app.requests]
    assert len(identities) == 2
    assert len(set(identities)) == 1


def test_early_data_is_not_taken(
    openssl: str, sidecar: Ambassador, web: Credentials, tmp_path: Path
) -> None:
    """RFC 8470 §2: 0-RTT can be replayed; we never offer it."""
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(REQUEST)
    ask(openssl, sidecar, web, "-tls1_3", "-sess_out", str(session))
    text = ask(
        openssl, sidecar, web, "-tls1_3", "-sess_in", str(session), "-early_data", str(early)
    )

    assert "Max Early Data: 0" in text
    assert "Early data was not sent" in text


def test_renegotiation_is_refused(openssl: str, sidecar: Ambassador, web: Credentials) -> None:
    """RFC 9325 §3.5; threats D2: the answer to a new ClientHello is the no_renegotiation alert, at no cost."""
    with Client(openssl, sidecar, web, "-tls1_2", "-legacy_renegotiation") as client:
        client.read_until("Verify return code")
        client.send(b"R\n")
        text = client.end()

    assert "RENEGOTIATING" in text
    assert re.search("no renegotiation", text)
    assert "HTTP/1.1" not in text


def test_a_client_without_certificate_sees_the_alert(openssl: str, sidecar: Ambassador) -> None:
    """RFC 8446 §6.2: certificate_required."""
    before = refused(sidecar, "no_certificate")
    text = ask(openssl, sidecar, None, "-tls1_3")

    assert "alert certificate required" in text
    assert refused(sidecar, "no_certificate") == before + 1


def test_an_identity_that_is_not_allowed_gets_a_bare_403(
    openssl: str, sidecar: Ambassador, authority: Authority, tmp_path: Path
) -> None:
    """Issue: the remote peer learns nothing beyond the status."""
    other = credentials(tmp_path / "other", authority, "other")
    text = ask(openssl, sidecar, other, "-quiet")

    assert "HTTP/1.1 403" in text
    assert "ambassador" not in text.lower()
    assert "spiffe" not in text


def test_a_key_update_is_followed(openssl: str, sidecar: Ambassador, web: Credentials) -> None:
    """RFC 8446 §4.6.3: `K` asks for new keys in both directions, `k` in one."""
    with Client(openssl, sidecar, web, "-tls1_3") as client:
        client.read_until("Verify return code")
        client.text = ""
        client.send(b"K\n")
        client.read_until("KEYUPDATE")
        client.send(b"GET /hello HTTP/1.1\r\nHost: app\r\n\r\n")
        client.read_until("hello")
        client.text = ""
        client.send(b"k\n")
        client.read_until("KEYUPDATE")
        client.send(REQUEST)
        text = client.read_until("hello")

    assert "HTTP/1.1 200 OK" in text
