"""What one key says about another: listeners, rules, routes, identity, drain.

Knows which combinations are refused or deserve a warning; reads the file through a tolerant `View`, so it works
beside errors of the schema. What concerns several services and listeners at once is in `references.py`.
Source: `config.md` §1 and §3; fail-closed rules 1 and 10 of the threat model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ambassador.config import addresses, checks, schema, words
from ambassador.config.annotations import Check
from ambassador.config.document import Document
from ambassador.config.view import View
from ambassador.core.errors import ConfigError
from ambassador.core.model import Address
from ambassador.policy.authorization import ANY_VERIFIED_RULE, DEFAULT_RULE
from ambassador.policy.patterns import KINDS

_ONLY_HTTP = "only with protocol: http"


@dataclass(slots=True)
class Findings:
    """What the rules found: errors refuse the file, warnings do not."""

    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)

    def refuse(self, view: View, problem: str) -> None:
        """Note an error at a key."""
        self.errors.append(view.error(problem, of_key=True))

    def refuse_value(self, view: View, problem: str) -> None:
        """Note an error about a value, where the value stands."""
        self.errors.append(view.error(problem))

    def warn(self, view: View, problem: str) -> None:
        """Note a warning at a key."""
        self.warnings.append(view.error(problem, of_key=True))


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
        _service(service, found)
    _admin(root["admin"], found)
    _drain(root["drain"], found)
    return found


def is_tcp(view: View) -> bool:
    """Say whether this listener (or service with one) has protocol tcp."""
    return bool(view["protocol"].value == "tcp")


def says(view: View, key: str) -> bool:
    """Say whether a boolean key is true."""
    return bool(view[key].read(checks.flag, False))


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
        found.refuse(listener["app"]["pool"], _ONLY_HTTP)
    _alpn_of_http(listener, found)


def _app_is_near(app: View, listener: View, found: Findings) -> None:
    address: Address | None = app.read(checks.app_address)
    if (
        address is not None
        and not addresses.is_local(address)
        and not says(listener, "unsafe_plaintext")
    ):
        found.refuse_value(
            app,
            f"expected an address on loopback, got {words.show(app.value)}; "
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
            _unique(
                rule["name"].value if "name" in rule else f"{kind}-{number}", rule, names, found
            )
            if rule["name"].value in (DEFAULT_RULE, ANY_VERIFIED_RULE):
                shown = words.show(rule["name"].value)
                found.refuse_value(
                    rule["name"], f"expected a name that no built-in rule has, got {shown}"
                )
            if is_tcp(listener):
                _refuse_http(rule, schema.Rule, found)


def _outbound(listener: View, found: Findings) -> None:
    _listener(listener, found, section=schema.Outbound)
    for place in (listener, *_routes(listener)):
        _no_peers(place, found)
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


def near_or_unsafe(listen: View, found: Findings, *, unsafe: bool, cure: str) -> None:
    """Refuse a plaintext listener outside loopback that nobody typed the unsafe key for."""
    address: Address | None = listen.read(checks.listen_address)
    if address is not None and not addresses.is_local(address) and not unsafe:
        found.refuse_value(
            listen,
            f"expected an address on loopback, got {words.show(listen.value)}; "
            f"write 127.0.0.1:{address.port if listen.value.__class__ is str else 'PORT'}"
            + (f", or {cure}" if cure else ""),
        )


def _listener(listener: View, found: Findings, *, section: type[schema.Listener]) -> None:
    in_list = bool(listener.path) and isinstance(listener.path[-1], int)
    if in_list and listener.is_mapping and "name" not in listener:
        found.refuse(listener["name"], "missing; in a list every listener has its own name")
    if is_tcp(listener):
        _refuse_http(listener, section, found)
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


def _refuse_http(view: View, section: type[schema.Section], found: Findings) -> None:
    for name, value in view.items():
        if name in section.http_only:
            found.refuse(value, _ONLY_HTTP)


# --- routes --------------------------------------------------------------------------------------------------


def _routes(listener: View) -> list[View]:
    return list(listener["routes"].each()) if listener["routes"].is_list else []


def _route_names(listener: View, found: Findings) -> None:
    names: dict[str, View] = {}
    for number, route in enumerate(_routes(listener), 1):
        _unique(route["name"].value if "name" in route else f"route-{number}", route, names, found)
        rewrite = route["rewrite"]
        if "prefix" in rewrite and "prefix" not in route["match"]:
            found.refuse(
                rewrite["prefix"],
                "replaces match.prefix, and there is none; write match: {prefix: /}",
            )
        if rewrite.value == {}:
            found.refuse(rewrite, "empty; write prefix or host in it, or leave the key out")


def _unique(name: object, view: View, names: dict[str, View], found: Findings) -> None:
    if not isinstance(name, str):
        return
    if name in names:
        line = view.document.place(names[name].path).line
        found.refuse(
            view["name"], f"expected a name of its own, got {words.show(name)} as in line {line}"
        )
    names.setdefault(name, view)


def exactly_one(view: View, names: tuple[str, ...], found: Findings, *, example: str) -> None:
    """Refuse a mapping that has none or several of these keys."""
    if not view.is_mapping:
        return
    given = [name for name in names if name in view]
    if not given:
        found.refuse(view, f"expected one of {', '.join(names)}; such as {example}")
    for name in given[1:]:
        found.refuse(
            view[name],
            f"excludes {given[0]}; write two entries"
            if names == KINDS
            else f"excludes {given[0]}; keep one",
        )


# --- services and the rest -----------------------------------------------------------------------------------


def _service(service: View, found: Findings) -> None:
    if not service.is_mapping:
        return
    if is_tcp(service):
        _refuse_http(service, schema.Service, found)
    if "protocol" in service and "listen" not in service:
        found.refuse(service["protocol"], "only with listen")
    near_or_unsafe(service["listen"], found, unsafe=False, cure="")
    _no_peers(service, found)
    if "endpoints" in service and service["discovery"].is_mapping:
        found.refuse(service["endpoints"], "excludes discovery, which finds them; keep one")
    for server in service["discovery"]["servers"].each():
        address = server.read(checks.dial_address)
        if address is not None and (address.path or address.host == "localhost"):
            found.refuse_value(server, f"expected IP:PORT, got {words.show(server.value)}")
    lifetimes = [service["discovery"][key] for key in ("min_ttl", "max_ttl")]
    least, most = (view.read(checks.duration()) for view in lifetimes)
    if (least or 1.0) > (most or 60.0):
        found.refuse_value(
            lifetimes[0 if least else 1], "expected a min_ttl that is at most max_ttl"
        )
    if "endpoints" not in service and "discovery" not in service:
        other = "" if "discovery" in schema.UNFINISHED else ", or discovery: {kind: file, path: …}"
        found.refuse(service["endpoints"], f'missing; write endpoints: ["IP:PORT"]{other}')
    match service["plaintext"].value if "plaintext" in service else "none":
        case "none":
            _peer(service, found)
        case "loopback" | "unsafe_anywhere":
            _plaintext(service, found)


def _no_peers(view: View, found: Findings) -> None:
    """Refuse to tell peers apart where the app asks, which has no identity."""
    by = view["rate_limit"]["by"]
    if by.value == "peer":
        found.refuse_value(by, "expected all: only inbound requests come from peers, got peer")


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
        address: Address | None = place.read(checks.dial_address)
        if address is not None and not addresses.is_local(address):
            found.refuse_value(
                place,
                f"expected an address on loopback, as plaintext says, got {words.show(place.value)}",
            )


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
