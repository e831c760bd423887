"""Single values, by property: no value of YAML's raises anything but a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.config import checks
from ambassador.config.document import BROKEN
from ambassador.config.substitute import Substituted
from ambassador.core.units import format_duration, format_size

EVERY_CHECK = [
    checks.text, checks.flag, checks.integer(0, 9), checks.integer(1), checks.choice("a", "b", later=("c",)),
    checks.duration(), checks.or_none(checks.duration(zero=True), "0s"), checks.size(), checks.byte_rate, checks.rate,
    checks.percent, checks.listen_address, checks.dial_address, checks.app_address, checks.path, checks.path_pattern,
    checks.normal_path, checks.method, checks.upgrade, checks.host_name, checks.host_pattern, checks.header_name,
    checks.header_value, checks.server_name, checks.trust_domain, checks.endpoint_address, checks.app_or_name,
    checks.url, checks.secret, checks.retry_condition, checks.status_range, checks.port_or_name,
    checks.percentage(100, 1000),
    *(checks.peer_pattern(kind) for kind in ("spiffe", "uri", "dns", "cn")),
]  # fmt: skip
TEXTS = st.text() | st.from_regex(
    r"[0-9]{0,30}(\.[0-9]+)?(ms|s|h|d|B|KiB|MiB/s|%|/s)?", fullmatch=True
)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | TEXTS.map(Substituted)
    | st.just([1]) | st.just({"a": 1}) | st.just(BROKEN)
)  # fmt: skip


def _outcome(check: Any, value: Any) -> tuple[Any, str]:
    try:
        return check(value), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("check", EVERY_CHECK)
@given(value=VALUES)
def test_a_check_gives_a_value_or_a_printable_sentence(check: Any, value: Any) -> None:
    """config.md §1; threats I5."""
    result, sentence = _outcome(check, value)

    assert sentence.isprintable()
    assert not isinstance(result, Substituted)


@pytest.mark.parametrize("check", EVERY_CHECK)
@given(value=st.text(alphabet="qQ/*.:é\x1b", min_size=4).map(Substituted))
def test_no_sentence_contains_a_replaced_value(check: Any, value: Substituted) -> None:
    """Threats I3."""
    _, sentence = _outcome(check, value)

    assert str(value) not in sentence


@given(value=st.text() | st.lists(st.text()) | st.integers())
def test_no_sentence_contains_a_secret_that_was_written_down(value: Any) -> None:
    """Threats I3: a token is one, replaced or not; so every refusal is the same sentence."""
    _, sentence = _outcome(checks.secret, value)

    assert sentence in {
        "",
        "expected 1 to 8192 printable ASCII characters in quotes, got ***",
    }


@pytest.mark.parametrize(
    "text", ["https://u:hunter2@a", "http://a?t=hunter2", "x#hunter2", "hunter2@"]
)
def test_no_sentence_contains_a_url_that_may_hold_a_password(text: str) -> None:
    """Threats I3: URLs without userinfo and query."""
    _, sentence = _outcome(checks.url, text)

    assert sentence
    assert "hunter2" not in sentence


def test_a_url_ends_without_a_slash_and_knows_whether_it_stays_here() -> None:
    """Paths are added behind it; a secret may go in the clear only on this machine."""
    there = checks.url("https://Etcd.internal:2379/a/")
    here = checks.url("http://[::1]:8500")

    assert (there.text, there.is_encrypted, there.is_local) == (
        "https://Etcd.internal:2379/a", True, False,
    )  # fmt: skip
    assert (here.text, here.is_encrypted, here.is_local) == ("http://[::1]:8500", False, True)
    assert checks.url("http://127.1.2.3/").is_local
    assert checks.url("http://localhost.").is_local
    assert not checks.url("http://localhost.example.org").is_local


def test_replaced_text_may_be_a_status_or_a_port() -> None:
    """A variable is always text."""
    assert checks.retry_condition(Substituted("503")) == 503
    assert checks.retry_condition(Substituted("5xx")) == "5xx"
    assert checks.status_range(Substituted("204")) == (204, 204)
    assert checks.status_range(Substituted("200-299")) == (200, 299)
    assert checks.port_or_name(Substituted("8443")) == 8443
    assert checks.port_or_name(Substituted("mtls")) == "mtls"


@given(st.integers(1, 999_999))
def test_durations_are_read_as_they_are_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert checks.duration()(format_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(1, 2**40))
def test_sizes_are_read_as_they_are_written(size: int) -> None:
    assert checks.size()(format_size(size)) == size


def test_decimals_are_fine() -> None:
    """config.md §1."""
    assert checks.duration()("1.5s") == 1.5
    assert checks.size()("1.5KiB") == 1536
    assert checks.percent("12.5%") == 0.125
    assert checks.rate("1.5/s") == 1.5
    assert checks.byte_rate("1.5KiB/s") == 1536.0


def test_replaced_text_may_be_a_number_or_a_boolean() -> None:
    """A variable is always text; `max_connections: ${N}` means the number."""
    assert checks.integer(1)(Substituted("7")) == 7
    assert checks.flag(Substituted("true")) is True
    assert checks.flag(Substituted("false")) is False
    assert checks.app_address(Substituted("8080")).port == 8080


def test_names_of_hosts_and_fields_are_compared_in_lower_case() -> None:
    """RFC 9110 §4.2.3, §5.1."""
    assert checks.host_pattern("*.Example.ORG.") == "*.example.org"
    assert checks.header_name("X-Canary") == "x-canary"
    assert checks.upgrade("WebSocket") == "websocket"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Host", "hosts are matched by host"),
        ("TE", "ends at each hop"),
        ("X-Forwarded-Client-Cert", "dropped before routing"),
    ],
)
def test_a_field_that_is_gone_when_routes_are_asked_is_no_condition(name: str, words: str) -> None:
    """Threats A2: such a route would be passed over without a word."""
    with pytest.raises(ValueError, match=words):
        checks.header_name(name)


@pytest.mark.parametrize("value", ["10.0.0.1", "[::1]"])
def test_no_address_is_asked_for_by_name(value: str) -> None:
    """RFC 6066 §3: literal addresses are not permitted in SNI."""
    with pytest.raises(ValueError, match="expected a DNS name"):
        checks.server_name(value)
