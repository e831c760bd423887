"""What a resumed session may and may not do (threats C1, C2, C4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from OpenSSL import SSL

from ambassador.identity.store import IdentityStore
from ambassador.policy.authorization import PeerPattern
from tests.support.certificates import Authority
from tests.support.handshakes import (
    Handshake,
    Service,
    Tls,
    TodayClock,
    exchange,
    part,
    shaking,
    store,
)

WEB = "spiffe://example.org/web"
HTTP = ("http/1.1",)
SERVICE = Service()


def _remember(
    web: IdentityStore, both: Handshake, clock: TodayClock, service: Service = SERVICE
) -> None:
    exchange(both)
    web.client(service).remember("endpoint", both.client_connection, clock.monotonic())
    part(both)


def _resumed(both: Handshake) -> bool:
    assert both.server.session is not None, both.server.refused
    return both.server.session.resumed


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both versions; the older one by a client that knows nothing newer."""
    if request.param == "TLSv1.2":
        original = SSL.Connection.__init__

        def limited(self: SSL.Connection, context: SSL.Context, socket: object = None) -> None:
            if not context._used:
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
            original(self, context, socket)  # type: ignore[arg-type]

        monkeypatch.setattr(SSL.Connection, "__init__", limited)
    return str(request.param)


def test_a_second_handshake_is_resumed_and_judged_alike(
    tmp_path: Path, authority: Authority, version: str
) -> None:
    """Threats rule 4: the identity comes from the resumed certificate."""
    clock = TodayClock()
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem, clock=clock)
    server, client = web.server("inbound", HTTP), web.client(SERVICE)

    with shaking(server, client) as first:
        _remember(web, first, clock)
    with shaking(server, client) as second:
        assert second.server.session is not None
        assert second.server.session.version == version
        assert _resumed(second)
        assert second.server.peer is not None
        assert second.server.peer.spiffe == WEB
        assert second.server.peer.chain == ()


def test_a_certificate_that_expired_meanwhile_is_refused_on_both_sides(
    tmp_path: Path, authority: Authority, version: str
) -> None:
    """Threats C1, CVE-2025-68121: resumption checks no dates in any library."""
    clock = TodayClock()
    issued = authority.issue(spiffe=WEB)
    web = store(tmp_path, issued, authority.pem, clock=clock)
    server, client = web.server("inbound", HTTP), web.client(SERVICE)
    later = issued.certificate.not_valid_after_utc.timestamp() + 1

    with shaking(server, client) as first:
        _remember(web, first, clock)
    with shaking(server, client, wall_now=later) as second:
        assert second.server.reason == "expired"
        assert second.client.reason == "expired"
        assert second.server.refused is not None
        assert second.server.refused.presented.sans == (f"URI:{WEB}",)
    assert version


def test_a_chain_of_resumptions_ends_within_the_lifetime(
    tmp_path: Path, authority: Authority, version: str
) -> None:
    """Threats C1, golang/go#77217: every TLS 1.3 resumption renews the clock of its ticket."""
    clock = TodayClock()
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem, clock=clock)
    resumed = []

    for _ in range(9):
        with shaking(web.server("inbound", HTTP), web.client(SERVICE)) as both:
            resumed.append(_resumed(both))
            _remember(web, both, clock)
        clock.now += 100.0

    assert resumed == [False, True, True, True, True, True, False, True, True]
    assert version


def test_the_dialer_forgets_a_session_a_lifetime_after_its_full_handshake(
    tmp_path: Path, authority: Authority
) -> None:
    """House §1: 600 s after the full handshake, however often it was resumed."""
    clock, other = TodayClock(), TodayClock()
    issued = authority.issue(spiffe=WEB)
    server = store(tmp_path / "server", issued, authority.pem, clock=other).server("inbound", HTTP)
    web = store(tmp_path / "web", issued, authority.pem, clock=clock)
    resumed = []

    for pause in (0.0, 599.0, 2.0):
        clock.now += pause
        with shaking(server, web.client(SERVICE)) as both:
            resumed.append(_resumed(both))
            _remember(web, both, clock)

    assert resumed == [False, True, False]


@pytest.mark.parametrize("case", ["other_listener", "new_generation", "no_lifetime", "other_store"])
def test_a_session_is_worth_nothing_elsewhere(
    tmp_path: Path, authority: Authority, version: str, case: str
) -> None:
    """Threats C2, CVE-2025-23419; a new context refuses the tickets of the old one (house §7)."""
    clock = TodayClock()
    issued = authority.issue(spiffe=WEB)
    tls = Tls(session_lifetime_s=None) if case == "no_lifetime" else Tls()
    web = store(tmp_path / "web", issued, authority.pem, clock=clock, tls=tls)
    dialer = store(tmp_path / "dialer", issued, authority.pem, clock=clock)
    with shaking(web.server("inbound", HTTP), dialer.client(SERVICE)) as first:
        _remember(dialer, first, clock)
    server = web.server("inbound", HTTP)
    if case == "other_listener":
        server = web.server("second", HTTP)
    elif case == "new_generation":
        web.reload()
        server = web.server("inbound", HTTP)
    elif case == "other_store":
        server = store(tmp_path / "third", issued, authority.pem).server("inbound", HTTP)

    with shaking(server, dialer.client(SERVICE)) as second:
        assert not _resumed(second)
        assert second.server.peer is not None
    assert version


def test_another_expected_peer_means_a_full_handshake_and_a_refusal(
    tmp_path: Path, authority: Authority
) -> None:
    """Threats C4, CVE-2022-21654."""
    clock = TodayClock()
    web = store(tmp_path, authority.issue(spiffe=WEB), authority.pem, clock=clock)
    wanted = Service(peer=(PeerPattern("spiffe", WEB),))
    changed = Service(peer=(PeerPattern("spiffe", "spiffe://example.org/other"),))

    with shaking(web.server("inbound", HTTP), web.client(wanted)) as first:
        _remember(web, first, clock, wanted)
    with shaking(web.server("inbound", HTTP), web.client(changed)) as second:
        assert second.client.reason == "wrong_peer"
        assert second.client.refused is not None
        detail = f"expected spiffe://example.org/other, {WEB} answered"
        assert second.client.refused.detail == detail
        assert second.server.refused is not None  # only a full handshake is refused by an alert
        assert second.server.refused.detail == "bad_certificate"


def test_several_trust_domains_or_a_revocation_list_switch_resumption_off(
    tmp_path: Path, authority: Authority, stranger: Authority, version: str
) -> None:
    """Threats B6, C1: a resumed session has no verified chain to judge."""
    clock = TodayClock()
    issued = authority.issue(spiffe=WEB)
    domains = {"example.org": authority.pem, "partner.example": stranger.pem}
    several = store(tmp_path / "several", issued, authority.pem, clock=clock, bundles=domains)
    revoking = store(tmp_path / "crl", issued, authority.pem, clock=clock, crl=authority.revoke())
    dialer = store(tmp_path / "dialer", issued, authority.pem, clock=clock)

    for web in (several, revoking):
        for _ in range(2):
            with shaking(web.server("inbound", HTTP), dialer.client(SERVICE)) as both:
                assert not _resumed(both)
                _remember(dialer, both, clock)
    assert version
