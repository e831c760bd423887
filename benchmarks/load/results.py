"""Figures of all repetitions: medians, ranges, and ratios to Envoy paired within a repetition. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.load.measures import Figures
from benchmarks.load.targets import DIRECT

REFERENCE = "envoy"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of one figure over the repetitions that have it."""

    median: float
    lowest: float
    highest: float


def spread(values: list[float]) -> Spread | None:
    """Give median and range, or None without any value."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Results:
    """`repetitions[i][target][figure]`."""

    repetitions: list[dict[str, Figures]] = field(default_factory=list)

    def add(self, repetition: dict[str, Figures]) -> None:
        """Take a finished repetition, and compute what each target adds to the direct way."""
        direct = repetition.get(DIRECT, {})
        for name, figures in repetition.items():
            if name != DIRECT:
                for key in [key for key in direct if key.startswith(("p50_ms", "p99_ms"))]:
                    figures[f"added_{key}"] = figures[key] - direct[key]
        self.repetitions.append(repetition)

    def keys(self, target: str) -> list[str]:
        """Give the names of a target's figures."""
        return sorted({key for one in self.repetitions for key in one.get(target, {})})

    def values(self, target: str, key: str) -> Spread | None:
        """Give one figure of one target."""
        found = [one.get(target, {}) for one in self.repetitions]
        return spread([figures[key] for figures in found if key in figures])

    def ratios(self, target: str, key: str) -> Spread | None:
        """Give the ratio of one figure to Envoy's of the same repetition.

        A repetition in which Envoy shows nothing above zero (an added latency lost in noise) has no ratio.
        """
        pairs = [
            (one[target][key], one[REFERENCE][key])
            for one in self.repetitions
            if key in one.get(target, {}) and key in one.get(REFERENCE, {})
        ]
        return spread([ours / theirs for ours, theirs in pairs if theirs > 0])
