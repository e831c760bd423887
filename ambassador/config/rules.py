"""What one key says about another: listeners, rules, routes, identity, drain; it also asks for the rest.

Knows which combinations are refused or deserve a warning; reads the file through a tolerant `View`, so it works
beside errors of the schema. What concerns several services and listeners at once is in `references.py`.
Source: `config.md` §1 and §3; fail-closed rules 1 and 10 of the threat model.
"""

from __future__ import annotations

from ambassador.config import addresses, checks, rules_services, rules_settings, schema, words
from ambassador.config.annotations import Check
from ambassador.config.document import Document
from ambassador.config.findings import (
    ONLY_HTTP,
    Findings,
    exactly_one,
    is_tcp,
    near_or_unsafe,
    refuse_http,
    says,
    unique,
)
from ambassador.config.view import View
from ambassador.core.model import Address
from ambassador.policy.authorization import ANY_VERIFIED_RULE, DEFAULT_RULE
from ambassador.policy.patterns import KINDS


def check(document: Document) -> Findings:
    """Give everything that is wrong or worth a warning between keys of one place."""
    found = Findings()
    root = View(document, (), document.root)
    _listeners_exist(root, found)
    _identity(root, found)
    _tls(root["tls"], found)
    for listener in root["inbound"].each():
        _inbound(listener, found)
    for listener in root["outbound"].each():
        _outbound(listener, found)
    for service in root["services"].values():
        rules_services.check(service, found)
    _admin(root["admin"], found)
    _drain(root["drain"], found)
    return found


def app_of(listener: View) -> View:
    """Give the view of an inbound listener's app address, also when it is inside a mapping."""
    return listener["app"]["address"] if listener["app"].is_mapping else listener["app"]


def _listeners_exist(root: View, found: Findings) -> None:
    own = any("listen" in service for service in root["services"].values())
    if root.is_mapping and not own and "inbound" not in root and "outbound" not in root:
        found.refuse(
            root,
            "nothing to do; write inbound: {listen: …, app: …, allow: …},"
            " outbound: {listen: …}, or listen in a service",
        )


# --- identity and TLS ----------------------------------------------------------------------------------------


def _identity(root: View, found: Findings) -> None:
    identity = root["identity"]
    if not identity.present:
        encrypted = any(
            service["plaintext"].value == "none" or "plaintext" not in service
            for service in root["services"].values()
        )
        if "inbound" in root or encrypted:
            found.refuse(
                identity,
                "missing; write identity: {directory: PATH} with tls.crt, tls.key and ca.crt in it",
            )
        return
    if not identity.is_mapping or "workload_api" in identity:
        return
    three = ("certificate", "private_key", "trust_bundle")
    for name in three:
        if name in identity and "directory" in identity:
            found.refuse(
                identity[name],
                "excludes directory, which stands for certificate, private_key and trust_bundle; keep one",
            )
        if name not in identity and "directory" not in identity:
            found.refuse(
                identity[name], f"missing; write {name}: PATH, or directory: PATH for all three"
            )
    if "crl_grace" in identity and "crl" not in identity:
        found.refuse(identity["crl_grace"], "only with crl")


def _tls(tls: View, found: Findings) -> None:
    if tls["profile"].value == "modern" and tls["min_version"].value == "TLSv1.2":
        found.refuse(
            tls["min_version"],
            "profile modern is TLS 1.3 only, got TLSv1.2; keep one of the two keys",
        )


# --- listeners -----------------------------------------------------------------------------------------------


def _inbound(listener: View, found: Findings) -> None:
    _listener(listener, found, section=schema.Inbound)
    for place in (listener, *_routes(listener)):
        rules_settings.check(place, found, has_peers=True)
    _allow(listener, found)
    _rules(listener, found)
    if says(listener, "unsafe_plaintext"):
        found.warn(
            listener["unsafe_plaintext"],
            "unsafe: requests may go to the app in the clear, beyond loopback",
        )
    apps = [app_of(listener), *(route["app"] for route in _routes(listener))]
    for app in apps:
        _app_is_near(app, listener, found)
    if is_tcp(listener) and "pool" in listener["app"]:
        found.refuse(listener["app"]["pool"], ONLY_HTTP)
    _alpn_of_http(listener, found)


def _app_is_near(app: View, listener: View, found: Findings) -> None:
    address: Address | addresses.NamedPlace | None = app.read(checks.app_or_name)
    if address is None or says(listener, "unsafe_plaintext"):
        return
    shown = words.show(app.value)
    if isinstance(address, addresses.NamedPlace):
        found.refuse_value(
            app,
            f"expected an IP address or localhost before the port, got {shown}; "
            "unsafe_plaintext: true lets it be a name, to which requests go in the clear",
        )
    elif not addresses.is_local(address):
        found.refuse_value(
            app,
            f"expected an address on loopback, got {shown}; "
            "unsafe_plaintext: true lets requests go there in the clear",
        )


def _alpn_of_http(listener: View, found: Findings) -> None:
    if is_tcp(listener) or not listener["alpn"].present:
        return
    if listener["alpn"].value != ["http/1.1"]:
        found.refuse_value(
            listener["alpn"],
            "expected [http/1.1] with protocol: http; gRPC: protocol: tcp, alpn: [h2]",
        )


