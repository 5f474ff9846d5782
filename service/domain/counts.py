"""How many jobs of a queue are in which state."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.lifecycle import InvariantBroken, JobState


@dataclass(slots=True)
class Counts:
    """How many jobs of one queue are in each state; finished ones as long as they are kept."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    submitted: int = 0

    @property
    def unfinished(self) -> int:
        """Jobs that are still to be done."""
        return self.ready + self.scheduled + self.leased

    def add(self, state: int, count: int) -> None:
        """Add *count* jobs to *state*.

        Raises:
            InvariantBroken: fewer than none would be left.
        """
        name = _COUNTED[state]
        number = getattr(self, name) + count
        if number < 0:
            raise InvariantBroken(f"a queue would count {number} jobs as {name}")
        setattr(self, name, number)


_COUNTED = tuple(state.word for state in JobState)
