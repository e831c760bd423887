"""Microseconds of the path steps, each in a loop of its own: python -m benchmarks.micro.policy_paths."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable

from ambassador.policy.paths import compile_path_pattern, is_normal_path, match_key

_SHORT = b"/v1/items/42?page=3"
_ESCAPED = b"/v1/users/me%40example.org/caf%c3%a9"
_HOSTILE = b"/a" * 8000 + b"/.."


def _report(name: str, step: Callable[[], object], count: int = 100_000) -> None:
    best = min(timeit.repeat(step, number=count, repeat=5)) / count
    sys.stdout.write(f"{name:45} {best * 1e6:7.3f} us\n")


def main() -> None:
    """Print one line per step."""
    pattern = compile_path_pattern("/v1/*/**")
    _report("is_normal_path, 19 bytes", lambda: is_normal_path(_SHORT))
    _report("is_normal_path, escapes", lambda: is_normal_path(_ESCAPED))
    _report("is_normal_path, 16 KB hostile", lambda: is_normal_path(_HOSTILE), 500)
    _report("match_key, 19 bytes", lambda: match_key(_SHORT))
    _report("match_key, escapes", lambda: match_key(_ESCAPED))
    _report("PathPattern.matches", lambda: pattern.matches(b"/v1/items/42"))


if __name__ == "__main__":
    main()
