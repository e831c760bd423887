"""Who may: peer identity x rules -> decision with rule and reason.

Knows rules and what a verified certificate says; must not know how it was verified, nor what a refusal looks
like on the wire.

Theory of operation: a connection asks `Authorizer.for_peer` once per generation of the configuration. What
remains are the rules that name this peer, cut after the first one without methods and paths; when that one is
the first, the decision is constant and a request costs nothing. Decisions are built there; `decide` picks one.

What cannot be judged matches no `allow` and every `deny` (threats A8, F4; fail-closed rule 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from ambassador.core.model import PeerIdentity
from ambassador.policy.paths import (
    PathPattern,
    check_path_pattern,
    compile_path_pattern,
    is_normal_path,
    match_key,
)
from ambassador.policy.patterns import (
    SpiffeId,
    check_pattern,
    parse_cn_pattern,
    parse_dns_pattern,
    parse_spiffe_id,
    parse_spiffe_pattern,
    parse_uri_pattern,
)

__all__ = [
    "Authorizer",
    "Decision",
    "PeerAuthorization",
    "PeerPattern",
    "Rule",
    "SpiffeId",
    "check_path_pattern",
    "check_pattern",
    "is_normal_path",
    "matches",
    "parse_spiffe_id",
]

#: Rule names of decisions that no rule of the file made; they are metric labels.
DEFAULT_RULE: Final = "default"
ANY_VERIFIED_RULE: Final = "any-verified"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`; `methods` and `paths` None are all of them."""

    name: str
    kind: str  # spiffe | uri | dns | cn
    pattern: str
    methods: frozenset[bytes] | None = None
    paths: tuple[str, ...] | None = None
    may_forward: bool = False


