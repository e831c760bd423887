"""What `ambassador run` tells a person at a terminal once everything is up (config.md §4).

Knows words and columns; must not know how any of it works. Without a terminal the event `proxy_ready` says it.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from ambassador import __version__
from ambassador.identity.tls import versions
from ambassador.telemetry.text import clean

if TYPE_CHECKING:
    from ambassador.app import Application
    from ambassador.config.model import Config, InboundConfig, OutboundConfig, ServiceConfig
    from ambassador.core.model import Address

_LABEL: Final = 10
_DAY_S: Final = 86400
_HOUR_S: Final = 3600
_MAX_SERVICES: Final = 4


def banner(app: Application, took_s: float) -> str:
    """Give the lines, without a line end after the last.

    Units: `took_s` is seconds from the reading of the configuration to the first accepted connection.
    """
    config = app.config
    loop = type(app.loop).__module__.partition(".")[0]
    lines = [
        f"ambassador {__version__}, pid {os.getpid()}, {loop}, OpenSSL {versions()['OpenSSL']}"
    ]
    if app.store is not None:
        credentials = app.store.credentials
        left = _left(credentials.not_after - app.clock.wall())
        tls = config.tls
        lines.append(
            _line(
                "identity",
                f"{clean(credentials.principal)}, {left}, {_versions(tls.min_version)}, {tls.groups[0]}",
            )
        )
    addresses = {
        doors.name: listener.addresses
        for doors, listener in zip(app.doors, app.listeners, strict=True)
    }
    lines += [
        _line("inbound", f"{_where(addresses[one.name])} {_inbound(one, config)}")
        for one in config.inbound
    ]
    lines += [
        _line("outbound", f"{_where(addresses[one.name])} -> {_outbound(one, config)}")
        for one in config.outbound
    ]
    ready = f"ready after {took_s:.2f} s"
    admin = app.admin_listener
    lines.append(
        _line(
            "admin",
            f"{_where(admin.addresses)}, {ready}" if admin is not None else f"none, {ready}",
        )
    )
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}{text}"


def _where(addresses: list[Address]) -> str:
    """Give addresses, also those that came from a variable (as the event `proxy_ready` does: `run._announce`)."""
    return " ".join(str(address) for address in addresses)


def _versions(lowest: str) -> str:
    return lowest if lowest == "TLSv1.3" else f"{lowest}+"


def _left(seconds: float) -> str:
    """Say how long a certificate lasts: days, under two of them hours, under two of these minutes."""
    if seconds >= 2 * _DAY_S:
        return f"{math.floor(seconds / _DAY_S)} days left"
    if seconds >= 2 * _HOUR_S:
        return f"{math.floor(seconds / _HOUR_S)} hours left"
    return f"{max(0, math.floor(seconds / 60))} minutes left"


def _inbound(inbound: InboundConfig, config: Config) -> str:
    """Say what goes where and who may."""
    kind = "mTLS" if inbound.protocol == "http" else "mTLS tcp"
    app = config.services[inbound.app].endpoints[0]
    who = (
        "anybody verified"
        if inbound.allow_any_verified
        else _count(len(inbound.allow), "allow rule")
    )
    if inbound.deny:
        who += f", {_count(len(inbound.deny), 'deny rule')}"
    if inbound.audit:
        who += ", audit only"
    return f"{kind} -> app {app}, {who}"


def _outbound(outbound: OutboundConfig, config: Config) -> str:
    """Name the services a listener leads to."""
    if outbound.service is not None:
        names = [outbound.service]
    elif outbound.routes is not None:
        names = list(dict.fromkeys(name for route in outbound.routes for name, _ in route.targets))
    else:
        names = [name for name, service in config.services.items() if not service.is_app]
    shown = [f"{name} ({_endpoints(config.services[name])})" for name in names[:_MAX_SERVICES]]
    if len(names) > _MAX_SERVICES:
        shown.append(f"{len(names) - _MAX_SERVICES} more")
    return ", ".join(shown) or "no service"


def _endpoints(service: ServiceConfig) -> str:
    """Say where a service's endpoints are from."""
    if service.discovery is not None:
        return f"endpoints by {service.discovery.kind}"
    return _count(len(service.endpoints), "endpoint")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
