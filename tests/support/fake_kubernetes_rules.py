"""What the API server of Kubernetes checks, refuses and says about itself, as `tests.support.fake_kubernetes` needs it.

Knows the rules of EndpointSlices and of queries; keeps nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

Json = dict[str, Any]

GROUP, VERSION, KIND = "discovery.k8s.io", "v1", "EndpointSlice"
SERVICE_LABEL = "kubernetes.io/service-name"
VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
_COMMON = {"pretty", "timeout"}
LISTS = {
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
}
WATCHES = {
    "labelSelector",
    "fieldSelector",
    "watch",
    "allowWatchBookmarks",
    "resourceVersion",
    "timeoutSeconds",
}
WRITES = {"fieldManager", "fieldValidation", "dryRun"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
    406: "NotAcceptable", 409: "Conflict", 410: "Expired", 415: "UnsupportedMediaType", 422: "Invalid", 504: "Timeout",
}  # fmt: skip


class Refusal(Exception):
    """A Status other than success."""

    def __init__(
        self, code: int, message: str, reason: str = "", details: Json | None = None
    ) -> None:
        super().__init__(message)
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or _REASONS[code],
            "code": code,
            **({"details": details} if details else {}),
        }
        self.code = code


@dataclass
class Query:
    """The parameters of one request, each said once."""

    values: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        found = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text))
        for name, values in found.items():
            if len(values) > 1:
                raise Refusal(400, f"{name} is said twice")
        return cls({name: values[0] for name, values in found.items()})

    def only(self, *names: Iterable[str]) -> None:
        known = _COMMON.union(*names)
        for name in self.values:
            if name not in known:
                raise Refusal(400, f"unknown query parameter {name}")

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if not value:
            return None
        if not value.isdecimal():
            raise Refusal(400, f'strconv.ParseInt: parsing "{value}": invalid syntax ({name})')
        return int(value)

    def truth(self, name: str) -> bool:
        value = self.values.get(name, "false")
        if value not in {"1", "0", "true", "false"}:
            raise Refusal(400, f'strconv.ParseBool: parsing "{value}": invalid syntax ({name})')
        return value in {"1", "true"}

    def selects(self, found: Json) -> bool:
        """Say whether an object is meant: label equality, and `metadata.name` as field."""
        metadata = found["metadata"]
        labels = metadata.get("labels", {})
        wanted = {"metadata.name": metadata["name"], "metadata.namespace": metadata["namespace"]}
        return all(labels.get(key) == value for key, value in self._pairs("labelSelector")) and all(
            wanted[key] == value for key, value in self._pairs("fieldSelector", known=wanted)
        )

    def check_selectors(self) -> None:
        list(self._pairs("labelSelector"))
        list(self._pairs("fieldSelector", known=("metadata.name", "metadata.namespace")))

    def _pairs(self, name: str, known: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        for part in filter(None, self.text(name).split(",")):
            key, sign, value = part.replace("==", "=").partition("=")
            bad = not sign or "=" in value or not re.fullmatch(r"[\w./-]+", key)
            if bad or (known is not None and key not in known):
                raise Refusal(400, f"unable to parse requirement: {part}")
            yield key, value


# --- what the API server checks in an object (pkg/apis/discovery/validation)


def problems_of(given: Json, before: Json | None, *, allows_loopback: bool) -> Iterator[str]:
    kind = given.get("addressType")
    if kind is None:
        yield "addressType: Required value"
    elif kind not in {"IPv4", "IPv6", "FQDN"}:
        yield f'addressType: Unsupported value: "{kind}"'
    if before is not None and before["addressType"] != kind:
        yield f'addressType: Invalid value: "{kind}": field is immutable'
    if not _NAME.fullmatch(str(given.get("metadata", {}).get("name"))):
        yield "metadata.name: Invalid value: a lowercase RFC 1123 subdomain must consist of lower case …"
    places = given.get("endpoints") or []
    if len(places) > 1000:
        yield "endpoints: Too many: must have at most 1000 items"
    for index, place in enumerate(places):
        yield from _place_problems(f"endpoints[{index}]", place, str(kind), allows_loopback)
    yield from _port_problems(given.get("ports") or [])


def _place_problems(where: str, place: Json, kind: str, allows_loopback: bool) -> Iterator[str]:  # noqa: FBT001
    unknown = set(place) - {
        "addresses", "conditions", "hostname", "targetRef", "deprecatedTopology", "nodeName", "zone", "hints",
    }  # fmt: skip
    if unknown:
        yield f"{where}: unknown field {sorted(unknown)}"
    addresses = place.get("addresses") or []
    if not addresses:
        yield f"{where}.addresses: Required value: must contain at least 1 address"
    if len(addresses) > 100:
        yield f"{where}.addresses: Too many"
    for address in addresses:
        if kind != "FQDN" and not _is_good(address, kind, allows_loopback):
            yield f'{where}.addresses: Invalid value: "{address}"'
    hints = (place.get("hints") or {}).get("forZones") or []
    if len(hints) > 8 or any(set(hint) != {"name"} for hint in hints):
        yield f"{where}.hints.forZones: Invalid value"
    conditions = place.get("conditions") or {}
    if set(conditions) - {"ready", "serving", "terminating"} or any(
        value is not None and not isinstance(value, bool) for value in conditions.values()
    ):
        yield f"{where}.conditions: Invalid value"


def _is_good(address: str, kind: str, allows_loopback: bool) -> bool:  # noqa: FBT001
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    special = found.is_unspecified or found.is_link_local or found.is_multicast
    lonely = found.is_loopback and not allows_loopback
    return f"IPv{found.version}" == kind and not special and not lonely


def _port_problems(ports: Sequence[Json]) -> Iterator[str]:
    if len(ports) > 100:
        yield "ports: Too many"
    names = [port.get("name") or "" for port in ports]
    if len(set(names)) != len(names):
        yield "ports: Duplicate value"
    for index, port in enumerate(ports):
        name, number = port.get("name") or "", port.get("port")
        if set(port) - {"name", "port", "protocol", "appProtocol"}:
            yield f"ports[{index}]: unknown field"
        if name and not (_LABEL.fullmatch(name) and len(name) <= 63):
            yield f'ports[{index}].name: Invalid value: "{name}"'
        if port.get("protocol", "TCP") not in {"TCP", "UDP", "SCTP"}:
            yield f"ports[{index}].protocol: Unsupported value"
        if number is not None and not (isinstance(number, int) and 0 < number < 65536):
            yield f"ports[{index}].port: Invalid value: {number}"


def cause_of(problem: str) -> Json:
    where, _, what = problem.partition(": ")
    return {"reason": "FieldValueInvalid", "message": what, "field": where}


# --- patches


def patched(found: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            raise Refusal(400, f"{key} is not built into this fake")
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = patched(merged.get(key), value)
    return merged


# --- what kubectl asks before it does anything


def document_of(path: str) -> Json | None:
    group = {
        "name": GROUP,
        "versions": [{"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}],
        "preferredVersion": {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION},
    }
    resource = {
        "name": "endpointslices",
        "singularName": "endpointslice",
        "namespaced": True,
        "kind": KIND,
        "verbs": list(VERBS),
    }
    documents: dict[str, Json] = {
        "/version": {
            "major": "1",
            "minor": "32",
            "gitVersion": "v1.32.0+fake",
            "platform": "fake/fake",
        },
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **group},
        f"/apis/{GROUP}/{VERSION}": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{GROUP}/{VERSION}",
            "resources": [resource],
        },
        "/openapi/v3": {"paths": {}},
    }
    return documents.get(path)
