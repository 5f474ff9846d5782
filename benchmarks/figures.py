"""What was measured, row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

#: What is told of a round trip: names, and the share of all that took no longer.
TRIP_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Row(NamedTuple):
    """What a figure is about."""

    measure: str
    unit: str
    system: str


@dataclass
class Figures:
    """All that was measured: for each row one number from each round."""

    rounds: dict[Row, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, measure: str, unit: str, system: str, value: float) -> None:
        """Add what one round gave."""
        self.rounds[Row(measure, unit, system)].append(value)


def below(values: Collection[float], share: float) -> float:
    """Return the value below which a *share* of *values*, one or more, stays."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
