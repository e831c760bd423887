"""Rules, decisions and their reasons (protocols §3; threats A8, B1-B5, F4; fail-closed rules 1, 2, 9)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import PeerIdentity
from ambassador.policy.authorization import (
    Authorizer,
    Decision,
    PeerPattern,
    Rule,
    has_identity,
    matches,
)
from tests.unit.policy.make import identity

WEB_ID = "spiffe://example.org/shop/web"
WEB = identity(WEB_ID)
CART = identity("spiffe://example.org/shop/cart")


def spiffe(name: str, path: str, **more: object) -> Rule:
    """Give a rule on a SPIFFE ID of example.org."""
    return Rule(name, "spiffe", "spiffe://example.org" + path, **more)  # type: ignore[arg-type]


def judge(
    authorizer: Authorizer, peer: PeerIdentity, method: bytes = b"GET", path: bytes = b"/"
) -> Decision:
    """Give the decision on one request."""
    return authorizer.for_peer(peer).decide(method, path)


def test_without_a_rule_nobody_is_let_in() -> None:
    """Fail-closed rule 1."""
    assert judge(Authorizer([], []), WEB) == Decision(False, "default", "no_rule_for_peer")


def test_a_rule_lets_its_peer_in_and_nobody_else() -> None:
    """protocols §3: default deny; the decision has rule and reason."""
    authorizer = Authorizer([], [spiffe("web", "/shop/web")])

    assert judge(authorizer, WEB) == Decision(True, "web", "allow_rule")
    assert judge(authorizer, CART) == Decision(False, "default", "no_rule_for_peer")


def test_deny_goes_before_allow() -> None:
    """config.md §3: deny first, then allow."""
    authorizer = Authorizer([spiffe("not-web", "/shop/web")], [spiffe("shop", "/shop/*")])

    assert judge(authorizer, WEB) == Decision(False, "not-web", "deny_rule")
    assert judge(authorizer, CART) == Decision(True, "shop", "allow_rule")


def test_the_first_rule_that_holds_decides() -> None:
    """config.md §3: in order."""
    authorizer = Authorizer(
        [], [spiffe("read", "/shop/*", methods=frozenset({b"GET"})), spiffe("any", "/shop/web")]
    )

    assert judge(authorizer, WEB, b"GET").rule == "read"
    assert judge(authorizer, WEB, b"POST").rule == "any"
    assert judge(authorizer, CART, b"POST") == Decision(False, "default", "no_rule_for_request")


def test_any_verified_lets_in_who_is_not_denied() -> None:
    """config.md §3: allow_any_verified is typed in place of allow."""
    authorizer = Authorizer([spiffe("not-web", "/shop/web")], [], True)

    assert judge(authorizer, WEB).reason == "deny_rule"
    assert judge(authorizer, CART) == Decision(True, "any-verified", "any_verified")


@pytest.mark.parametrize(
    "peer",
    [
        identity(WEB_ID, problem="key_usage"),
        identity(WEB_ID, uris=(WEB_ID, "https://example.org/x")),
        identity(WEB_ID, uris=("https://example.org/x", WEB_ID)),
        identity(None, uris=(WEB_ID, WEB_ID), dns=("web.example.org",)),
        identity(None, uris=("SPIFFE://a/b", "urn:x"), dns=("web.example.org",)),
        identity("spiffe://Example.org/shop/web"),
        identity("spiffe://example.org"),
    ],
)
def test_a_certificate_without_a_clean_identity_matches_no_rule_of_any_kind(
    peer: PeerIdentity,
) -> None:
    """X509-SVID §2; threats B1 (Consul CVE-2022-40716), B2; fail-closed rule 2."""
    rules = [
        spiffe("spiffe", "/**"),
        Rule("uri", "uri", "https://example.org/x"),
        Rule("dns", "dns", "web.example.org"),
    ]

    assert not has_identity(peer)
    assert judge(Authorizer([], rules), peer) == Decision(False, "default", "no_identity")
    assert judge(Authorizer([], [], True), peer) == Decision(True, "any-verified", "any_verified")
    assert judge(Authorizer([spiffe("x", "/other")], [], True), peer).reason == "no_identity"


@pytest.mark.parametrize("kind", ["spiffe", "uri", "dns", "cn"])
@pytest.mark.parametrize("held", ["spiffe", "uri", "dns", "cn"])
def test_a_rule_looks_only_at_names_of_its_own_type(kind: str, held: str) -> None:
    """Threats B5 (Envoy CVE-2022-21656): typed values, never text."""
    text = {"spiffe": WEB_ID, "uri": "urn:x:web", "dns": "web", "cn": "web"}
    peer = {
        "spiffe": identity(WEB_ID),
        "uri": identity(uris=("urn:x:web",)),
        "dns": identity(dns=("web",)),
        "cn": identity(common_name="web"),
    }[held]

    assert judge(Authorizer([], [Rule("x", kind, text[kind])]), peer).allowed is (kind == held)


@pytest.mark.parametrize(
    "peer",
    [
        identity(common_name="web", dns=("other",)),
        identity(common_name="web", uris=("urn:x",)),
        identity(WEB_ID, common_name="web"),
    ],
)
def test_a_common_name_beside_a_san_counts_for_nothing(peer: PeerIdentity) -> None:
    """RFC 9525 §6.3; threats B4."""
    assert not judge(Authorizer([], [Rule("x", "cn", "web")]), peer).allowed


def test_a_wildcard_certificate_matches_no_dns_rule() -> None:
    """Threats B4: SANs of clients are literals."""
    rules = [Rule("a", "dns", "*.example.org"), Rule("b", "dns", "web.example.org")]

    assert not judge(Authorizer([], rules), identity(dns=("*.example.org",))).allowed


def test_one_of_several_dns_names_is_enough() -> None:
    """A certificate names what it likes; one name that a rule names is enough."""
    assert judge(Authorizer([], [Rule("x", "dns", "b")]), identity(dns=("a", "b"))).allowed


def test_a_name_that_cannot_be_believed_keeps_out_and_lets_nobody_in() -> None:
    """Threats B6; fail-closed rule 4: a partner's authority may write any DNS name."""
    peer = replace(identity("spiffe://partner.example/batch"), doubted_dns=("old.example",))
    partners = Rule("partners", "spiffe", "spiffe://partner.example/**")
    old = Rule("old", "dns", "old.example")

    assert judge(Authorizer([], [partners]), peer).allowed
    assert not judge(Authorizer([old], [partners]), peer).allowed
    assert not judge(Authorizer([], [old]), peer).allowed


