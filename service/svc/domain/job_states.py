"""The states of the jobs of a chunk, one byte for each; and the number of jobs of a queue in each state."""

from __future__ import annotations

import re
from typing import TypeAlias

from svc.domain.lifecycle import FINISHED, PURGED, UNFINISHED, InvariantBroken, JobState, word_of

#: A plain number, because appending a member of an enumeration takes three times as long.
READY_BYTE = int(JobState.READY)
_NO_SUSPECTS: dict[int, int] = {}
#: The bytes of jobs that wait for nothing any more.
_ENDED = frozenset((*FINISHED, PURGED))
_PURGED = bytes((PURGED,))
#: Finds the runs of jobs that were not purged.
_KNOWN_RUNS = re.compile(b"[^" + _PURGED + b"]+")

#: The states of some jobs, by number, with the number of jobs in each.
Tally: TypeAlias = tuple[tuple[int, int], ...]


class JobStates:
    """The states of jobs that follow each other, by index from 0 on, and which of them are suspects.

    Attributes:
        suspects: for each suspect the event that made it one. `losses.Losses` keeps it.
        purges: the events that purged jobs. Such a job keeps its place, and has no state.
    """

    __slots__ = ("_states", "purges", "suspects")

    def __init__(self, count: int) -> None:
        """Start with *count* jobs that are ready."""
        self._states = bytearray((READY_BYTE,)) * count
        self.suspects = _NO_SUSPECTS
        self.purges: tuple[int, ...] = ()

    @property
    def has_suspects(self) -> bool:
        """Whether one of the jobs has ever been a suspect."""
        return self.suspects is not _NO_SUSPECTS

    def state(self, index: int) -> JobState:
        """Return the state of the job at *index*."""
        return JobState(self._states[index])

    def has_ended(self, index: int) -> bool:
        """Return whether the job at *index* is in a state in which jobs have ended, or was purged."""
        return self._states[index] in _ENDED

    def is_purged(self, index: int) -> bool:
        """Return whether the job at *index* was purged: it has no state then."""
        return self._states[index] == PURGED

    @property
    def known(self) -> int:
        """The number of jobs that were not purged."""
        return len(self._states) - (self._states.count(PURGED) if self.purges else 0)

    def tally(self, start: int, stop: int) -> Tally:
        """Return the states of the jobs in [start, stop), with the number of jobs in each."""
        states, count = self._states, stop - start
        first = states[start]
        if count == 1 or states.count(first, start, stop) == count:
            return ((first, count),)  # the usual case
        part = states[start:stop]
        return tuple((state, part.count(state)) for state in set(part))

    def count_in(self, state: JobState, start: int = 0, stop: int | None = None) -> int:
        """Return how many of the jobs in [start, stop), or from *start* on, are in *state*."""
        return self._states.count(state, start, stop)

    def last_in(self, state: JobState | None, stop: int) -> int:
        """Return the last job before *stop* that is in *state*, or in any if that is None; or -1."""
        if state is None:
            if not self.purges or not stop or self._states[stop - 1] != PURGED:
                return stop - 1
            return len(self._states[:stop].rstrip(_PURGED)) - 1
        return self._states.rfind(state, 0, stop)

    def next_ready(self, start: int, stop: int, *, apart: bool) -> int:
        """Return the first job in [start, stop) that is ready, and a suspect if *apart* or none if not.

        *stop* if there is none.
        """
        index = self._states.find(READY_BYTE, start, stop)
        while index >= 0 and (index in self.suspects) != apart:
            index = self._states.find(READY_BYTE, index + 1, stop)
        return index if index >= 0 else stop

    def ready_until(self, start: int, stop: int, *, apart: bool) -> int:
        """Return the first job in [start, stop) that `next_ready` would pass over, or *stop*."""
        states, suspects = self._states, self.suspects
        while start < stop and states[start] == READY_BYTE and (start in suspects) == apart:
            start += 1
        return start

    def mark(self, start: int, stop: int, state: JobState) -> None:
        """Set the state of the jobs in [start, stop)."""
        if stop - start == 1:
            self._states[start] = state
        else:
            self._states[start:stop] = bytes((state,)) * (stop - start)

    def known_runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the [start, stop) runs of jobs in [start, stop) that were not purged."""
        if not self.purges:
            return [(start, stop)]
        return [run.span() for run in _KNOWN_RUNS.finditer(self._states, start, stop)]

    def set_suspect(self, index: int, event: int) -> int:
        """Make a job a suspect by *event*, or none by 0; return the event that made it one before, or 0."""
        if self.suspects is _NO_SUSPECTS:
            self.suspects = {}
        before = self.suspects.pop(index, 0)
        if event:
            self.suspects[index] = event
        return before


#: The word of each state, by its number.
_WORDS = tuple(state.word for state in JobState)


class Counts:
    """The number of jobs of one queue in each state; finished jobs count while they are kept.

    Attributes:
        submitted: all jobs that were ever submitted.
    """

    __slots__ = ("_by_state", "submitted")

    def __init__(self) -> None:
        """Start with none."""
        self.submitted = 0
        self._by_state = [0] * len(JobState)

    def __getitem__(self, state: JobState) -> int:
        """Return the number of jobs in *state*."""
        return self._by_state[state]

    @property
    def unfinished(self) -> int:
        """Jobs that have not ended."""
        return sum(map(self._by_state.__getitem__, UNFINISHED))

    @property
    def waiting(self) -> int:
        """Jobs that wait for a consumer, or for their time."""
        return self._by_state[JobState.READY] + self._by_state[JobState.SCHEDULED]

    @property
    def idle(self) -> bool:
        """Whether the queue has no jobs, not even finished ones."""
        return not any(self._by_state)

    def by_state(self) -> dict[str, int]:
        """Return the number of jobs in each state, by its word."""
        return dict(zip(_WORDS, self._by_state, strict=True))

    def admit(self, ready: int, scheduled: int) -> None:
        """Count new jobs."""
        self.submitted += ready + scheduled
        self._by_state[JobState.READY] += ready
        self._by_state[JobState.SCHEDULED] += scheduled

    def move(self, tally: Tally, to: JobState | None) -> None:
        """Count the jobs of *tally* under state *to* from now on, or not at all.

        Raises:
            InvariantBroken: fewer than 0 jobs would be left in a state.
        """
        by_state = self._by_state
        for state, count in tally:
            if state == PURGED:
                continue
            left = by_state[state] - count
            if left < 0:
                raise InvariantBroken(f"a queue would count {left} jobs as {word_of(state)}")
            by_state[state] = left
            if to is not None:
                by_state[to] += count
