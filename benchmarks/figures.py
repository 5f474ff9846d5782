"""What was measured, row by row."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


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
