"""What `certs inspect` finds: a file or a server in words, and whether a configuration would take it.

Knows how to ask; every text that comes from a certificate is cleaned before it is shown (threats I5).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ambassador.cli.certs import iso_time
from ambassador.config import load as configuration
from ambassador.config.model import Config, ServiceConfig
from ambassador.core.clock import SystemClock
from ambassador.core.errors import CredentialError
from ambassador.core.model import Address, PeerIdentity, TlsSession
from ambassador.core.units import rough_duration
from ambassador.identity import peer, probe
from ambassador.identity.credentials import Credentials
from ambassador.identity.credentials import load as load_credentials
from ambassador.identity.reading import FileReader
from ambassador.identity.refusal import PresentedPeer, TlsRefused
from ambassador.identity.store import IdentityStore
from ambassador.net.dialer import DialError, dial
from ambassador.policy.authorization import Authorizer, matches
from ambassador.telemetry.text import clean

_TIMEOUT_S = 5.0
_MAX_PORT = 65535
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one listener or service would take the certificate; `text` says why, with its mark."""

    subject: str
    taken: bool
    text: str


@dataclass(slots=True)
class Found:
    """Everything to print. `exit_code` 1: nobody takes it, or one who dials it does not."""

    lines: list[str] = field(default_factory=list)
    peer: dict[str, object] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    exit_code: int = 0

    def judge(self, verdicts: list[Verdict], *, all_must_take: bool) -> None:
        """Add verdicts and what they mean for the exit code."""
        self.verdicts = verdicts
        self.lines += [f"{'✓' if one.taken else '✗'} {one.text}" for one in verdicts]
        enough = all if all_must_take else any
        if verdicts and not enough(one.taken for one in verdicts):
            self.exit_code = 1

    def as_json(self) -> dict[str, object]:
        judged = [
            {"subject": one.subject, "taken": one.taken, "text": one.text} for one in self.verdicts
        ]
        return {**self.peer, "verdicts": judged}


def inspect(target: str, config: str | None, environ: Mapping[str, str]) -> Found:
    """Look at a file or a server, and with `config` judge it.

    Errors: CredentialError, ConfigErrors.
    """
    loaded = configuration.load(Path(config), environ) if config else None
    if _is_there(target):
        return _inspect_file(Path(target), loaded)
    match = _HOST_PORT.fullmatch(target)
    if match is None:
        shown = clean(target) or '""'
        raise CredentialError("file_missing", f"{shown}: neither a file nor HOST:PORT")
    port = int(match[3])
    if not 0 < port <= _MAX_PORT:
        raise CredentialError("bad_port", f"{clean(target)}: a port is 1 to {_MAX_PORT}")
    return asyncio.run(_inspect_server(Address(match[1] or match[2], port), loaded))


def _is_there(target: str) -> bool:
    """Say whether it names something in the file system; the empty text would name the current folder."""
    try:
        return bool(target) and Path(target).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        return False


def _inspect_file(path: Path, config: Config | None) -> Found:
    with FileReader() as reader:
        content = reader.read(path).content
    try:
        certificates = x509.load_pem_x509_certificates(content)
        chain = tuple(one.public_bytes(Encoding.DER) for one in certificates)
        seen = [
            peer.read_facts((der,), resumed=False, purpose=peer.CLIENT).identity for der in chain
        ]
    except ValueError:
        raise CredentialError(
            "certificate_unreadable", f"{path}: holds no certificate in PEM"
        ) from None
    found = Found([_describe(one) for one in seen], _as_json(seen[0]))
    if config is not None:
        found.judge(_judge_file(chain, config), all_must_take=False)
    return found


def _judge_file(chain: tuple[bytes, ...], config: Config) -> list[Verdict]:
    """Ask every inbound listener, and every service that checks its peer."""
    credentials = _credentials(config)
    verdicts = []
    try:
        identity = _judge(credentials, chain, purpose=peer.CLIENT)
    except TlsRefused as refused:
        verdicts += [_refused("inbound", one.name, refused) for one in config.inbound]
    else:
        for one in config.inbound:
            decision = (
                Authorizer(one.deny, one.allow, one.allow_any_verified).for_peer(identity).constant
            )
            taken = decision is None or decision.allowed
            why = (
                "by some of its rules"
                if decision is None
                else f"rule {decision.rule}, {decision.reason}"
            )
            verdicts.append(
                Verdict(
                    one.name,
                    taken,
                    f"{_place('inbound', one.name)} {'takes' if taken else 'refuses'} it: {why}",
                )
            )
    for service in _mutual(config):
        verdicts.append(_judge_for_service(service, credentials, chain))
    return verdicts


def _judge_for_service(
    service: ServiceConfig, credentials: Credentials, chain: tuple[bytes, ...]
) -> Verdict:
    try:
        identity = _judge(credentials, chain, purpose=peer.SERVER)
    except TlsRefused as refused:
        return _refused("service", service.name, refused)
    if service.peer is not None and not matches(identity, service.peer):
        return _refused("service", service.name, TlsRefused("wrong_peer", _expected(service)))
    return Verdict(service.name, True, f"service {service.name} takes it")


def _judge(
    credentials: Credentials, chain: tuple[bytes, ...], *, purpose: x509.ObjectIdentifier
) -> PeerIdentity:
    wall_now = SystemClock().wall()
    return probe.judge_certificate(credentials, chain, purpose=purpose, wall_now=wall_now)


