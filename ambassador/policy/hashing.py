"""What of a request decides where ring_hash sends it.

Knows the fields of a head; must not know the ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ambassador.core.model import RequestHead
    from ambassador.policy.balancing import BalanceSettings


def hash_key(settings: BalanceSettings, head: RequestHead, peer: str) -> bytes | None:
    """Give the key of a request, None when it has none: then a random endpoint does.

    `peer` is the principal of who asks. Of several fields of one name the first counts.
    Source: Envoy's hash_policy; RFC 6265 §4.2.1 (cookie-string).
    """
    if settings.hash_peer:
        return peer.encode() or None
    if settings.hash_header is not None:
        return next((x.value for x in head.fields if x.name == settings.hash_header), None)
    cookies = (field.value for field in head.fields if field.name == b"cookie")
    pairs = (pair.partition(b"=") for value in cookies for pair in value.split(b";"))
    return next((value for name, _, value in pairs if name.strip() == settings.hash_cookie), None)
