"""Where discovery may send us to (config.md, `allowed_networks`)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ambassador.policy.networks import is_allowed


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.255.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::",
        "255.255.255.255", "fd00:ec2::254", "100.100.100.200", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "168.63.129.16", "192.0.0.192", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1",
        "payments.internal", "",
    ],
)  # fmt: skip
def test_this_machine_and_places_of_credentials_are_refused_in_any_spelling(host: str) -> None:
    assert not is_allowed(host, None)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "64:ff9b::a00:1"]
)
def test_everything_else_is_allowed(host: str) -> None:
    assert is_allowed(host, None)


def test_named_networks_allow_what_they_hold_and_nothing_else() -> None:
    networks = (ip_network("127.0.0.0/8"), ip_network("fd00::/8"))

    assert is_allowed("127.0.0.1", networks)
    assert is_allowed("::ffff:127.0.0.1", networks)
    assert is_allowed("fd00::1", networks)
    assert not is_allowed("10.0.0.1", networks)
    assert not is_allowed("::1", networks)
    assert not is_allowed("payments", networks)