def _allow(listener: View, found: Findings) -> None:
    allow = listener["allow"]
    if not listener.is_mapping:
        return
    if not allow.present:
        if not says(listener, "allow_any_verified"):
            found.refuse(
                allow,
                "missing, so nobody could call the app; "
                'write allow: [{spiffe: "spiffe://example.org/web"}], or allow_any_verified: true',
            )
    elif says(listener, "allow_any_verified"):
        found.refuse(allow, "excludes allow_any_verified; keep one")
    elif allow.value == []:
        found.refuse(
            allow,
            "empty, so nobody could call the app; name at least one, or write allow_any_verified: true",
        )
    if says(listener, "allow_any_verified"):
        found.warn(
            listener["allow_any_verified"],
            "unsafe: whoever the trust bundle vouches for may call the app",
        )
    if listener["authorization"].value == "audit":
        found.warn(listener["authorization"], "unsafe: what the rules deny is logged, and let in")


def _rules(listener: View, found: Findings) -> None:
    names: dict[str, View] = {}
    for kind in ("allow", "deny"):
        if not listener[kind].is_list:
            continue
        for number, rule in enumerate(listener[kind].each(), 1):
            exactly_one(rule, KINDS, found, example='spiffe: "spiffe://example.org/web"')
            unique(rule["name"].value if "name" in rule else f"{kind}-{number}", rule, names, found)
            if rule["name"].value in (DEFAULT_RULE, ANY_VERIFIED_RULE):
                shown = words.show(rule["name"].value)
                found.refuse_value(
                    rule["name"], f"expected a name that no built-in rule has, got {shown}"
                )
            if is_tcp(listener):
                refuse_http(rule, schema.Rule, found)


def _outbound(listener: View, found: Findings) -> None:
    _listener(listener, found, section=schema.Outbound)
    for place in (listener, *_routes(listener)):
        rules_settings.check(place, found, has_peers=False)
    near_or_unsafe(
        listener["listen"],
        found,
        unsafe=says(listener, "unsafe_plaintext"),
        cure="unsafe_plaintext: true",
    )
    if says(listener, "unsafe_plaintext"):
        found.warn(
            listener["unsafe_plaintext"], "unsafe: whoever reaches this listener uses our identity"
        )
    if is_tcp(listener) and "service" not in listener:
        found.refuse(listener["service"], "missing; with protocol: tcp write service: NAME")
    if "service" in listener and "routes" in listener:
        found.refuse(listener["service"], "excludes routes; keep one")
    for route in _routes(listener):
        exactly_one(route, ("service", "split"), found, example="service: NAME")


def _listener(listener: View, found: Findings, *, section: type[schema.Listener]) -> None:
    in_list = bool(listener.path) and isinstance(listener.path[-1], int)
    if in_list and listener.is_mapping and "name" not in listener:
        found.refuse(listener["name"], "missing; in a list every listener has its own name")
    if is_tcp(listener):
        refuse_http(listener, section, found)
    elif listener["max_connection_age"].value == "none":
        found.refuse(
            listener["max_connection_age"],
            "none only with protocol: tcp; write a duration such as 1h",
        )
    address: Address | None = listener["listen"].read(checks.listen_address)
    if "socket_mode" in listener and address is not None and not address.path:
        found.refuse(listener["socket_mode"], "only with listen: unix:/path")
    _not_above(
        listener, "max_connections_per_peer", "max_connections", checks.integer(1), 1024, found
    )
    _not_above(listener, "max_uri", "max_head", checks.size(), 60 * 1024, found)
    _route_names(listener, found)


def _not_above(  # noqa: PLR0917  # one sentence with six words
    listener: View, low: str, high: str, check: Check, default: int, found: Findings
) -> None:
    ceiling = listener[high].read(check, default)
    if listener[low].read(check, 0) > ceiling:
        shown = words.show(listener[low].value)
        found.refuse_value(listener[low], f"expected at most {high}, got {shown}")


# --- routes --------------------------------------------------------------------------------------------------


def _routes(listener: View) -> list[View]:
    return list(listener["routes"].each()) if listener["routes"].is_list else []


def _route_names(listener: View, found: Findings) -> None:
    names: dict[str, View] = {}
    for number, route in enumerate(_routes(listener), 1):
        unique(route["name"].value if "name" in route else f"route-{number}", route, names, found)
        rewrite = route["rewrite"]
        if "prefix" in rewrite and "prefix" not in route["match"]:
            found.refuse(
                rewrite["prefix"],
                "replaces match.prefix, and there is none; write match: {prefix: /}",
            )
        if rewrite.value == {}:
            found.refuse(rewrite, "empty; write prefix or host in it, or leave the key out")


# --- the rest -----------------------------------------------------------------------------------------------


def _admin(admin: View, found: Findings) -> None:
    near_or_unsafe(
        admin["listen"],
        found,
        unsafe=says(admin, "expose"),
        cure="expose: true for kubelet and Prometheus",
    )


def _drain(drain: View, found: Findings) -> None:
    delay: float = drain["delay"].read(checks.duration(zero=True), 5.0)
    timeout: float = drain["timeout"].read(checks.duration(), 25.0)
    if timeout <= delay:
        at = drain["timeout"] if "timeout" in drain else drain["delay"]
        found.refuse(at, "expected timeout to be longer than delay, which is part of it")
