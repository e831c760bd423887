"""The types of single values, as the schema's keys name them: a check and its JSON Schema."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from ambassador.config import checks
from ambassador.config.addresses import NamedPlace, Url
from ambassador.config.annotations import JsonSchema, Leaf
from ambassador.core.model import Address

_NAME_PATTERN = "[a-z0-9][a-z0-9-]{0,62}"
_name = checks.matching(_NAME_PATTERN, "a name of a-z, 0-9 and -, at most 63 characters")
_DURATION_SCHEMA: JsonSchema = {
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$|^\$\{",
}
_SIZE_SCHEMA: JsonSchema = {
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$|^\$\{",
}
_RATE_SCHEMA: JsonSchema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|h)$|^\$\{"}
_BYTE_RATE_SCHEMA: JsonSchema = {
    "type": "string",
    "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)/s$|^none$|^\$\{",
}
_PERCENT_SCHEMA: JsonSchema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$|^\$\{"}
_ADDRESS_SCHEMA: JsonSchema = {
    "type": "string",
    "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]+$|^unix:/|\$\{",
}
_PORT_SCHEMA: JsonSchema = {"type": "integer", "minimum": 1, "maximum": 65535}
_NAME_SCHEMA: JsonSchema = {"type": "string", "pattern": rf"^{_NAME_PATTERN}$|^\$\{{"}
_VARIABLE_SCHEMA: JsonSchema = {"type": "string", "pattern": r"^\$\{"}
_URL_SCHEMA: JsonSchema = {"type": "string", "pattern": r"^https?://[^@?#]+$|^\$\{"}
_TEXT_SCHEMA: JsonSchema = {"type": "string", "minLength": 1}


def _with_none(schema: JsonSchema, *spellings: str) -> JsonSchema:
    return {"anyOf": [{"enum": ["none", *spellings]}, schema]}


def _choices(*words: str) -> JsonSchema:
    return {"anyOf": [{"enum": list(words)}, _VARIABLE_SCHEMA]}


def _integers(lowest: int, highest: int | None = None) -> JsonSchema:
    schema: JsonSchema = {"type": "integer", "minimum": lowest}
    if highest is not None:
        schema["maximum"] = highest
    return {"anyOf": [schema, _VARIABLE_SCHEMA]}


def one_of(*words: str, later: tuple[str, ...] = ()) -> Leaf:
    """Give the leaf for one of some words."""
    return Leaf(checks.choice(*words, later=later), _choices(*words))


def whole(lowest: int, highest: int | None = None) -> Leaf:
    """Give the leaf for a whole number in a range."""
    return Leaf(checks.integer(lowest, highest), _integers(lowest, highest))


def sized(smallest: str, largest: str) -> Leaf:
    """Give the leaf for a size in a range."""
    return Leaf(checks.size(smallest, largest), _SIZE_SCHEMA)


def percentage(lowest: int, highest: int) -> Leaf:
    """Give the leaf for a percentage in a range."""
    return Leaf(checks.percentage(lowest, highest), _PERCENT_SCHEMA)


def lasting(longest: str = "") -> Leaf:
    """Give the leaf for a duration, or none."""
    return Leaf(checks.or_none(checks.duration(longest=longest)), _with_none(_DURATION_SCHEMA))


def identity(kind: str) -> Leaf:
    """Give the leaf for a pattern of peer identities."""
    return Leaf(checks.peer_pattern(kind), {**_TEXT_SCHEMA, "examples": [checks.EXAMPLES[kind]]})


def shaped(pattern: str, expected: str, cure: str = "") -> Leaf:
    """Give the leaf for text of a shape."""
    return Leaf(
        checks.matching(pattern, expected, cure),
        {"type": "string", "pattern": rf"^({pattern})$|\$\{{"},
    )


Text = Annotated[str, Leaf(checks.text, _TEXT_SCHEMA)]
Name = Annotated[str, Leaf(_name, _NAME_SCHEMA)]
Flag = Annotated[bool, Leaf(checks.flag, {"anyOf": [{"type": "boolean"}, _VARIABLE_SCHEMA]})]
Duration = Annotated[float, Leaf(checks.duration(), _DURATION_SCHEMA)]
Delay = Annotated[float, Leaf(checks.duration(zero=True), _DURATION_SCHEMA)]
DurationOrNone = Annotated[float | None, lasting()]
Timeout = Annotated[
    float | None, Leaf(checks.or_none(checks.duration(), "0s"), _with_none(_DURATION_SCHEMA, "0s"))
]
SizeOrNone = Annotated[int | None, Leaf(checks.or_none(checks.size()), _with_none(_SIZE_SCHEMA))]
CountOrNone = Annotated[
    int | None, Leaf(checks.or_none(checks.integer(1)), _with_none(_integers(1)))
]
Rate = Annotated[float, Leaf(checks.rate, _RATE_SCHEMA)]
ByteRateOrNone = Annotated[float | None, Leaf(checks.or_none(checks.byte_rate), _BYTE_RATE_SCHEMA)]
Percent = Annotated[float, Leaf(checks.percent, _PERCENT_SCHEMA)]
PercentOrNone = Annotated[
    float | None, Leaf(checks.or_none(checks.percent), _with_none(_PERCENT_SCHEMA))
]
Condition = Annotated[
    str | int,
    Leaf(
        checks.retry_condition,
        {"anyOf": [{"enum": list(checks.CONDITIONS)}, _integers(400, 599)]},
    ),
]
Statuses = Annotated[
    tuple[int, int],
    Leaf(
        checks.status_range,
        {
            "anyOf": [
                {"type": "integer", "minimum": 200, "maximum": 599},
                {"type": "string", "pattern": r"^[2-5][0-9]{2}-[2-5][0-9]{2}$|^\$\{"},
            ]
        },
    ),
]
Listen = Annotated[Address, Leaf(checks.listen_address, _ADDRESS_SCHEMA)]
ListenOrNone = Annotated[
    Address | None, Leaf(checks.or_none(checks.listen_address), _with_none(_ADDRESS_SCHEMA))
]
Dial = Annotated[Address, Leaf(checks.dial_address, _ADDRESS_SCHEMA)]
#: Names are taken where a rule of another key allows them.
EndpointAddress = Annotated[Address | NamedPlace, Leaf(checks.endpoint_address, _ADDRESS_SCHEMA)]
AppAddress = Annotated[
    Address | NamedPlace, Leaf(checks.app_or_name, {"anyOf": [_PORT_SCHEMA, _ADDRESS_SCHEMA]})
]
Port = Annotated[int, whole(1, 65535)]
PortOrName = Annotated[
    int | str,
    Leaf(
        checks.port_or_name,
        {"anyOf": [_PORT_SCHEMA, {"type": "string", "pattern": r"^[a-z0-9-]{1,15}$|^\$\{"}]},
    ),
]
UrlText = Annotated[Url, Leaf(checks.url, _URL_SCHEMA)]
Secret = Annotated[str, Leaf(checks.secret, {**_TEXT_SCHEMA, "writeOnly": True})]
Network = Annotated[
    IPv4Network | IPv6Network,
    Leaf(checks.network, {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+/[0-9]+$|^\$\{"}),
]
FilePath = Annotated[Path, Leaf(checks.path, _TEXT_SCHEMA)]
PathPattern = Annotated[str, Leaf(checks.path_pattern, {"type": "string", "pattern": r"^/|^\$\{"})]
NormalPath = Annotated[str, Leaf(checks.normal_path, {"type": "string", "pattern": r"^/|^\$\{"})]
Method = Annotated[str, Leaf(checks.method, {"type": "string", "pattern": r"^[^a-z]+$|^\$\{"})]
Upgrade = Annotated[str, Leaf(checks.upgrade, _TEXT_SCHEMA)]
HostName = Annotated[str, Leaf(checks.host_name, _TEXT_SCHEMA)]
ServerName = Annotated[str, Leaf(checks.server_name, _TEXT_SCHEMA)]
HostPattern = Annotated[str, Leaf(checks.host_pattern, _TEXT_SCHEMA)]
HeaderName = Annotated[str, Leaf(checks.header_name, _TEXT_SCHEMA)]
HeaderValue = Annotated[str, Leaf(checks.header_value, {"type": "string"})]
Protocol = Annotated[str, one_of("http", "tcp")]
SocketMode = Annotated[str, shaped("0[0-7]{3}", 'an octal mode in quotes such as "0600"')]
Label = Annotated[
    str, shaped("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a name of a-z, 0-9 and -, as Kubernetes has")
]
CookieName = Annotated[str, shaped(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,255}", "the name of a cookie")]
AlpnName = Annotated[str, shaped(r"[\x21-\x7e]{1,255}", "an ALPN name such as h2")]
TrustDomain = Annotated[
    str, Leaf(checks.trust_domain, {"type": "string", "pattern": r"^[a-z0-9._-]{1,255}$"})
]
Group = Annotated[
    str,
    one_of(
        "X25519MLKEM768",
        "X25519",
        "P-256",
        "P-384",
        "P-521",
        "X448",
        "SecP256r1MLKEM768",
        "SecP384r1MLKEM1024",
    ),
]
