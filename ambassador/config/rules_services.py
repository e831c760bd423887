"""What one key of a service says about another: endpoints, discovery, peer, balance, health.

Knows one service at a time, through a tolerant `View`; what leads to it is in `references.py`.
"""

from __future__ import annotations

from ambassador.config import addresses, checks, plugins, rules_settings, schema, words
from ambassador.config.addresses import NamedPlace, Url
from ambassador.config.findings import (
    Findings,
    exactly_one,
    is_tcp,
    near_or_unsafe,
    ordered,
    refuse_http,
)
from ambassador.config.view import View
from ambassador.core.model import Address
from ambassador.policy.patterns import KINDS


def check(service: View, found: Findings) -> None:
    """Add everything that is wrong or worth a warning between keys of one service."""
    if not service.is_mapping:
        return
    if is_tcp(service):
        refuse_http(service, schema.Service, found)
    if "protocol" in service and "listen" not in service:
        found.refuse(service["protocol"], "only with listen")
    near_or_unsafe(service["listen"], found, unsafe=False, cure="")
    rules_settings.check(service, found, has_peers=False)
    if "endpoints" in service and service["discovery"].is_mapping:
        found.refuse(service["endpoints"], "excludes discovery, which finds them; keep one")
    if "endpoints" not in service and "discovery" not in service:
        found.refuse(
            service["endpoints"],
            'missing; write endpoints: ["IP:PORT"], or discovery: {kind: file, path: …}',
        )
    _discovery(service["discovery"], found)
    _health_check(service["health_check"], found)
    ordered(service["outlier_detection"], "ejection", "max_ejection", (30.0, 300.0), found)
    _balance(service["balance"], found)
    match service["plaintext"].value if "plaintext" in service else "none":
        case "none":
            _peer(service, found)
        case "loopback" | "unsafe_anywhere":
            _plaintext(service, found)


def _peer(service: View, found: Findings) -> None:
    peer = service["peer"]
    if not peer.present:
        name = service.path[-1]
        found.refuse(
            peer, f'missing; say who must answer: peer: {{spiffe: "spiffe://example.org/{name}"}}'
        )
    elif peer.value == "any_verified":
        found.warn(peer, "unsafe: whoever the trust bundle vouches for may answer")
    for one in peer.each():
        exactly_one(one, KINDS, found, example='spiffe: "spiffe://example.org/payments"')


def _plaintext(service: View, found: Findings) -> None:
    for name in ("peer", "server_name", "alpn"):
        if name in service:
            found.refuse(service[name], "excludes plaintext, which is no TLS; keep one")
    if service["plaintext"].value == "unsafe_anywhere":
        found.warn(
            service["plaintext"],
            "unsafe: requests go out in the clear, and nobody knows who answers",
        )
    if service["plaintext"].value != "loopback":
        return
    for endpoint in (*service["endpoints"].each(), *service["discovery"]["endpoints"].each()):
        place = endpoint["address"] if endpoint.is_mapping else endpoint
        address: Address | NamedPlace | None = place.read(checks.endpoint_address)
        if address is None:
            continue
        if isinstance(address, NamedPlace) or not addresses.is_local(address):
            found.refuse_value(
                place,
                f"expected an address on loopback, as plaintext says, got {words.show(place.value)}",
            )


# --- discovery -----------------------------------------------------------------------------------------------


def _discovery(discovery: View, found: Findings) -> None:
    for server in discovery["servers"].each():
        address = server.read(checks.dial_address)
        if address is not None and (address.path or address.host == "localhost"):
            found.refuse_value(server, f"expected IP:PORT, got {words.show(server.value)}")
    ordered(discovery, "min_ttl", "max_ttl", (1.0, 60.0), found)
    match discovery["kind"].value:
        case "kubernetes":
            _in_the_clear(
                discovery["api_server"], discovery["api_server"], found, "the Pod's token"
            )
        case "consul":
            _in_the_clear(discovery["address"], discovery["token"], found, "the token")
        case "etcd":
            _etcd(discovery, found)
        case str(kind) if kind not in plugins.BUILT_IN:
            _plugin(kind, discovery, found)


def _etcd(discovery: View, found: Findings) -> None:
    for one, other in (("username", "password"), ("password", "username")):
        if one in discovery and other not in discovery:
            found.refuse(discovery[one], f"only with {other}")
    for url in discovery["urls"].each():
        _in_the_clear(url, discovery["password"], found, "the password")


def _in_the_clear(url: View, secret: View, found: Findings, what: str) -> None:
    """Warn of a secret that goes out without TLS, beyond this machine."""
    given: Url | None = url.read(checks.url)
    if secret.present and given is not None and not given.is_encrypted and not given.is_local:
        found.warn(secret, f"unsafe: {what} goes in the clear to {words.show(url.value)}")


def _plugin(kind: str, discovery: View, found: Findings) -> None:
    """Judge the keys that only a plugin knows."""
    try:
        plugin = plugins.find(kind)
    except ValueError:
        return  # the schema has said so
    if plugin is None:
        return
    common = schema.Discovery.model_fields
    own = {name: view.value for name, view in discovery.items() if name not in common}
    for problem in plugins.problems(plugin, own):
        place = discovery[problem.name] if problem.name else discovery
        found.errors.append(place.error(problem.sentence, of_key=problem.is_about_key))


# --- health and balance --------------------------------------------------------------------------------------


def _health_check(health: View, found: Findings) -> None:
    if health["kind"].value != "tcp":
        return
    for name in schema.HealthCheck.http_only:
        if name in health:
            found.refuse(health[name], "only with kind: http")


def _balance(balance: View, found: Findings) -> None:
    kind = balance["kind"] if balance.is_mapping else balance
    is_ring = kind.value == "ring_hash"
    if is_ring and "hash" not in balance:
        found.refuse(
            balance["hash"] if balance.is_mapping else balance,
            "ring_hash needs hash; write {kind: ring_hash, hash: {header: NAME}}, {cookie: NAME} or peer",
        )
    for name in ("hash", "load_bound"):
        if name in balance and not is_ring:
            found.refuse(balance[name], "only with kind: ring_hash")
    exactly_one(balance["hash"], ("header", "cookie"), found, example="header: x-user")
