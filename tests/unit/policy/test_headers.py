"""Roles of field names, and what is removed (RFC 9110 §7.6.1; threats A1-A3, A6, A7, A9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambassador.core.model import (
    BROWSER,
    CONNECTION,
    CONTENT_LENGTH,
    CREDENTIAL,
    EXPECT,
    FORWARDED_CERT,
    FORWARDED_FOR,
    HOP_BY_HOP,
    HOST,
    IDENTITY,
    OVERRIDE,
    PROTECTED,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    VIA,
    WIRE_ROLES,
)
from ambassador.policy.headers import (
    classify,
    fold,
    joined,
    sanitize,
    sanitize_response,
    sanitize_trailers,
)
from tests.unit.policy.make import fields, names, request, response

OURS = [
    b"X-Forwarded-Client-Cert",
    b"Client-Cert",
    b"Client-Cert-Chain",
    b"Forwarded",
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"X-Forwarded-Tls-Client-Cert",
    b"X-Real-Ip",
    b"X-Client-Ip",
    b"True-Client-Ip",
    b"CF-Connecting-IP",
    b"X-Cluster-Client-Ip",
    b"X-SSL-Client-Verify",
    b"X-Client-Cert-Subject",
    b"SSL-Client-Cert",
    b"X-Envoy-External-Address",
    b"X-Envoy-Original-Path",
    b"X-Envoy-Peer-Metadata-Id",
    b"X-Ambassador-Flags",
    b"X-Ambassador-Peer",
    b"X-Ambassador",
    b"l5d-client-id",
    b"WL-Proxy-Client-Cert",
    b"Proxy",
]
SPELLINGS: list[Callable[[bytes], bytes]] = [
    bytes.lower,
    bytes.upper,
    bytes.title,
    lambda name: name.replace(b"-", b"_"),
    lambda name: name.replace(b"-", b"."),
    lambda name: name.replace(b"-", b"_", 1).upper(),
    lambda name: name.replace(b"-", b"~"),
]
OVERRIDES = [
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"X-HTTP-Method-Override",
    b"X-HTTP-Method",
    b"X-Method-Override",
    b"X-Original-URI",
    b"X_Original_Url",
    b"x.rewrite.url",
]
ORDINARY = [
    b"accept",
    b"content-type",
    b"x-remote-user",
    b"x-client-version",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-attempt-count",
    b"x_custom",
    b"grpc-timeout",
    b"x-forwarder",
    b"proxied",
]


@pytest.mark.parametrize("spelled", SPELLINGS)
@pytest.mark.parametrize("name", OURS)
def test_an_identity_field_is_ours_in_every_spelling(
    name: bytes, spelled: Callable[[bytes], bytes]
) -> None:
    """Threats A1: Traefik CVE-2026-39858 (`_`), CVE-2026-88011 (`.`), httpoxy."""
    assert classify(spelled(name)) & IDENTITY


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_field_is_known_in_every_spelling(name: bytes) -> None:
    """Threats A7."""
    assert classify(name) & (OVERRIDE | IDENTITY) == OVERRIDE


@pytest.mark.parametrize("name", ORDINARY)
def test_a_field_of_the_application_is_neither_identity_nor_framing(name: bytes) -> None:
    """What a peer says about users, or about itself in its own words, is its own business."""
    assert not classify(name) & (IDENTITY | OVERRIDE | WIRE_ROLES)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        (b"host", HOST | PROTECTED),
        (b"content-length", CONTENT_LENGTH | PROTECTED),
        (b"transfer-encoding", TRANSFER_ENCODING | PROTECTED),
        (b"connection", CONNECTION | PROTECTED),
        (b"upgrade", UPGRADE),
        (b"expect", EXPECT | PROTECTED),
        (b"keep-alive", HOP_BY_HOP),
        (b"te", HOP_BY_HOP),
        (b"trailer", HOP_BY_HOP),
        (b"http2-settings", HOP_BY_HOP),
        (b"proxy-connection", HOP_BY_HOP | CREDENTIAL),
        (b"proxy-authorization", HOP_BY_HOP | CREDENTIAL),
        (b"proxy-authenticate", HOP_BY_HOP | CREDENTIAL),
        (b"proxy-authentication-info", HOP_BY_HOP | CREDENTIAL),
        (b"via", VIA | PROTECTED),
        (b"x-request-id", REQUEST_ID | PROTECTED),
        (b"traceparent", TRACEPARENT | PROTECTED),
        (b"tracestate", TRACESTATE | PROTECTED),
        (b"origin", BROWSER | PROTECTED),
        (b"sec-fetch-site", BROWSER | PROTECTED),
        (b"user-agent", USER_AGENT),
        (b"x-forwarded-client-cert", IDENTITY | FORWARDED_CERT),
        (b"x-forwarded-for", IDENTITY | FORWARDED_FOR),
        (b"authorization", PROTECTED | CREDENTIAL),
        (b"cookie", PROTECTED | CREDENTIAL),
        (b"set-cookie", PROTECTED | CREDENTIAL),
        (b"cache-control", PROTECTED),
        (b"b3", PROTECTED),
        (b"accept", 0),
        (b"etag", 0),
    ],
)
def test_a_name_has_exactly_these_roles_in_any_case(name: bytes, role: int) -> None:
    """RFC 9110 §5.1 (names are case-insensitive), §7.6.1, §11.7."""
    assert classify(name) == role
    assert classify(name.upper()) == role


@pytest.mark.parametrize("name", [b"x_forwarded_for", b"x.forwarded.client.cert"])
def test_an_alias_of_a_forwarding_field_is_dropped_but_never_read(name: bytes) -> None:
    """Threats A5: only the exact name can be believed."""
    assert classify(name) == IDENTITY


@pytest.mark.parametrize(
    "name",
    [b"content_length", b"Transfer.Encoding", b"keep_alive", b"proxy_connection", b"x_request_id"],
)
def test_an_alias_of_what_we_frame_by_or_set_is_dropped(name: bytes) -> None:
    """Threats G1: CONTENT_LENGTH is the same CGI variable."""
    assert classify(name) & (IDENTITY | WIRE_ROLES | REQUEST_ID) == IDENTITY


@pytest.mark.parametrize(
    "name",
    [
        b"authorization", b"proxy-foo", b"cookie", b"x-csrf-token", b"x-api-key", b"client-secret",
        b"x_api_key", b"password", b"x-auth-user", b"x-session-id",
    ],
)  # fmt: skip
def test_a_field_whose_name_sounds_secret_is_a_credential(name: bytes) -> None:
    """Threats E7: it is never kept in the line cache, never logged."""
    assert classify(name) & CREDENTIAL


def test_folding_makes_all_punctuation_of_a_token_one() -> None:
    """lighttpd and PHP turn more than `-` into `_`."""
    assert fold(b"X!#$%&'*+.^_`|~-Y9") == b"x---------------y9"


@given(st.binary(max_size=40))
def test_a_name_and_its_folded_form_are_both_dropped_or_both_unknown(name: bytes) -> None:
    """Whatever is dropped under its plain name is dropped under every alias."""
    if classify(fold(name)) & IDENTITY:
        assert classify(name) & IDENTITY


def test_sanitize_removes_every_identity_field_doubled_ones_too() -> None:
    """Threats A1; the order of the rest stays."""
    head = request(
        (b"Accept", b"1"), (b"X-Forwarded-For", b"a"), (b"x_forwarded_for", b"b"), (b"Proxy", b"c"),
        (b"X-Forwarded-For", b"d"), (b"X-Original-URL", b"/admin"), (b"X-Last", b"2"),
    )  # fmt: skip

    dropped = sanitize(head, drop_overrides=False)

    assert names(head) == [b"accept", b"x-original-url", b"x-last"]
    assert [x.value for x in dropped] == [b"a", b"b", b"c", b"d"]


def test_sanitize_removes_override_fields_where_rules_name_paths_or_methods() -> None:
    """Threats A7: Symfony CVE-2018-14773."""
    head = request((b"X-HTTP-Method-Override", b"DELETE"), (b"Accept", b"1"))

    sanitize(head, drop_overrides=True)

    assert names(head) == [b"accept"]


def test_sanitize_leaves_a_clean_head_untouched() -> None:
    """Hot path: the list is not even copied."""
    head = request((b"Accept", b"1"))
    before = head.fields

    dropped = sanitize(head, drop_overrides=True)

    assert head.fields is before
    assert dropped == ()


def test_sanitize_drops_nothing_when_the_field_has_left_the_head_already() -> None:
    """`roles` also tells of fields that are no longer there."""
    head = request((b"Accept", b"1"))
    head.roles |= IDENTITY
    before = head.fields

    dropped = sanitize(head, drop_overrides=False)

    assert head.fields is before
    assert not dropped


def test_a_response_loses_our_names_and_aliases_of_framing_and_nothing_else() -> None:
    """Threats A9."""
    head = response(
        (b"X-Ambassador-Flags", b"UF"), (b"x_ambassador_detail", b"x"), (b"Content_Length", b"5"),
        (b"X-Forwarded-Proto", b"https"), (b"Server", b"app"),
    )  # fmt: skip

    sanitize_response(head)

    assert names(head) == [b"x-forwarded-proto", b"server"]


def test_a_clean_response_is_left_untouched() -> None:
    """Hot path: the list is not even copied."""
    head = response((b"Server", b"app"))
    before = head.fields

    sanitize_response(head)

    assert head.fields is before


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"TE", b"Trailer", b"Upgrade",
        b"content_length", b"X-Forwarded-Client-Cert", b"x_forwarded_for", b"X-Original-URL", b"Via",
        b"Authorization", b"Cookie", b"Set-Cookie", b"Cache-Control", b"Content-Type", b"Content-Encoding",
        b"Content-Range", b"If-Match", b"Range", b"Max-Forwards", b"Expect", b"X-Request-Id", b"traceparent",
        b"Origin", b"Location", b"Vary", b"X-Ambassador-Flags", b"Proxy-Authorization", b"Proxy",
    ],
)  # fmt: skip
def test_a_trailer_with_a_meaning_to_routing_or_framing_is_removed(name: bytes) -> None:
    """RFC 9110 §6.5.1; threats A6."""
    assert sanitize_trailers(fields((name, b"1"))) == []


@pytest.mark.parametrize(
    "name",
    [
        b"Grpc-Status",
        b"Digest",
        b"ETag",
        b"Server-Timing",
        b"X-Amz-Trailer-Signature",
        b"X-Checksum-Key",
    ],
)
def test_an_ordinary_trailer_goes_on(name: bytes) -> None:
    """RFC 9110 §6.5; gRPC lives by them."""
    trailers = fields((name, b"1"))

    assert sanitize_trailers(trailers) == trailers


def test_values_of_one_role_are_joined_in_order() -> None:
    """RFC 9110 §5.3."""
    found = fields(
        (b"X-Forwarded-For", b"a"), (b"x_forwarded_for", b"no"), (b"x-forwarded-for", b"b, c")
    )

    assert joined(found, FORWARDED_FOR) == b"a,b, c"
