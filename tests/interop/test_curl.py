"""curl in all its forms: through both sidecars by every way into :9000, and with a certificate straight to a peer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.foreign import LARGE, Application, Credentials, credentials, digest
from tests.support.pair import Pair, pair
from tests.support.programs import require_program

pytestmark = pytest.mark.interop


@dataclass(frozen=True, slots=True)
class Ended:
    """A curl that has ended: exit code, what it wrote, what it told (`-v`)."""

    code: int
    out: bytes
    told: str


Curl = Callable[..., Ended]


@pytest.fixture(scope="module")
def curl(tmp_path_factory: pytest.TempPathFactory) -> Curl:
    """Run curl with these arguments, without its configuration and the environment's proxies."""
    program = require_program("curl")
    home = tmp_path_factory.mktemp("home")

    def run(
        *arguments: str, environment: dict[str, str] | None = None, stdin: bytes = b""
    ) -> Ended:
        clean = {
            key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")
        }
        ended = subprocess.run(
            [program, "-q", "-sS", "-v", "--max-time", "20", *arguments],
            input=stdin,
            capture_output=True,
            env={**clean, "HOME": str(home), **(environment or {})},
            timeout=30,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr.decode("utf-8", "replace"))

    return run


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, app: Application, authority: Authority
) -> Iterator[Pair]:
    with pair(authority, tmp_path_factory.mktemp("pair"), app=app.port) as running:
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Credentials:
    """The certificate that `payments` lets in."""
    return credentials(tmp_path_factory.mktemp("web"), authority, "web")


@pytest.fixture(scope="module")
def strange(
    tmp_path_factory: pytest.TempPathFactory, stranger: Authority, authority: Authority
) -> Credentials:
    """A certificate of a CA that `payments` does not know."""
    return credentials(tmp_path_factory.mktemp("strange"), stranger, "web", trusts=authority)


