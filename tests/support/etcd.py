"""A real etcd of one member, as a child process, and what tests write into it over its JSON gateway."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.foreign import Program
from tests.support.ports import reserve_port
from tests.support.programs import require_program
from tests.support.waiting import eventually

_TIMEOUT_S = 10.0


class Etcd:
    """Use as a context manager; `tls` is a folder as `Issued.write` lays it.

    `program` may be killed and restarted, its data stay.
    """

    def __init__(self, folder: Path, *, tls: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = reserve_port()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        peers = f"http://127.0.0.1:{reserve_port()}"
        command = [
            require_program("etcd"), "--name=one", f"--data-dir={folder}/data",
            f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=one={peers}",
        ]  # fmt: skip
        if tls is not None:
            command += [f"--cert-file={tls}/tls.crt", f"--key-file={tls}/tls.key"]
        trusted = ssl.create_default_context(cafile=tls / "ca.crt") if tls else True
        self._client = httpx.Client(
            base_url=self.url, verify=trusted, trust_env=False, timeout=_TIMEOUT_S
        )
        self.program = Program(command, folder, ports=[self.port])

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.program.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self.program.kill()

    def restart(self) -> None:
        """Start it again, after `program.kill`, with what it had."""
        self.program.restart()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it has a leader."""
        self.program.wait_until_ready()
        eventually(self._is_healthy, "a leader", patience_s=20)

    def call(self, method: str, body: dict[str, Any], *, token: str = "") -> dict[str, Any]:
        """Call `/v3/METHOD`; AssertionError unless it is answered with 200."""
        headers = {"Authorization": token} if token else {}
        answer = self._client.post(f"/v3/{method}", json=body, headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def put(self, key: str, value: str) -> int:
        """Write a key; give the revision."""
        answer = self.call("kv/put", {"key": encoded(key), "value": encoded(value)})
        return int(answer["header"]["revision"])

    def delete(self, key: str) -> int:
        """Delete a key; give the revision."""
        return int(self.call("kv/deleterange", {"key": encoded(key)})["header"]["revision"])

    def compact(self, revision: int) -> None:
        """Forget everything before this revision."""
        self.call("kv/compaction", {"revision": revision, "physical": True})

    def demand_users(self, name: str, password: str, *, prefix: str, end: str) -> None:
        """Switch authentication on: `root` for itself, and a user who may read `prefix` up to `end`."""
        self.call("auth/user/add", {"name": "root", "password": "r00t"})
        self.call("auth/role/add", {"name": "root"})
        self.call("auth/user/grant", {"user": "root", "role": "root"})
        self.call("auth/user/add", {"name": name, "password": password})
        self.call("auth/role/add", {"name": "reader"})
        permission = {"permType": "READ", "key": encoded(prefix), "range_end": encoded(end)}
        self.call("auth/role/grant", {"name": "reader", "perm": permission})
        self.call("auth/user/grant", {"user": name, "role": "reader"})
        self.call("auth/enable", {})

    def _is_healthy(self) -> bool:
        try:
            return "true" in self._client.get("/health").text
        except httpx.TransportError:
            return False


def encoded(text: str) -> str:
    """Spell bytes as proto3's JSON does."""
    return base64.b64encode(text.encode()).decode("ascii")
