"""Ambassador as both sidecars: defaults, but for the ceilings that the other targets do not have either."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
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
    endpoints: [{endpoints}]
    peer: {{spiffe: "{payments.spiffe}"}}
    pool: {{max_idle: {kept}}}
"""
# Handshakes are measured one after the other from a single source, faster than a sidecar's default ceiling.
_INBOUND = """
limits: {{handshake_rate: 100000/s}}
inbound:
"""
_LISTENER = """
- name: inbound-{port}
  listen: "{loopback}:{port}"
  app: {{address: "{loopback}:{app_port}", pool: {{max_idle: {kept}}}}}
  allow: [{{name: web, spiffe: "{web.spiffe}"}}]
"""


def commands(
    place: Place, ports: Ports, *, label: str, inbound: Sequence[int], service: str = ""
) -> Commands:
    """Give both sidecars, the outbound one with an endpoint for each port of the inbound one.

    `service`: more lines of the service. Files are named after `label`.
    """
    values = {
        "web": place.web,
        "payments": place.payments,
        "loopback": LOOPBACK,
        "service": SERVICE,
        "ports": ports,
        "endpoints": ", ".join(f'"{LOOPBACK}:{port}"' for port in inbound),
        "app_port": place.app_port,
        "kept": KEPT_CONNECTIONS,
    }
    listeners = "".join(_LISTENER.format(port=port, **values) for port in inbound)
    before = _COMMON.format(
        workload=place.web,
        admin_port=ports.outbound_admin,
        access_log=place.folder / f"{label}-outbound.access",
        **values,
    )
    behind = _COMMON.format(
        workload=place.payments,
        admin_port=ports.inbound_admin,
        access_log=place.folder / f"{label}-inbound.access",
        **values,
    )
    return Commands(
        _command(
            place.folder / f"{label}-outbound.yaml", before + _OUTBOUND.format(**values) + service
        ),
        _command(
            place.folder / f"{label}-inbound.yaml", behind + _INBOUND.format(**values) + listeners
        ),
    )


def _command(config: Path, text: str) -> list[str]:
    config.write_text(text)
    return [sys.executable, "-m", "ambassador", "run", "-c", str(config)]


def _prepare(place: Place, ports: Ports) -> Commands:
    return commands(place, ports, label="ambassador", inbound=[ports.inbound])


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