def at(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def as_web(files: Credentials, two: Pair, *more: str) -> list[str]:
    """Give the arguments of a curl that goes straight to the inbound listener."""
    port = two.inbound[1]
    return [
        "--cert", str(files.certificate), "--key", str(files.key), "--cacert", str(files.trusted),
        "--resolve", f"payments.example.org:{port}:127.0.0.1", *more,
        f"https://payments.example.org:{port}/hello",
    ]  # fmt: skip


# --- the ways into the outbound listener


def test_by_host_header(curl: Curl, two: Pair) -> None:
    """Config §2: curl -H 'Host: payments' localhost:9000."""
    ended = curl("-H", "Host: payments", f"http://{at(two.outbound)}/hello")

    assert (ended.code, ended.out) == (0, b"hello")


def test_by_name_below_localhost(curl: Curl, two: Pair) -> None:
    """Config, routes: host NAME.localhost, with the listener's port."""
    port = two.outbound[1]
    ended = curl(
        "--resolve",
        f"payments.localhost:{port}:127.0.0.1",
        f"http://payments.localhost:{port}/hello",
    )

    assert (ended.code, ended.out) == (0, b"hello")


@pytest.mark.parametrize("way", ["variable", "option"])
def test_as_a_forward_proxy(curl: Curl, two: Pair, app: Application, way: str) -> None:
    """RFC 9112 §3.2.2: absolute-form names the service; the app gets origin-form."""
    app.requests.clear()
    proxy = f"http://{at(two.outbound)}"
    ended = (
        curl("http://payments/hello?a=1", environment={"http_proxy": proxy})
        if way == "variable"
        else curl("-x", proxy, "http://payments/hello?a=1")
    )

    assert (ended.code, ended.out) == (0, b"hello")
    request = app.request("/hello?a=1")
    assert request.value("host") == b"payments"
    assert request.values("proxy-connection") == []


def test_absolute_form_wins_over_host(curl: Curl, two: Pair, app: Application) -> None:
    """RFC 9112 §3.2.2."""
    app.requests.clear()
    ended = curl(
        "--request-target",
        "http://payments/form",
        "-H",
        "Host: other",
        f"http://{at(two.outbound)}/",
    )

    assert (ended.code, ended.out) == (0, b"hello")
    assert app.request("/form").value("host") == b"payments"


def test_by_the_service_s_own_listener(curl: Curl, two: Pair) -> None:
    """Config, services.NAME.listen: no Host header needed."""
    ended = curl(f"http://{at(two.own)}/hello")

    assert (ended.code, ended.out) == (0, b"hello")


def test_by_unix_socket(curl: Curl, two: Pair) -> None:
    """Config, `listen: unix:/path`."""
    ended = curl("--unix-socket", two.unix, "http://payments/hello")

    assert (ended.code, ended.out) == (0, b"hello")


def test_by_connect_to_a_tcp_service(curl: Curl, two: Pair, app: Application) -> None:
    """RFC 9110 §9.3.6: the tunnel carries curl's own HTTP; our answer to CONNECT is not the app's."""
    app.requests.clear()
    ended = curl("-p", "-x", f"http://{at(two.outbound)}", f"http://raw:{two.inbound_raw[1]}/hello")

    assert (ended.code, ended.out) == (0, b"hello")
    assert "HTTP/1.1 200" in ended.told
    assert app.request("/hello").values("via") == []


def test_connect_to_a_port_that_the_service_has_not_is_refused(curl: Curl, two: Pair) -> None:
    """Threats H1."""
    ended = curl("-p", "-x", f"http://{at(two.outbound)}", "http://raw:22/hello")

    assert ended.code == 56
    assert "403" in ended.told


def test_connect_to_an_unknown_service_is_404(curl: Curl, two: Pair) -> None:
    """Issue: CONNECT only to configured services."""
    ended = curl("-p", "-x", f"http://{at(two.outbound)}", "https://example.com/")

    assert ended.code == 56
    assert "404" in ended.told


def test_an_unknown_service_is_told_with_what_could_be_meant(curl: Curl, two: Pair) -> None:
    """Issue: 404 with the names that could be meant."""
    ended = curl("-H", "Host: paymnets", f"http://{at(two.outbound)}/")

    assert ended.code == 0
    assert b"payments" in ended.out
    assert "404" in ended.told


def test_a_page_of_a_browser_is_refused(curl: Curl, two: Pair) -> None:
    """Threats H7."""
    ended = curl(
        "-H", "Host: payments", "-H", "Origin: https://evil.example", f"http://{at(two.outbound)}/"
    )

    assert "403" in ended.told
    assert b"payments" not in ended.out


# --- what passes


def test_http_1_0_is_answered_and_closed(curl: Curl, two: Pair) -> None:
    """RFC 9112 §9.3."""
    for target, content in (("hello", b"hello"), ("chunked", b"one,two,three")):
        ended = curl("--http1.0", "-H", "Host: payments", f"http://{at(two.outbound)}/{target}")
        assert (ended.code, ended.out) == (0, content)
        assert "Transfer-Encoding" not in ended.told
        assert "Closing connection" in ended.told


def test_http_1_0_with_keep_alive_is_kept(curl: Curl, two: Pair) -> None:
    """RFC 9112 §9.3: Connection: keep-alive of a 1.0 client."""
    url = f"http://{at(two.outbound)}/hello"
    ended = curl("--http1.0", "-H", "Host: payments", "-H", "Connection: keep-alive", url, url)

    assert (ended.code, ended.out) == (0, b"hellohello")
    assert "Re-using existing connection" in ended.told


def test_two_requests_use_one_connection(curl: Curl, two: Pair) -> None:
    """RFC 9112 §9.3."""
    url = f"http://{at(two.outbound)}/hello"
    ended = curl("-H", "Host: payments", url, url, url)

    assert (ended.code, ended.out) == (0, b"hello" * 3)
    assert ended.told.count("Re-using existing connection") == 2


def test_an_upload_waits_for_100(curl: Curl, two: Pair, tmp_path: Path) -> None:
    """RFC 9110 §10.1.1: the 100 is the app's, through both sidecars."""
    (tmp_path / "body").write_bytes(LARGE)
    ended = curl(
        "-H", "Host: payments", "-H", "Expect: 100-continue", "--expect100-timeout", "15",
        "-T", str(tmp_path / "body"), f"http://{at(two.outbound)}/digest",
    )  # fmt: skip

    assert (ended.code, ended.out) == (0, digest(LARGE))
    assert "HTTP/1.1 100 Continue" in ended.told
    assert "Done waiting for 100-continue" not in ended.told


def test_an_upload_of_unknown_length_is_chunked(curl: Curl, two: Pair) -> None:
    """RFC 9112 §7.1."""
    ended = curl(
        "-H",
        "Host: payments",
        "-T",
        "-",
        f"http://{at(two.outbound)}/digest",
        stdin=LARGE[:3_000_000],
    )

    assert (ended.code, ended.out) == (0, digest(LARGE[:3_000_000]))
    assert "Transfer-Encoding: chunked" in ended.told


def test_a_form_arrives(curl: Curl, two: Pair) -> None:
    ended = curl("-H", "Host: payments", "-d", "a=1&b=2", f"http://{at(two.outbound)}/echo")

    assert (ended.code, ended.out) == (0, b"a=1&b=2")


def test_a_slow_reader_gets_everything(curl: Curl, two: Pair) -> None:
    """Issue: a slow reader stops the other side's reading; nothing is lost by it."""
    ended = curl("--limit-rate", "12M", "-H", "Host: payments", f"http://{at(two.outbound)}/large")

    assert ended.code == 0
    assert ended.out == LARGE


def test_a_slow_writer_is_taken_whole(curl: Curl, two: Pair, tmp_path: Path) -> None:
    """The rate is above `body_min_rate`."""
    (tmp_path / "body").write_bytes(LARGE[:2_000_000])
    ended = curl(
        "--limit-rate", "4M", "-H", "Host: payments", "-H", "Expect:",
        "-T", str(tmp_path / "body"), f"http://{at(two.outbound)}/digest",
    )  # fmt: skip

    assert (ended.code, ended.out) == (0, digest(LARGE[:2_000_000]))


@pytest.mark.parametrize(
    "target", ["large", "large-chunked", "until-eof", "204", "304", "trailers"]
)
def test_responses_end_where_they_end(curl: Curl, two: Pair, target: str) -> None:
    """RFC 9112 §6.3: curl asks for a second thing on the same connection."""
    host = f"http://{at(two.outbound)}"
    ended = curl("-H", "Host: payments", f"{host}/{target}", f"{host}/hello")
    content = {
        "large": LARGE,
        "large-chunked": LARGE,
        "until-eof": b"to the end",
        "trailers": b"body",
    }

    assert ended.code == 0
    assert ended.out == content.get(target, b"") + b"hello"


def test_head_is_head(curl: Curl, two: Pair) -> None:
    """RFC 9110 §9.3.2."""
    ended = curl("-I", "-H", "Host: payments", f"http://{at(two.outbound)}/hello")

    assert ended.code == 0
    assert b"Content-Length: 5" in ended.out


def test_many_at_once(curl: Curl, two: Pair) -> None:
    """curl -Z: thirty transfers in parallel."""
    ended = curl(
        "-Z",
        "--parallel-max",
        "30",
        "-H",
        "Host: payments",
        f"http://{at(two.outbound)}/hello?[1-90]",
    )

    assert (ended.code, ended.out) == (0, b"hello" * 90)


def test_headers_that_name_an_identity_do_not_pass(curl: Curl, two: Pair, app: Application) -> None:
    """Threats A1, A2: what the app's caller claims is dropped twice, and ours is set."""
    app.requests.clear()
    claims = [
        "X-Forwarded-Client-Cert",
        "X_Forwarded_Client_Cert",
        "X-Forwarded-For",
        "Forwarded",
        "Client-Cert",
    ]
    arguments = [part for claim in claims for part in ("-H", f"{claim}: Hash=forged")]
    ended = curl("-H", "Host: payments", *arguments, f"http://{at(two.outbound)}/claims")

    assert ended.code == 0
    request = app.request("/claims")
    assert b"forged" not in request.raw
    assert b"URI=spiffe://example.org/web" in request.value("x-forwarded-client-cert")


# --- straight to the inbound listener


@pytest.mark.parametrize(
    "version", [("--tlsv1.2", "--tls-max", "1.2"), ("--tlsv1.3",)], ids=["TLSv1.2", "TLSv1.3"]
)
def test_with_a_certificate_it_is_let_in(
    curl: Curl, two: Pair, web: Credentials, version: tuple[str, ...]
) -> None:
    """Issue: TLS 1.2 and 1.3, ALPN http/1.1."""
    ended = curl(*as_web(web, two, *version))

    assert (ended.code, ended.out) == (0, b"hello")
    assert "ALPN" in ended.told
    assert "server accepted http/1.1" in ended.told or "ALPN: server accepted" in ended.told


def test_the_certificate_of_the_peer_is_checked_by_curl_as_any_other(
    *,
    curl: Curl,
    two: Pair,
    web: Credentials,
    strange: Credentials,
    tmp_path: Path,
    stranger: Authority,
) -> None:
    """RFC 9110 §4.3.4: our DNS name is a sound host name; another CA's bundle does not verify it."""
    (tmp_path / "other.crt").write_bytes(stranger.pem)
    arguments = as_web(web, two)
    arguments[arguments.index("--cacert") + 1] = str(tmp_path / "other.crt")

    assert curl(*arguments).code == 60
    assert strange.trusted.read_bytes() != stranger.pem


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_without_a_certificate_it_is_refused(
    curl: Curl, two: Pair, web: Credentials, version: str
) -> None:
    """RFC 8446 §6.2 certificate_required; in 1.2 handshake_failure."""
    arguments = as_web(web, two, f"--tlsv{version}", "--tls-max", version)[4:]
    before = two.payments.metric("handshakes_total", reason="no_certificate")
    ended = curl(*arguments)

    assert ended.code in {35, 55, 56}, ended
    assert "alert" in ended.told
    assert two.payments.metric("handshakes_total", reason="no_certificate") == before + 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_with_a_certificate_of_another_ca_it_is_refused(
    curl: Curl, two: Pair, strange: Credentials, version: str
) -> None:
    """RFC 8446 §6.2 unknown_ca."""
    ended = curl(*as_web(strange, two, f"--tlsv{version}", "--tls-max", version))

    assert ended.code in {35, 55, 56}, ended
    assert "alert" in ended.told
    assert ended.out == b""


def test_plain_http_to_the_tls_port_is_told_so(curl: Curl, two: Pair) -> None:
    """Issue: a short 400 text that says so."""
    ended = curl(f"http://{at(two.inbound)}/hello")

    assert ended.code == 0
    assert "HTTP/1.1 400" in ended.told
    assert b"TLS" in ended.out


def test_a_client_that_offers_http_2_gets_http_1_1(curl: Curl, two: Pair, web: Credentials) -> None:
    """RFC 7301: the protocol that both know."""
    ended = curl(*as_web(web, two, "--http2"))

    assert (ended.code, ended.out) == (0, b"hello")
    assert "HTTP/1.1 200" in ended.told


def test_uploads_and_downloads_straight_to_the_inbound_listener(
    curl: Curl, two: Pair, web: Credentials, tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(LARGE)
    arguments = as_web(web, two)
    base = arguments.pop().removesuffix("/hello")

    assert curl(*arguments, "-T", str(tmp_path / "body"), f"{base}/digest").out == digest(LARGE)
    assert curl(*arguments, f"{base}/large").out == LARGE
