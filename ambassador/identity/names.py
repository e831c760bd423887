"""X.500 names as text, exactly as Envoy writes them into X-Forwarded-Client-Cert.

Knows just enough DER to walk a certificate that OpenSSL has already parsed and verified, and the rules of
`X509_NAME_print_ex(XN_FLAG_RFC2253)`, which Envoy calls. `cryptography`'s own `rfc4514_string` differs: it
knows fewer attribute names, escapes `=`, and leaves control characters and non-ASCII text as they are.
"""

from __future__ import annotations

from typing import Final

#: The short names of BoringSSL (crypto/obj/obj_dat.h), which Envoy is built with, for every attribute type of X.500,
#: X.501, COSINE (RFC 4524), PKCS #9 and personal data (RFC 3739), as a running Envoy 1.40 wrote them. An attribute
#: without one is written as its OID, its value as `#` and hex DER: among them are, other than in OpenSSL,
#: organizationIdentifier (2.5.4.97) and the jurisdictions of EV certificates. OIDs that name no attribute
#: (algorithms, extensions) are left out, though BoringSSL would name those too.
_SHORT_NAMES: Final = {
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.2": "textEncodedORAddress",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.4": "info",
    "0.9.2342.19200300.100.1.5": "favouriteDrink",
    "0.9.2342.19200300.100.1.6": "roomNumber",
    "0.9.2342.19200300.100.1.7": "photo",
    "0.9.2342.19200300.100.1.8": "userClass",
    "0.9.2342.19200300.100.1.9": "host",
    "0.9.2342.19200300.100.1.10": "manager",
    "0.9.2342.19200300.100.1.11": "documentIdentifier",
    "0.9.2342.19200300.100.1.12": "documentTitle",
    "0.9.2342.19200300.100.1.13": "documentVersion",
    "0.9.2342.19200300.100.1.14": "documentAuthor",
    "0.9.2342.19200300.100.1.15": "documentLocation",
    "0.9.2342.19200300.100.1.20": "homeTelephoneNumber",
    "0.9.2342.19200300.100.1.21": "secretary",
    "0.9.2342.19200300.100.1.22": "otherMailbox",
    "0.9.2342.19200300.100.1.23": "lastModifiedTime",
    "0.9.2342.19200300.100.1.24": "lastModifiedBy",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.26": "aRecord",
    "0.9.2342.19200300.100.1.27": "pilotAttributeType27",
    "0.9.2342.19200300.100.1.28": "mXRecord",
    "0.9.2342.19200300.100.1.29": "nSRecord",
    "0.9.2342.19200300.100.1.30": "sOARecord",
    "0.9.2342.19200300.100.1.31": "cNAMERecord",
    "0.9.2342.19200300.100.1.37": "associatedDomain",
    "0.9.2342.19200300.100.1.38": "associatedName",
    "0.9.2342.19200300.100.1.39": "homePostalAddress",
    "0.9.2342.19200300.100.1.40": "personalTitle",
    "0.9.2342.19200300.100.1.41": "mobileTelephoneNumber",
    "0.9.2342.19200300.100.1.42": "pagerTelephoneNumber",
    "0.9.2342.19200300.100.1.43": "friendlyCountryName",
    "0.9.2342.19200300.100.1.45": "organizationalStatus",
    "0.9.2342.19200300.100.1.46": "janetMailbox",
    "0.9.2342.19200300.100.1.47": "mailPreferenceOption",
    "0.9.2342.19200300.100.1.48": "buildingName",
    "0.9.2342.19200300.100.1.49": "dSAQuality",
    "0.9.2342.19200300.100.1.50": "singleLevelQuality",
    "0.9.2342.19200300.100.1.51": "subtreeMinimumQuality",
    "0.9.2342.19200300.100.1.52": "subtreeMaximumQuality",
    "0.9.2342.19200300.100.1.53": "personalSignature",
    "0.9.2342.19200300.100.1.54": "dITRedirect",
    "0.9.2342.19200300.100.1.55": "audio",
    "0.9.2342.19200300.100.1.56": "documentPublisher",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.3": "contentType",
    "1.2.840.113549.1.9.4": "messageDigest",
    "1.2.840.113549.1.9.5": "signingTime",
    "1.2.840.113549.1.9.6": "countersignature",
    "1.2.840.113549.1.9.7": "challengePassword",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.2.840.113549.1.9.9": "extendedCertificateAttributes",
    "1.2.840.113549.1.9.14": "extReq",
    "1.2.840.113549.1.9.15": "SMIME-CAPS",
    "1.2.840.113549.1.9.20": "friendlyName",
    "1.2.840.113549.1.9.21": "localKeyID",
    "1.3.6.1.4.1.311.20.2.3": "msUPN",
    "1.3.6.1.5.5.7.9.1": "id-pda-dateOfBirth",
    "1.3.6.1.5.5.7.9.2": "id-pda-placeOfBirth",
    "1.3.6.1.5.5.7.9.3": "id-pda-gender",
    "1.3.6.1.5.5.7.9.4": "id-pda-countryOfCitizenship",
    "1.3.6.1.5.5.7.9.5": "id-pda-countryOfResidence",
    "2.5.1.5.55": "clearance",
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.14": "searchGuide",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.19": "physicalDeliveryOfficeName",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.21": "telexNumber",
    "2.5.4.22": "teletexTerminalIdentifier",
    "2.5.4.23": "facsimileTelephoneNumber",
    "2.5.4.24": "x121Address",
    "2.5.4.25": "internationaliSDNNumber",
    "2.5.4.26": "registeredAddress",
    "2.5.4.27": "destinationIndicator",
    "2.5.4.28": "preferredDeliveryMethod",
    "2.5.4.29": "presentationAddress",
    "2.5.4.30": "supportedApplicationContext",
    "2.5.4.31": "member",
    "2.5.4.32": "owner",
    "2.5.4.33": "roleOccupant",
    "2.5.4.34": "seeAlso",
    "2.5.4.35": "userPassword",
    "2.5.4.36": "userCertificate",
    "2.5.4.37": "cACertificate",
    "2.5.4.38": "authorityRevocationList",
    "2.5.4.39": "certificateRevocationList",
    "2.5.4.40": "crossCertificatePair",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.47": "enhancedSearchGuide",
    "2.5.4.48": "protocolInformation",
    "2.5.4.49": "distinguishedName",
    "2.5.4.50": "uniqueMember",
    "2.5.4.51": "houseIdentifier",
    "2.5.4.52": "supportedAlgorithms",
    "2.5.4.53": "deltaRevocationList",
    "2.5.4.54": "dmdName",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
}
_COMMON_NAME: Final = "2.5.4.3"
#: ASN.1 string types and how their bytes become text; every other type is dumped as DER.
_ENCODINGS: Final = {
    12: "utf-8",
    18: "latin-1",
    19: "latin-1",
    20: "latin-1",
    22: "latin-1",
    23: "latin-1",
    24: "latin-1",
    26: "latin-1",
    28: "utf-32-be",
    30: "utf-16-be",
}
_VERSION_TAG: Final = 0xA0  # [0] EXPLICIT, left out in version 1
_EXTENSIONS_TAG: Final = 0xA3  # [3] EXPLICIT
_ALTERNATIVE_NAME: Final = b"\x55\x1d\x11"  # 2.5.29.17
_FIRST_PRINTABLE: Final = 0x20
_LAST_PRINTABLE: Final = 0x7E
_SPECIAL: Final = frozenset(b'",+;<>\\')


