"""The current generation of credentials and its TLS contexts; replaced whole, by one assignment.

Knows when a context is too old; must not know sockets. Whoever handshakes asks for the context each time and
keeps nothing, so a reload is seen by the next handshake, while older connections keep the context they have.
"""

from __future__ import annotations

from ambassador.core.clock import Clock
from ambassador.identity import floors, peer, tls
from ambassador.identity.credentials import Credentials, load
from ambassador.identity.settings import IdentitySettings, ServiceSettings, TlsSettings
from ambassador.identity.tls import ClientTls, ServerTls
from ambassador.identity.trust import FactsCache, Trust
from ambassador.policy.authorization import PeerPattern

_ServiceKey = tuple[str, tuple[PeerPattern, ...] | None, str | None, tuple[str, ...]]


class Generation:
    """One loaded set with the contexts built from it so far."""

    __slots__ = ("clients", "credentials", "servers", "trust")

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.trust = Trust.of(credentials)
        self.servers: dict[tuple[str, tuple[str, ...]], ServerTls] = {}
        self.clients: dict[_ServiceKey, ClientTls] = {}


class IdentityStore:
    """Hands out the current contexts. All methods but `prepare` belong to the loop's thread."""

    __slots__ = (
        "_client_facts",
        "_clock",
        "_current",
        "_server_facts",
        "_settings",
        "_tls",
        "generation",
    )

    def __init__(self, settings: IdentitySettings, tls_settings: TlsSettings, clock: Clock) -> None:
        """Load the first set.

        Errors: CredentialError; then there is nothing to start with.
        """
        floors.check(tls.versions())
        self._settings = settings
        self._tls = tls_settings
        self._clock = clock
        self._client_facts = FactsCache(peer.CLIENT)  # of peers that dial us
        self._server_facts = FactsCache(peer.SERVER)  # of peers that we dial
        self.generation = 0
        self._current = self.prepare()
        self.generation = 1

    def __repr__(self) -> str:
        return f"IdentityStore(generation={self.generation}, {self.credentials!r})"

    @property
    def credentials(self) -> Credentials:
        return self._current.credentials

    def server(self, listener: str, alpn: tuple[str, ...]) -> ServerTls:
        """Give the current context of a listener; a new one after each `session_lifetime`.

        That is the only bound that holds for resumption: each one renews the clock of its ticket (threats C1).
        """
        current = self._current
        key = (listener, alpn)
        known = current.servers.get(key)
        mono_now = self._clock.monotonic()
        if known is None or (known.expires_at is not None and mono_now >= known.expires_at):
            known = current.servers[key] = self._new_server(current, listener, alpn)
        return known

    def client(self, service: ServiceSettings) -> ClientTls:
        """Give the current context of a service; other `peer`, name or ALPN is another one, with no sessions."""
        current = self._current
        key = (service.name, service.peer, service.server_name, service.alpn)
        known = current.clients.get(key)
        if known is None:
            known = current.clients[key] = ClientTls(
                current.trust,
                self._tls,
                self._server_facts,
                service=service,
                generation=self.generation,
                clock=self._clock,
            )
        return known

    def prepare(self) -> Generation:
        """Read and check the files anew, and build a context to see that OpenSSL takes them; changes nothing.

        May run in a thread: a large revocation list takes a while.
        Errors: CredentialError.
        """
        prepared = Generation(load(self._settings, clock=self._clock))
        self._new_server(prepared, "", ())
        return prepared

    def publish(self, prepared: Generation) -> None:
        """Make a prepared set the current one: every handshake from now on uses it."""
        self.generation += 1
        self._current = prepared

    def reload(self) -> None:
        """Read the files anew and publish them.

        Errors: CredentialError; the old set stays.
        """
        self.publish(self.prepare())

    def _new_server(
        self, generation: Generation, listener: str, alpn: tuple[str, ...]
    ) -> ServerTls:
        return ServerTls(
            generation.trust,
            self._tls,
            self._client_facts,
            listener=listener,
            generation=self.generation,
            alpn=alpn,
            clock=self._clock,
        )
