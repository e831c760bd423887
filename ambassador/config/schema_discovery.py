"""Where the endpoints of a service come from, as the file spells it.

Knows the keys of the built-in kinds; the keys of other kinds are a plugin's own (`plugins.py`).
"""

from typing import Annotated, Any

from pydantic import ConfigDict

from ambassador.config import plugins
from ambassador.config.annotations import ByKind, Filled, Leaf, Named
from ambassador.config.leaves import (
    Dial,
    Duration,
    EndpointAddress,
    FilePath,
    HostName,
    Label,
    Network,
    Port,
    PortOrName,
    Secret,
    Text,
    UrlText,
    one_of,
    whole,
)
from ambassador.config.schema_base import Section, key


class Endpoint(Section):
    """One place where a service answers."""

    address: EndpointAddress = key("IP or name, and port; or a Unix socket.")
    weight: Annotated[int, whole(1, 1_000_000)] = key("Share of the requests.", 1)
    zone: Text | None = key("Where it runs.", None)
    priority: Annotated[int, whole(0, 100)] = key("0 first, the others when none of it is left.", 0)


Endpoints = Annotated[list[Annotated[Endpoint, Named("address", {"type": "string"})]], Filled()]


class Discovery(Section):
    """Where endpoints come from; TLS and who must answer never do."""

    kind: Annotated[str, one_of(*plugins.BUILT_IN)] = key("How to find them.")
    on_empty: Annotated[str, one_of("keep", "drop")] = key(
        "An empty answer: keep the last endpoints, or drop them.", "keep"
    )
    allowed_networks: Annotated[list[Network] | None, Filled()] = key(
        "Endpoints elsewhere are ignored; default: all but loopback, link-local, multicast, metadata.",
        None,
    )
    max_endpoints: Annotated[int, whole(1, 1_000_000)] = key("More are a refused answer.", 10_000)


class StaticDiscovery(Discovery):
    """Endpoints from this file."""

    chosen_by = "static"

    endpoints: Endpoints = key("Where the service answers.")


class FileDiscovery(Discovery):
    """Endpoints from a file of their own, JSON or YAML, also Prometheus' file_sd."""

    chosen_by = "file"

    path: FilePath = key("A list of endpoints.")
    interval: Duration = key("Looked at so often.", "1s")


class _Lookup(Discovery):
    """What every lookup in DNS has."""

    name: HostName = key("The name.")
    servers: Annotated[list[Dial] | None, Filled()] = key(
        "Name servers, IP:PORT; default: the system's.", None
    )
    min_ttl: Duration = key("Not asked again sooner.", "1s")
    max_ttl: Duration = key("Asked again at the latest.", "60s")


class DnsDiscovery(_Lookup):
    """The addresses of a name, asked for again when their lifetime is over."""

    chosen_by = "dns"

    port: Port = key("Where they all listen.")
    family: Annotated[str, one_of("any", "ipv4", "ipv6")] = key("A, AAAA or both.", "any")


class SrvDiscovery(_Lookup):
    """The SRV records of a name, with their ports, weights and priorities."""

    chosen_by = "dns_srv"


class KubernetesDiscovery(Discovery):
    """The EndpointSlices of a Service."""

    chosen_by = "kubernetes"

    service: Label = key("The Service.")
    namespace: Label | None = key("Where it is; default: the Pod's own.", None)
    port: PortOrName | None = key("Number or name; default: the only one.", None)
    api_server: UrlText | None = key("Default: the Pod's.", None)
    token_file: FilePath | None = key("Bearer token, read anew; default: the Pod's.", None)
    ca_file: FilePath | None = key("Who vouches for the API server; default: the Pod's.", None)


class ConsulDiscovery(Discovery):
    """The healthy instances of a service in Consul."""

    chosen_by = "consul"

    service: Text = key("Its name in Consul.")
    address: UrlText = key("Of the agent.", "http://127.0.0.1:8500")
    datacenter: Text | None = key("Default: the agent's.", None)
    tag: Text | None = key("Only instances with this tag.", None)
    token: Secret | None = key("ACL token, best as ${file:PATH}.", None)


class EtcdDiscovery(Discovery):
    """The values under a prefix in etcd, each {"address", "weight", "zone"}."""

    chosen_by = "etcd"

    urls: Annotated[list[UrlText], Filled()] = key("Members, asked in turn.")
    prefix: Text = key("Of the keys.")
    username: Text | None = key("With password.", None)
    password: Secret | None = key("Best as ${file:PATH}.", None)
    ca_file: FilePath | None = key("Who vouches for the members.", None)


class PluginDiscovery(Discovery):
    """A kind that another distribution brings; its own keys are judged by `plugins.py`."""

    model_config = ConfigDict(extra="allow")
    chosen_by = "(plugin)"  # nobody can call a kind so

    kind: Annotated[str, Leaf(plugins.check_kind, {"type": "string"})] = key("Its name.")

    @property
    def own_keys(self) -> dict[str, Any]:
        """Give the keys that only the plugin knows."""
        return dict(self.model_extra or {})


_BUILT_IN = (
    StaticDiscovery,
    FileDiscovery,
    DnsDiscovery,
    SrvDiscovery,
    KubernetesDiscovery,
    ConsulDiscovery,
    EtcdDiscovery,
)
AnyDiscovery = Annotated[
    StaticDiscovery
    | FileDiscovery
    | DnsDiscovery
    | SrvDiscovery
    | KubernetesDiscovery
    | ConsulDiscovery
    | EtcdDiscovery
    | PluginDiscovery,
    ByKind({one.chosen_by: one for one in _BUILT_IN}, other=PluginDiscovery),
]
