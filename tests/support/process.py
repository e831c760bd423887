"""The real program as a child process: `python -m ambassador run`, its events, its access log, its end.

    with running_ambassador(config, tmp_path) as sidecar:
        answer = send_raw(sidecar.inbound, b"…", tls=…)
        record = sidecar.wait_for_record(status=200)

On leaving, the process gets SIGTERM and must exit with 0 within its drain time, without a traceback and without a
warning on stderr; a test that ends it otherwise calls `stop` or `kill` itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from tests.support.certificates import Authority, Issued
from tests.support.peers import Address
from tests.support.ports import reserve_port
from tests.support.waiting import eventually

READY_WITHIN_S = 20.0
EXIT_WITHIN_S = 30.0
LOOPS = ("uvloop", "asyncio")
_FORBIDDEN = (
    "Traceback (most recent call last)",
    "ResourceWarning",
    "RuntimeWarning",
    "Exception ignored",
)

Config = dict[str, Any]


class Ambassador:
    """One running sidecar.

    `events` are the JSON lines of stderr, `records` those of the access log (when it goes to stdout), `noise` the
    lines of stderr that are no JSON.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], *, loop: str, arguments: tuple[str, ...]
    ) -> None:
        self.config = config
        self.events: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.noise: list[str] = []
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("AMBASSADOR_")
        }
        environment["AMBASSADOR_LOOP"] = loop
        environment["PYTHONWARNINGS"] = "default::ResourceWarning,default::RuntimeWarning"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ambassador", "run", "-c", str(path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=path.parent,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, into), daemon=True)
            for pipe, into in (
                (self.process.stdout, self.records),
                (self.process.stderr, self.events),
            )
        ]
        for reader in self._readers:
            reader.start()

    # --- where it is

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def inbound(self) -> Address:
        """The address of the only, or first, inbound listener."""
        return self.listener("inbound")

    @property
    def outbound(self) -> Address:
        """The address of the only, or first, outbound listener."""
        return self.listener("outbound")

    @property
    def admin(self) -> Address:
        """The address of the admin listener."""
        return _address(self.config["admin"]["listen"])

    def listener(self, section: str, name: str | None = None) -> Address:
        """Give the address of a listener of `inbound` or `outbound`, by its name in a list."""
        return _address(_pick(self.config[section], name)["listen"])

    def service(self, name: str) -> Address:
        """Give the address of the listener that belongs to a service."""
        return _address(self.config["services"][name]["listen"])

    # --- what it says

    def wait_for_event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Give the first event of this name with these fields."""
        return eventually(
            lambda: _find(self.events, {"event": event, **fields}),
            f"event {event} {fields}: {self}",
        )

    def wait_for_record(self, **fields: Any) -> dict[str, Any]:
        """Give the first access-log record with these fields."""
        return eventually(lambda: _find(self.records, fields), f"record {fields}: {self.records}")

    def wait_for_records(self, count: int) -> list[dict[str, Any]]:
        """Give all access-log records once there are `count`; more than that is an error."""
        eventually(lambda: len(self.records) >= count, f"{count} records: {self.records}")
        assert len(self.records) == count, self.records
        return self.records

    def get(self, path: str) -> tuple[int, str]:
        """GET `path` on the admin port; give status and text."""
        assert isinstance(self.admin, tuple)
        url = f"http://{self.admin[0]}:{self.admin[1]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Give the sum of the samples of a metric (with `ambassador_` in front) that have these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        _, text = self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"ambassador_{name}" and labels.items() <= sample.labels.items()
        )

    def resident_bytes(self) -> int:
        """Give the resident memory of the process. Units: bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def open_sockets(self) -> int:
        """Give the number of sockets that the process holds."""
        links = [
            os.readlink(link)
            for link in Path(f"/proc/{self.pid}/fd").iterdir()
            if link.is_symlink()
        ]
        return sum(link.startswith("socket:") for link in links)

    # --- how it ends

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep it from running: what arrives meanwhile, it finds together."""
        self.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        eventually(lambda: stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T")
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def reload(self) -> None:
        """Send SIGHUP."""
        self.signal(signal.SIGHUP)

    def wait(self) -> int:
        """Wait for the end and give the exit code."""
        code = self.process.wait(EXIT_WITHIN_S)
        for reader in self._readers:
            reader.join(EXIT_WITHIN_S)
        return code

    def stop(self) -> int:
        """Send SIGTERM if it still runs; give the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it without mercy."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def assert_clean(self) -> None:
        """Fail on a traceback or a warning, in plain text or inside an event."""
        text = "\n".join([*self.noise, *map(str, self.events)])
        assert not any(word in text for word in _FORBIDDEN), text

    def __repr__(self) -> str:
        return f"Ambassador(pid={self.pid}, exit={self.process.poll()}, events={self.events}, noise={self.noise})"

    def _read(self, pipe: IO[bytes], into: list[dict[str, Any]]) -> None:
        with pipe:
            for line in pipe:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                if isinstance(entry, dict):
                    into.append(entry)
                else:
                    self.noise.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))


