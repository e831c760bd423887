"""nginx, HAProxy and Envoy as mTLS clients of our inbound listener, an application behind us."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.foreign import (
    LARGE,
    Application,
    Credentials,
    Program,
    credentials,
    digest,
    envoy,
    envoy_cluster,
    envoy_listener,
    envoy_tls,
    haproxy,
    nginx,
)
from tests.support.peers import connect
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Pod, running_ambassador

pytestmark = pytest.mark.interop

KINDS = ("nginx", "haproxy", "envoy")
BIG = os.urandom(2_000_003)


@dataclass
class Doors:
    """Ports of a proxy in front of us: with good credentials, with a broken endpoint first, with a strange CA's."""

    good: int
    broken_first: int
    strange: int

    @classmethod
    def reserve(cls) -> Doors:
        return cls(reserve_port(), reserve_port(), reserve_port())


@dataclass
class Proxy:
    """A foreign proxy in front of our inbound listener."""

    kind: str
    doors: Doors
    files: Credentials


@dataclass
class Inbound:
    """Our listeners: `api` leads to the application, `broken` to a port where nobody listens."""

    api: int
    broken: int


def start(
    kind: str, folder: Path, doors: Doors, to: Inbound, *, files: Credentials, strange: Credentials
) -> Program:
    """Start the proxy of this kind."""
    ports = [doors.good, doors.broken_first, doors.strange]
    if kind == "nginx":
        return nginx(folder, _nginx(doors, to, files, strange), ports=ports)
    if kind == "haproxy":
        return haproxy(folder, _haproxy(doors, to, files, strange), ports=ports)
    good, bad = (
        envoy_tls("UpstreamTlsContext", each, sni="payments.example.org")
        for each in (files, strange)
    )
    retry = {
        "retry_policy": {
            "retry_on": "5xx",
            "num_retries": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
        }
    }
    return envoy(
        folder,
        [
            envoy_listener(doors.good, "good"),
            envoy_listener(doors.broken_first, "both", route=retry),
            envoy_listener(doors.strange, "strange"),
        ],
        [
            envoy_cluster("good", to.api, tls=good),
            envoy_cluster("both", to.broken, to.api, tls=good),
            envoy_cluster("strange", to.api, tls=bad),
        ],
        ports=ports,
    )


def _nginx(doors: Doors, to: Inbound, files: Credentials, strange: Credentials) -> str:
    def credentials_of(one: Credentials) -> str:
        return f"""
        proxy_ssl_certificate {one.certificate}; proxy_ssl_certificate_key {one.key};
        proxy_ssl_trusted_certificate {files.trusted}; proxy_ssl_verify on;
        proxy_ssl_server_name on; proxy_ssl_name payments.example.org;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;"""

    return f"""
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;
    client_max_body_size 0; proxy_max_temp_file_size 0;
    upstream good {{ server 127.0.0.1:{to.api}; keepalive 4; }}
    upstream both {{
      server 127.0.0.1:{to.broken} max_fails=0; server 127.0.0.1:{to.api} max_fails=0; keepalive 4;
    }}
    upstream strange {{ server 127.0.0.1:{to.api}; }}
    server {{
      listen 127.0.0.1:{doors.good}; {credentials_of(files)}
      location / {{ proxy_pass https://good; }}
    }}
    server {{
      listen 127.0.0.1:{doors.broken_first}; {credentials_of(files)}
      location / {{ proxy_pass https://both; proxy_next_upstream error timeout http_503; }}
    }}
    server {{
      listen 127.0.0.1:{doors.strange}; {credentials_of(strange)}
      location / {{ proxy_pass https://strange; }}
    }}"""


def _haproxy(doors: Doors, to: Inbound, files: Credentials, strange: Credentials) -> str:
    tls = f"ca-file {files.trusted} verify required verifyhost payments.example.org sni str(payments.example.org)"
    return f"""
frontend good
  bind 127.0.0.1:{doors.good}
  default_backend good
backend good
  server api 127.0.0.1:{to.api} ssl crt {files.both} {tls}
frontend both
  bind 127.0.0.1:{doors.broken_first}
  default_backend both
backend both
  retry-on conn-failure empty-response 503
  retries 3
  option redispatch 1
  server broken 127.0.0.1:{to.broken} ssl crt {files.both} {tls}
  server api 127.0.0.1:{to.api} ssl crt {files.both} {tls}
frontend strange
  bind 127.0.0.1:{doors.strange}
  default_backend strange
backend strange
  server api 127.0.0.1:{to.api} ssl crt {strange.both} {tls}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(folder: Path, authority: Authority, app: Application) -> Iterator[Ambassador]:
    """Our inbound listeners."""
    payments = Pod("payments", authority, folder)
    allow = [{"name": "client", "spiffe": "spiffe://example.org/client"}]
    config = payments.config(
        inbound=[
            {"name": "api", **payments.inbound(app.port, allow=allow)},  # type: ignore[arg-type]
            {
                "name": "broken",
                "listen": f"127.0.0.1:{reserve_port()}",
                "app": reserve_port(),
                "allow": [dict(rule) for rule in allow],
            },
        ]
    )
    with running_ambassador(config, folder) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest,
    folder: Path,
    authority: Authority,
    stranger: Authority,
    sidecar: Ambassador,
) -> Iterator[Proxy]:
    """Each of the three, one after the other."""
    kind = request.param
    files = credentials(folder / f"{kind}-files", authority, "client")
    strange = credentials(folder / f"{kind}-strange", stranger, "client", trusts=authority)
    to = Inbound(*(int(sidecar.listener("inbound", name)[1]) for name in ("api", "broken")))
    doors = Doors.reserve()
    with start(kind, folder / kind, doors, to, files=files, strange=strange):
        yield Proxy(kind, doors, files)


@pytest.fixture
def client(proxy: Proxy, app: Application) -> Iterator[http.client.HTTPConnection]:
    """A client of the proxy."""
    app.requests.clear()
    with contextlib.closing(client_of(proxy.doors.good)) as connection:
        yield connection


def client_of(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=20)


def ask(
    client: http.client.HTTPConnection,
    target: str,
    *,
    method: str = "GET",
    body: Any = None,
    **fields: str,
) -> tuple[int, bytes]:
    """Send a request; give status and body."""
    client.request(method, target, body, headers={"Host": "payments.example.org", **fields})
    response = client.getresponse()
    return response.status, response.read()


def test_the_application_learns_who_the_proxy_is(
    client: http.client.HTTPConnection, proxy: Proxy, app: Application
) -> None:
    """Envoy, x-forwarded-client-cert: By, Hash, Subject, URI, DNS of the proxy's certificate, nothing that it sent."""
    forged = {
        "X-Forwarded-Client-Cert": "URI=spiffe://example.org/admin",
        "X-Forwarded-For": "9.9.9.9",
    }

    assert ask(client, "/hello", **forged) == (200, b"hello")
    request = app.request("/hello")
    assert (
        request.value("x-forwarded-client-cert")
        == (
            "By=spiffe://example.org/payments;"
            f"Hash={proxy.files.issued.fingerprint};"
            'Subject="CN=client";'
            "URI=spiffe://example.org/client;DNS=client.example.org"
        ).encode()
    )
    assert request.value("x-forwarded-for") == b"127.0.0.1"
    assert request.value("x-forwarded-proto") == b"https"