@dataclass(frozen=True, slots=True)
class PeerPattern:
    """Who must answer a dialled connection."""

    kind: str  # spiffe | uri | dns | cn
    pattern: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, by which rule, and a word for log and metric.

    `reason` is one of allow_rule, any_verified, deny_rule, no_identity, no_rule_for_peer,
    no_rule_for_request. `may_forward`: the X-Forwarded-Client-Cert that came with it is believed.
    """

    allowed: bool
    rule: str
    reason: str
    may_forward: bool = False


_ANY_VERIFIED: Final = Decision(True, ANY_VERIFIED_RULE, "any_verified")
_NO_IDENTITY: Final = Decision(False, DEFAULT_RULE, "no_identity")
_NO_RULE_FOR_PEER: Final = Decision(False, DEFAULT_RULE, "no_rule_for_peer")
_NO_RULE_FOR_REQUEST: Final = Decision(False, DEFAULT_RULE, "no_rule_for_request")

_Names: TypeAlias = Callable[[PeerIdentity], bool]


def has_identity(identity: PeerIdentity) -> bool:
    """Say whether a certificate names anybody at all.

    `identity` has checked this already; that a `spiffe:` name is the only URI and canonical is asked again,
    because everything else rests on it.
    Source: X509-SVID §2; threats B1, B2.
    """
    if identity.problem:
        return False
    if any(uri[:7].lower() == "spiffe:" for uri in identity.uris) and len(identity.uris) != 1:
        return False
    return identity.spiffe is None or parse_spiffe_id(identity.spiffe) is not None


@lru_cache(maxsize=1024)
def _compiled(kind: str, text: str, *, denies: bool = False) -> _Names:
    """Give the predicate of one pattern over the names of its own type only (threats B5).

    A name that cannot be believed lets nobody in, and keeps out all the same.
    """
    match kind:
        case "spiffe":
            spiffe = parse_spiffe_pattern(text)
            return lambda identity: identity.spiffe is not None and spiffe.matches(identity.spiffe)
        case "uri":
            uri = parse_uri_pattern(text)
            return lambda identity: any(map(uri.matches, identity.uris))
        case "dns":
            dns = parse_dns_pattern(text)
            if denies:
                return lambda identity: any(
                    map(dns.matches, (*identity.dns, *identity.doubted_dns))
                )
            return lambda identity: any(map(dns.matches, identity.dns))
        case "cn":
            cn = parse_cn_pattern(text)
            # Only without any SAN (RFC 9525 §6.3); `identity` sets it only then, the rest is a second look.
            return lambda identity: (
                identity.common_name is not None
                and not identity.uris
                and not identity.dns
                and cn.matches(identity.common_name)
            )
    raise ValueError(f'unknown kind of pattern "{kind}"')


def matches(identity: PeerIdentity, patterns: tuple[PeerPattern, ...]) -> bool:
    """Say whether a peer is one of those expected; without a clean identity it is nobody."""
    return has_identity(identity) and any(_compiled(x.kind, x.pattern)(identity) for x in patterns)


class _Condition:
    """A rule that names this peer: what it asks of the request, and the decision if it holds."""

    __slots__ = ("_denies", "_methods", "_paths", "decision")

    def __init__(self, rule: Rule, *, denies: bool) -> None:
        self._denies = denies
        self._methods = rule.methods
        self._paths: tuple[PathPattern, ...] | None = None
        if rule.paths is not None:
            self._paths = tuple(compile_path_pattern(text) for text in rule.paths)
        self.decision = (
            Decision(False, rule.name, "deny_rule")
            if denies
            else Decision(True, rule.name, "allow_rule", rule.may_forward)
        )

    @property
    def unconditional(self) -> bool:
        return self._methods is None and self._paths is None

    def holds(self, method: bytes, key: bytes) -> bool:
        return self._method_holds(method) and (self._paths is None or self._path_holds(key))

    def _method_holds(self, method: bytes) -> bool:
        if self._methods is None or method in self._methods:
            return True
        # Methods are case-sensitive (RFC 9110 §9.1), but not to every framework behind us: a `deny` must not
        # be dodged by "delete".
        return self._denies and method.upper() in self._methods

    def _path_holds(self, key: bytes) -> bool:
        paths = self._paths or ()
        if any(pattern.matches(key) for pattern in paths):
            return True
        if not self._denies:
            return False
        # Fail closed: no path (CONNECT, OPTIONS *) meets every `deny` with paths (threats A8, F4), and many
        # applications serve /admin/ as /admin, or the other way round.
        if not key.startswith(b"/"):
            return True
        other = key[:-1] if key.endswith(b"/") else key + b"/"
        return any(pattern.matches(other) for pattern in paths)


class PeerAuthorization:
    """The rules that name one peer. `constant`: the decision, when it is the same for every request."""

    __slots__ = ("_conditions", "_otherwise", "constant", "may_forward")

    def __init__(self, conditions: Sequence[_Condition], otherwise: Decision) -> None:
        self._conditions = tuple(conditions)
        self._otherwise = otherwise
        self.constant = None if conditions else otherwise
        #: Some decision about this peer may say so; the one that is made is what counts.
        self.may_forward = otherwise.may_forward or any(x.decision.may_forward for x in conditions)

    def decide(self, method: bytes, path: bytes) -> Decision:
        """Judge one request; `path` is the origin-form target with its query, in normal form, or what has none."""
        if self.constant is not None:
            return self.constant
        key = match_key(path)
        for condition in self._conditions:
            if condition.holds(method, key):
                return condition.decision
        return self._otherwise

    def __repr__(self) -> str:
        return (
            f"PeerAuthorization({[x.decision.rule for x in self._conditions]}, {self._otherwise})"
        )


class Authorizer:
    """The compiled rules of one listener: deny first, then allow, each in order, else refused.

    `names_paths`, `names_methods`: whether any rule does; then paths must be in normal form, and override
    fields are dropped.
    Errors: ValueError when a pattern is not well-formed (the configuration has asked `check_pattern` before).
    Source: threats §3 rules 1, 2 and 9.
    """

    __slots__ = ("_any_verified", "_rules", "names_methods", "names_paths")

    def __init__(
        self,
        deny: Sequence[Rule],
        allow: Sequence[Rule],
        allow_any_verified: bool = False,  # noqa: FBT001, FBT002  # its name says it at every call
    ) -> None:
        self._any_verified = allow_any_verified
        self._rules: tuple[tuple[_Names, _Condition, bool], ...] = tuple(
            (
                _compiled(rule.kind, rule.pattern, denies=denies),
                _Condition(rule, denies=denies),
                denies,
            )
            for rules, denies in ((deny, True), (allow, False))
            for rule in rules
        )
        self.names_paths = any(rule.paths is not None for rule in (*deny, *allow))
        self.names_methods = any(rule.methods is not None for rule in (*deny, *allow))

    def for_peer(self, identity: PeerIdentity) -> PeerAuthorization:
        """Give what the rules say about one peer."""
        if not has_identity(identity):
            return PeerAuthorization((), self._nobody())
        conditions: list[_Condition] = []
        for names, condition, _ in self._rules:
            if not names(identity):
                continue
            if condition.unconditional:  # no later rule can be reached
                return PeerAuthorization(conditions, condition.decision)
            conditions.append(condition)
        if self._any_verified:
            return PeerAuthorization(conditions, _ANY_VERIFIED)
        named = any(condition.decision.allowed for condition in conditions)
        return PeerAuthorization(conditions, _NO_RULE_FOR_REQUEST if named else _NO_RULE_FOR_PEER)

    def _nobody(self) -> Decision:
        """Judge a certificate without a clean identity.

        `allow_any_verified` admits it, unless something is denied: whether a `deny` names it cannot be judged,
        and two URI names must not be a way around one (threats B1).
        """
        if self._any_verified and not any(denies for _, _, denies in self._rules):
            return _ANY_VERIFIED
        return _NO_IDENTITY

    def __repr__(self) -> str:
        return f"Authorizer({len(self._rules)} rules, any_verified={self._any_verified})"