def test_a_rule_without_conditions_makes_the_decision_constant() -> None:
    """House §8: what can be decided when a connection opens is decided then."""
    rules = [spiffe("cart", "/shop/cart", paths=("/x",)), spiffe("web", "/shop/web")]
    authorizer = Authorizer([], rules)

    assert authorizer.names_paths
    assert authorizer.for_peer(WEB).constant == Decision(True, "web", "allow_rule")
    assert authorizer.for_peer(CART).constant is None
    assert authorizer.for_peer(identity(dns=("x",))).constant is not None


def test_an_unconditional_rule_hides_those_after_it() -> None:
    """The first that holds decides, so later ones cannot make it depend on the request."""
    authorizer = Authorizer(
        [], [spiffe("all", "/shop/*"), spiffe("some", "/shop/web", paths=("/x",))]
    )

    assert authorizer.for_peer(WEB).constant == Decision(True, "all", "allow_rule")


@pytest.mark.parametrize(
    ("rule", "paths", "methods"),
    [
        (spiffe("x", "/a"), False, False),
        (spiffe("x", "/a", paths=("/b",)), True, False),
        (spiffe("x", "/a", methods=frozenset({b"GET"})), False, True),
    ],
)
def test_the_authorizer_says_whether_rules_name_paths_or_methods(
    rule: Rule,
    paths: bool,
    methods: bool,  # noqa: FBT001
) -> None:
    """Threats A7, F1: it decides about normal form and override fields."""
    for authorizer in (Authorizer([rule], []), Authorizer([], [rule])):
        assert (authorizer.names_paths, authorizer.names_methods) == (paths, methods)


