"""`ambassador certs`: make certificates for development, issue them from an own CA, and look at any.

Knows options, words and exit codes; issuing, writing and judging are `identity`'s. Exit: 0 done, 1 it failed (a
file is in the way, nobody would take the certificate), 2 wrong usage, 3 configuration or credentials.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambassador.core.clock import SystemClock
from ambassador.core.errors import ConfigError, ConfigErrors, CredentialError
from ambassador.core.units import rough_duration
from ambassador.identity import authority as authorities
from ambassador.identity import development
from ambassador.identity.authority import Authority, LeafRequest
from ambassador.identity.writing import SAME_OWNER, Owner

_P = ParamSpec("_P")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_OWNER = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?", re.ASCII)
#: Reasons that are no fault of configuration or credentials: the command could not do its work.
_FAILED = {"file_exists", "cannot_write"}
#: Reasons that only an option can have.
_MISUSED = {"bad_name"}


class _Failed(click.ClickException):
    """One sentence on stderr, never a traceback: the command could not do its work."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class _Misconfigured(_Failed):
    """Configuration or credentials are at fault."""

    exit_code = 3


class _Misused(_Failed):
    """An option says what cannot be."""

    exit_code = 2


def _sentences(command: Callable[_P, None]) -> Callable[_P, None]:
    """Turn what identity and configuration raise into sentences with exit codes."""

    @functools.wraps(command)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CredentialError as error:
            raise _kind_of(error.reason)(str(error)) from None
        except (ConfigError, ConfigErrors) as error:
            raise _Misconfigured(str(error)) from None

    return guarded


def _kind_of(reason: str) -> type[_Failed]:
    if reason in _MISUSED:
        return _Misused
    return _Failed if reason in _FAILED else _Misconfigured


_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How to print the result.",
)
_DAYS = click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True, max=36500),
    default=30.0,
    show_default=True,
    help="Days until it expires.",
)
_FORCE = click.option("--force", is_flag=True, help="Replace what is there.")


@click.group(name="certs")
def group() -> None:
    """Make certificates for development, issue from an own CA, look at any.

    Example: ambassador certs dev web payments
    """


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option(
    "--trust-domain", default="example.org", show_default=True, help="Domain of the SPIFFE IDs."
)
@click.option(
    "--path", "path", default="/{name}", show_default=True, help="Path of the SPIFFE IDs."
)
@_DAYS
@click.option("--out", type=click.Path(path_type=Path), default=Path("certs"), show_default=True)
@click.option("--owner", metavar="UID:GID", help="Who shall own the folders of the workloads.")
@_OUTPUT
@_sentences
def dev(  # noqa: PLR0917  # click hands over what the command line says
    names: tuple[str, ...],
    trust_domain: str,
    path: str,
    days: float,
    out: Path,
    owner: str | None,
    output: str,
) -> None:
    """Make a CA if there is none, and a folder per NAME; keep good ones, renew in the last third.

    Example: ambassador certs dev web payments --trust-domain shop.test
    """
    wall_now = SystemClock().wall()
    _check_names(names)
    if "{name}" not in path and len(names) > 1:
        raise click.BadParameter("several names need {name} in it", param_hint="--path")
    new_owner = _parse_owner(owner)
    requests = {name: _dev_request(name, trust_domain, path, days) for name in names}
    for request in requests.values():
        authorities.check_names(request)
    folder = out / development.AUTHORITY_FOLDER
    issuer, action = development.ensure_authority(
        folder, f"{trust_domain} development CA"[:64], wall_now=wall_now
    )
    outcomes = [
        development.ensure_workload(out / name, issuer, request, wall_now=wall_now, owner=new_owner)
        for name, request in requests.items()
    ]
    if output == "json":
        first = _as_json(folder, issuer.certificate, action=action)
        rest = [_as_json(one.folder, one.certificate, action=one.action) for one in outcomes]
        _print_json({"authority": first, "certificates": rest})
        return
    click.echo(f"{folder}/ca.crt, ca.key (0600): {action}, {_days_left(issuer.certificate)}")
    for one in outcomes:
        click.echo(
            f"{one.folder}/tls.crt, tls.key (0600), ca.crt: {one.action}, {_words(one.certificate)}"
        )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or name == development.AUTHORITY_FOLDER:
            raise click.BadParameter(
                f'"{name}": lower-case letters, digits and -, at most 63, and not "ca"',
                param_hint="NAME",
            )


def _dev_request(name: str, trust_domain: str, path: str, days: float) -> LeafRequest:
    spiffe = f"spiffe://{trust_domain}{path.replace('{name}', name)}"
    return LeafRequest(spiffe=spiffe, dns=(name,), days=days)


def _parse_owner(text: str | None) -> Owner:
    if text is None:
        return SAME_OWNER
    match = _OWNER.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f'expected UID or UID:GID in numbers, got "{text}"', param_hint="--owner"
        )
    return Owner(int(match[1]), int(match[2]) if match[2] else -1)


