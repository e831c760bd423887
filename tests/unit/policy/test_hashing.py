"""What of a request decides where ring_hash sends it."""

from __future__ import annotations

import pytest

from ambassador.core.model import Field, RequestHead
from ambassador.policy.balancing import BalanceSettings
from ambassador.policy.hashing import hash_key


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    lines = [Field(name, value, 0, name + b": " + value) for name, value in fields]
    return RequestHead(b"GET", b"http", b"a", b"/", lines, 0)


def test_a_header_s_value_is_the_key_and_the_first_of_several_counts() -> None:
    settings = BalanceSettings(hash_header=b"x-user")

    assert hash_key(settings, head((b"x-user", b"7"), (b"x-user", b"8")), "") == b"7"
    assert hash_key(settings, head((b"x-users", b"7")), "") is None


@pytest.mark.parametrize(
    ("value", "key"),
    [(b"sid=7", b"7"), (b"a=1; sid=7", b"7"), (b"xsid=7", None), (b"sid", b""), (b"a=sid=7", None)],
)
def test_a_cookie_s_value_is_the_key(value: bytes, key: bytes | None) -> None:
    """RFC 6265 §4.2.1."""
    settings = BalanceSettings(hash_cookie=b"sid")

    assert hash_key(settings, head((b"cookie", value)), "") == key


def test_cookies_may_stand_in_several_fields() -> None:
    """RFC 9113 §8.2.3 splits them, and a gateway may not have joined them."""
    settings = BalanceSettings(hash_cookie=b"sid")

    assert hash_key(settings, head((b"cookie", b"a=1"), (b"cookie", b"sid=7")), "") == b"7"


def test_a_peer_s_name_is_the_key_and_nobody_has_none() -> None:
    settings = BalanceSettings(hash_peer=True)

    assert hash_key(settings, head(), "spiffe://example.org/web") == b"spiffe://example.org/web"
    assert hash_key(settings, head(), "") is None
