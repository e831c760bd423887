"""Pages of browsers are refused (threats H7; RFC 6454; Fetch Metadata)."""

from __future__ import annotations

import pytest

from ambassador.policy.browser import is_foreign_page
from tests.unit.policy.make import request

OWN = b"payments.localhost:9000"
ORIGINS = [
    ((), False),
    ((b"http://payments.localhost:9000",), False),
    ((b"HTTP://Payments.Localhost:9000",), False),
    ((b"null",), True),
    ((b"",), True),
    ((b"http://evil.example",), True),
    ((b"http://localhost:3000",), True),
    ((b"http://payments.localhost",), True),
    ((b"https://payments.localhost:9000",), True),
    ((b"http://payments.localhost:90001",), True),
    ((b"http://payments.localhost:9000 http://evil.example",), True),
    ((b"http://payments.localhost:9000", b"http://payments.localhost:9000"), False),
    ((b"http://payments.localhost:9000", b"http://evil.example"), True),
]
SITES = [
    ((), False),
    ((b"same-origin",), False),
    ((b"none",), False),
    ((b"same-site",), True),
    ((b"cross-site",), True),
    ((b"Cross-Site",), True),
    ((b"",), True),
    ((b"none, cross-site",), True),
    ((b"none", b"cross-site"), True),
]


@pytest.mark.parametrize(("sites", "foreign_site"), SITES)
@pytest.mark.parametrize(("origins", "foreign_origin"), ORIGINS)
def test_a_page_is_foreign_by_origin_or_by_site(
    origins: tuple[bytes, ...],
    foreign_origin: bool,  # noqa: FBT001
    sites: tuple[bytes, ...],
    foreign_site: bool,  # noqa: FBT001
) -> None:
    """Threats H7: MCP SDK CVE-2025-66414, -66416; the full product."""
    head = request(
        (b"Accept", b"*/*"),
        *((b"Origin", value) for value in origins),
        *((b"Sec-Fetch-Site", value) for value in sites),
        authority=OWN,
    )

    assert is_foreign_page(head) is (foreign_origin or foreign_site)


def test_no_origin_is_our_own_where_we_have_no_authority() -> None:
    """An HTTP/1.0 request without Host: `http://` is nobody's origin."""
    assert is_foreign_page(request((b"Origin", b"http://"), authority=b""))
