"""Who a peer is: rules of who may, and who must answer; also what they mean.

Knows patterns by their kind; what a pattern is, `policy.patterns` knows.
"""

from collections.abc import Sequence
from typing import Annotated

from ambassador.config import leaves
from ambassador.config.annotations import Filled
from ambassador.config.leaves import Flag, Method, Name, PathPattern
from ambassador.config.schema_base import Section, key
from ambassador.policy import authorization
from ambassador.policy.authorization import PeerPattern
from ambassador.policy.patterns import KINDS


class Rule(Section):
    """Who may do what: exactly one of the four names, then methods and paths."""

    http_only = frozenset({"methods", "paths", "may_forward"})

    name: Name | None = key("Default allow-1 or deny-1 …", None)
    spiffe: Annotated[str, leaves.identity("spiffe")] | None = key(
        "SPIFFE ID, `*` a segment, `**` the rest.", None
    )
    uri: Annotated[str, leaves.identity("uri")] | None = key("URI name.", None)
    dns: Annotated[str, leaves.identity("dns")] | None = key("DNS name.", None)
    cn: Annotated[str, leaves.identity("cn")] | None = key(
        "Common name, of a certificate without any SAN.", None
    )
    methods: Annotated[list[Method] | None, Filled()] = key("Default: all.", None)
    paths: Annotated[list[PathPattern] | None, Filled()] = key(
        "By segments, `*` one, `**` last only; default: all.", None
    )
    may_forward: Flag = key("Its X-Forwarded-Client-Cert is believed.", False)


class Peer(Section):
    """Who must answer: exactly one of the four."""

    spiffe: Annotated[str, leaves.identity("spiffe")] | None = key("SPIFFE ID.", None)
    uri: Annotated[str, leaves.identity("uri")] | None = key("URI name.", None)
    dns: Annotated[str, leaves.identity("dns")] | None = key("DNS name.", None)
    cn: Annotated[str, leaves.identity("cn")] | None = key(
        "Common name, of a certificate without any SAN.", None
    )


def kind_and_text(given: Rule | Peer) -> tuple[str, str]:
    """Give the one name that is written down."""
    texts = zip(KINDS, (given.spiffe, given.uri, given.dns, given.cn), strict=True)
    return next((kind, text) for kind, text in texts if text is not None)


def pattern(given: Peer) -> PeerPattern:
    """Give the meaning of who must answer."""
    return PeerPattern(*kind_and_text(given))


def rules(given: Sequence[Rule], kind: str) -> tuple[authorization.Rule, ...]:
    """Give the meaning of a list of rules; those without a name are called by their kind and number."""
    return tuple(_rule(rule, f"{kind}-{number}") for number, rule in enumerate(given, 1))


def _rule(given: Rule, default_name: str) -> authorization.Rule:
    kind, text = kind_and_text(given)
    return authorization.Rule(
        name=given.name or default_name,
        kind=kind,
        pattern=text,
        methods=frozenset(one.encode() for one in given.methods) if given.methods else None,
        paths=tuple(given.paths) if given.paths else None,
        may_forward=given.may_forward,
    )
