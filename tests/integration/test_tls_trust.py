"""Trust domains and revocation, judged in real handshakes (threats B6, C6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambassador.core.errors import CredentialError
from ambassador.policy.authorization import PeerPattern
from tests.support.certificates import Authority, Issued
from tests.support.handshakes import Service, foreign_client, shaking, store

OURS = "spiffe://example.org/web"
THEIRS = "spiffe://partner.example/batch"
HTTP = ("http/1.1",)


@pytest.mark.parametrize(
    ("issuer", "names", "reason"),
    [
        ("own", {"spiffe": OURS}, ""),
        ("partner", {"spiffe": THEIRS}, ""),
        ("partner", {"spiffe": OURS}, "wrong_trust_domain"),
        ("own", {"spiffe": THEIRS}, "wrong_trust_domain"),
        ("own", {"spiffe": "spiffe://third.example/a"}, "wrong_trust_domain"),
        ("own", {"dns": ["web.example"]}, ""),
        ("partner", {"dns": ["web.example"]}, "wrong_trust_domain"),
        ("partner", {"cn": "web"}, "wrong_trust_domain"),
    ],
)
def test_a_root_speaks_for_its_own_trust_domain_only(
    tmp_path: Path,
    authority: Authority,
    issuer: str,
    names: dict[str, object],
    reason: str,
) -> None:
    """SPIFFE X509-SVID §5: the chain must end in the bundle of the ID's own trust domain."""
    partner = Authority("partner CA")
    bundles = {"example.org": authority.pem, "partner.example": partner.pem}
    web = store(tmp_path, authority.issue(spiffe=OURS), authority.pem, bundles=bundles)
    issued = {"own": authority, "partner": partner}[issuer].issue(**names)  # type: ignore[arg-type]

    for _ in range(2):  # the second is no easier than the first
        with shaking(web.server("inbound", HTTP), foreign_client(issued)) as both:
            assert both.server.reason == reason


def test_one_mapped_bundle_names_the_domain_too(tmp_path: Path, authority: Authority) -> None:
    """Threats B6."""
    bundles = {"example.org": authority.pem}
    web = store(tmp_path, authority.issue(spiffe=OURS), authority.pem, bundles=bundles)

    for spiffe, reason in ((OURS, ""), (THEIRS, "wrong_trust_domain")):
        client = foreign_client(authority.issue(spiffe=spiffe))
        with shaking(web.server("inbound", HTTP), client) as both:
            assert both.server.reason == reason


def test_a_server_of_a_foreign_domain_is_refused_too(tmp_path: Path, authority: Authority) -> None:
    """Threats B6, the dialling side."""
    partner = Authority("partner CA")
    bundles = {"example.org": authority.pem, "partner.example": partner.pem}
    web = store(tmp_path / "web", authority.issue(spiffe=OURS), authority.pem, bundles=bundles)
    forged = store(tmp_path / "forged", partner.issue(spiffe=OURS), authority.pem)
    service = Service(peer=(PeerPattern("spiffe", OURS),))

    with shaking(forged.server("inbound", HTTP), web.client(service)) as both:
        assert both.client.reason == "wrong_trust_domain"


@pytest.mark.parametrize(
    ("issuer", "spiffe", "dns"),
    [("own", OURS, ("batch.example",)), ("partner", THEIRS, ())],
)
def test_of_a_partner_only_the_id_is_believed(
    tmp_path: Path, authority: Authority, issuer: str, spiffe: str, dns: tuple[str, ...]
) -> None:
    """Threats B6: its authority could write any DNS name of ours beside an ID of its own."""
    partner = Authority("partner CA")
    bundles = {"example.org": authority.pem, "partner.example": partner.pem}
    web = store(tmp_path, authority.issue(spiffe=OURS), authority.pem, bundles=bundles)
    issuing = {"own": authority, "partner": partner}[issuer]
    issued = issuing.issue(spiffe=spiffe, dns=["batch.example"])

    for _ in range(2):  # the second from the cache
        with shaking(web.server("inbound", HTTP), foreign_client(issued)) as both:
            assert both.server.peer is not None
            assert (both.server.peer.spiffe, both.server.peer.dns) == (spiffe, dns)
            assert both.server.peer.doubted_dns == (() if dns else ("batch.example",))


def test_a_broken_id_names_nobody_where_domains_are_told_apart(
    tmp_path: Path, authority: Authority
) -> None:
    """Threats B1, B6: a partner's certificate with two IDs, one of them ours."""
    partner = Authority("partner CA")
    bundles = {"example.org": authority.pem, "partner.example": partner.pem}
    web = store(tmp_path, authority.issue(dns=["web"]), authority.pem, bundles=bundles)
    two = partner.issue(spiffe=THEIRS, raw_sans=[(0x86, OURS.encode())])

    with shaking(web.server("inbound", HTTP), foreign_client(two)) as both:
        assert both.server.peer is not None
        assert both.server.peer.problem == "several_uri_sans"
        assert both.server.peer.principal == ""


