"""X-Forwarded-Client-Cert as our app and the app of a real Envoy see it, byte for byte, for nasty certificates.

Both get the same client certificates, the same received header, every mode and every set of details. The one place
where we differ is stated in its own test: URI and DNS values with a separator in them.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID, ObjectIdentifier

from ambassador.wire import xfcc
from tests.support.certificates import DNS, EMAIL, URI, Authority, Issued, client_context
from tests.support.foreign import credentials, envoy, envoy_cluster, envoy_listener, envoy_tls
from tests.support.peers import App, exchange, request
from tests.support.ports import reserve_port
from tests.support.process import Ambassador, Config, running_ambassador

pytestmark = pytest.mark.interop

MODES = {
    "sanitize": "SANITIZE",
    "sanitize_set": "SANITIZE_SET",
    "forward_only": "FORWARD_ONLY",
    "append_forward": "APPEND_FORWARD",
}
DETAILS = {
    "none": (),
    "default": ("subject", "uri", "dns"),
    "subject": ("subject",),
    "uri": ("uri",),
    "dns": ("dns",),
    "cert": ("cert",),
    "chain": ("chain",),
    "all": ("subject", "uri", "dns", "cert", "chain"),
}
RECEIVED = (
    "By=spiffe://example.org/front;Hash="
    + "ab" * 32
    + ';Subject="CN=a\\, b";URI=spiffe://example.org/user'
).encode()
SPIFFE = "spiffe://example.org/client"


def name(
    *attributes: tuple[ObjectIdentifier, str] | tuple[ObjectIdentifier, str | bytes, _ASN1Type],
) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a value is longer or shorter than X.520 wants
        return x509.Name([x509.NameAttribute(*each, _validate=False) for each in attributes])


CN, ORG, OU, C = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COUNTRY_NAME,
)
OWN = ObjectIdentifier("1.3.6.1.4.1.99999.1")

SUBJECTS = {
    "empty": x509.Name([]),
    "quotes and commas": name((C, "US"), (ORG, 'Acme, "Inc"'), (CN, "client=1")),
    "backslash": name((CN, "a\\b\\\\c\\")),
    "angle brackets and semicolon": name((CN, "<a>;b+c#d")),
    "hash in front": name((CN, "#abc")),
    "blanks around": name((CN, "  two  ")),
    "one blank": name((CN, " ")),
    "empty value": name((CN, "x"), (OU, "")),
    "utf-8": name((ORG, "Grüße & Söhne"), (CN, "Ünïcode ☃ 𝄞")),
    "controls": name((CN, "a\tb\r\nX-Evil: 1\x01\x1b[31m\x7fc")),
    "nul": name((CN, "good\x00.evil")),
    "c1 controls": name((CN, "a\x85b\x9bc\u2028d")),
    "attack on the header": name((CN, '";URI=spiffe://example.org/admin;X="')),
    "percent": name((CN, "%22,By=x%0d%0a")),
    "many attributes": name(
        (C, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Bayern"),
        (NameOID.LOCALITY_NAME, "München"),
        (ORG, "O"),
        (OU, "one"),
        (OU, "two"),
        (NameOID.EMAIL_ADDRESS, "a@b.example", _ASN1Type.IA5String),
        (NameOID.SERIAL_NUMBER, "17"),
        (NameOID.DOMAIN_COMPONENT, "example", _ASN1Type.IA5String),
        (NameOID.USER_ID, "u"),
        (NameOID.STREET_ADDRESS, "s"),
        (NameOID.GIVEN_NAME, "g"),
        (NameOID.SURNAME, "s"),
        (NameOID.TITLE, "t"),
        (NameOID.DN_QUALIFIER, "q", _ASN1Type.PrintableString),
        (NameOID.PSEUDONYM, "p"),
        (CN, "cn"),
    ),
    "an attribute that nobody knows": name((OWN, "own"), (CN, "cn")),
    "attributes that only one of the two libraries names": name(
        *(
            (ObjectIdentifier(dotted), "v", _ASN1Type.UTF8String)
            for dotted in (
                "2.5.4.97",  # organizationIdentifier, for OpenSSL
                "1.3.6.1.4.1.311.60.2.1.1",  # jurisdictions of EV certificates, for OpenSSL
                "1.3.6.1.4.1.311.60.2.1.3",
                "2.5.4.14",
                "2.5.4.18",
                "2.5.4.20",
                "2.5.4.26",
                "2.5.4.54",
                "2.5.4.65",
                "2.5.4.72",
                "2.5.4.98",
                "1.2.840.113549.1.9.7",
                "1.2.840.113549.1.9.20",
                "1.3.6.1.5.5.7.9.2",
                "0.9.2342.19200300.100.1.3",
                "0.9.2342.19200300.100.1.6",
                "0.9.2342.19200300.100.1.41",
                "0.9.2342.19200300.100.1.56",
                "0.9.2342.19200300.100.1.57",
            )
        ),
        (CN, "cn"),
    ),
    "a named attribute that is no text": name(
        (ObjectIdentifier("2.5.4.45"), b"\0\1", _ASN1Type.BitString), (CN, "cn")
    ),
    "several attributes in one": x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(CN, "a"), x509.NameAttribute(OU, "b")]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(ORG, "c")]),
        ]
    ),
    "printable string": name((CN, "Printable 1", _ASN1Type.PrintableString)),
    "t61 string": name((CN, "latin \xe9", _ASN1Type.T61String)),
    "bmp string": name((CN, "wide ☃", _ASN1Type.BMPString)),
    "universal string": name((CN, "wider 𝄞", _ASN1Type.UniversalString)),
    "numeric string": name((CN, "12 34", _ASN1Type.NumericString)),
    "long": name((CN, "x" * 1000), (ORG, "é" * 500)),
}
NAMES: dict[str, dict[str, Any]] = {
    "spiffe and dns": {"spiffe": SPIFFE, "dns": ["a.example.org", "b.example.org"]},
    "several uris": {"uris": [SPIFFE, "spiffe://example.org/second", "https://a.example/p?q"]},
    "dns alone": {"dns": ["client.example.org", "*.example.org", "xn--bcher-kva.example"]},
    "addresses and e-mail": {
        "uris": ["urn:x"],
        "ips": ["10.0.0.1", "::1"],
        "raw_sans": [(EMAIL, b"a@example.org")],
    },
    "dns before uri": {
        "raw_sans": [(DNS, b"d.example.org"), (URI, b"urn:a"), (DNS, b"e.example.org")]
    },
    "uri with percent and fragment": {"uris": ["https://a.example/%22%2C#x'y~!$&*()"]},
    "upper case": {"dns": ["CLIENT.Example.ORG"], "uris": ["URN:Abc"]},
    "the same twice": {"dns": ["a.example.org"] * 2, "uris": ["urn:a"] * 2},
    "long uri": {"uris": ["https://a.example/" + "x" * 1500]},
    "many names": {"dns": [f"n{number}.example.org" for number in range(60)]},
}
SEPARATORS = {
    "comma in a uri": {"uris": ["https://a.example/a,By=evil"]},
    "semicolon in a uri": {"uris": ["https://a.example/a;URI=spiffe://example.org/admin"]},
    "quote in a uri": {"raw_sans": [(URI, b'https://a.example/"')]},
    "equals in a uri": {"uris": ["https://a.example/?x=1&y=2"]},
    "comma in a dns name": {"raw_sans": [(DNS, b"a,b")]},
    "equals in a dns name": {"raw_sans": [(DNS, b"a=b")]},
}


@dataclass
class Both:
    """Our sidecar and an Envoy with the same credentials, a listener for each mode and set of details in both."""

    sidecar: Ambassador
    app: App
    envoy_ports: dict[str, int]
    authority: Authority

    def compare(
        self, tls: ssl.SSLContext, listener: str, received: bytes = b""
    ) -> tuple[list[bytes], list[bytes]]:
        """Send the same through both; give the values that the app got from us, and from Envoy."""
        line = [f"X-Forwarded-Client-Cert: {received.decode()}"] if received else []
        message = request("/", *line, host="app")
        ours = exchange(self.sidecar.listener("inbound", listener), message, tls)
        theirs = exchange(("127.0.0.1", self.envoy_ports[listener]), message, tls)
        assert ours.startswith(b"HTTP/1.1 200 "), (ours, self.sidecar)
        assert theirs.startswith(b"HTTP/1.1 200 "), theirs
        requests, self.app.requests[:] = list(self.app.requests), []
        assert len(requests) == 2
        ours_got, theirs_got = (each.values("x-forwarded-client-cert") for each in requests)
        return ours_got, theirs_got


def listener_name(mode: str, details: str) -> str:
    return f"{mode}-{details}".replace("_", "-")


#: The default mode with every set of details, every mode with the default set.
LISTENERS = {
    listener_name(mode, details): (mode, details)
    for mode in MODES
    for details in DETAILS
    if details in {"default", "all"} or mode == "sanitize_set"
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("xfcc")
    files = credentials(folder / "server", authority, "server")
    envoy_ports = {name: reserve_port() for name in LISTENERS}
    with App() as app:
        inbound = [
            {
                "name": name,
                "listen": f"127.0.0.1:{reserve_port()}",
                "app": app.port,
                **_who(mode),
                "forwarded_client_cert": mode,
                "forwarded_client_cert_details": list(DETAILS[details]),
            }
            for name, (mode, details) in LISTENERS.items()
        ]
        listeners = [
            envoy_listener(
                envoy_ports[name],
                "app",
                tls=envoy_tls("DownstreamTlsContext", files, require_client_certificate=True),
                forward_client_cert_details=MODES[mode],
                set_current_client_cert_details=dict.fromkeys(DETAILS[details], True),
            )
            for name, (mode, details) in LISTENERS.items()
        ]
        config = {
            "version": 1,
            "identity": {"directory": str(folder / "server")},
            "inbound": inbound,
        }
        clusters = [envoy_cluster("app", app.port)]
        with (
            envoy(folder / "envoy", listeners, clusters, ports=list(envoy_ports.values())),
            running_ambassador(config, folder) as sidecar,
        ):
            yield Both(sidecar, app, envoy_ports, authority)


def _who(mode: str) -> Config:
    """Let everybody in where nothing is believed; else those whose header may be believed, as Envoy believes all."""
    if mode.startswith("sanitize"):
        return {"allow_any_verified": True}
    return {"allow": [{"spiffe": "spiffe://example.org/**", "may_forward": True}]}


def client(both: Both, issued: Issued) -> ssl.SSLContext:
    return client_context(both.authority, issued)


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_a_subject_is_written_as_envoy_writes_it(both: Both, subject: x509.Name) -> None:
    """Protocols §1: RFC 2253 text in quotes, without a second escaping."""
    issued = both.authority.issue(spiffe=SPIFFE, subject=subject, sans_critical=not list(subject))
    ours, theirs = both.compare(client(both, issued), listener_name("sanitize_set", "default"))

    assert ours == theirs
    assert len(ours) == 1
    (element,) = xfcc.parse(ours[0])
    assert element.uris == (SPIFFE,)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_alternative_names_are_written_as_envoy_writes_them(
    both: Both, names: dict[str, Any]
) -> None:
    """Protocols §1: a pair for each URI and each DNS name, in order; addresses and e-mail are left out."""
    tls = client(both, both.authority.issue(cn="client", **names))
    for details in ("default", "uri", "dns"):
        ours, theirs = both.compare(tls, listener_name("sanitize_set", details))

        assert ours == theirs
        assert len(xfcc.parse(ours[0])) == 1


@pytest.mark.parametrize("names", SEPARATORS.values(), ids=SEPARATORS)
def test_a_separator_in_a_name_is_quoted_though_envoy_forgets_it(
    both: Both, names: dict[str, Any]
) -> None:
    """Threats A4: unquoted, a certificate could write pairs and elements of its own. The one deliberate difference."""
    tls = client(both, both.authority.issue(cn="client", **names))
    (ours,), (theirs,) = both.compare(tls, listener_name("sanitize_set", "default"))

    assert ours != theirs
    assert unquoted(ours) == theirs
    (element,) = xfcc.parse(ours)
    raw = [value.decode() for _, value in names.get("raw_sans", ())]
    assert [*element.uris, *element.dns] == [*names.get("uris", ()), *raw]


def unquoted(value: bytes) -> bytes:
    """Take the quotes away that we put around URI and DNS values."""
    for key in (b"URI=", b"DNS="):
        head, found, tail = value.partition(key + b'"')
        if found:
            text, _, rest = tail.rpartition(b'"')
            value = head + key + text.replace(b'\\"', b'"').replace(b"\\\\", b"\\") + rest
    return value


@pytest.mark.parametrize("details", DETAILS)
def test_every_set_of_details_is_as_envoy_writes_it(both: Both, details: str) -> None:
    """Protocols §1: order By; Hash; Cert; Chain; Subject; URI; DNS."""
    middle = Authority("middle, CA", parent=both.authority)
    subject = SUBJECTS["quotes and commas"]
    for issuer in (both.authority, middle):
        issued = issuer.issue(spiffe=SPIFFE, dns=["c.example.org"], subject=subject)
        ours, theirs = both.compare(client(both, issued), listener_name("sanitize_set", details))

        assert ours == theirs
        assert len(ours) == 1


@pytest.mark.parametrize("details", ["default", "all"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "received", [b"", RECEIVED, RECEIVED + b"," + RECEIVED], ids=["nothing", "one", "two"]
)
def test_every_mode_treats_a_received_header_as_envoy_does(
    both: Both, mode: str, details: str, received: bytes
) -> None:
    """Protocols §1; the peer's rule says `may_forward`, without which we drop what Envoy would believe."""
    issued = both.authority.issue(spiffe=SPIFFE, dns=["c.example.org"], cn="client")
    ours, theirs = both.compare(client(both, issued), listener_name(mode, details), received)

    assert ours == theirs


def test_what_the_modes_do_is_what_their_names_say(both: Both) -> None:
    """Guards the comparison above against two empty sides."""
    tls = client(both, both.authority.issue(spiffe=SPIFFE, cn="client"))
    seen = {mode: both.compare(tls, listener_name(mode, "default"), RECEIVED)[0] for mode in MODES}

    assert seen["sanitize"] == []
    assert seen["forward_only"] == [RECEIVED]
    (replaced,) = seen["sanitize_set"]
    assert seen["append_forward"] == [RECEIVED + b"," + replaced]
    assert replaced.startswith(b"By=spiffe://example.org/server;Hash=")