@contextmanager
def running_ambassador(
    config: str | Config,
    tmp_path: Path,
    loop: str = "uvloop",
    *,
    arguments: tuple[str, ...] = (),
    exit_code: int | None = 0,
) -> Iterator[Ambassador]:
    """Start `ambassador run` with `config`, wait until it is ready, and end it in the end.

    A mapping gets what a test hardly wants to say: `version`, an admin port, a short drain. A string is written as
    it is. `exit_code` None: do not look at how it ends.
    """
    path, config = _write(config, tmp_path)
    sidecar = Ambassador(path, config, loop=loop, arguments=arguments)
    try:
        _wait_until_ready(sidecar)
        yield sidecar
    except BaseException:
        sidecar.kill()
        raise
    code = sidecar.stop()
    if exit_code is not None:
        assert code == exit_code, sidecar
    sidecar.assert_clean()


def failed_start(
    config: str | Config, tmp_path: Path, *, arguments: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Start `ambassador run` with a configuration that it must refuse; give exit code and all its output."""
    path, _ = _write(config, tmp_path)
    return run_command("run", "-c", str(path), *arguments, cwd=tmp_path)


def run_command(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, within_s: float = 60.0
) -> tuple[int, str]:
    """Run a command of ours to its end; give exit code and its stdout and stderr in one."""
    ended = subprocess.run(
        [sys.executable, "-m", "ambassador", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        timeout=within_s,
        check=False,
    )
    return ended.returncode, ended.stdout.decode("utf-8", "backslashreplace")


class Pod:
    """Parts of a configuration for one workload: its credentials and free ports.

    web = Pod("web", authority, tmp_path)
    config = web.config(inbound=web.inbound(app.port, allow=[payments]), services={"payments": payments.endpoint()})
    """

    def __init__(
        self, name: str, authority: Authority, tmp_path: Path, *, trust_domain: str = "example.org"
    ) -> None:
        self.name = name
        self.spiffe = f"spiffe://{trust_domain}/{name}"
        self.identity: Issued = authority.issue(spiffe=self.spiffe, dns=[f"{name}.{trust_domain}"])
        self.folder = self.identity.write(tmp_path / name, authority.pem)
        self.port = reserve_port()

    def inbound(
        self, app: int | str, allow: list[Pod | Config] | None = None, **more: Any
    ) -> Config:
        """Give an inbound section that lets the given Pods in (anybody verified, when there are none)."""
        rules = [{"spiffe": rule.spiffe} if isinstance(rule, Pod) else rule for rule in allow or ()]
        who: Config = {"allow": rules} if rules else {"allow_any_verified": True}
        return {"listen": f"127.0.0.1:{self.port}", "app": app, **who, **more}

    def endpoint(self, **more: Any) -> Config:
        """Give the service section with which others reach this Pod."""
        return {"endpoints": [f"127.0.0.1:{self.port}"], "peer": {"spiffe": self.spiffe}, **more}

    def config(self, **sections: Any) -> Config:
        """Give a whole file: this identity and the given sections; `services` alone get an outbound listener."""
        config: Config = {"version": 1, "identity": {"directory": str(self.folder)}, **sections}
        if "services" in sections and "outbound" not in sections:
            config["outbound"] = {"listen": f"127.0.0.1:{reserve_port()}"}
        return config


def _write(config: str | Config, folder: Path) -> tuple[Path, Config]:
    path = folder / f"ambassador-{reserve_port()}.yaml"  # several sidecars may share a folder
    if isinstance(config, str):
        path.write_text(config, encoding="utf-8")
        parsed = yaml.safe_load(config)
        return path, parsed if isinstance(parsed, dict) else {}
    whole: Config = {
        "version": 1,
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        **config,
    }
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path, whole


def _wait_until_ready(sidecar: Ambassador) -> None:
    def ready() -> bool:
        assert sidecar.process.poll() is None, f"ended before it was ready: {sidecar}"
        return _find(sidecar.events, {"event": "proxy_ready"}) is not None

    try:
        eventually(ready, "proxy_ready", patience_s=READY_WITHIN_S)
    except AssertionError as error:
        sidecar.kill()
        raise AssertionError(f"{error}; {sidecar}") from None


def _find(entries: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    for entry in list(entries):
        if wanted.items() <= {key: value for key, value in entry.items() if key in wanted}.items():
            return entry
    return None


def _pick(section: Any, name: str | None) -> Config:
    if isinstance(section, dict):
        return section
    return next(each for each in section if name is None or each["name"] == name)


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = str(text).rpartition(":")
    return ("127.0.0.1" if host == "localhost" else host.strip("[]"), int(port))