def test_the_record_names_the_proxy_and_its_tls(
    client: http.client.HTTPConnection, proxy: Proxy, sidecar: Ambassador
) -> None:
    """Issue: peer identity, TLS version and group of each exchange."""
    assert ask(client, f"/record/{proxy.kind}")[0] == 200
    record = sidecar.wait_for_record(path=f"/record/{proxy.kind}")

    assert (record["peer"], record["rule"]) == ("spiffe://example.org/client", "client")
    assert record["tls_version"] == {"envoy": "TLSv1.2"}.get(proxy.kind, "TLSv1.3")
    assert record["tls_group"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_big_bodies_arrive_whole(client: http.client.HTTPConnection, framing: str) -> None:
    """RFC 9112 §6."""
    pieces = (BIG[at : at + 50_000] for at in range(0, len(BIG), 50_000))
    body = BIG if framing == "length" else pieces

    assert ask(client, "/digest", method="POST", body=body) == (200, digest(BIG))


def test_responses_of_every_framing_arrive_whole(client: http.client.HTTPConnection) -> None:
    """RFC 9112 §6.3."""
    assert ask(client, "/chunked") == (200, b"one,two,three")
    assert ask(client, "/204") == (204, b"")
    assert ask(client, "/hello", method="HEAD") == (200, b"")
    assert ask(client, "/304") == (304, b"")
    assert ask(client, "/until-eof") == (200, b"to the end")
    for target in ("/large", "/large-chunked"):
        status, body = ask(client, target)
        assert status == 200
        assert body == LARGE


def test_one_connection_of_the_proxy_carries_many_requests(
    client: http.client.HTTPConnection, proxy: Proxy, sidecar: Ambassador
) -> None:
    """RFC 9112 §9.3: we keep the connections that they keep."""
    paths = [f"/kept/{proxy.kind}/{number}" for number in range(10)]
    assert {ask(client, path)[0] for path in paths} == {200}
    records = [sidecar.wait_for_record(path=path) for path in paths]

    assert len({record["peer_address"] for record in records}) == 1


def test_a_request_that_fails_behind_us_is_retried_by_the_proxy_elsewhere(
    proxy: Proxy, app: Application
) -> None:
    """Our 503 says that nothing was done: nginx http_503, HAProxy retry-on 503, Envoy 5xx."""
    for _ in range(6):
        app.requests.clear()
        with contextlib.closing(client_of(proxy.doors.broken_first)) as client:
            assert ask(client, "/hello") == (200, b"hello")
        assert len(app.requests) == 1


def test_a_proxy_with_a_certificate_of_another_ca_reaches_nobody(
    proxy: Proxy, app: Application, sidecar: Ambassador
) -> None:
    """RFC 8446 §4.4.2.4: the chain must lead to our trust bundle."""
    app.requests.clear()
    before = sidecar.metric("handshakes_total", listener="api", result="refused")
    with contextlib.closing(client_of(proxy.doors.strange)) as client:
        status, _ = ask(client, "/hello")

    assert status in {502, 503}
    assert app.requests == []
    assert sidecar.metric("handshakes_total", listener="api", result="refused") > before


def test_a_client_that_waits_for_100_is_served_through_both(proxy: Proxy) -> None:
    """RFC 9110 §10.1.1."""
    with connect(("127.0.0.1", proxy.doors.good)) as raw:
        raw.send(
            b"POST /digest HTTP/1.1\r\nHost: payments\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
        )
        interim = raw.read_until(b"\r\n\r\n")
        raw.send(b"waited")
        answer = raw.read_message()
        while answer.startswith(b"HTTP/1.1 100 "):  # a proxy's own, and ours
            answer = raw.read_message()

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"\r\n\r\n" + digest(b"waited"))
