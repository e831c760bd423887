"""What says where endpoints come from, and its meaning.

Knows how both say it. A list with names in it becomes discovery, since a name is asked for again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final, assert_never

from ambassador.config import model, plugins, schema
from ambassador.config.addresses import NamedPlace
from ambassador.core.model import Address, Endpoint

#: For the app by name: who typed it has also typed unsafe_plaintext, and its address may well be loopback.
_EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
Places = tuple[tuple[Endpoint, ...], model.DiscoveryConfig | None]
_Dynamic = (
    schema.FileDiscovery
    | schema.DnsDiscovery
    | schema.SrvDiscovery
    | schema.KubernetesDiscovery
    | schema.ConsulDiscovery
    | schema.EtcdDiscovery
    | schema.PluginDiscovery
)


class Discoveries:
    """Gives the endpoints of a service, or where they come from; paths count from `folder`."""

    def __init__(self, folder: Path, *, zone: str) -> None:
        self._folder = folder
        self._zone = zone

    def places(self, given: schema.Service) -> Places:
        """Give the endpoints of a service and its discovery; one of them is empty."""
        discovery = given.discovery
        if discovery is None:
            return self._listed(given.endpoints or [])
        if isinstance(discovery, schema.StaticDiscovery):
            return self._listed(discovery.endpoints, discovery)
        return (), self._discovery(self._settings(discovery), discovery, kind=discovery.kind)

    def app(self, address: Address | NamedPlace) -> Places:
        """Give the endpoints of the app and its discovery; one of them is empty."""
        if isinstance(address, Address):
            return (Endpoint(address),), None
        settings = model.NamesDiscovery((), (_named(address, Endpoint(Address(*address))),))
        return (), model.DiscoveryConfig(
            kind="dns", settings=settings, zone=self._zone, allowed_networks=_EVERYWHERE
        )

    def _listed(
        self, given: Sequence[schema.Endpoint], common: schema.Discovery | None = None
    ) -> Places:
        endpoints = [(one.address, _endpoint(one)) for one in given]
        names = [_named(at, one) for at, one in endpoints if isinstance(at, NamedPlace)]
        rest = tuple(one for at, one in endpoints if isinstance(at, Address))
        if not names:
            return rest, None
        return (), self._discovery(model.NamesDiscovery(rest, tuple(names)), common, kind="dns")

    def _discovery(
        self, settings: model.DiscoverySettings, given: schema.Discovery | None, *, kind: str
    ) -> model.DiscoveryConfig:
        if given is None:
            return model.DiscoveryConfig(kind=kind, settings=settings, zone=self._zone)
        return model.DiscoveryConfig(
            kind=kind,
            settings=settings,
            zone=self._zone,
            on_empty=given.on_empty,
            allowed_networks=tuple(given.allowed_networks) if given.allowed_networks else None,
            max_endpoints=given.max_endpoints,
        )

    def _settings(self, given: _Dynamic) -> model.DiscoverySettings:  # noqa: PLR0911  # one for each kind
        match given:
            case schema.FileDiscovery():
                return model.FileDiscovery(self._folder / given.path, given.interval)
            case schema.DnsDiscovery():
                return _dns(given)
            case schema.SrvDiscovery():
                return model.SrvDiscovery(
                    given.name, tuple(given.servers or ()), given.min_ttl, given.max_ttl
                )
            case schema.KubernetesDiscovery():
                return self._kubernetes(given)
            case schema.ConsulDiscovery():
                return _consul(given)
            case schema.EtcdDiscovery():
                return self._etcd(given)
            case schema.PluginDiscovery():
                return _plugin(given)
        assert_never(given)

    def _kubernetes(self, given: schema.KubernetesDiscovery) -> model.KubernetesDiscovery:
        return model.KubernetesDiscovery(
            service=given.service,
            namespace=given.namespace,
            port=given.port,
            api_server=given.api_server.text if given.api_server is not None else None,
            token_file=self._path(given.token_file),
            ca_file=self._path(given.ca_file),
        )

    def _etcd(self, given: schema.EtcdDiscovery) -> model.EtcdDiscovery:
        return model.EtcdDiscovery(
            urls=tuple(url.text for url in given.urls),
            prefix=given.prefix,
            username=given.username,
            password=given.password,
            ca_file=self._path(given.ca_file),
        )

    def _path(self, path: Path | None) -> Path | None:
        return self._folder / path if path is not None else None


def _dns(given: schema.DnsDiscovery) -> model.DnsDiscovery:
    return model.DnsDiscovery(
        name=given.name,
        port=given.port,
        family=given.family,
        servers=tuple(given.servers or ()),
        min_ttl_s=given.min_ttl,
        max_ttl_s=given.max_ttl,
    )


def _consul(given: schema.ConsulDiscovery) -> model.ConsulDiscovery:
    return model.ConsulDiscovery(
        service=given.service,
        address=given.address.text,
        datacenter=given.datacenter,
        tag=given.tag,
        token=given.token,
    )


def _plugin(given: schema.PluginDiscovery) -> model.PluginDiscovery:
    plugin = plugins.find(given.kind)
    if plugin is None:  # uninstalled since the schema looked
        raise ValueError(f"nothing brings the kind {given.kind} any more")
    return model.PluginDiscovery(
        settings=plugins.settings(plugin, given.own_keys), factory=plugin.factory
    )


def _named(place: NamedPlace, like: Endpoint) -> tuple[str, int, Endpoint]:
    return place.name, place.port, like


def _endpoint(given: schema.Endpoint) -> Endpoint:
    """Give an endpoint; behind a name, what all its addresses have in common."""
    at = given.address
    address = at if isinstance(at, Address) else Address(at.name, at.port)
    return Endpoint(address, given.weight, given.zone or "", given.priority)
