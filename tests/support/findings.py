"""The findings of the checker of histories, and their display."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.support.resources import Excess

_HEAD = """\
| fault | injected | repeats it explains | recovery median | recovery longest | left over at most |
|---|---:|---:|---:|---:|---:|"""


@dataclass
class Findings:
    """The findings of the checker; `violations` is empty if all invariants held.

    Attributes:
        left_over: the largest remaining excess of a resource, for each kind of fault.
        aged: the largest share by which the memory of a process exceeded that of its replacement.
        longest_return: the longest time in seconds until everything was back.
        undealt: faults that this machine cannot produce, with the reason.
    """

    violations: list[str] = field(default_factory=list)
    jobs: int = 0
    lost: int = 0
    twice: int = 0
    invented: int = 0
    explained: int = 0
    unexplained: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    longest_overrun: float = 0.0
    left_over: dict[str, Excess] = field(default_factory=dict)
    longest_return: float = 0.0
    aged: float = 0.0
    undealt: dict[str, str] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Add the findings of another run, for one table of several suites."""
        self.violations += other.violations
        for name in ("jobs", "lost", "twice", "invented", "explained", "unexplained"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.repeats += other.repeats
        for kind, times in other.recoveries.items():
            self.recoveries[kind] += times
        for kind, excess in other.left_over.items():
            self.left_over[kind] = max(excess, self.left_over.get(kind, excess), key=lambda each: each.share)
        self.longest_overrun = max(self.longest_overrun, other.longest_overrun)
        self.longest_return = max(self.longest_return, other.longest_return)
        self.aged = max(self.aged, other.aged)
        self.undealt |= other.undealt


def table(findings: Findings) -> str:
    """Return the findings as a Markdown table, a row for each kind of fault, and a summary in words."""
    kinds = sorted(findings.faults.keys() | findings.repeats.keys() | findings.undealt.keys(), key=_rank)
    total = (
        f"{findings.faults.total()} faults of {len(findings.faults)} kinds over {findings.jobs:,} jobs: "
        f"lost {findings.lost}, recorded twice {findings.twice}, invented {findings.invented}, "
        f"repeated executions {findings.explained} explained and {findings.unexplained} unexplained, "
        f"latest answer {findings.longest_overrun:+.2f} s from its deadline. Threads, descriptors, processes "
        f"and memory were back {findings.longest_return:.1f} s after a fault at the latest; a process that "
        f"was replaced had at most {findings.aged:.1%} more memory than its fresh successor."
    )
    return "\n".join([_HEAD, *(_row(findings, kind) for kind in kinds), "", total])


def _row(findings: Findings, kind: str) -> str:
    if kind in findings.undealt:
        return f"| {kind} | not dealt: {findings.undealt[kind]} | – | – | – | – |"
    times = findings.recoveries.get(kind)
    shown = (f"{statistics.median(times):.2f} s", f"{max(times):.2f} s") if times else ("–", "–")
    cells = (
        kind,
        findings.faults[kind] or "–",
        findings.repeats[kind],
        *shown,
        findings.left_over.get(kind, "–"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _rank(kind: str) -> tuple[int, str]:
    """Order the rows of the fault matrix by number, and all other rows after them."""
    row = kind.split(" ", 1)[0]
    return (int(row[1:]) if row[:1] == "F" and row[1:].isdigit() else 1000, kind)
