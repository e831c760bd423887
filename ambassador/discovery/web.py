"""Asks a source of endpoints over HTTP: one way to connect, to read, and to say what went wrong.

Knows httpx; must not know what an answer means. A source sees our secrets and could send us anything, so
* Nothing of the environment counts: no proxy, no `.netrc`, no `SSLKEYLOGFILE`.
* A redirect is an answer like any other: followed, it would carry the token to somewhere else.
* The certificate is verified against the given file alone; without one, against what the system trusts.
* Compression is neither offered nor taken, and every body and line has a bound: nothing small becomes large here.
"""

from __future__ import annotations

import asyncio
import ssl  # noqa: TID251  # httpx takes no other context; the reason of a refusal is found below
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from ambassador import __version__
from ambassador.config.words import printable
from ambassador.core.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
    from pathlib import Path

#: Units: seconds. Answers that are slow on purpose say so by `read_timeout_s` of their request.
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
#: A page of a source, and one line of a stream. Units: bytes.
MAX_BODY_BYTES: Final = 16 << 20
MAX_LINE_BYTES: Final = 4 << 20
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """All of an answer, whatever its status."""

    status: int
    headers: httpx.Headers
    content: bytes

    def __str__(self) -> str:
        text = self.content[:_SHOWN].decode("utf-8", "replace").strip()
        return printable(f"answered {self.status}: {text}" if text else f"answered {self.status}")


def client(
    base_url: str,
    *,
    ca_file: Path | None,
    reason_prefix: str,
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    """Give a client of one source; it reads files, so a loop calls it in a thread.

    Errors: DiscoveryError `PREFIX_ca_file`, `PREFIX_address`.
    """
    fields = {
        "User-Agent": f"ambassador/{__version__}",
        **(headers or {}),
        "Accept-Encoding": "identity",
    }
    context = _context(ca_file, reason_prefix)
    try:
        return httpx.AsyncClient(
            base_url=base_url,
            headers=fields,
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=4),
        )
    except httpx.InvalidURL as error:
        raise DiscoveryError(f"{reason_prefix}_address", f"{base_url}: {error}") from None


@asynccontextmanager
async def answer(
    source: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    reason_prefix: str,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> AsyncIterator[httpx.Response]:
    """Send a request and give the answer, of which only the head is there; leaving ends what is left of it.

    Units: `read_timeout_s` is the longest silence, not the whole.
    Errors: DiscoveryError `PREFIX_unreachable`, `PREFIX_untrusted`, `PREFIX_timeout`, `PREFIX_malformed`, also for
    what happens to the body inside of the block.
    """
    with _mapped(reason_prefix, source.base_url):
        request = source.build_request(
            method,
            path,
            params=params,
            headers=headers,
            content=content,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        )
        response = await source.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise DiscoveryError(
                    f"{reason_prefix}_malformed",
                    "the answer is compressed although that was not offered",
                )
            yield response
        finally:
            await response.aclose()


async def body(
    response: httpx.Response, *, reason_prefix: str, max_bytes: int = MAX_BODY_BYTES
) -> bytes:
    """Give the whole body. Errors: DiscoveryError `PREFIX_too_large`."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise DiscoveryError(f"{reason_prefix}_too_large", f"an answer above {max_bytes} bytes")
    return bytes(content)


async def ask(
    source: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    reason_prefix: str,
    within_s: float,
    max_bytes: int = MAX_BODY_BYTES,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> Answer:
    """Give a whole answer.

    Units: `within_s` is seconds from the connection to the last byte: it does not help to trickle.
    Errors: DiscoveryError, as of `answer` and `body`.
    """
    try:
        async with (
            asyncio.timeout(within_s),
            answer(
                source,
                method,
                path,
                reason_prefix=reason_prefix,
                params=params,
                headers=headers,
                content=content,
                read_timeout_s=within_s,
            ) as response,
        ):
            given = await body(response, reason_prefix=reason_prefix, max_bytes=max_bytes)
            return Answer(response.status_code, response.headers, given)
    except TimeoutError:
        detail = f"{source.base_url.host}: no whole answer in {within_s:g} s"
        raise DiscoveryError(f"{reason_prefix}_timeout", detail) from None


def is_header(text: str) -> bool:
    """Say whether a header can carry a secret; asked before httpx says so with the secret in its words."""
    return text.isascii() and text.isprintable()


async def lines(
    response: httpx.Response, *, reason_prefix: str, max_bytes: int = MAX_LINE_BYTES
) -> AsyncGenerator[list[bytes], None]:
    """Give the lines of a stream as they arrive, those that arrive together in one list.

    A last line without an end was cut off: it is not given.
    Errors: DiscoveryError `PREFIX_too_large`.
    """
    rest = bytearray()
    async for chunk in response.aiter_raw():
        rest += chunk
        if b"\n" in chunk:  # `rest` is never searched twice: it may come byte by byte
            *whole, rest = rest.split(b"\n")
            yield [bytes(line) for line in whole if line.strip()]
        if len(rest) > max_bytes:
            raise DiscoveryError(f"{reason_prefix}_too_large", f"a line above {max_bytes} bytes")


def _context(ca_file: Path | None, reason_prefix: str) -> ssl.SSLContext:
    # Not `create_default_context`, which writes the secrets of every session where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # All that an OPENSSL_CONF could have moved: the library has read it when the interpreter loaded it.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise DiscoveryError(
            f"{reason_prefix}_ca_file", f"{ca_file}: no certificates in it"
        ) from None
    except OSError as error:
        raise DiscoveryError(f"{reason_prefix}_ca_file", f"{ca_file}: {error.strerror}") from None
    return context


@contextmanager
def _mapped(prefix: str, url: httpx.URL) -> Iterator[None]:
    where = f"{url.host}:{url.port}" if url.port else url.host
    try:
        yield
    except httpx.TimeoutException:
        raise DiscoveryError(f"{prefix}_timeout", f"{where}: no answer in time") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DiscoveryError(f"{prefix}_address", f"{where}: {error}") from None
    except httpx.LocalProtocolError:
        # Its text would show the header that is wrong, which may be the token.
        raise DiscoveryError(f"{prefix}_malformed", f"{where}: a header cannot be sent") from None
    except httpx.TransportError as error:
        if (refusal := _refusal(error)) is not None:
            detail = f"{where}: its certificate is not trusted: {refusal.verify_message}"
            raise DiscoveryError(f"{prefix}_untrusted", detail) from None
        text = str(error) or type(error).__name__
        raise DiscoveryError(f"{prefix}_unreachable", f"{where}: {text}") from None


def _refusal(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Find what httpx hides below its own error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
