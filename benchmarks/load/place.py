"""What every target is given: the same folder, certificates, application and free ports of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.certificates import Workload

LOOPBACK = "127.0.0.1"
SERVICE = "payments"
SMALL_PATH, SMALL_BYTES = "/small", 1024
BULK_PATH, BULK_BYTES = "/bulk", 64 * 1024 * 1024
KEPT_CONNECTIONS = (
    128  # idle upstream connections that a proxy may keep: more than the generator opens
)
# What BoringSSL prefers on a CPU with AES instructions, and Envoy cannot be told otherwise.
CIPHER_SUITE = "TLS_AES_128_GCM_SHA256"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the targets of one run live. `web` calls, `payments` answers."""

    folder: Path
    web: Workload
    payments: Workload
    app_port: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of one target: the plain door for the app, the mTLS door for peers, one admin port each."""

    outbound: int
    inbound: int
    outbound_admin: int
    inbound_admin: int


@dataclass(frozen=True, slots=True)
class Commands:
    """How to start both instances of a target; the files that they read are written."""

    outbound: list[str]
    inbound: list[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One program to measure.

    `missing` says in words why it cannot run here, or gives ""; its access log is NAME-DIRECTION + `log_suffix`.
    """

    name: str
    missing: Callable[[], str]
    version: Callable[[], str]
    prepare: Callable[[Place, Ports], Commands]
    log_suffix: str


def free_ports(count: int) -> list[int]:
    """Find free ports of loopback, all held at once so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def nginx_user() -> str:
    """Give nginx's `user` line: its worker would leave root for `nobody`, who cannot read our folder."""
    return "user root;" if os.geteuid() == 0 else ""
