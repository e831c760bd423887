"""What identity needs to be told, as shapes: the configuration's values fit them without being imported.

Floor 2 obeys settings of floor 3 only by their shape. Units: seconds; `None` means none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ambassador.policy.authorization import PeerPattern


class IdentitySettings(Protocol):
    """Where the credentials lie. `trust_bundles` maps trust domain to file; the key "" is the unmapped one."""

    @property
    def certificate(self) -> Path: ...
    @property
    def private_key(self) -> Path: ...
    @property
    def trust_bundles(self) -> dict[str, Path]: ...
    @property
    def crl(self) -> tuple[Path, ...]: ...
    @property
    def crl_grace_s(self) -> float | None: ...


class TlsSettings(Protocol):
    """How handshakes are made, with every listener and service."""

    @property
    def min_version(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def session_lifetime_s(self) -> float | None: ...


class ServiceSettings(Protocol):
    """Whom a service's endpoints must prove to be. `peer` None: anybody whom the trust bundle verifies."""

    @property
    def name(self) -> str: ...
    @property
    def peer(self) -> tuple[PeerPattern, ...] | None: ...
    @property
    def server_name(self) -> str | None: ...
    @property
    def alpn(self) -> tuple[str, ...]: ...
