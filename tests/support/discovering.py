"""A file whose service is found by discovery."""

from __future__ import annotations

from typing import Any

from tests.support.ports import reserve_port


def discovering(**discovery: Any) -> dict[str, Any]:
    """Give a configuration whose service `a` is found by discovery, in the clear on loopback."""
    return {
        "version": 1,
        "admin": {"listen": f"127.0.0.1:{reserve_port()}"},
        "drain": {"delay": "0s", "timeout": "10s"},
        "outbound": {"listen": f"127.0.0.1:{reserve_port()}"},
        "services": {"a": {"discovery": discovery, "plaintext": "loopback"}},
    }
