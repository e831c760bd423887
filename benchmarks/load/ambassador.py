"""Ambassador as both sidecars: defaults, but for the ceilings that the other targets do not have either."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks.load.place import KEPT_CONNECTIONS, LOOPBACK, SERVICE, Commands, Kind, Place, Ports
from benchmarks.load.processes import environment

_COMMON = """
version: 1
name: {workload.name}
identity: {{certificate: {workload.certificate}, private_key: {workload.key}, trust_bundle: {workload.trust_bundle}}}
admin: {{listen: "{loopback}:{admin_port}"}}
access_log: {{path: {access_log}}}
drain: {{delay: 0s, timeout: 1s}}
"""
_OUTBOUND = """
outbound: {{listen: "{loopback}:{ports.outbound}"}}
services:
  {service}:
    endpoints: ["{loopback}:{ports.inbound}"]
    peer: {{spiffe: "{payments.spiffe}"}}
    pool: {{max_idle: {kept}}}
"""
# The same, with endpoints to choose from and to look after: what it costs beside KIND is the price of that.
_OUTBOUND_OF_THREE = """
outbound: {{listen: "{loopback}:{ports.outbound}"}}
services:
  {service}:
    endpoints: ["127.0.0.1:{ports.inbound}", "127.0.0.2:{ports.inbound}", "127.0.0.3:{ports.inbound}"]
    peer: {{spiffe: "{payments.spiffe}"}}
    pool: {{max_idle: {kept}}}
    health_check: {{path: /, interval: 1s, expect: ["200-499"]}}
    outlier_detection: {{}}
"""
# Handshakes are measured one after the other from a single source, faster than a sidecar's default ceiling.
_INBOUND = """
inbound:
  listen: "{inbound}:{ports.inbound}"
  app: {{address: "{loopback}:{app_port}", pool: {{max_idle: {kept}}}}}
  allow: [{{name: web, spiffe: "{web.spiffe}"}}]
limits: {{handshake_rate: 100000/s}}
"""


def _command(name: str, place: Place, ports: Ports, *, direction: str, template: str) -> list[str]:
    inbound = direction == "inbound"
    config = place.folder / f"{name}-{direction}.yaml"
    text = (_COMMON + template).format(
        workload=place.payments if inbound else place.web,
        web=place.web,
        payments=place.payments,
        loopback=LOOPBACK,
        inbound=LOOPBACK if name == "ambassador" else "0.0.0.0",  # all of 127.0.0.0/8
        service=SERVICE,
        ports=ports,
        admin_port=ports.inbound_admin if inbound else ports.outbound_admin,
        access_log=config.with_suffix(".access"),
        app_port=place.app_port,
        kept=KEPT_CONNECTIONS,
    )
    config.write_text(text)
    return [sys.executable, "-m", "ambassador", "run", "-c", str(config)]


def _prepare(place: Place, ports: Ports) -> Commands:
    return _commands("ambassador", place, ports, outbound=_OUTBOUND)


def _prepare_three(place: Place, ports: Ports) -> Commands:
    return _commands("services", place, ports, outbound=_OUTBOUND_OF_THREE)


def _commands(name: str, place: Place, ports: Ports, *, outbound: str) -> Commands:
    return Commands(
        _command(name, place, ports, direction="outbound", template=outbound),
        _command(name, place, ports, direction="inbound", template=_INBOUND),
    )


def _version() -> str:
    printed = subprocess.run(
        [sys.executable, "-m", "ambassador", "version"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    return " ".join(printed.stdout.split()) or "ambassador (version not built yet)"


def _missing() -> str:
    found = importlib.util.find_spec("ambassador")
    if found is None or found.origin is None:
        return "the package ambassador is not importable: start from the project's folder"
    if not (Path(found.origin).parent / "__main__.py").exists():
        return "ambassador run is not built yet"
    return ""


KIND = Kind("ambassador", _missing, _version, _prepare, ".access")
#: Three endpoints with health checks and outlier detection on; only when it is asked for.
SERVICES = Kind("services", _missing, _version, _prepare_three, ".access")
