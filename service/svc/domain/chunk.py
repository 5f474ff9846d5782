"""Jobs that were submitted together, held in a few bytes each.

A job that simply runs and succeeds never becomes an object: its state is one byte of its chunk, its
outcome a reference to the event that recorded it. Only a job with a history gets a `JobRecord`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from operator import sub
from typing import TYPE_CHECKING

from svc.domain.counts import Tally
from svc.domain.events import Merged, Submitted
from svc.domain.job import Cause, Terms, job_id
from svc.domain.lifecycle import JobState

if TYPE_CHECKING:
    from svc.domain.due import Sleepers

#: Ended attempts that the record of a job keeps; its counters go on beyond that.
ATTEMPTS_KEPT = 20
#: Jobs that a chunk may have and still grow. It grows by submits that continue its job numbers.
GROWN_JOBS_MAX = 256
#: A plain number, because appending a member of an enumeration takes three times as long.
_READY = int(JobState.READY)
#: Finds the runs of jobs in each state.
_RUNS = {state: re.compile(re.escape(bytes((state,))) + b"+") for state in JobState}
#: Memory that CPython takes for a bytes object and its place in a list, beside the bytes themselves.
BODY_OVERHEAD_BYTES = 48


class JobRecord:
    """What is particular about one job: its ledgers, and the rows of the journal about it alone."""

    __slots__ = (
        "answered",
        "attempts",
        "cleared",
        "crashes",
        "due",
        "ended",
        "failures",
        "interruptions",
        "requeued",
        "suspicions",
    )

    def __init__(self) -> None:
        """Start with all counters at 0."""
        self.failures = 0
        self.crashes = 0
        self.interruptions = 0
        self.suspicions = 0
        #: Its attempts that have ended so far, those that are no longer kept included.
        self.ended = 0
        self.due: float | None = None
        #: The events that ended its last attempts. The journal has everything else about an attempt.
        self.attempts = array("Q")
        #: The event that requeued the job, if no attempt has ended since; 0 if there is none.
        self.requeued = 0
        #: The last event that took its outcome out of `results`; 0 if there is none.
        self.answered = 0
        #: The event that withdrew its last suspicion, if no attempt has ended since.
        self.cleared = 0

    def drop_old_attempts(self) -> list[int]:
        """Forget all attempts but the last ones; return the events that are no longer referred to."""
        if len(self.attempts) <= ATTEMPTS_KEPT:
            return []
        dropped = list(self.attempts[:-ATTEMPTS_KEPT])
        del self.attempts[:-ATTEMPTS_KEPT]
        return dropped

    def pardon(self) -> None:
        """Give the job a fresh retry budget: reset the failures and the crashes, and keep its attempts."""
        self.failures = 0
        self.crashes = 0
        self.suspicions = 0
        self.due = None


#: Failures, crashes, interruptions and suspicions of a job.
Ledgers = tuple[int, int, int, int]


def ledgers_after(record: JobRecord | None, cause: Cause) -> Ledgers:
    """Return the ledgers of a job after one more attempt that ended for *cause*.

    An attempt that brings a suspicion was interrupted too.
    """
    failures = crashes = interruptions = suspicions = 0
    if record is not None:
        failures, crashes = record.failures, record.crashes
        interruptions, suspicions = record.interruptions, record.suspicions
    match cause:
        case Cause.CRASHED:
            crashes += 1
        case Cause.INTERRUPTED:
            interruptions += 1
        case Cause.SUSPECTED:
            interruptions += 1
            suspicions += 1
        case _:
            failures += 1
    return failures, crashes, interruptions, suspicions


class Chunk:
    """Consecutive jobs of one origin that one event, or several small events, accepted.

    Jobs that are submitted one by one would need a chunk each. Instead, a chunk *grows*: it takes jobs that
    continue its job numbers. After a while its rows are *merged* into one. Both steps depend on the events
    alone, so a replay makes the same chunks. Keys and single due times are columns: one entry for each job.
    Indexes count from 0 within the chunk; job numbers are `first + index`. `bodies` is None while only
    the journal has them.
    """

    __slots__ = (
        "accepted_at",
        "accepted_by",
        "at",
        "bodies",
        "count",
        "digests",
        "due",
        "dues",
        "finished_at",
        "first",
        "growing",
        "keys",
        "origin",
        "outcomes",
        "ragged",
        "records",
        "row",
        "sequence",
        "size",
        "sleepers",
        "states",
        "suspects",
        "terms",
        "unfinished",
    )

    def __init__(self, sequence: int, event: Submitted, size: int | None = None) -> None:
        """Hold the jobs of *event*, which the journal knows by *sequence*; *size* is that of all bodies."""
        self.sequence = sequence
        self.origin = event.origin
        self.first = event.first
        self.count = len(event.bodies)
        self.terms: Terms = event.terms
        # A tuple of bytes, because the garbage collector stops tracking it at its first look. The window may
        # hold a million bodies, and walking over lists of them takes the collector tens of milliseconds.
        self.bodies: tuple[bytes, ...] | list[bytes] | None = tuple(event.bodies)
        self.size = sum(map(len, event.bodies)) if size is None else size
        self.at = event.at
        #: If the chunk has grown, the event that accepted each job, and the time of that event.
        self.accepted_by: array[int] | None = None
        self.accepted_at: array[float] | None = None
        #: The due time that all its jobs share; None if `dues` has them or the jobs were ready at once.
        self.due = event.due
        #: The due time of each job, or 0 if it was ready at once.
        self.dues = array("d", event.dues) if event.dues else None
        #: The key of each job, or "" if it has none.
        self.keys = _keys_of(event)
        #: The digest of the content of each job that has a key; `keys.Keys` maintains it.
        self.digests: bytearray | None = None
        #: The jobs that wait for a due time of their own.
        self.sleepers: Sleepers | None = None
        #: The row that has all bodies after a merge; 0 while each job's body is in the row that accepted it.
        self.row = 0
        #: Whether the chunk may grow. It stops once it is merged or all its jobs have ended.
        self.growing = True
        self.states = _initial_states(event)
        #: The sequence number of the event that ended each job; made when the first job ends.
        self.outcomes: array[int] | None = None
        self.records: dict[int, JobRecord] = {}
        self.unfinished = self.count
        self.finished_at = 0.0
        #: Whether a span of ready jobs may contain jobs that are not ready.
        self.ragged = False
        #: For each suspect the event that made it one; None if there never was one. `losses.Losses` keeps it.
        self.suspects: dict[int, int] | None = None

    @classmethod
    def from_merged(cls, row: int, event: Merged) -> Chunk:
        """Return the chunk that *event*, which is row *row* of the journal, has merged."""
        first = Submitted(
            event.accepted_at[0],
            event.origin,
            event.first,
            event.terms,
            event.bodies,
            dues=event.dues,
            keys=event.keys,
        )
        chunk = cls(event.accepted_by[0], first)
        chunk.accepted_by = array("Q", event.accepted_by)
        chunk.accepted_at = array("d", event.accepted_at)
        chunk.merge(row)
        return chunk

    @property
    def weight(self) -> int:
        """Estimated bytes of memory that the bodies take: each one is an object of its own in a list."""
        return self.size + self.count * BODY_OVERHEAD_BYTES

    def goes_on_with(self, first: int, count: int, terms: Terms) -> bool:
        """Return whether `grow` may take *count* jobs from number *first* on; the chunk's own are older."""
        return (
            self.growing
            and first == self.first + self.count
            and self.count + count <= GROWN_JOBS_MAX
            and (terms is self.terms or terms == self.terms)
        )

    def grow(self, sequence: int, event: Submitted) -> int:
        """Take in the jobs of *event*, which `goes_on_with` allows; return the growth of `weight`.

        Their bodies stay in memory if those of the other jobs are there.
        """
        if self.accepted_by is None or self.accepted_at is None:
            self.accepted_by = array("Q", (self.sequence,)) * self.count
            self.accepted_at = array("d", (self.at,)) * self.count
        at, bodies = event.at, event.bodies
        size = 0
        for body in bodies:
            size += len(body)
            self.accepted_by.append(sequence)
            self.accepted_at.append(at)
        count = len(bodies)
        if self.keys is not None or event.key or event.keys:
            self.keys = [*(self.keys or [""] * self.count), *(_keys_of(event) or [""] * count)]
        if event.due is None and not event.dues:
            self.states += bytes((_READY,)) * count
        else:
            self.states += _initial_states(event)
        if event.due is not None or event.dues or self.due is not None or self.dues is not None:
            self._column_of_dues().extend(event.dues or [event.due or 0.0] * count)
        if self.outcomes is not None:
            self.outcomes.extend(array("Q", bytes(8 * count)))
        if isinstance(self.bodies, list):
            self.bodies += bodies
        elif self.bodies is not None:
            self.bodies = [*self.bodies, *bodies]
        self.size += size
        self.count += count
        self.unfinished += count
        return size + count * BODY_OVERHEAD_BYTES

    def _column_of_dues(self) -> array[float]:
        if self.dues is None:
            self.dues = array("d", (self.due or 0.0,)) * self.count
            self.due = None
        return self.dues

    @property
    def mergeable(self) -> bool:
        """Whether its jobs came one by one, and nothing has happened to any of them since."""
        touched = self.outcomes or self.records or self.suspects is not None
        return not (self.accepted_by is None or self.row or touched)

    def merge(self, row: int) -> None:
        """Note that row *row* has all bodies from now on."""
        self.row = row
        self.growing = False

    def sequence_of(self, index: int) -> int:
        """Return the sequence number of the event that accepted the job at *index*."""
        return self.sequence if self.accepted_by is None else self.accepted_by[index]

    def at_of(self, index: int) -> float:
        """Return the time at which the job at *index* was accepted."""
        return self.at if self.accepted_at is None else self.accepted_at[index]

    def due_of(self, index: int) -> float | None:
        """Return the due time of the job at *index*, or None if it was ready at once."""
        return self.due if self.dues is None else self.dues[index] or None

    def key_of(self, index: int) -> str:
        """Return the key of the job at *index*, or "" if it has none."""
        return "" if self.keys is None else self.keys[index]

    def unbroken(self, index: int) -> bool:
        """Return whether no other job can have come between the job at *index* and the one before it."""
        return self.accepted_by is None or self.accepted_by[index] - self.accepted_by[index - 1] <= 1

    def id(self, index: int) -> str:
        """Return the id of the job at *index*."""
        return job_id(self.origin, self.first + index)

    def state(self, index: int) -> JobState:
        """Return the state of the job at *index*."""
        return JobState(self.states[index])

    def record(self, index: int) -> JobRecord:
        """Return the record of the job at *index*; make one if there is none."""
        found = self.records.get(index)
        if found is None:
            found = self.records[index] = JobRecord()
        return found

    def alike(self, start: int, limit: int, room: int) -> int:
        """Return how many jobs from *start* on, *limit* at most, can go into one delivery.

        These jobs have equal counters. Their bodies take at most *room* bytes if each has the mean size.
        """
        if self.size > room:
            limit = min(limit, max(1, room * self.count // self.size))
        if self.records:
            if start in self.records:
                return 1
            indexes = range(start, start + limit)
            # A chunk may have very many records, but a delivery has no more jobs than one lease may have.
            following = (index for index in indexes if index in self.records)
            limit = min(limit, next(following, start + limit) - start)
        return limit

    def tally(self, start: int, stop: int) -> Tally:
        """Return the states of the jobs in [start, stop), with the number of jobs in each."""
        states, count = self.states, stop - start
        first = states[start]
        if count == 1 or states.count(first, start, stop) == count:
            return ((first, count),)  # the usual case
        part = states[start:stop]
        return tuple((state, part.count(state)) for state in set(part))

    def next_ready(self, start: int, stop: int, *, apart: bool) -> int:
        """Return the first job in [start, stop) that is ready, and a suspect if *apart* or none if not.

        *stop* if there is none.
        """
        suspects = self.suspects or ()
        index = self.states.find(_READY, start, stop)
        while index >= 0 and (index in suspects) != apart:
            index = self.states.find(_READY, index + 1, stop)
        return index if index >= 0 else stop

    def ready_until(self, start: int, stop: int, *, apart: bool) -> int:
        """Return the first job in [start, stop) that `next_ready` would pass over, or *stop*."""
        states, suspects = self.states, self.suspects or ()
        while start < stop and states[start] == _READY and (start in suspects) == apart:
            start += 1
        return start

    def mark(self, start: int, stop: int, state: JobState) -> None:
        """Set the state of the jobs in [start, stop)."""
        if stop - start == 1:
            self.states[start] = state
        else:
            self.states[start:stop] = bytes((state,)) * (stop - start)

    def end(self, start: int, stop: int, state: JobState, sequence: int) -> None:
        """Record that the jobs in [start, stop) ended, by event *sequence*."""
        if self.outcomes is None:
            self.outcomes = array("Q", bytes(8 * self.count))
        self.mark(start, stop, state)
        if stop - start == 1:
            self.outcomes[start] = sequence
        else:
            self.outcomes[start:stop] = array("Q", (sequence,)) * (stop - start)
        self.unfinished -= stop - start
        self.growing = self.growing and self.unfinished > 0

    def runs(self, state: JobState, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the [start, stop) runs of jobs in [first, last) that are in *state*, cut if not `unbroken`.

        The caller must not change the state of a job meanwhile.
        """
        for run in _RUNS[state].finditer(self.states, first, self.count if last is None else last):
            start, end = run.span()
            if self._is_broken(start, end):
                for stop in range(start + 1, end):
                    if not self.unbroken(stop):
                        yield start, stop
                        start = stop
            yield start, end

    def _is_broken(self, start: int, stop: int) -> bool:
        accepted_by = self.accepted_by
        if accepted_by is None or stop - start < 2:
            return False
        gaps = map(sub, accepted_by[start + 1 : stop], accepted_by[start : stop - 1])
        return any(gap > 1 for gap in gaps)

    def row_of(self, index: int) -> int:
        """Return the journal row that has the body of the job at *index*."""
        return self.row or self.sequence_of(index)

    def rows(self) -> list[int]:
        """Return the journal rows that have the bodies, in order."""
        if self.row or self.accepted_by is None:
            return [self.row or self.sequence]
        return list(dict.fromkeys(self.accepted_by))


def _keys_of(event: Submitted) -> list[str] | None:
    """Return the key of each job of *event*, "" if it has none; or None if no job has a key."""
    if event.keys:
        return list(event.keys)
    return [event.key, *[""] * (len(event.bodies) - 1)] if event.key else None


def _initial_states(event: Submitted) -> bytearray:
    if event.dues:
        return bytearray(JobState.SCHEDULED if due else JobState.READY for due in event.dues)
    initial = JobState.READY if event.due is None else JobState.SCHEDULED
    return bytearray((initial,)) * len(event.bodies)
