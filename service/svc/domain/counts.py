"""The number of jobs of a queue in each state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from svc.domain.lifecycle import UNFINISHED, InvariantBroken, JobState

#: The states of some jobs, by number, with the number of jobs in each.
Tally: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Counts:
    """The number of jobs of one queue in each state; finished jobs count while they are kept."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    submitted: int = 0

    @property
    def unfinished(self) -> int:
        """Jobs that have not ended."""
        return sum(getattr(self, word) for word in _UNFINISHED)

    @property
    def idle(self) -> bool:
        """Whether the queue has no jobs, not even finished ones."""
        return not any(self.by_state().values())

    def by_state(self) -> dict[str, int]:
        """Return the number of jobs in each state, by its word."""
        return {word: getattr(self, word) for word in _COUNTED}

    def move(self, tally: Tally, to: JobState) -> None:
        """Count the jobs of *tally* under state *to* from now on.

        Raises:
            InvariantBroken: fewer than 0 jobs would be left in a state.
        """
        moved = self.remove(tally)
        name = _COUNTED[to]
        setattr(self, name, getattr(self, name) + moved)

    def admit(self, states: bytearray, start: int, *, delayed: bool) -> None:
        """Count new jobs: those of *states* from *start* on. All are ready, unless some are *delayed*."""
        count = len(states) - start
        scheduled = states.count(JobState.SCHEDULED, start) if delayed else 0
        self.submitted += count
        self.scheduled += scheduled
        self.ready += count - scheduled

    def remove(self, tally: Tally) -> int:
        """Stop counting the jobs of *tally*; return their number.

        Raises:
            InvariantBroken: fewer than 0 jobs would be left in a state.
        """
        removed = 0
        for state, count in tally:
            name = _COUNTED[state]
            left = getattr(self, name) - count
            if left < 0:
                raise InvariantBroken(f"a queue would count {left} jobs as {name}")
            setattr(self, name, left)
            removed += count
        return removed


_COUNTED = tuple(state.word for state in JobState)
_UNFINISHED = tuple(state.word for state in UNFINISHED)
