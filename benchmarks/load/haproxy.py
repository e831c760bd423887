"""HAProxy as both sidecars. It logs each line with one write to its standard output, which is a file here."""

# ruff: noqa: E501 a line of HAProxy's configuration cannot be continued on the next

from __future__ import annotations

import shutil
import subprocess

from benchmarks.load.place import (
    CIPHER_SUITE,
    KEPT_CONNECTIONS,
    LOOPBACK,
    SERVICE,
    Commands,
    Kind,
    Place,
    Ports,
)

_COMMON = """
global
  maxconn 4096
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option http-keep-alive
  http-reuse always
  timeout connect 1s
  timeout client 300s
  timeout server 300s
  timeout http-request 10s
  timeout http-keep-alive 300s
  log-format '{{"time":"%tr","method":"%HM","path":%{{+Q}}HPO,"protocol":"%HV","status":%ST,"bytes_received":%U,"bytes_sent":%B,"duration":%Ta,"upstream_duration":%Tr,"upstream":"%si:%sp","flags":"%tsc","authority":%{{+Q}}[var(txn.host)],"peer":%{{+Q}}[ssl_c_s_dn(,0,rfc2253)],"peer_address":"%ci","tls":"%sslv","user_agent":%{{+Q}}[var(txn.agent)],"request_id":"%ID"}}'
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
"""
_OUTBOUND = """
frontend outbound
  bind {loopback}:{ports.outbound}
  http-request set-var(txn.host) req.hdr(host)
  http-request set-var(txn.agent) req.hdr(user-agent)
  http-request set-header X-Request-Id %[unique-id]
  http-request set-header X-Forwarded-For %[src]
  use_backend {service} if {{ req.hdr(host),field(1,:) -m str {service} }}
backend {service}
  server peer {loopback}:{ports.inbound} pool-max-conn {kept} ssl crt {web.both} ca-file {web.trust_bundle} verify required verifyhost {payments.dns} sni str({payments.dns}) ssl-min-ver TLSv1.3 ciphersuites {suite}
"""
_INBOUND = """
frontend inbound
  bind {loopback}:{ports.inbound} ssl crt {payments.both} ca-file {payments.trust_bundle} verify required ssl-min-ver TLSv1.3 ciphersuites {suite}
  http-request set-var(txn.host) req.hdr(host)
  http-request set-var(txn.agent) req.hdr(user-agent)
  http-request deny unless {{ ssl_c_s_dn(cn) -m str {web.name} }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Client-Cert 'Hash=%[ssl_c_der,sha2(256),hex,lower];Subject="%[ssl_c_s_dn(,0,rfc2253)]"'
  default_backend app
backend app
  server app {loopback}:{app_port} pool-max-conn {kept}
"""


def _command(place: Place, ports: Ports, direction: str, template: str) -> list[str]:
    config = place.folder / f"haproxy-{direction}.conf"
    text = (_COMMON + template).format(
        suite=CIPHER_SUITE,
        web=place.web,
        payments=place.payments,
        service=SERVICE,
        loopback=LOOPBACK,
        ports=ports,
        app_port=place.app_port,
        kept=KEPT_CONNECTIONS,
    )
    config.write_text(text)
    return ["haproxy", "-db", "-f", str(config)]


def _prepare(place: Place, ports: Ports) -> Commands:
    return Commands(
        _command(place, ports, "outbound", _OUTBOUND),
        _command(place, ports, "inbound", _INBOUND),
    )


def _version() -> str:
    printed = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True)
    return " ".join(printed.stdout.split()[:3:2]).replace("HAProxy", "haproxy")


def _missing() -> str:
    return "" if shutil.which("haproxy") else "haproxy is not installed (Debian package haproxy)"


KIND = Kind("haproxy", _missing, _version, _prepare, ".out")
