"""Which backend belongs to a kind; one that nobody configured is not imported."""

# Each import stands where its kind was configured: httpx and dnspython are slow to import.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ambassador.config.model import (
    ConsulDiscovery,
    DnsDiscovery,
    EtcdDiscovery,
    FileDiscovery,
    KubernetesDiscovery,
    NamesDiscovery,
    PluginDiscovery,
    SrvDiscovery,
)

if TYPE_CHECKING:
    from random import Random

    from ambassador.config.model import DiscoveryConfig
    from ambassador.discovery.base import Discovery


def make(config: DiscoveryConfig, chance: Random) -> Discovery:
    """Give the backend that a configuration asks for."""
    settings = config.settings
    match settings:
        case FileDiscovery():
            from ambassador.discovery.file import FromFile

            return FromFile(settings)
        case DnsDiscovery():
            from ambassador.discovery.dns import FromDns

            return FromDns(settings, chance)
        case NamesDiscovery():
            from ambassador.discovery.names import FromNames

            return FromNames(settings, chance)
        case SrvDiscovery():
            from ambassador.discovery.srv import FromSrv

            return FromSrv(settings, chance)
        case PluginDiscovery():
            from ambassador.discovery.plugin import FromPlugin

            return FromPlugin(config.kind, settings, zone=config.zone, chance=chance)
        case KubernetesDiscovery() | ConsulDiscovery() | EtcdDiscovery():
            return _registry(settings, zone=config.zone, chance=chance)
        case _:
            assert_never(settings)


def _registry(
    settings: KubernetesDiscovery | ConsulDiscovery | EtcdDiscovery, *, zone: str, chance: Random
) -> Discovery:
    """Give a backend that asks over HTTP."""
    match settings:
        case KubernetesDiscovery():
            from ambassador.discovery.kubernetes import FromKubernetes

            return FromKubernetes(settings, zone=zone, chance=chance)
        case ConsulDiscovery():
            from ambassador.discovery.consul import FromConsul

            return FromConsul(settings, chance=chance)
        case EtcdDiscovery():
            from ambassador.discovery.etcd import FromEtcd

            return FromEtcd(settings, chance=chance)
        case _:
            assert_never(settings)
