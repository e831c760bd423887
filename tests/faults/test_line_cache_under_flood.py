"""A million lines that never come twice: the line cache stays small and keeps nobody's secrets (threat E7)."""

from __future__ import annotations

import pytest

from ambassador.policy.headers import classify
from ambassador.wire.field import MAX_CACHED_LINE, HeadError, LineCache

LINES = 1_000_000
SECRETS = (
    b"Authorization: Bearer s3cr3t",
    b"Proxy-Authorization: Basic s3cr3t",
    b"Cookie: session=s3cr3t",
    b"Set-Cookie: session=s3cr3t",
    b"X-Api-Key: s3cr3t",
    b"X-Auth-Token: s3cr3t",
    b"X-Client-Secret: s3cr3t",
    b"authorization: s3cr3t",
    b"x-amz-security-token: s3cr3t",
)


def test_a_million_different_lines_stay_within_the_bound() -> None:
    """House §8: 4096 lines and as many names, each of at most 128 bytes."""
    cache = LineCache(classify)
    most = 0
    for number in range(LINES):
        cache.field(b"X-%d: %d" % (number, number))
        if number % 1009 == 0:
            most = max(most, len(cache.lines) + len(cache._names))

    assert 0 < most <= 2 * 4096
    assert sum(map(len, cache.lines)) <= 4096 * MAX_CACHED_LINE
    assert sum(map(len, cache._names)) <= 4096 * MAX_CACHED_LINE


def test_a_line_beyond_128_bytes_is_not_kept() -> None:
    """Neither the line nor a name of that length."""
    cache = LineCache(classify)
    for number in range(10_000):
        cache.field(b"X: %0128d" % number)
        cache.field(b"X-%0128d: 1" % number)

    assert not cache.lines
    assert list(cache._names) == [b"X"]


@pytest.mark.parametrize("line", SECRETS)
def test_no_credential_is_kept(line: bytes) -> None:
    """The cache is shared by all peers: none may find another's."""
    cache = LineCache(classify)
    first = cache.field(line)

    assert cache.field(line) is not first
    assert not cache.lines
    assert b"s3cr3t" not in b"".join(cache._names)


def test_a_hostile_line_leaves_nothing_behind() -> None:
    """What is refused is no entry either."""
    cache = LineCache(classify)
    for line in (b"X Y: 1", b": 1", b"X: \x00", b"X\xff: 1"):
        with pytest.raises(HeadError):
            cache.field(line)

    assert not cache.lines
    assert set(cache._names) <= {b"X"}
