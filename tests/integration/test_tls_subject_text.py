"""Our text of a subject against OpenSSL's own, by the rules that are BoringSSL's, thus Envoy's, too.

The few attributes whose names differ between the two are in the unit test of `names` and the interop test.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ambassador.identity.names import read_names
from tests.support.certificates import Authority

AUTHORITY = Authority("subjects CA")
OPENSSL = shutil.which("openssl")

_OIDS = (
    *(NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME),
    *(NameOID.LOCALITY_NAME, NameOID.STATE_OR_PROVINCE_NAME, NameOID.STREET_ADDRESS),
    *(NameOID.SURNAME, NameOID.GIVEN_NAME, NameOID.INITIALS, NameOID.PSEUDONYM, NameOID.TITLE),
    *(NameOID.SERIAL_NUMBER, NameOID.POSTAL_CODE, NameOID.DN_QUALIFIER, NameOID.BUSINESS_CATEGORY),
    *(
        NameOID.USER_ID,
        NameOID.DOMAIN_COMPONENT,
        NameOID.EMAIL_ADDRESS,
        NameOID.GENERATION_QUALIFIER,
    ),
    NameOID.UNSTRUCTURED_NAME,
    x509.ObjectIdentifier("1.2.3.999"),
)
_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_NAMES = st.lists(st.tuples(st.sampled_from(_OIDS), _TEXT), max_size=5)


@pytest.mark.interop
@pytest.mark.skipif(OPENSSL is None, reason="no openssl")
@settings(max_examples=25)
@given(_NAMES)
def test_a_subject_reads_as_openssl_prints_it(
    attributes: list[tuple[x509.ObjectIdentifier, str]],
) -> None:
    """Protocols §1: byte for byte as Envoy writes it.

    But for `#` alone: OpenSSL takes an only character for the last one, where `#` needs no backslash (RFC 2253 §2.4
    says it does, at the start); Envoy's BoringSSL asks for both ends, as we do.
    """
    assume(all(text != "#" for _, text in attributes))
    name = x509.Name(
        [
            x509.NameAttribute(oid, text, _ASN1Type.UTF8String, _validate=False)
            for oid, text in attributes
        ]
    )
    issued = AUTHORITY.issue(subject=name)

    printed = subprocess.run(
        [str(OPENSSL), "x509", "-noout", "-subject", "-nameopt", "RFC2253"],
        input=issued.certificate_pem,
        capture_output=True,
        check=True,
        timeout=10,
    )

    assert f"subject={read_names(issued.der).subject}\n" == printed.stdout.decode()
