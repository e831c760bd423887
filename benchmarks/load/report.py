"""Results as Markdown for people and the README, and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from benchmarks.load.measures import Plan
from benchmarks.load.results import REFERENCE, Results, Spread
from benchmarks.load.targets import DIRECT

SUBJECT = "ambassador"
_BUSY_GENERATOR = 0.95
_MANY_STRANGERS = 0.05
_LATE_MS = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `goal` is the highest ratio to Envoy that we want, None where none is set."""

    key: str
    label: str
    digits: int
    goal: float | None = None


def rows(plan: Plan) -> list[Row]:
    """Give the figures of a plan in the order of the report."""
    found: list[Row] = []
    for count in plan.connections:
        at = f"at {count} connection{'s' if count > 1 else ''}"
        found += [
            Row(
                f"cpu_total_us@{count}",
                f"CPU µs per request and proxy {at}",
                1,
                0.85 if count > 1 else None,
            ),
            Row(f"cpu_user_us@{count}", f"… user {at}", 1),
            Row(f"cpu_system_us@{count}", f"… system {at}", 1),
            Row(f"cpu_outbound_us@{count}", f"… outbound proxy {at}", 1),
            Row(f"cpu_inbound_us@{count}", f"… inbound proxy {at}", 1),
            Row(f"rps@{count}", f"requests/s {at}", 0),
        ]
    for rate in plan.rates:
        goals = (0.85, 1.0) if rate == 1000 else (None, None)
        found += [
            Row(f"p50_ms@{rate}", f"p50 ms at {rate}/s", 3),
            Row(f"p99_ms@{rate}", f"p99 ms at {rate}/s", 3),
            Row(f"added_p50_ms@{rate}", f"added p50 ms at {rate}/s", 3, goals[0]),
            Row(f"added_p99_ms@{rate}", f"added p99 ms at {rate}/s", 3, goals[1]),
        ]
    return [
        *found,
        Row("handshake_full_us", "CPU µs per full handshake (inbound)", 0, 2.0),
        Row("handshake_resumed_us", "CPU µs per resumed handshake (inbound)", 0),
        Row("bulk_cpu_s", "bulk: CPU s per GiB and proxy", 3, 1.6),
        Row("bulk_outbound_cpu_s", "… outbound proxy", 3),
        Row("bulk_inbound_cpu_s", "… inbound proxy", 3),
        Row("bulk_mb_s", "bulk: MB/s", 0),
        Row("idle_rss_mib", "idle memory: RSS MiB per proxy", 1, 1.1),
        Row("idle_pss_mib", "idle memory: PSS MiB per proxy", 1),
        Row("idle_private_mib", "idle memory: private MiB per proxy", 1),
    ]


def markdown(facts: dict[str, str], plan: Plan, results: Results, targets: list[str]) -> str:
    """Give figures, ratios, and what to think of them."""
    shown = [row for row in rows(plan) if any(results.values(name, row.key) for name in targets)]
    parts = [
        "\n".join(f"* {name}: {value}" for name, value in facts.items()),
        f"Median [lowest, highest] of {len(results.repetitions)} repetitions.",
        _table(
            ["figure", *targets],
            [
                [row.label, *(_cell(results.values(name, row.key), row.digits) for name in targets)]
                for row in shown
            ],
        ),
    ]
    if REFERENCE in targets:
        others = [name for name in targets if name not in (DIRECT, REFERENCE)]
        parts += [
            f"Ratio to {REFERENCE}, paired within a repetition.",
            _table(
                ["figure", *others, "goal", SUBJECT + " reaches it"],
                [
                    _ratio_line(results, row, others)
                    for row in shown
                    if not row.key.startswith(("p50", "p99"))
                ],
            ),
        ]
    return "\n\n".join([*parts, *_notes(results, targets)])


def as_json(facts: dict[str, str], plan: Plan, results: Results, targets: list[str]) -> str:
    """Give everything, each repetition included."""
    figures: dict[str, dict[str, object]] = {}
    for row in rows(plan):
        for name in targets:
            if values := results.values(name, row.key):
                ratio = results.ratios(name, row.key)
                figures.setdefault(row.key, {"label": row.label, "goal": row.goal})[name] = {
                    **asdict(values),
                    "ratio": asdict(ratio) if ratio else None,
                }
    return json.dumps(
        {
            "facts": facts,
            "plan": asdict(plan),
            "figures": figures,
            "notes": _notes(results, targets),
            "repetitions": results.repetitions,
        },
        indent=1,
    )


def _ratio_line(results: Results, row: Row, others: list[str]) -> list[str]:
    ratio = results.ratios(SUBJECT, row.key) if SUBJECT in others else None
    goal = f"<= {row.goal}" if row.goal else ""
    verdict = ("yes" if ratio.median <= row.goal else "**no**") if ratio and row.goal else ""
    return [row.label, *(_cell(results.ratios(name, row.key), 2) for name in others), goal, verdict]


def _cell(values: Spread | None, digits: int) -> str:
    if values is None:
        return "-"
    return f"{values.median:.{digits}f} [{values.lowest:.{digits}f}, {values.highest:.{digits}f}]"


def _table(head: list[str], lines: list[list[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ruler, *lines))


def _notes(results: Results, targets: list[str]) -> list[str]:
    """Say what makes the figures doubtful."""
    notes = []
    strangers = [
        spread.highest for name in targets if (spread := results.values(name, "strangers"))
    ]
    if strangers and max(strangers) > _MANY_STRANGERS:
        notes.append(
            f"Doubtful: other processes took up to {max(strangers):.0%} of the proxies' core during the CPU windows."
        )
    for name in targets:
        busy = results.values(name, "generator_busy")
        if name != DIRECT and busy and busy.highest > _BUSY_GENERATOR:
            notes.append(
                f"{name}: the generator's core was {busy.highest:.0%} busy; "
                "its requests/s may be the generator's limit."
            )
    late = [
        value.highest
        for key in results.keys(DIRECT)
        if key.startswith("late_p99") and (value := results.values(DIRECT, key))
    ]
    if late and max(late) > _LATE_MS:
        notes.append(f"Doubtful: the generator was up to {max(late):.2f} ms late (p99, direct).")
    return notes
