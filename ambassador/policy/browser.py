"""Whether a request comes from a web page that has no business with our identity.

Knows Origin and Sec-Fetch-Site; must not know listeners. A page in a developer's browser can reach
127.0.0.1:9000 and would speak with the workload's certificate (threats H7).
"""

from __future__ import annotations

from typing import Final

from ambassador.core.model import BROWSER, RequestHead

#: `none` is typed by the user. `same-site` is foreign: localhost:3000 is same-site with payments.localhost:9000.
_HARMLESS_SITES: Final = frozenset((b"same-origin", b"none"))


def is_foreign_page(head: RequestHead) -> bool:
    """Say whether Origin or Sec-Fetch-Site names a page other than one served under this very authority.

    Anything that cannot be understood is foreign: `null`, several origins, an unknown site. That our own
    authority is no rebound name is for the route (unknown Host: 404) or `hosts.can_be_rebound` to say.
    Source: RFC 6454 §7; Fetch Metadata §2.3; threats H7.
    """
    if not head.roles & BROWSER:
        return False
    own = b"http://" + head.authority.lower()
    for field in head.fields:
        if not field.role & BROWSER:
            continue
        if field.name == b"origin":
            if field.value.lower() != own or not head.authority:
                return True
        elif field.value not in _HARMLESS_SITES:
            return True
    return False