class Names:
    """Subject and issuer of one certificate: texts, and the common names of the subject."""

    __slots__ = ("common_names", "issuer", "subject")

    def __init__(self, subject: str, issuer: str, common_names: tuple[str, ...]) -> None:
        self.subject = subject
        self.issuer = issuer
        self.common_names = common_names


def read_names(certificate: bytes) -> Names:
    """Give the names of a DER certificate.

    Errors: ValueError when the bytes are no certificate.
    Source: RFC 5280 §4.1; RFC 2253 §2.
    """
    try:
        body = _content(_content(memoryview(certificate)))
        fields = _children(body)
        if fields[0][0] == _VERSION_TAG:
            del fields[0]
        issuer, subject = _name(fields[2][1]), _name(fields[4][1])
    except IndexError as error:
        raise ValueError("not a certificate") from error
    common = tuple(
        _text(attribute) or ""
        for attributes in subject
        for attribute in attributes
        if attribute.oid == _COMMON_NAME
    )
    return Names(_render(subject), _render(issuer), common)


class _Attribute:
    """One attribute of a name: OID, ASN.1 type, value, and the whole value as DER."""

    __slots__ = ("der", "oid", "tag", "value")

    def __init__(self, oid: str, tag: int, value: bytes, der: bytes) -> None:
        self.oid = oid
        self.tag = tag
        self.value = value
        self.der = der


