"""X.500 names as text, exactly as Envoy writes them into X-Forwarded-Client-Cert.

Knows just enough DER to walk a certificate that OpenSSL has already parsed and verified, and the rules of
`X509_NAME_print_ex(XN_FLAG_RFC2253)`, which Envoy calls. `cryptography`'s own `rfc4514_string` differs: it
knows fewer attribute names, escapes `=`, and leaves control characters and non-ASCII text as they are.
"""

from __future__ import annotations

from typing import Final

#: The short names of OpenSSL; an attribute without one is written as its OID, its value as `#` and hex DER.
_SHORT_NAMES: Final = {
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
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
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
