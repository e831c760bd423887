from __future__ import annotations

import pytest

from ambassador.core import model
from ambassador.core.model import (
    CREDENTIAL,
    Address,
    Endpoint,
    Field,
    PeerIdentity,
    RequestHead,
    ResponseHead,
)


def identity(
    *,
    spiffe: str | None = None,
    uris: tuple[str, ...] = (),
    dns: tuple[str, ...] = (),
    common_name: str | None = None,
) -> PeerIdentity:
    return PeerIdentity(
        spiffe=spiffe,
        uris=uris,
        dns=dns,
        common_name=common_name,
        subject="",
        issuer="",
        serial="01",
        not_after=0.0,
        fingerprint="00",
        certificate=b"DER-OF-LEAF",
        chain=(b"DER-OF-LEAF",),
    )


def test_roles_are_distinct_bits() -> None:
    names = [
        name
        for name, value in vars(model).items()
        if name.isupper() and isinstance(value, int) and name not in {"WIRE_ROLES", "STAMPED"}
    ]
    values = [getattr(model, name) for name in names]

    assert len(names) >= 19
    assert len(set(values)) == len(values)
    assert all(value.bit_count() == 1 for value in values)


def test_a_credential_is_hidden_when_a_field_is_printed() -> None:
    """Secrets never enter a log, an error or a repr (house §8)."""
    shown = repr(
        Field(b"authorization", b"Bearer s3cret", CREDENTIAL, b"Authorization: Bearer s3cret\r\n")
    )

    assert "s3cret" not in shown
    assert "authorization" in shown


def test_other_fields_are_printed_whole() -> None:
    assert repr(Field(b"accept", b"*/*", 0, b"Accept: */*\r\n")) == "Field(b'accept', b'*/*')"


def test_a_credential_is_hidden_when_its_head_is_printed() -> None:
    field = Field(b"cookie", b"s3cret", CREDENTIAL, b"Cookie: s3cret\r\n")

    shown = (
        repr(RequestHead(b"GET", b"http", b"app", b"/", [field], 0)),
        repr(ResponseHead(200, b"OK", [field], 0)),
    )

    assert all("s3cret" not in text for text in shown)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("127.0.0.1", 8080), "127.0.0.1:8080"),
        (Address("::1", 8080), "[::1]:8080"),
        (Address("localhost", 80), "localhost:80"),
        (Address(path="/run/app.sock"), "unix:/run/app.sock"),
    ],
)
def test_an_address_is_printed_as_the_file_spells_it(address: Address, text: str) -> None:
    assert str(address) == text
    assert str(Endpoint(address)) == text


@pytest.mark.parametrize(
    ("peer", "principal"),
    [
        (identity(spiffe="spiffe://a/b", uris=("spiffe://a/b",), dns=("b.a",)), "spiffe://a/b"),
        (identity(uris=("https://a/b",), dns=("b.a",)), "https://a/b"),
        (identity(dns=("b.a", "c.a")), "b.a"),
        (identity(common_name="b"), "b"),
        (identity(), ""),
    ],
)
def test_the_principal_is_the_strongest_name(peer: PeerIdentity, principal: str) -> None:
    assert peer.principal == principal


def test_a_certificate_does_not_fill_a_printed_identity() -> None:
    assert "DER-OF-LEAF" not in repr(identity())
