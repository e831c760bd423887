"""What listeners and services say about each other: names, addresses, hosts, trust domains.

Knows the file as a whole, through a tolerant `View`; what one listener says about itself is in `rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ambassador.config import addresses, checks, words
from ambassador.config.document import Document
from ambassador.config.findings import Findings, is_tcp
from ambassador.config.rules import app_of
from ambassador.config.substitute import Substituted
from ambassador.config.view import View
from ambassador.core.model import Address

_TRUST_DOMAIN = re.compile(r"spiffe://([^/]+)/?")


def check(document: Document, found: Findings) -> None:
    """Add what is wrong or worth a warning between several listeners and services."""
    root = View(document, (), document.root)
    _listener_names(root, found)
    _listen_addresses(root, found)
    _service_references(root, found)
    _hosts(root, found)
    _app_names(root, found)
    _alpn(root, found)
    _opaque(root, found)
    _trust_domains(root, found)


def _listeners(root: View) -> Iterator[tuple[str, View]]:
    """Give every listener's direction and view."""
    for direction in ("inbound", "outbound"):
        for listener in root[direction].each():
            yield direction, listener


def _services(root: View) -> dict[str, View]:
    return dict(root["services"].items())


def name_of(listener: View, direction: str) -> object:
    """Give a listener's name as it will be, default included."""
    return listener["name"].value if "name" in listener else direction


# --- names and addresses of listeners ------------------------------------------------------------------------


def _listener_names(root: View, found: Findings) -> None:
    own = [
        (f"service-{name}", view["listen"])
        for name, view in _services(root).items()
        if "listen" in view
    ]
    names: dict[object, View] = dict(own)
    for direction, listener in _listeners(root):
        in_list = root[direction].is_list
        if in_list and "name" not in listener:
            continue
        name = name_of(listener, direction)
        if not isinstance(name, str):
            continue
        if name in names:
            line = root.document.place(names[name].path).line
            found.refuse_value(
                listener["name"],
                f"expected a name of its own, got {words.show(name)} as in line {line}",
            )
        names.setdefault(name, listener)


def _bound(root: View) -> list[tuple[View, Address]]:
    views = [listener["listen"] for _, listener in _listeners(root)]
    views += [service["listen"] for service in _services(root).values()]
    views.append(root["admin"]["listen"])
    found = [(view, view.read(checks.or_none(checks.listen_address))) for view in views]
    bound: list[tuple[View, Address]] = [
        (view, address) for view, address in found if address is not None
    ]
    if not root["admin"]["listen"].present:
        bound.append((root["admin"], Address("127.0.0.1", 9901)))
    return bound


def _listen_addresses(root: View, found: Findings) -> None:
    bound = _bound(root)
    for number, (view, address) in enumerate(bound):
        for other_view, other in bound[:number]:
            if addresses.overlap(address, other):
                # Without an admin section the clash is at the other listener, where somebody can mend it.
                at, against = (view, other_view) if view.present else (other_view, view)
                where = (
                    f"line {root.document.place(against.path).line}"
                    if against.present
                    else "admin.listen's default"
                )
                found.refuse_value(
                    at,
                    f"expected an address of its own, got {words.show(at.value)} as in {where}"
                    if at.value.__class__ is not dict
                    else f"127.0.0.1:9901 is taken by {where}",
                )
                break
    inbound = root["inbound"].each()
    for app in (place for listener in inbound for place in _apps(listener)):
        address = app.read(checks.app_address)
        if address is not None and any(addresses.overlap(address, other) for _, other in bound):
            found.refuse_value(
                app,
                f"expected the app's address, got {words.show(app.value)}, where this sidecar itself listens",
            )


def _apps(listener: View) -> list[View]:
    routes = listener["routes"].each() if listener["routes"].is_list else iter(())
    return [app_of(listener), *(route["app"] for route in routes)]


# --- services ------------------------------------------------------------------------------------------------


def _references(root: View) -> Iterator[tuple[View, str]]:
    """Give every place where an outbound listener or route names a service."""
    for listener in root["outbound"].each():
        routes = list(listener["routes"].each()) if listener["routes"].is_list else []
        for holder in (listener, *routes):
            if isinstance(holder["service"].value, str):
                yield holder["service"], str(holder["service"].value)
            for name, place in holder["split"].items():
                yield place, name


def _service_references(root: View, found: Findings) -> None:
    services = _services(root)
    if root["services"].present and not root["services"].is_mapping:
        return
    reached = set()
    for place, name in _references(root):
        reached.add(name)
        if name in services:
            continue
        shown = words.show(place.value) if place.path[-1] == "service" else words.quote(name)
        near = "" if isinstance(place.value, Substituted) else words.nearest(name, services)
        cure = (
            f"did you mean {near}?"
            if near
            else f"there are: {', '.join(sorted(services)) or 'none'}"
        )
        of_key = place.path[-1] != "service"  # in `split` the name is a key
        found.errors.append(
            place.error(f"expected the name of a service, got {shown}; {cure}", of_key=of_key)
        )
    if any(_leads_by_name(listener) for listener in root["outbound"].each()):
        if not services:
            found.warn(root["outbound"], "there are no services, so every request gets 404")
        return
    for name, service in services.items():
        if name not in reached and "listen" not in service:
            found.warn(
                service,
                'no listener leads to this service; write outbound: {listen: "127.0.0.1:9000"}, or listen in it',
            )