@pytest.fixture(params=[None, 3600.0], ids=["no grace", "grace"])
def grace_s(request: pytest.FixtureRequest) -> float | None:
    """Without a grace period OpenSSL asks the list itself; with one only we do."""
    value: float | None = request.param
    return value


def test_a_revoked_peer_is_refused_in_both_directions(
    tmp_path: Path, authority: Authority, grace_s: float | None
) -> None:
    """RFC 5280 §6.3; threats C6."""
    revoked, good = authority.issue(spiffe=OURS), authority.issue(spiffe=OURS)
    crl = authority.revoke(revoked)
    web = store(tmp_path / "web", good, authority.pem, crl=crl, crl_grace_s=grace_s)
    bad = store(tmp_path / "bad", revoked, authority.pem)

    with shaking(web.server("inbound", HTTP), foreign_client(revoked)) as both:
        assert both.server.reason == "revoked"
    with shaking(web.server("inbound", HTTP), foreign_client(good)) as both:
        assert both.server.reason == ""
    with shaking(bad.server("inbound", HTTP), web.client(Service())) as both:
        assert both.client.reason == "revoked"


def test_every_issuer_in_a_chain_needs_a_list(
    tmp_path: Path, authority: Authority, grace_s: float | None
) -> None:
    """Threats C6, rule 5: with a list configured, unknown is revoked."""
    middle = Authority("middle", parent=authority)
    issued = middle.issue(spiffe=OURS)
    own = authority.issue(spiffe=OURS)
    partly = store(tmp_path / "a", own, authority.pem, crl=authority.revoke(), crl_grace_s=grace_s)
    wholly = store(
        tmp_path / "b",
        own,
        authority.pem,
        crl=authority.revoke() + middle.revoke(),
        crl_grace_s=grace_s,
    )

    with shaking(partly.server("inbound", HTTP), foreign_client(issued)) as both:
        assert both.server.reason == "crl_missing"
    with shaking(wholly.server("inbound", HTTP), foreign_client(issued)) as both:
        assert both.server.reason == ""


def test_a_list_that_somebody_else_signed_is_no_list(
    tmp_path: Path, authority: Authority, stranger: Authority, grace_s: float | None
) -> None:
    """Threats C6: the stranger's CA bears the same name."""
    web = store(
        tmp_path,
        authority.issue(spiffe=OURS),
        authority.pem,
        crl=stranger.revoke(),
        crl_grace_s=grace_s,
    )

    with shaking(web.server("inbound", HTTP), foreign_client(authority.issue(spiffe=OURS))) as both:
        assert both.server.reason == "crl_invalid"


def test_an_expired_list_serves_for_its_grace_and_no_longer(
    tmp_path: Path, authority: Authority
) -> None:
    """Config identity.crl_grace."""
    own, peer = authority.issue(spiffe=OURS), authority.issue(spiffe=OURS)
    old = authority.revoke(hours=-0.5, age_hours=2.0)
    web = store(tmp_path, own, authority.pem, crl=old, crl_grace_s=3600.0)

    with shaking(web.server("inbound", HTTP), foreign_client(peer)) as both:
        assert both.server.reason == ""
    later = own.certificate.not_valid_before_utc.timestamp() + 86400 + 3600
    with shaking(web.server("inbound", HTTP), foreign_client(peer), wall_now=later) as both:
        assert both.server.reason == "crl_expired"


def test_a_list_that_expires_while_we_run_refuses_everybody(
    tmp_path: Path, authority: Authority
) -> None:
    """Threats K2: an old list is not a list."""
    own, peer = authority.issue(spiffe=OURS), authority.issue(spiffe=OURS)
    web = store(tmp_path, own, authority.pem, crl=authority.revoke(hours=1.0))
    later = own.certificate.not_valid_before_utc.timestamp() + 86400 + 7200

    with shaking(web.server("inbound", HTTP), foreign_client(peer), wall_now=later) as both:
        assert both.server.reason == "crl_expired"


def test_a_bad_set_keeps_the_old_generation(tmp_path: Path, authority: Authority) -> None:
    """House §7, Rotation: any failure keeps the old."""
    first = authority.issue(spiffe=OURS)
    web = store(tmp_path, first, authority.pem)
    other: Issued = authority.issue(spiffe=OURS)
    (tmp_path / "tls.crt").write_bytes(other.certificate_pem)

    with pytest.raises(CredentialError) as caught:
        web.reload()

    assert caught.value.reason == "key_mismatch"
    assert web.generation == 1
    with shaking(web.server("inbound", HTTP), web.client(Service())) as both:
        assert both.client.peer is not None
        assert both.client.peer.fingerprint == first.fingerprint
