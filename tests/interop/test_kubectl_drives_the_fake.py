"""Our fake API server of Kubernetes, held against the real kubectl: what it speaks is what kubectl understands.

kubectl is what makes the fake worth believing; no real API server runs here.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambassador.config.model import KubernetesDiscovery
from ambassador.discovery.kubernetes import FromKubernetes
from tests.support.certificates import Authority
from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.programs import require_program
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop
WITHIN_S = 40


def manifest(name: str = "payments-a", *addresses: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "payments"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "zone": "a"}
            for address in addresses
        ],
        "ports": [{"name": "mtls", "port": 8443, "protocol": "TCP"}],
        **more,
    }


class Kubectl:
    """kubectl with a configuration of its own, as somebody with a token."""

    def __init__(self, folder: Path, server: FakeKubernetes, token: str = "full") -> None:
        self._program = require_program("kubectl")
        self._folder = folder / f"home-{token}"
        self._folder.mkdir()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "fake",
                    "cluster": {"server": server.url, "certificate-authority": str(server.ca_file)},
                }
            ],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "me", "namespace": "shop"},
                }
            ],
            "current-context": "fake",
        }
        (self._folder / "config").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "KUBECONFIG": str(self._folder / "config"),
        }

    def __call__(self, *arguments: str, given: object = None, code: int = 0) -> str:
        """Run it; give what it printed. `given` goes in as a manifest."""
        ended = subprocess.run(
            [self._program, *arguments],
            input=json.dumps(given).encode() if given is not None else b"",
            capture_output=True,
            env=self._environment,
            timeout=WITHIN_S,
            check=False,
        )
        printed = (ended.stdout + ended.stderr).decode()
        assert ended.returncode == code, printed
        return printed if code else ended.stdout.decode()

    def start(self, *arguments: str, into: Path) -> subprocess.Popen[bytes]:
        with into.open("wb") as file:
            return subprocess.Popen(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                env=self._environment,
            )


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path / "server", authority) as running:
        yield running


@pytest.fixture
def kubectl(tmp_path: Path, server: FakeKubernetes) -> Kubectl:
    return Kubectl(tmp_path, server)


def test_kubectl_creates_gets_and_deletes_slices_in_the_fake(kubectl: Kubectl) -> None:
    kubectl("create", "--validate=false", "-f", "-", given=manifest("payments-a", "10.0.0.1"))
    found = json.loads(kubectl("get", "endpointslices", "payments-a", "-o", "json"))
    table = kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=payments")
    kubectl("delete", "endpointslices", "payments-a")
    left = json.loads(kubectl("get", "endpointslices", "-o", "json"))

    assert found["endpoints"][0]["addresses"] == ["10.0.0.1"]
    assert found["metadata"]["namespace"] == "shop"
    assert "payments-a" in table
    assert left["items"] == []


def test_kubectl_applies_twice_and_the_fake_has_the_second(kubectl: Kubectl) -> None:
    """The first apply creates, the second patches."""
    first = kubectl(
        "apply", "--validate=false", "-f", "-", given=manifest("payments-a", "10.0.0.1")
    )
    second = kubectl(
        "apply", "--validate=false", "-f", "-", given=manifest("payments-a", "10.0.0.2", "10.0.0.3")
    )
    found = json.loads(kubectl("get", "endpointslice", "payments-a", "-o", "json"))

    assert "created" in first
    assert "configured" in second
    assert [each["addresses"] for each in found["endpoints"]] == [["10.0.0.2"], ["10.0.0.3"]]


def test_kubectl_replaces_only_the_version_that_it_read_from_the_fake(kubectl: Kubectl) -> None:
    """Optimistic concurrency: the second writer of one version is told."""
    kubectl("create", "--validate=false", "-f", "-", given=manifest("payments-a", "10.0.0.1"))
    read = json.loads(kubectl("get", "endpointslice", "payments-a", "-o", "json"))
    kubectl("label", "endpointslice", "payments-a", "changed=yes")
    refused = kubectl("replace", "--validate=false", "-f", "-", given=read, code=1)

    assert "Conflict" in refused or "the object has been modified" in refused


def test_kubectl_watches_the_fake(tmp_path: Path, server: FakeKubernetes, kubectl: Kubectl) -> None:
    server.put("payments-a", "payments", ["10.0.0.1"], ports={"mtls": 8443})
    seen = tmp_path / "seen"
    watching = kubectl.start(
        "get", "endpointslices", "--watch", "--output-watch-events", "-o", "json", into=seen
    )
    try:
        eventually(lambda: server.watches, "the watch", patience_s=WITHIN_S)
        server.put("payments-b", "payments", ["10.0.0.2"], ports={"mtls": 8443})
        server.put("payments-b", "payments", ["10.0.0.3"], ports={"mtls": 8443})
        server.remove("payments-a")
        told = eventually(lambda: _deleted(seen), "what happened")
    finally:
        watching.kill()
        watching.wait(WITHIN_S)

    assert [(each["type"], each["object"]["metadata"]["name"]) for each in told] == [
        ("ADDED", "payments-a"),
        ("ADDED", "payments-b"),
        ("MODIFIED", "payments-b"),
        ("DELETED", "payments-a"),
    ]


def _deleted(path: Path) -> list[dict[str, Any]]:
    """Give the events in the file once the last is a deletion."""
    text, found = path.read_text(encoding="utf-8").lstrip(), []
    decoder = json.JSONDecoder()
    while text:
        try:
            event, end = decoder.raw_decode(text)
        except ValueError:  # half of it is written
            return []
        found.append(event)
        text = text[end:].lstrip()
    return found if found and found[-1]["type"] == "DELETED" else []


def test_kubectl_reads_the_fake_page_by_page(server: FakeKubernetes, kubectl: Kubectl) -> None:
    for number in range(5):
        server.put(f"payments-{number}", "payments", [f"10.0.0.{number}"], ports={"mtls": 8443})
    names = kubectl("get", "endpointslices", "--chunk-size=2", "-o", "name").split()

    assert [name.rpartition("-")[2] for name in names] == list("01234")
    assert len(server.asked("limit=2", "continue=")) == 2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (manifest("payments-a", "127.0.0.1"), "Invalid value"),
        (manifest("payments-a", "fd00::1"), "Invalid value"),
        (manifest("payments-a", "10.0.0.1", addressType="IPv5"), "Unsupported value"),
        (manifest("payments-a", "10.0.0.1", ports=[{"name": "A", "port": 1}]), "ports[0].name"),
        (manifest("payments-a", "10.0.0.1", ports=[{"name": "a", "port": 65536}]), "ports[0].port"),
        (manifest("payments-a", "10.0.0.1", ports=[{"port": 1}, {"port": 2}]), "Duplicate value"),
        (manifest("payments-a", endpoints=[{"addresses": []}]), "Required value"),
        (manifest("Payments", "10.0.0.1"), "metadata.name"),
    ],
)
def test_the_fake_refuses_what_is_no_slice_and_kubectl_says_why(
    kubectl: Kubectl, given: dict[str, Any], why: str
) -> None:
    """pkg/apis/discovery/validation of Kubernetes."""
    printed = kubectl("create", "--validate=false", "-f", "-", given=given, code=1)

    assert "is invalid" in printed
    assert why in printed


def test_the_fake_knows_who_may_do_what_and_kubectl_says_so(
    tmp_path: Path, server: FakeKubernetes
) -> None:
    server.grant("reader", "get", "list", "watch")
    reader = Kubectl(tmp_path, server, "reader")
    nobody = Kubectl(tmp_path, server, "nobody")
    allowed = reader("get", "endpointslices", "-o", "json")
    forbidden = reader("create", "--validate=false", "-f", "-", given=manifest(), code=1)
    elsewhere = reader("get", "endpointslices", "-n", "default", code=1)
    unknown = nobody("get", "endpointslices", code=1)

    assert json.loads(allowed)["items"] == []
    assert 'cannot create resource "endpointslices" in API group "discovery.k8s.io"' in forbidden
    assert 'in the namespace "default"' in elsewhere
    assert "must be logged in" in unknown or "Unauthorized" in unknown or "credentials" in unknown


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("labelSelectr=a", "unknown query parameter"),
        ("limit=many", "invalid syntax"),
        ("continue=rubbish", "continue key is not valid"),
        ("labelSelector=a%3Db%3Dc", "unable to parse"),
        ("watch=1&resourceVersion=1&limit=5", "unknown query parameter"),
    ],
)
def test_the_fake_refuses_a_wrong_query_and_kubectl_says_so(
    kubectl: Kubectl, query: str, reason: str
) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?{query}"
    printed = kubectl("get", "--raw", path, code=1)

    assert reason in printed or "BadRequest" in printed


async def test_what_kubectl_applies_to_the_fake_our_discovery_finds(
    server: FakeKubernetes, kubectl: Kubectl
) -> None:
    """Both speak to the same fake: where they agree, it is the API that they agree on."""
    settings = KubernetesDiscovery(
        "payments", "shop", "mtls", server.url, server.token_file, server.ca_file
    )
    sets = FromKubernetes(settings, zone="", chance=random.Random(1)).watch()
    given = manifest("payments-a", "10.0.0.1", "10.0.0.2")
    await asyncio.to_thread(kubectl, "apply", "--validate=false", "-f", "-", given=given)
    found = await anext(sets)
    await asyncio.to_thread(kubectl, "delete", "endpointslice", "payments-a")
    async with asyncio.timeout(WITHIN_S):
        while left := await anext(sets):
            continue
    await sets.aclose()  # type: ignore[attr-defined]

    assert [(str(each), each.zone) for each in found] == [
        ("10.0.0.1:8443", "a"),
        ("10.0.0.2:8443", "a"),
    ]
    assert left == ()


def test_what_is_not_there_is_not_found_in_the_fake(kubectl: Kubectl) -> None:
    printed = kubectl("get", "endpointslice", "nothing", code=1)

    assert "NotFound" in printed