def _leads_by_name(listener: View) -> bool:
    return listener.is_mapping and "routes" not in listener and "service" not in listener


def _hosts(root: View, found: Findings) -> None:
    taken: dict[str, View] = {}
    services = _services(root)
    for name, service in services.items():
        for host in (name, f"{name}.localhost"):
            taken[host] = service
    for service in services.values():
        if not service["hosts"].is_list:
            continue
        for place in service["hosts"].each():
            host = str(place.value).lower().removesuffix(".")
            if host in taken:
                line = root.document.place(taken[host].path, of_key=True).line
                found.refuse_value(
                    place,
                    f"expected a name of its own, got {words.show(place.value)},"
                    f" which leads to the service in line {line}",
                )
            taken.setdefault(host, service)


def _app_names(root: View, found: Findings) -> None:
    """Refuse services that are named like the generated ones to the app."""
    generated = set()
    for listener in root["inbound"].each():
        app = f"app-{listener['name'].value}" if "name" in listener else "app"
        generated.add(app)
        for number, route in enumerate(listener["routes"].each(), 1):
            if "app" in route:
                name = route["name"].value if "name" in route else f"route-{number}"
                generated.add(f"{app}-{name}")
    for name, service in _services(root).items():
        if name in generated:
            found.refuse(service, f"{name} is the name of the way to the app; choose another")


def tcp_services(root: View) -> set[str]:
    """Give the names of the services that a tcp listener leads to."""
    names = {
        str(listener["service"].value) for listener in root["outbound"].each() if is_tcp(listener)
    }
    return names | {name for name, service in _services(root).items() if is_tcp(service)}


def _alpn(root: View, found: Findings) -> None:
    tcp = tcp_services(root)
    for name, service in _services(root).items():
        alpn = service["alpn"]
        if alpn.present and name not in tcp and alpn.value not in (["http/1.1"], "none"):
            found.refuse_value(
                alpn,
                "expected [http/1.1] or none with protocol: http; gRPC: protocol: tcp, alpn: [h2]",
            )


def _http_services(root: View) -> set[str]:
    """Give the names of the services that an http listener leads to."""
    names = {name for name, one in _services(root).items() if "listen" in one and not is_tcp(one)}
    http = [one for one in root["outbound"].each() if not is_tcp(one)]
    if any(_leads_by_name(listener) for listener in http):
        names |= set(_services(root))
    return names | {
        name for place, name in _references(root) if not is_tcp(_listener_of(root, place))
    }


def _listener_of(root: View, place: View) -> View:
    outbound = root["outbound"]
    return list(outbound.each())[int(place.path[1])] if outbound.is_list else outbound


def _opaque(root: View, found: Findings) -> None:
    """Refuse what asks for HTTP where only opaque bytes go."""
    for name in tcp_services(root) - _http_services(root):
        service = _services(root).get(name)
        if service is None:
            continue
        health = service["health_check"]
        kind = health["kind"] if health.is_mapping else health
        if (health.is_mapping and not kind.present) or kind.value == "http":
            found.refuse(health, "expected kind: tcp, since only protocol: tcp leads here")
        if service["balance"]["hash"].is_mapping:
            found.refuse(
                service["balance"]["hash"], "expected peer, since only protocol: tcp leads here"
            )


# --- trust domains -------------------------------------------------------------------------------------------


def _trust_domains(root: View, found: Findings) -> None:
    """Hold identities against the trust bundles.

    One bundle without a trust domain's name would let its authority speak for every domain (threats B6), so
    then all rules and peers must name the same one. With names, a domain without a bundle never matches.
    """
    bundle = root["identity"]["trust_bundle"]
    known = {name for name, _ in bundle.items()} if bundle.is_mapping else set()
    first: str | None = None
    for place in _spiffe_places(root):
        match = _TRUST_DOMAIN.match(place.value) if isinstance(place.value, str) else None
        if match is None:
            continue
        shown = "***" if isinstance(place.value, Substituted) else match[1]
        if known and match[1] not in known:
            found.refuse_value(
                place, f"there is no trust bundle for {shown}; add it to identity.trust_bundle"
            )
        if not known and first is not None and match[1] != first:
            found.refuse_value(
                place,
                f"one trust bundle vouches for one trust domain, {shown} is a second one; "
                "write identity.trust_bundle: {DOMAIN: PATH, …}",
            )
        first = first or match[1]
    for place in _denied_places(root):
        match = _TRUST_DOMAIN.match(place.value) if isinstance(place.value, str) else None
        if match is not None and known and match[1] not in known:
            shown = "***" if isinstance(place.value, Substituted) else match[1]
            found.warn(
                place, f"no peer of {shown} is ever let in, so this refuses nobody; is it misspelt?"
            )


def _denied_places(root: View) -> Iterator[View]:
    for listener in root["inbound"].each():
        for rule in listener["deny"].each():
            if "spiffe" in rule:
                yield rule["spiffe"]


def _spiffe_places(root: View) -> Iterator[View]:
    for listener in root["inbound"].each():
        routes = listener["routes"].each() if listener["routes"].is_list else iter(())
        places = [listener, *(place["fault"] for place in (listener, *routes))]
        for rule in (rule for place in places for rule in place["allow"].each()):
            if "spiffe" in rule:
                yield rule["spiffe"]
    for service in _services(root).values():
        for peer in service["peer"].each():
            if "spiffe" in peer:
                yield peer["spiffe"]
