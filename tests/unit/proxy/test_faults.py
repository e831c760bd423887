"""Faults on purpose: who meets one, and what then happens to the exchange."""

from __future__ import annotations

from typing import Any

from ambassador.config.model import FaultConfig, RouteSettings
from ambassador.core.errors import DownstreamClosed
from ambassador.core.model import Field, PeerIdentity, RequestHead
from ambassador.policy.authorization import Rule
from ambassador.proxy.faults import Fault
from ambassador.proxy.snapshot import Target
from ambassador.telemetry.metrics import FaultTally, RetryStats
from tests.unit.proxy.make import Scene, answer

PEER = PeerIdentity(
    spiffe="spiffe://example.org/test",
    uris=("spiffe://example.org/test",),
    dns=(),
    common_name=None,
    subject="",
    issuer="",
    serial="1",
    not_after=0.0,
    fingerprint="",
    certificate=b"",
    chain=(),
)


def fault(config: FaultConfig, *, chance: float = 0.0, inbound: bool = False) -> Fault:
    return Fault(config, FaultTally(), chance=lambda: chance, inbound=inbound)


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    lines = [Field(name, value, 0, name + b": " + value) for name, value in fields]
    return RequestHead(b"GET", b"http", b"payments", b"/", lines, 0)


def faulty(config: FaultConfig, **settings: Any) -> tuple[Scene, FaultTally]:
    """Give an exchange on a route with this fault."""
    scene = Scene(settings=RouteSettings(**settings))
    tally = FaultTally()
    made = Fault(config, tally, chance=lambda: 0.0, inbound=False)
    scene.target = Target(
        scene.service, scene.settings, scene.target.stats, retries=RetryStats(), fault=made
    )
    scene.route.only_target = scene.target
    return scene, tally


def test_a_share_of_the_requests_meets_it() -> None:
    config = FaultConfig(abort=503, percent=0.25)

    assert fault(config, chance=0.24).meets(head(), None) is not None
    assert fault(config, chance=0.25).meets(head(), None) is None


def test_only_requests_with_its_headers_meet_it() -> None:
    config = FaultConfig(abort=503, headers=(("x-test", "1"), ("x-any", None)))

    assert fault(config).meets(head((b"x-test", b"1"), (b"x-any", b"")), None) is not None
    assert fault(config).meets(head((b"x-test", b"2"), (b"x-any", b"")), None) is None
    assert fault(config).meets(head((b"x-test", b"1")), None) is None


def test_inbound_only_the_peers_that_its_rules_name_meet_it() -> None:
    """Threats H6: a stranger must not be able to have one."""
    rule = Rule(name="allow-1", kind="spiffe", pattern="spiffe://example.org/test")
    other = Rule(name="allow-1", kind="spiffe", pattern="spiffe://example.org/other")

    assert fault(FaultConfig(abort=503, allow=(rule,)), inbound=True).meets(head(), PEER)
    assert not fault(FaultConfig(abort=503, allow=(other,)), inbound=True).meets(head(), PEER)
    assert not fault(FaultConfig(abort=503, allow=(rule,)), inbound=True).meets(head(), None)
    assert not fault(FaultConfig(abort=503), inbound=True).meets(head(), PEER)


def test_an_abort_is_answered_without_an_attempt() -> None:
    scene, tally = faulty(FaultConfig(abort=418))

    scene.send()

    assert scene.downstream.head.status == 418
    assert b"X-Ambassador-Flags: FI\r\n" in scene.downstream.extra
    assert (scene.exchange.attempts, scene.exchange.phase) == (0, "admit")
    assert (tally.aborts, tally.delays) == (1, 0)


def test_a_delayed_request_goes_on_and_is_flagged() -> None:
    scene, tally = faulty(FaultConfig(delay_s=2.0))
    scene.send()
    assert scene.upstream.calls == []

    scene.clock.advance(2.0)
    scene.loop.run()
    scene.exchange.response_head(answer(length=0), True)

    assert scene.downstream.head.status == 200
    assert scene.exchange.mark == "DI"
    assert (tally.aborts, tally.delays) == (0, 1)


def test_an_upload_waits_for_the_delay() -> None:
    scene, _ = faulty(FaultConfig(delay_s=2.0))
    scene.send(b"PUT", end=False, length=2)
    assert scene.downstream.names == ["pause_body"]

    scene.exchange.body_received(b"ab", True)
    scene.clock.advance(2.0)
    scene.loop.run()

    assert scene.upstream.body == b"ab"


def test_both_are_a_late_refusal() -> None:
    scene, _ = faulty(FaultConfig(delay_s=2.0, abort=503))
    scene.send()

    scene.clock.advance(2.0)
    scene.loop.run()

    assert b"X-Ambassador-Flags: FI,DI\r\n" in scene.downstream.extra


def test_a_client_that_goes_in_the_delay_meets_nothing_more() -> None:
    scene, _ = faulty(FaultConfig(delay_s=2.0))
    scene.send()

    scene.exchange.stream_reset(DownstreamClosed("downstream_closed"))
    scene.clock.advance(2.0)
    scene.loop.run()

    assert scene.upstream.calls == []
    assert len(scene.door.ended) == 1


def test_the_deadline_holds_in_the_delay() -> None:
    scene, _ = faulty(FaultConfig(delay_s=20.0))
    scene.send()

    scene.clock.advance(15.0)
    scene.exchange.deadline_passed()
    scene.clock.advance(5.0)
    scene.loop.run()

    assert scene.downstream.head.status == 504
    assert scene.exchange.attempts == 0


def test_a_bug_behind_the_delay_ends_its_exchange(monkeypatch: Any) -> None:
    """Threats E8."""
    scene, _ = faulty(FaultConfig(delay_s=2.0))
    scene.send()
    monkeypatch.setattr(type(scene.service), "pick", lambda *_: 1 / 0)

    scene.clock.advance(2.0)
    scene.loop.run()

    assert [type(error) for error in scene.crashes] == [ZeroDivisionError]
    assert scene.exchange.over


def test_it_prints_what_it_does() -> None:
    assert repr(fault(FaultConfig(abort=503, percent=0.5))) == "Fault(delay 0.0 s, abort 503, 50%)"
