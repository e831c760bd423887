"""nginx as both sidecars. It knows no SPIFFE ID: the client is authorised by subject, the upstream by DNS SAN."""

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
    nginx_user,
)

_COMMON = """
daemon off; worker_processes 1; pid {base}.pid; error_log {base}.err; {user}
events {{ worker_connections 4096; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_temp_path {base}-body; proxy_temp_path {base}-proxy;
  log_format line escape=json '{{"time":"$time_iso8601","method":"$request_method","path":"$uri",'
    '"protocol":"$server_protocol","status":$status,"bytes_received":$request_length,'
    '"bytes_sent":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr",'
    '"upstream_duration":"$upstream_response_time","authority":"$host","peer":"$ssl_client_s_dn",'
    '"peer_address":"$remote_addr","tls":"$ssl_protocol","user_agent":"$http_user_agent",'
    '"forwarded_for":"$http_x_forwarded_for","request_id":"$request_id"}}';
  access_log {base}.access line buffer=64k flush=1s;
  proxy_http_version 1.1; proxy_max_temp_file_size 0; proxy_read_timeout 15s;
  proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
"""
_OUTBOUND = """
  proxy_set_header X-Request-Id $request_id;
  proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites {suite};
  proxy_ssl_certificate {web.certificate}; proxy_ssl_certificate_key {web.key};
  proxy_ssl_trusted_certificate {web.trust_bundle}; proxy_ssl_verify on; proxy_ssl_verify_depth 2;
  proxy_ssl_server_name on; proxy_ssl_name {payments.dns}; proxy_ssl_session_reuse on;
  upstream {service} {{ server {loopback}:{ports.inbound}; keepalive {kept}; keepalive_requests 1000000000; }}
  server {{
    listen {loopback}:{ports.outbound};
    location / {{ proxy_pass https://{service}; }}
  }}
}}
"""
_INBOUND = """
  proxy_set_header X-Request-Id $http_x_request_id;
  proxy_set_header X-Forwarded-Client-Cert
    'Hash=$ssl_client_fingerprint;Subject="$ssl_client_s_dn"';
  ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {suite};
  ssl_certificate {payments.certificate}; ssl_certificate_key {payments.key};
  ssl_client_certificate {payments.trust_bundle}; ssl_verify_client on; ssl_verify_depth 2;
  ssl_session_cache shared:tls:4m; ssl_session_timeout 600s;
  map $ssl_client_s_dn $allowed {{ default 0; "CN={web.name}" 1; }}
  upstream app {{ server {loopback}:{app_port}; keepalive {kept}; keepalive_requests 1000000000; }}
  server {{
    listen {loopback}:{ports.inbound} ssl;
    if ($allowed = 0) {{ return 403; }}
    location / {{ proxy_pass http://app; }}
  }}
}}
"""


def _command(place: Place, ports: Ports, direction: str, template: str) -> list[str]:
    base = place.folder / f"nginx-{direction}"
    text = (_COMMON + template).format(
        base=base,
        user=nginx_user(),
        suite=CIPHER_SUITE,
        web=place.web,
        payments=place.payments,
        service=SERVICE,
        loopback=LOOPBACK,
        ports=ports,
        app_port=place.app_port,
        kept=KEPT_CONNECTIONS,
    )
    config = base.with_suffix(".conf")
    config.write_text(text)
    return ["nginx", "-c", str(config), "-e", f"{base}.err"]


def _prepare(place: Place, ports: Ports) -> Commands:
    return Commands(
        _command(place, ports, "outbound", _OUTBOUND),
        _command(place, ports, "inbound", _INBOUND),
    )


def _version() -> str:
    printed = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
    return printed.stderr.strip().removeprefix("nginx version: ").replace("/", " ")


def _missing() -> str:
    return "" if shutil.which("nginx") else "nginx is not installed (Debian package nginx)"


KIND = Kind("nginx", _missing, _version, _prepare, ".access")