async def _inspect_server(address: Address, config: Config | None) -> Found:
    credentials = _credentials(config) if config is not None else None
    services = _dialling(config, address) if config is not None else []
    server_name = next((one.server_name for one in services if one.server_name), "") or _name(
        address.host
    )
    found = await _look(address, credentials, server_name)
    if config is not None and config.identity is not None and found.exit_code == 0:
        store = IdentityStore(config.identity, config.tls, SystemClock())
        verdicts = [await _ask(address, store, service) for service in services]
        found.judge(verdicts, all_must_take=True)
    return found


async def _look(address: Address, credentials: Credentials | None, server_name: str) -> Found:
    try:
        dialled = await dial(
            address,
            tls=probe.ProbeTls(credentials, server_name),
            session_key=None,
            timeout_s=_TIMEOUT_S,
            wall=SystemClock().wall,
            forbidden=lambda _: False,
        )
    except DialError as error:
        return _not_shaken(address, error)
    dialled.socket.close()
    if dialled.peer is None or dialled.session is None:
        return Found(exit_code=1)
    return Found(
        [_describe(dialled.peer, dialled.session)], _as_json(dialled.peer, dialled.session)
    )


def _not_shaken(address: Address, error: DialError) -> Found:
    """Say what was seen of a server that did not finish; TLS 1.2 refuses us only after it has shown itself."""
    cause = error.cause
    if not isinstance(cause, TlsRefused):
        return Found([f"✗ {address} {clean(error.reason)}"], exit_code=1)
    if cause.presented.not_after is None:
        return Found([f"✗ {address} {clean(str(cause))}"], exit_code=1)
    lines = [
        _describe_presented(cause.presented),
        f"it refused us without a certificate: {clean(cause.detail)}; try -c",
    ]
    return Found(lines, {"subject": clean(cause.presented.subject), "refused": clean(str(cause))})


async def _ask(address: Address, store: IdentityStore, service: ServiceConfig) -> Verdict:
    """Shake hands as the service would."""
    try:
        dialled = await dial(
            address,
            tls=store.client(service),
            session_key=None,
            timeout_s=_TIMEOUT_S,
            wall=SystemClock().wall,
            forbidden=lambda _: False,
        )
    except DialError as error:
        cause = (
            error.cause
            if isinstance(error.cause, TlsRefused)
            else TlsRefused(error.reason, error.message)
        )
        return _refused("service", service.name, cause)
    dialled.socket.close()
    return Verdict(service.name, True, f"service {service.name} takes it")


def _credentials(config: Config | None) -> Credentials:
    if config is None or config.identity is None:
        raise CredentialError(
            "no_identity", "the configuration has no identity, so it takes nobody"
        )
    return load_credentials(config.identity)


def _mutual(config: Config) -> list[ServiceConfig]:
    return [one for one in config.services.values() if one.plaintext == "none" and not one.is_app]


def _dialling(config: Config, address: Address) -> list[ServiceConfig]:
    """Give the services that have this endpoint; if none has, all that could."""
    services = _mutual(config)
    own = [
        one for one in services if any(endpoint.address == address for endpoint in one.endpoints)
    ]
    return own or services


def _name(host: str) -> str:
    return "" if ":" in host or host.replace(".", "").isdigit() else host


def _expected(service: ServiceConfig) -> str:
    return "expected " + " or ".join(
        one.pattern if one.kind == "spiffe" else f"{one.kind} {one.pattern}"
        for one in service.peer or ()
    )


def _place(kind: str, name: str) -> str:
    return name if name == kind else f"{kind} {name}"


def _refused(kind: str, name: str, refused: TlsRefused) -> Verdict:
    detail = f", {clean(refused.detail)}" if refused.detail else ""
    return Verdict(name, False, f"{_place(kind, name)} refuses it: {refused.reason}{detail}")


def _describe(identity: PeerIdentity, session: TlsSession | None = None) -> str:
    names = [*identity.uris, *(f"dns {name}" for name in identity.dns)] or [
        identity.subject or "(no name)"
    ]
    parts = [
        *(clean(name) for name in names),
        f"issuer {clean(identity.issuer)}",
        _expiry(identity.not_after),
    ]
    if identity.problem:
        parts.append(f"no identity: {identity.problem}")
    if session is not None:
        parts.append(f"{session.version} {session.group}".rstrip())
    return ", ".join(parts)


def _describe_presented(shown: PresentedPeer) -> str:
    names = [clean(name.partition(":")[2]) for name in shown.sans] or [clean(shown.subject)]
    return ", ".join((*names, f"issuer {clean(shown.issuer)}", _expiry(shown.not_after or 0.0)))


def _expiry(not_after: float) -> str:
    left_s = not_after - SystemClock().wall()
    word, amount_s = ("expired", -left_s) if left_s < 0 else ("expires in", left_s)
    return f"{word} {rough_duration(amount_s)}" + (" ago" if left_s < 0 else "")


def _as_json(identity: PeerIdentity, session: TlsSession | None = None) -> dict[str, object]:
    shown: dict[str, object] = {
        "spiffe": identity.spiffe,
        "uris": [clean(name) for name in identity.uris],
        "dns": [clean(name) for name in identity.dns],
        "subject": clean(identity.subject),
        "issuer": clean(identity.issuer),
        "serial": identity.serial,
        "fingerprint": identity.fingerprint,
        "not_after": iso_time(identity.not_after),
        "problem": identity.problem,
    }
    if session is not None:
        shown["tls"] = {
            "version": session.version,
            "cipher": session.cipher,
            "group": session.group,
        }
    return shown
