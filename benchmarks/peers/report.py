"""The table, and the same as data: medians over the rounds, and each system's ratio to svc."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.drawing import Panel

#: What everything is compared with.
REFERENCE = "svc, fsync"
_HEADER = ("system", "jobs/s", "svc is", "p50 ms", "svc is", "seed s", "accepted work is durable")
_COMPARED = ("jobs/s", "p50 ms", "seed s")
Rounds = dict[str, list[dict[str, float]]]


def document(rounds: Rounds, facts: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return all that was measured, as data.

    Args:
        rounds: for each system what each round gave.
        facts: for each system its `version`, `durable` and `settings`.
    """
    medians = {system: _medians(seen) for system, seen in rounds.items() if seen}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "systems": [
            {
                "system": system,
                **facts[system],
                "median": own,
                "svc": _ratios(medians.get(REFERENCE), own),
                "rounds": rounds[system],
            }
            for system, own in sorted(medians.items(), key=lambda each: each[1]["jobs/s"])
        ],
    }


def table(figures: dict[str, Any]) -> str:
    """Return the table: a line for each system, slowest first, then how each was set."""
    lines = [_HEADER, *(_line(each) for each in figures["systems"])]
    settings = [f"{each['system']} {each['version']}: {each['settings']}" for each in figures["systems"]]
    return "\n".join([*_aligned(lines), "", *settings])


def panels(figures: dict[str, Any]) -> list[Panel]:
    """Return what the plot shows."""
    systems = figures["systems"]
    return [
        Panel(title, form, {each["system"]: each["median"][measure] for each in systems})
        for measure, title, form in (
            ("jobs/s", "no-op jobs a second (more is better)", "{:,.0f}"),
            ("p50 ms", "ms from submit to result, one job (less is better)", "{:.2f}"),
        )
    ]


def note(figures: dict[str, Any]) -> str:
    """Return what stands below the plot."""
    return f"4 processes, {figures['cpus']} cores, load average {figures['load']:.0f}; Redis without fsync"


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    own, ratio = entry["median"], entry["svc"]
    return (
        entry["system"],
        f"{own['jobs/s']:,.0f}",
        f"{ratio['jobs/s']:.2f} x" if ratio else "-",
        f"{own['p50 ms']:.2f}",
        f"{ratio['p50 ms']:.2f} x" if ratio else "-",
        f"{own['seed s']:.2f}",
        entry["durable"],
    )


def _medians(seen: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in seen) for name in seen[0]}


def _ratios(ours: dict[str, float] | None, own: dict[str, float]) -> dict[str, float]:
    """Return svc's figures as multiples of the system's own."""
    return {name: ours[name] / own[name] for name in _COMPARED} if ours else {}


def _aligned(lines: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if 0 < place < 6 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
