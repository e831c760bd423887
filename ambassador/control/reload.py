"""Reading the credentials anew while everything goes on.

A set that is bad, incomplete or does not fit together keeps the old one, with an event and a counter. New handshakes
use the new set; connections that are open keep theirs, idle upstream ones are retired.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ambassador.core.errors import CredentialError

if TYPE_CHECKING:
    from ambassador.identity.store import IdentityStore
    from ambassador.telemetry.logging import Logger
    from ambassador.telemetry.metrics import Metrics
    from ambassador.upstream.directory import Directory


async def reload_credentials(store: IdentityStore, directory: Directory, *, metrics: Metrics, log: Logger) -> bool:
    """Read, check and publish; False keeps the old set."""
    try:
        prepared = await asyncio.to_thread(store.prepare)
    except CredentialError as error:
        metrics.reload_ended("credentials", "kept")
        log.warning("credentials_kept", reason=error.reason, problem=str(error))
        return False
    store.publish(prepared)
    directory.retire()
    metrics.reload_ended("credentials", "ok")
    log.info("credentials_reloaded", generation=store.generation, not_after=store.credentials.not_after)
    return True
