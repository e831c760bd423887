"""Names as Envoy writes them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from ambassador.identity.names import read_names
from tests.support.certificates import Authority

AUTHORITY = Authority("names CA")
CN, O, OU, C = (  # noqa: E741
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COUNTRY_NAME,
)


def _attribute(
    oid: x509.ObjectIdentifier, text: str | bytes, kind: _ASN1Type | None = None
) -> x509.NameAttribute:
    return x509.NameAttribute(oid, text, kind, _validate=False)  # type: ignore[arg-type]


def _subject(name: x509.Name) -> str:
    return read_names(AUTHORITY.issue(subject=name, dns=["a"]).der).subject


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ([], ""),
        ([(C, "US"), (O, 'Acme, "Inc'), (CN, "client=1")], 'CN=client=1,O=Acme\\, \\"Inc,C=US'),
        ([(CN, "a\r\nb\x00c\x1bd\x7f")], "CN=a\\0D\\0Ab\\00c\\1Bd\\7F"),
        ([(CN, "é\u2028")], "CN=\\C3\\A9\\E2\\80\\A8"),
        ([(CN, " x ")], "CN=\\ x\\ "),
        ([(CN, " ")], "CN=\\ "),
        ([(CN, "#x#")], "CN=\\#x#"),
        ([(CN, "a+b;c<d>e\\f")], "CN=a\\+b\\;c\\<d\\>e\\\\f"),
        ([(NameOID.USER_ID, "u"), (NameOID.DOMAIN_COMPONENT, "d")], "DC=d,UID=u"),
        ([(NameOID.EMAIL_ADDRESS, "a@b")], "emailAddress=a@b"),
        ([(NameOID.SURNAME, "s"), (NameOID.GIVEN_NAME, "g")], "GN=g,SN=s"),
    ],
)
def test_a_subject_is_rfc_2253_text_backwards(
    attributes: list[tuple[x509.ObjectIdentifier, str]], text: str
) -> None:
    """RFC 2253 §2; controls and non-ASCII bytes as hex pairs, as XN_FLAG_RFC2253 does (threats A4)."""
    name = x509.Name([_attribute(oid, value) for oid, value in attributes])

    assert _subject(name) == text


def test_several_attributes_in_one_set_are_joined_by_plus_backwards() -> None:
    """RFC 2253 §2.2 with XN_FLAG_DN_REV."""
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([_attribute(CN, "x"), _attribute(OU, "y")]),
            x509.RelativeDistinguishedName([_attribute(O, "z")]),
        ]
    )

    assert _subject(name) in {"O=z,OU=y+CN=x", "O=z,CN=x+OU=y"}


def test_unknown_attributes_are_dumped() -> None:
    """RFC 2253 §2.4: an attribute without a name is its OID, its value the hex of its DER."""
    unknown = x509.ObjectIdentifier("1.2.3.999")

    assert _subject(x509.Name([_attribute(unknown, "hi")])) == "1.2.3.999=#0C026869"


@pytest.mark.parametrize(
    ("dotted", "text"),
    [
        ("2.5.4.97", "2.5.4.97=#0C0176"),
        ("1.3.6.1.4.1.311.60.2.1.1", "1.3.6.1.4.1.311.60.2.1.1=#0C0176"),
        ("2.5.4.20", "telephoneNumber=v"),
        ("0.9.2342.19200300.100.1.41", "mobileTelephoneNumber=v"),
        ("1.3.6.1.5.5.7.9.2", "id-pda-placeOfBirth=v"),
    ],
)
def test_attributes_have_the_names_of_boringssl(dotted: str, text: str) -> None:
    """Protocols §1: byte for byte as Envoy writes it; OpenSSL of today names more or other types."""
    name = x509.Name([_attribute(x509.ObjectIdentifier(dotted), "v")])

    assert _subject(name) == text


@pytest.mark.parametrize("kind", [_ASN1Type.BMPString, _ASN1Type.UniversalString])
def test_every_kind_of_string_becomes_the_same_text(kind: _ASN1Type) -> None:
    """X.680 §41: two and four bytes a character are converted to UTF-8 before they are escaped."""
    assert _subject(x509.Name([_attribute(CN, "aé", kind)])) == "CN=a\\C3\\A9"


def test_a_bit_string_is_dumped() -> None:
    """OpenSSL's DUMP_UNKNOWN: what is no text is shown as DER."""
    name = x509.Name(
        [x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\xff", _ASN1Type.BitString)]
    )

    assert _subject(name) == "x500UniqueIdentifier=#030200FF"


def test_the_common_names_of_the_subject_are_all_given() -> None:
    """RFC 9525: one CN may be a name, two are none."""
    name = x509.Name([_attribute(CN, "one"), _attribute(CN, "two")])

    names = read_names(AUTHORITY.issue(subject=name).der)

    assert names.common_names == ("one", "two")
    assert names.issuer == "CN=names CA"


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_cut_certificate_is_a_value_error(cut: int) -> None:
    """Nothing is read beyond the bytes that are there."""
    der = AUTHORITY.certificate.public_bytes(Encoding.DER)

    with pytest.raises(ValueError, match="not a certificate"):
        read_names(der[:cut])
