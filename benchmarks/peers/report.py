"""Makes the table, and the same as data: medians over the rounds, and svc's figures relative to others'."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.drawing import Panel

#: The system with which all others are compared.
REFERENCE = "svc, fsync"
#: The format of each figure, in the order of the columns.
_FORMS = {
    "jobs/s": "{:,.0f}",
    "submits/s": "{:,.0f}",
    "p50 ms": "{:.2f}",
    "p99 ms": "{:.2f}",
    "p99.9 ms": "{:.2f}",
    "client ms": "{:.1f}",
    "manager ms": "{:.1f}",
    "consumers ms": "{:.1f}",
    "manager MiB": "{:.0f}",
    "consumers MiB": "{:.0f}",
    "textbook s": "{:.2f}",
    "true/s": "{:,.0f}",
}
_LEGEND = (
    "ms of client, manager and consumers: processor time for 1,000 jobs; MiB: the largest process, resident",
    "manager: svc's, or Redis; Dask's is in its client, Ray's and HyperQueue's among the consumers",
    "true/s: the program `true`, by `svc run --each-line` with its start, and by HyperQueue",
)
Rounds = dict[str, list[dict[str, float]]]


def document(rounds: Rounds, facts: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return all figures as data.

    Args:
        rounds: for each system, the figures of each round.
        facts: for each system, its `version`, `durable` and `settings`.
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
    """Return the tables: a line for each system, slowest first; the ratios; the settings of each system."""
    systems = figures["systems"]
    measured = [_line(each["system"], each["median"], _FORMS) for each in systems]
    compared = [_line(each["system"], each["svc"], dict.fromkeys(_FORMS, "{:.3g} x")) for each in systems]
    settings = [
        f"{each['system']} {each['version']}: {each['settings']}; accepted work is durable: {each['durable']}"
        for each in systems
    ]
    return "\n".join(
        [
            *_aligned([("medians", *_FORMS), *measured]),
            "",
            *_aligned([(f"{REFERENCE} is", *_FORMS), *compared]),
            "",
            *_LEGEND,
            "",
            *settings,
        ]
    )


def panels(figures: dict[str, Any]) -> list[Panel]:
    """Return the panels of the plot: the quickest system at the top."""
    systems = figures["systems"][::-1]
    return [
        Panel(title, form, {each["system"]: each["median"][measure] for each in systems})
        for measure, title, form in (
            ("jobs/s", "no-op jobs a second (more is better)", "{:,.0f}"),
            ("p50 ms", "ms from submit to result, one job (less is better)", "{:.2f}"),
        )
    ]


def note(figures: dict[str, Any]) -> str:
    """Return the text below the plot."""
    return f"4 processes, {figures['cpus']} cores, load average {figures['load']:.0f}; Redis without fsync"


def _line(system: str, figures: dict[str, float], forms: dict[str, str]) -> tuple[str, ...]:
    return (system, *(form.format(figures[name]) if name in figures else "-" for name, form in forms.items()))


def _medians(seen: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in seen) for name in seen[0]}


def _ratios(ours: dict[str, float] | None, own: dict[str, float]) -> dict[str, float]:
    """Return svc's figures as multiples of the system's own, for the figures that both have."""
    return {name: ours[name] / own[name] for name in _FORMS if ours and name in ours and own.get(name)}


def _aligned(lines: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
