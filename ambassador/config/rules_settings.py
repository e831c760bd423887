"""What the settings of one place say about each other: retry, rate_limit, fault of a listener, route or service.

Knows whether its requests come from peers; which place wins, `build.py` knows.
"""

from __future__ import annotations

from typing import Any

from ambassador.config import checks
from ambassador.config.findings import Findings, exactly_one, ordered, unique
from ambassador.config.substitute import MASK, Substituted
from ambassador.config.view import View
from ambassador.policy.patterns import KINDS


def check(place: View, found: Findings, *, has_peers: bool) -> None:
    """Add everything that is wrong or worth a warning in the route settings of one place."""
    by = place["rate_limit"]["by"]
    if by.value == "peer" and not has_peers:
        found.refuse_value(by, "expected all: only inbound requests come from peers, got peer")
    _retry(place["retry"], found)
    if place["fault"].is_mapping:
        _fault(place["fault"], found, has_peers=has_peers)


def _retry(retry: View, found: Findings) -> None:
    ordered(retry["backoff"], "base", "max", (0.025, 0.25), found)
    methods = [one.value for one in retry["unsafe_methods"].each() if one.read(checks.method)]
    if methods:
        shown = ", ".join(_shown(one) for one in methods)
        found.warn(retry["unsafe_methods"], f"unsafe: {shown} may be sent twice")


def _shown(value: Any) -> str:
    return MASK if isinstance(value, Substituted) else str(value)


def _fault(fault: View, found: Findings, *, has_peers: bool) -> None:
    found.warn(fault, "in effect only with run --enable-faults")
    if "delay" not in fault and "abort" not in fault:
        found.refuse(fault, "does nothing; write delay, abort or both in it")
    allow = fault["allow"]
    if has_peers and not allow.present:
        found.refuse(
            allow, 'missing; say whose requests: allow: [{spiffe: "spiffe://example.org/test"}]'
        )
    if not has_peers and allow.present:
        found.refuse(allow, "only in inbound: only inbound requests come from peers")
    names: dict[str, View] = {}
    for number, rule in enumerate(allow.each() if allow.is_list else (), 1):
        exactly_one(rule, KINDS, found, example='spiffe: "spiffe://example.org/test"')
        unique(rule["name"].value if "name" in rule else f"allow-{number}", rule, names, found)
        if "may_forward" in rule:
            found.refuse(rule["may_forward"], "only in the listener's own allow")