GET = frozenset({b"GET"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        (b"GET", b"/v1/a", True),
        (b"GET", b"/v1/a?x=/v2", True),
        (b"GET", b"/v1", False),
        (b"GET", b"/v2/a?x=/v1/a", False),
        (b"GET", b"/health", True),
        (b"POST", b"/v1/a", False),
        (b"get", b"/v1/a", False),
        (b"HEAD", b"/v1/a", False),
        (b"CONNECT", b"", False),
        (b"OPTIONS", b"*", False),
        (b"GET", b"*", False),
    ],
)
def test_an_allow_rule_needs_method_and_path(method: bytes, path: bytes, allowed: bool) -> None:  # noqa: FBT001
    """RFC 9110 §9.1: methods are case-sensitive; threats F4: no path matches no path rule."""
    authorizer = Authorizer(
        [], [spiffe("x", "/shop/web", methods=GET, paths=("/v1/**", "/health"))]
    )

    assert judge(authorizer, WEB, method, path).allowed is allowed


@pytest.mark.parametrize(
    ("method", "path", "denied"),
    [
        (b"DELETE", b"/admin", True),
        (b"delete", b"/admin", True),
        (b"Delete", b"/admin/", True),
        (b"DELETE", b"/admin/x", True),
        (b"DELETE", b"/adm%69n", False),  # not normal: refused with 400 before
        (b"DELETE", b"/%40me", True),
        (b"DELETE", b"/@me", True),
        (b"DELETE", b"/caf%c3%a9", True),
        (b"DELETE", b"/caf%C3%A9", True),
        (b"DELETE", b"*", True),
        (b"DELETE", b"", True),
        (b"DELETE", b"/other/", False),
        (
            b"DELETE",
            b"/all",
            True,
        ),  # /all/** speaks of /all/, which many applications serve as /all
        (b"DELETE", b"/all/", True),
        (b"DELETE", b"/allow", False),
        (b"GET", b"/admin", False),
    ],
)
def test_a_deny_rule_is_not_dodged_by_another_spelling(
    method: bytes, path: bytes, denied: bool
) -> None:  # noqa: FBT001
    """Threats A8, F4: what cannot be judged meets a deny; fail-closed rule 6."""
    rule = spiffe(
        "no",
        "/shop/web",
        methods=frozenset({b"DELETE"}),
        paths=("/admin", "/admin/*", "/@me", "/caf%C3%A9", "/all/**"),
    )

    assert judge(Authorizer([rule], [], True), WEB, method, path).allowed is not denied


def test_a_deny_on_paths_alone_meets_connect() -> None:
    """Threats F4: Envoy CVE-2026-73547."""
    authorizer = Authorizer(
        [spiffe("no", "/shop/web", paths=("/admin",))], [spiffe("web", "/shop/web")]
    )

    assert judge(authorizer, WEB, b"CONNECT", b"") == Decision(False, "no", "deny_rule")
    assert judge(authorizer, WEB, b"GET", b"/x").allowed


def test_a_conditional_deny_keeps_the_reason_honest() -> None:
    """A peer whom only a deny names has no rule that lets it in."""
    authorizer = Authorizer([spiffe("no", "/shop/web", paths=("/admin",))], [])

    assert judge(authorizer, WEB, b"GET", b"/x").reason == "no_rule_for_peer"


