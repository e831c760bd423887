"""The one way a run ends without a result."""

from __future__ import annotations


class LoadError(Exception):
    """A sentence for the person who ran the benchmark: what failed, and what to do about it."""
