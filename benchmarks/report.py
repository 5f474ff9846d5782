"""Makes a table for people and data for programs from the figures: medians, each with its ratios."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks import heavy, start
from benchmarks.drawing import Panel
from benchmarks.figures import Figures, Row
from benchmarks.systems import LOGS_OFF, Executor, Pool, StockServer

#: The systems by whose figure of the same measure the others are divided, and the name of each column.
REFERENCES = {Pool.name: "/ Pool", Executor.name: "/ Executor", StockServer.name: "/ BaseManager"}
#: The services without records of attempts in the log.
QUIET = [f"svc, {durability}{LOGS_OFF}" for durability in ("fsync", "os", "memory")]
#: Those of which each measure has one at most: they share the last column.
BASES = (start.PYTHON, heavy.FEW, heavy.SHALLOW, heavy.FEW_LANES, heavy.DISK, *QUIET)
#: Measures that the plot shows, with the title of each and how its figures are written.
PLOTTED = {
    "no-op jobs, end to end": ("no-op jobs a second, in bulk (more is better)", "{:,.0f}"),
    "Executor.submit one by one, end to end": ("the same, one call at a time (more is better)", "{:,.0f}"),
    "restart: connections a second": ("new connections a second after a restart", "{:,.0f}"),
    "round trip p50": ("ms from submit to result, one job (less is better)", "{:.2f}"),
}
_HEADER = ("measure", "system", "median", "unit", *REFERENCES.values(), "/ base")


def table(figures: Figures) -> str:
    """Return an aligned table: a line for each measure and system, with its median and ratios."""
    lines = [_HEADER]
    last = ""
    for row in _in_order(figures):
        ratios = [_ratio(figures, row, name) for name in REFERENCES]
        ratios.append(next((found for name in BASES if (found := _ratio(figures, row, name))), None))
        measure = "" if row.measure == last else row.measure
        last = row.measure
        cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append((measure, row.system, _number(_median(figures, row)), row.unit, *cells))
    return "\n".join(_aligned(lines))


def document(figures: Figures, sizes: object, rounds: int) -> dict[str, Any]:
    """Return all figures of every round as data."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "sizes": vars(sizes),
        "rounds": rounds,
        "figures": [_entry(figures, row) for row in _in_order(figures)],
    }


def panels(figures: Figures) -> list[Panel]:
    """Return the panels of the plot: the most interesting measures, as far as they were done."""
    bars = {
        measure: {row.system: _median(figures, row) for row in figures.rounds if row.measure == measure}
        for measure in PLOTTED
    }
    return [Panel(title, form, bars[measure]) for measure, (title, form) in PLOTTED.items() if bars[measure]]


def note(durabilities: Iterable[str]) -> str:
    """Return the text below the plot."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load average {load:.0f}; svc with {', '.join(durabilities)}"


def _entry(figures: Figures, row: Row) -> dict[str, Any]:
    ratios = {name: _ratio(figures, row, name) for name in (*REFERENCES, *BASES)}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    return {**row._asdict(), "median": _median(figures, row), "rounds": figures.rounds[row], "ratios": known}


def _in_order(figures: Figures) -> list[Row]:
    """Return the rows, those of one measure together, in the order in which they came."""
    measures = list(dict.fromkeys(row.measure for row in figures.rounds))
    return sorted(figures.rounds, key=lambda row: measures.index(row.measure))


def _median(figures: Figures, row: Row) -> float:
    return statistics.median(figures.rounds[row])


def _ratio(figures: Figures, row: Row, reference: str) -> float | None:
    other = row._replace(system=reference)
    if other not in figures.rounds or not _median(figures, other):
        return None
    return _median(figures, row) / _median(figures, other)


def _number(value: float) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 100 else 3
    return f"{value:,.{digits}f}"


def _aligned(lines: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if place in (0, 1, 3) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