def _name(content: memoryview) -> list[list[_Attribute]]:
    """Read a Name: a sequence of sets of attributes."""
    return [
        [_attribute(pair) for _, pair, _ in _children(members)]
        for _, members, _ in _children(content)
    ]


def _attribute(pair: memoryview) -> _Attribute:
    (_, oid, _), (tag, value, der) = _children(pair)[:2]
    return _Attribute(_dotted(oid), tag, bytes(value), bytes(der))


def _render(name: list[list[_Attribute]]) -> str:
    """Write a name backwards: the last set first, and within a set the last attribute first (XN_FLAG_DN_REV)."""
    return ",".join(
        "+".join(_render_attribute(attribute) for attribute in reversed(attributes))
        for attributes in reversed(name)
    )


def _render_attribute(attribute: _Attribute) -> str:
    short_name = _SHORT_NAMES.get(attribute.oid)
    text = _text(attribute) if short_name else None
    value = "#" + attribute.der.hex().upper() if text is None else _escape(text)
    return f"{short_name or attribute.oid}={value}"


def _text(attribute: _Attribute) -> str | None:
    """Decode a value; None for what is no text."""
    encoding = _ENCODINGS.get(attribute.tag)
    if encoding is None:
        return None
    try:
        return attribute.value.decode(encoding)
    except UnicodeDecodeError:
        return None


def _escape(text: str) -> str:
    """Escape as ASN1_STRFLGS_RFC2253 does: specials by a backslash, controls and non-ASCII bytes as hex pairs.

    Source: RFC 2253 §2.4, with OpenSSL's ESC_CTRL and ESC_MSB.
    """
    pieces = []
    encoded = text.encode("utf-8", "surrogatepass")
    last = len(encoded) - 1
    for place, byte in enumerate(encoded):
        character = chr(byte)
        if not _FIRST_PRINTABLE <= byte <= _LAST_PRINTABLE:
            pieces.append(f"\\{byte:02X}")
        elif byte in _SPECIAL or _is_border(character, place, last):
            pieces.append("\\" + character)
        else:
            pieces.append(character)
    return "".join(pieces)


def _is_border(character: str, place: int, last: int) -> bool:
    """Say whether a blank at either end, or a `#` at the start, needs its backslash here."""
    if character == " ":
        return place in {0, last}
    return character == "#" and place == 0


def _dotted(content: memoryview) -> str:
    """Decode an object identifier (X.690 §8.19)."""
    numbers: list[int] = []
    value = 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))


def read_alternative_names(certificate: bytes) -> list[tuple[int, bytes]]:
    """Give tag and content of every alternative name, as far as they can be read; never fails.

    For what a refused peer presented: the parser that refused it gives all of them or none.
    Source: RFC 5280 §4.2.1.6; the tags are context-specific.
    """
    found: list[tuple[int, bytes]] = []
    try:
        names = _alternative_names(certificate)
        place = 0
        while place < len(names):
            tag, inner, place = _element(names, place)
            found.append((tag, bytes(inner)))
    except IndexError:
        return found
    return found


def _alternative_names(certificate: bytes) -> memoryview:
    """Walk to the content of the subjectAltName extension; empty without one."""
    fields = _children(_content(_content(memoryview(certificate))))
    for tag, explicit, _ in fields:
        if tag != _EXTENSIONS_TAG:
            continue
        for _, extension, _ in _children(_content(explicit)):
            parts = _children(extension)
            if bytes(parts[0][1]) == _ALTERNATIVE_NAME:
                return _content(parts[-1][1])
    return memoryview(b"")


def _content(der: memoryview) -> memoryview:
    return _element(der, 0)[1]


def _children(content: memoryview) -> list[tuple[int, memoryview, memoryview]]:
    """Split into (tag, content, whole element)."""
    elements = []
    place = 0
    while place < len(content):
        tag, inner, end = _element(content, place)
        elements.append((tag, inner, content[place:end]))
        place = end
    return elements


def _element(der: memoryview, start: int) -> tuple[int, memoryview, int]:
    """Read one element: tag, content, index behind it. Lengths are definite in DER (X.690 §10.1)."""
    tag, length, place = der[start], der[start + 1], start + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[place : place + size], "big")
        place += size
    if place + length > len(der):
        raise IndexError
    return tag, der[place : place + length], place + length
