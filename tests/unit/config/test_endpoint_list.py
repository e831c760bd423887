"""Lists of endpoints in files of their own."""

from __future__ import annotations

import json

import pytest

from ambassador.config.endpoint_list import parse
from ambassador.core.errors import DiscoveryError
from ambassador.core.model import Address, Endpoint


def ends(text: str) -> list[str]:
    return [str(endpoint) for endpoint in parse(text.encode(), file="e.yaml")]


@pytest.mark.parametrize(
    "text",
    [
        '["10.0.0.1:1", "[fd00::1]:2"]',
        '[\n\t"10.0.0.1:1",\n\t"[fd00::1]:2"\n]',
        "- 10.0.0.1:1\n- '[fd00::1]:2'\n",
        "- {address: 10.0.0.1:1}\n- address: '[fd00::1]:2'\n",
        '[{"targets": ["10.0.0.1:1", "[fd00::1]:2"], "labels": {"job": "x", "env": "y"}}]',
        "- targets: [10.0.0.1:1]\n- targets: ['[fd00::1]:2']\n  labels: {}\n",
    ],
)
def test_json_and_yaml_and_file_sd_are_read(text: str) -> None:
    assert ends(text) == ["10.0.0.1:1", "[fd00::1]:2"]


def test_weight_zone_and_priority_are_read_in_each_shape() -> None:
    ours = [{"address": "10.0.0.1:1", "weight": 3, "zone": "a", "priority": 2}]
    theirs = [{"targets": ["10.0.0.1:1"], "labels": {"weight": "3", "zone": "a", "priority": "2"}}]

    expected = (Endpoint(Address("10.0.0.1", 1), 3, "a", 2),)
    assert parse(json.dumps(ours).encode(), file="x") == expected
    assert parse(json.dumps(theirs).encode(), file="x") == expected


def test_a_zone_that_is_a_number_is_its_text() -> None:
    (endpoint,) = parse(b"- {address: 10.0.0.1:1, zone: 3}", file="x")

    assert endpoint.zone == "3"


def test_an_empty_list_is_empty() -> None:
    assert parse(b"[]", file="x") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "e.yaml: it is empty; an empty list is []"),
        ("{}", "e.yaml: expected a list of endpoints"),
        ("10.0.0.1:1", "e.yaml: expected a list of endpoints"),
        ("- nonsense\n", "e.yaml: [0]: expected"),
        ("- 10.0.0.1:1\n- payments:1\n", "e.yaml: [1]: expected"),
        ("- {address: 10.0.0.1:1, wieght: 1}\n", 'unknown key "wieght"; did you mean weight?'),
        ("- {address: 10.0.0.1:1, nonsense: 1}\n", "known are address, weight, zone, priority"),
        ("- {weight: 1}\n", 'address missing; write address: "IP:PORT"'),
        ("- {address: 10.0.0.1:1, weight: 0}\n", "[0]: expected"),
        ("- {address: 10.0.0.1:1, zone: ''}\n", "[0]: expected 1 to 255 printable"),
        ("- {targets: 10.0.0.1:1}\n", "expected targets: [ADDRESS, …]"),
        ("- {targets: [10.0.0.1:1], labels: {weight: x}}\n", "[0]: expected"),
        ("- ${HOME}\n", "nothing is substituted here"),
        ("- '${file:/etc/passwd}'\n", "nothing is substituted here"),
        ("- [\n", "e.yaml"),
        ('["10.0.0.1:1"', "e.yaml"),
        ("- &a 10.0.0.1:1\n- *a\n", "anchors and aliases"),
        ("[" * 100_000, "e.yaml"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        parse(text.encode(), file="e.yaml")

    assert caught.value.reason == "file_malformed"
    assert words in str(caught.value)


def test_a_file_cannot_move_a_terminal_s_cursor() -> None:
    with pytest.raises(DiscoveryError) as caught:
        parse(b'["\\u001b[2J"]', file="x")

    assert "\x1b" not in str(caught.value)
