"""The figures of a benchmark, by rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

#: The figures of a round trip: a name, and the share of all round trips that took no longer.
TRIP_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Row(NamedTuple):
    """The measure, unit and system of a figure."""

    measure: str
    unit: str
    system: str


@dataclass
class Figures:
    """All figures: for each row one number from each round."""

    rounds: dict[Row, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, measure: str, unit: str, system: str, value: float) -> None:
        """Add the figure of one round."""
        self.rounds[Row(measure, unit, system)].append(value)


def below(values: Collection[float], share: float) -> float:
    """Return the value below which a *share* of *values* lies; there must be at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