@group.command()
@click.option("--name", default="ambassador CA", show_default=True, help="Common name of the CA.")
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True, max=36500),
    default=3650.0,
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("certs/ca"), show_default=True)
@_FORCE
@_OUTPUT
@_sentences
def init(name: str, days: float, out: Path, force: bool, output: str) -> None:  # noqa: FBT001
    """Make a CA: ca.crt for everybody, ca.key for its owner alone.

    Example: ambassador certs init --name "example CA"
    """
    made = development.make_authority(
        out, name, days=days, replace=force, wall_now=SystemClock().wall()
    )
    if output == "json":
        _print_json(_as_json(out, made.certificate, action="made"))
        return
    click.echo(f"{out}/ca.crt, ca.key (0600): CN={name}, P-256, {_days_left(made.certificate)}")


@group.command()
@click.option(
    "--spiffe", multiple=True, help="SPIFFE ID, such as spiffe://example.org/shop/web; one."
)
@click.option("--dns", multiple=True, help="DNS name; may be repeated.")
@click.option("--ip", multiple=True, help="IP address; may be repeated.")
@click.option("--cn", help="Common name of the subject.")
@_DAYS
@click.option("--ca", type=click.Path(path_type=Path), default=Path("certs/ca"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("certs"), show_default=True)
@_FORCE
@_OUTPUT
@_sentences
def issue(  # noqa: PLR0917  # click hands over what the command line says
    spiffe: tuple[str, ...],
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    cn: str | None,
    days: float,
    ca: Path,
    out: Path,
    force: bool,  # noqa: FBT001
    output: str,
) -> None:
    """Issue a certificate for client and server use; refuses to overwrite without --force.

    Example: ambassador certs issue --spiffe spiffe://example.org/shop/web --dns web
    """
    if len(spiffe) > 1:
        raise click.BadParameter(
            "a certificate has one SPIFFE ID, and no other beside it", param_hint="--spiffe"
        )
    request = LeafRequest(
        spiffe=next(iter(spiffe), None), dns=dns, ips=ip, common_name=cn, days=days
    )
    issuer: Authority = development.load_authority(ca)
    leaf = development.issue_into(
        out, issuer, request, replace=force, wall_now=SystemClock().wall()
    )
    if output == "json":
        _print_json(_as_json(out, leaf, action="made"))
        return
    click.echo(f"{out}/tls.crt, tls.key (0600), ca.crt: {_words(leaf)}")


@group.command()
@click.argument("target", metavar="FILE|HOST:PORT")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="Say whether this configuration would take it."
)
@_OUTPUT
@_sentences
def inspect(target: str, config: str | None, output: str) -> None:
    """Show a certificate, or that of a server, in words; with -c say whether we would take it.

    Example: ambassador certs inspect 10.0.0.7:8443 -c ambassador.yaml
    """
    from ambassador.cli import inspection  # noqa: PLC0415  # asyncio and sockets only for this command

    found = inspection.inspect(target, config, os.environ)
    if output == "json":
        _print_json(found.as_json())
    else:
        for line in found.lines:
            click.echo(line)
    if found.exit_code:
        raise click.exceptions.Exit(found.exit_code)


def _not_built(command: str) -> NoReturn:
    raise click.UsageError(
        f"certs {command} is not built yet; certs issue --force makes a new certificate"
    )


_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


@group.command(context_settings=_ANYTHING)
def renew() -> None:
    """Not built yet: renew a certificate of our own CA."""
    _not_built("renew")


@group.command(context_settings=_ANYTHING)
def revoke() -> None:
    """Not built yet: revoke a certificate of our own CA."""
    _not_built("revoke")


def _words(certificate: x509.Certificate) -> str:
    """Say what a fresh certificate is: `spiffe://…, dns web, P-256, 30 days`."""
    return ", ".join((*_names(certificate), _key_kind(certificate), _days_left(certificate)))


def _names(certificate: x509.Certificate) -> list[str]:
    sans = authorities.names_by_kind(certificate)
    subject = [f"CN={name}" for name in authorities.common_names_of(certificate)]
    return [text if kind == "uri" else f"{kind} {text}" for kind, text in sans] + subject


def _key_kind(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(
            key.curve.name, key.curve.name
        )
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def _days_left(certificate: x509.Certificate) -> str:
    left_s = certificate.not_valid_after_utc.timestamp() - SystemClock().wall()
    return rough_duration(max(0.0, left_s))


def _as_json(folder: Path, certificate: x509.Certificate, *, action: str) -> dict[str, object]:
    sans = authorities.names_by_kind(certificate)
    return {
        "folder": str(folder),
        "action": action,
        "names": [text for _, text in sans] + list(authorities.common_names_of(certificate)),
        "key": _key_kind(certificate),
        "serial": f"{certificate.serial_number:x}",
        "not_after": iso_time(certificate.not_valid_after_utc.timestamp()),
    }


def iso_time(wall: float) -> str:
    """Give a moment in ISO 8601, UTC, as every `-o json` of certs shows it.

    Units: `wall` is Unix time in seconds.
    """
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))
