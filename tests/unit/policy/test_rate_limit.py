"""Token buckets (config.md, `rate_limit`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy import rate_limit
from ambassador.policy.rate_limit import RateLimit, RateLimiter


def taken(limiter: RateLimiter, now: float, count: int, peer: str = "") -> int:
    return sum(1 for _ in range(count) if limiter.take(peer, now) == 0)


def test_a_burst_at_once_then_one_for_each_interval() -> None:
    limiter = RateLimiter(RateLimit(10, 3))

    assert taken(limiter, 100.0, 5) == 3
    assert taken(limiter, 100.05, 1) == 0
    assert taken(limiter, 100.1, 2) == 1
    assert taken(limiter, 200.0, 10) == 3, "no more than the burst, however long nobody came"


def test_who_is_refused_hears_how_long_and_takes_nothing() -> None:
    limiter = RateLimiter(RateLimit(2, 1))
    limiter.take("", 0.0)

    assert limiter.take("", 0.1) == pytest.approx(0.4)
    assert limiter.take("", 0.4) == pytest.approx(0.1)
    assert limiter.take("", 0.5) == 0


def test_peers_have_buckets_of_their_own_only_when_asked_for() -> None:
    together, apart = RateLimiter(RateLimit(1, 1)), RateLimiter(RateLimit(1, 1, by_peer=True))

    assert [bool(together.take(peer, 0.0)) for peer in "ab"] == [False, True]
    assert [bool(apart.take(peer, 0.0)) for peer in "aab"] == [False, True, False]


def test_peers_without_end_share_a_bucket_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_MAX_PEERS", 3)
    limiter = RateLimiter(RateLimit(1, 1, by_peer=True))

    assert [bool(limiter.take(peer, 0.0)) for peer in "abcde"] == [False, False, False, False, True]
    assert limiter.take("f", 2.0) == 0, "those whose buckets are full again are forgotten"
    assert "1 buckets" in repr(limiter)


def test_two_places_that_say_the_same_are_two_limits() -> None:
    assert len({RateLimit(1, 1): 1, RateLimit(1, 1): 2}) == 2


@given(
    rate=st.floats(0.01, 10_000),
    burst=st.integers(1, 1000),
    gaps=st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_no_window_sees_more_than_its_burst_and_its_rate(
    rate: float, burst: int, gaps: list[float]
) -> None:
    limiter = RateLimiter(RateLimit(rate, burst))
    now, at = 1000.0, []
    for gap in gaps:
        now += gap
        wait_s = limiter.take("", now)
        if wait_s == 0:
            at.append(now)
        else:
            assert limiter.take("", now + wait_s + 1e-6) == 0, "what was promised holds"
            at.append(now + wait_s + 1e-6)
            now += wait_s + 1e-6

    for first in range(len(at)):
        for last in range(first, len(at)):
            assert last - first + 1 <= burst + rate * (at[last] - at[first]) * 1.001 + 0.01
