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

    @property
    def idle(self) -> bool:
        """Whether it has no jobs, finished ones included."""
        return not (self.unfinished or self.succeeded or self.dead or self.cancelled)

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

    def move(self, states: bytearray, start: int, stop: int, to: JobState) -> None:
        """Count the jobs [start, stop) of *states* as *to* from now on.

        Raises:
            InvariantBroken: fewer than none would be left in a state.
        """
        first, count = states[start], stop - start
        if count > 1 and states.count(first, start, stop) != count:
            self.remove(states, start, stop)
            self.add(to, count)
            return
        # As it mostly is. Not by `remove` and `add`, which take twice as long.
        name = _COUNTED[first]
        left = getattr(self, name) - count
        if left < 0:
            raise InvariantBroken(f"a queue would count {left} jobs as {name}")
        setattr(self, name, left)
        name = _COUNTED[to]
        setattr(self, name, getattr(self, name) + count)

    def admit(self, states: bytearray, start: int, *, delayed: bool) -> None:
        """Count new jobs, those of *states* from *start* on; unless some are *delayed*, all are ready."""
        count = len(states) - start
        scheduled = states.count(JobState.SCHEDULED, start) if delayed else 0
        self.submitted += count
        self.scheduled += scheduled
        self.ready += count - scheduled

    def remove(self, states: bytearray, start: int, stop: int) -> None:
        """Count the jobs [start, stop) of *states* no more."""
        first = states[start]
        if stop - start == 1:
            self.add(first, -1)
            return
        number = states.count(first, start, stop)
        self.add(first, -number)
        if number == stop - start:
            return  # as it mostly is
        for state in JobState:
            if state != first:
                self.add(state, -states.count(state, start, stop))


_COUNTED = tuple(state.word for state in JobState)