def test_only_the_rule_that_decides_says_whether_the_peer_is_believed() -> None:
    """config.md §3: may_forward is a word of a rule."""
    peer = Authorizer(
        [], [spiffe("a", "/shop/web", paths=("/a",), may_forward=True), spiffe("b", "/shop/web")]
    ).for_peer(WEB)

    assert peer.may_forward
    assert peer.decide(b"GET", b"/a").may_forward
    assert not peer.decide(b"GET", b"/b").may_forward


def test_an_unconditional_rule_that_may_forward_says_so() -> None:
    """config.md §3."""
    peer = Authorizer([], [spiffe("a", "/shop/web", may_forward=True)]).for_peer(WEB)

    assert peer.may_forward
    assert not Authorizer([], [spiffe("a", "/shop/web")]).for_peer(WEB).may_forward


def test_a_pattern_that_is_not_well_formed_is_refused_when_compiled() -> None:
    """The configuration checks before; a hole would be worse than an error."""
    for rule in (spiffe("x", "/a*"), Rule("x", "email", "a"), spiffe("x", "/a", paths=("b",))):
        with pytest.raises(ValueError, match=r"\w"):
            Authorizer([], [rule])


def test_an_expected_peer_is_any_one_of_the_patterns() -> None:
    """config.md §3: services.NAME.peer, one or a list."""
    patterns = (PeerPattern("dns", "a"), PeerPattern("spiffe", WEB_ID))

    assert matches(WEB, patterns)
    assert not matches(CART, patterns)
    assert not matches(WEB, ())
    assert not matches(identity(WEB_ID, problem="key_usage"), patterns)


def test_states_print_themselves() -> None:
    """House §8."""
    authorizer = Authorizer([], [spiffe("web", "/shop/web", paths=("/x",))])

    assert repr(authorizer) == "Authorizer(1 rules, any_verified=False)"
    assert "'web'" in repr(authorizer.for_peer(WEB))


_RULES = st.lists(
    st.tuples(
        st.sampled_from(["/shop/web", "/shop/*", "/**", "/shop/cart"]),
        st.sampled_from([None, GET, frozenset({b"POST"})]),
        st.sampled_from([None, ("/a",), ("/a/**", "/b")]),
    ),
    max_size=4,
)


@given(_RULES, _RULES, st.booleans())
def test_the_cut_rules_of_a_peer_decide_like_all_rules_in_order(
    deny: list[tuple[str, frozenset[bytes] | None, tuple[str, ...] | None]],
    allow: list[tuple[str, frozenset[bytes] | None, tuple[str, ...] | None]],
    any_verified: bool,  # noqa: FBT001
) -> None:
    """The model is the sentence of config.md §3, said naively."""

    def rules(
        kind: str, rows: list[tuple[str, frozenset[bytes] | None, tuple[str, ...] | None]]
    ) -> list[Rule]:
        return [
            spiffe(f"{kind}-{number}", path, methods=methods, paths=paths)
            for number, (path, methods, paths) in enumerate(rows)
        ]

    def covers(rule: Rule, method: bytes, path: str) -> bool:
        names = rule.pattern.removeprefix("spiffe://example.org") in {"/shop/web", "/shop/*", "/**"}
        is_deny = rule.name.startswith("deny")  # denies what may be the same to an application
        below = {"/a": ["/a", "/a/**"] if is_deny else ["/a"], "/a/x": ["/a/**"], "/b": ["/b"]}[
            path
        ]
        return (
            names
            and (rule.methods is None or method in rule.methods)
            and (rule.paths is None or any(x in below for x in rule.paths))
        )

    denies, allows = rules("deny", deny), rules("allow", allow)
    peer = Authorizer(denies, allows, any_verified).for_peer(WEB)

    for method, path in itertools.product((b"GET", b"POST"), ("/a", "/a/x", "/b")):
        hit = next((x for x in (*denies, *allows) if covers(x, method, path)), None)
        decision = peer.decide(method, path.encode())

        assert decision.allowed is (hit in allows if hit else any_verified)
        assert decision.rule == (hit.name if hit else "any-verified" if any_verified else "default")
