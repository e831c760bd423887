"""Pauses with full jitter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.policy.backoff import pause_s


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.025), (1, 0.05), (2, 0.1), (3, 0.2), (4, 0.25), (5000, 0.25)]
)
def test_the_longest_pause_doubles_up_to_its_bound(attempt: int, longest: float) -> None:
    """config.md §3: base 25ms, max 250ms; a large attempt overflows nothing."""
    assert pause_s(attempt, base_s=0.025, max_s=0.25, chance=1.0) == pytest.approx(longest)
    assert pause_s(attempt, base_s=0.025, max_s=0.25, chance=0.5) == pytest.approx(longest / 2)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_negative_and_never_beyond_the_bound(attempt: int, chance: float) -> None:
    """Full jitter: from zero on."""
    assert 0 <= pause_s(attempt, base_s=0.1, max_s=3.0, chance=chance) <= 3.0
