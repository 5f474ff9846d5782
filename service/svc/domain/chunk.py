"""Jobs that were submitted together, held in a few bytes each.

A job that simply runs and succeeds never becomes an object: its state is one byte of its chunk, its
outcome a reference to the event that recorded it. Only a job with a history gets a `JobRecord`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import sub
from typing import TYPE_CHECKING

from svc.domain.columns import Columns
from svc.domain.events import Submitted
from svc.domain.job import Terms, job_id
from svc.domain.job_records import JobRecord
from svc.domain.job_states import READY_BYTE, JobStates
from svc.domain.lifecycle import FINISHED, PURGED, JobState

if TYPE_CHECKING:
    from svc.domain.members import LeaseRecord

#: Jobs that a chunk may have and still grow. It grows by submits that continue its job numbers.
GROWN_JOBS_MAX = 256
#: Memory that CPython takes for a bytes object and its place in a list, beside the bytes themselves.
BODY_OVERHEAD_BYTES = 48
#: Finds the runs of jobs in each state.
_RUNS = {state: re.compile(re.escape(bytes((state,))) + b"+") for state in JobState}


class Chunk(JobStates):
    """Consecutive jobs of one origin that one event, or several small events, accepted.

    Jobs that are submitted one by one would need a chunk each. Instead, a chunk *grows*: it takes jobs that
    continue its job numbers. After a while its rows are *merged* into one. Both steps depend on the events
    alone, so a replay makes the same chunks. Indexes count from 0 within the chunk; job numbers are
    `first + index`. Other modules read the attributes below, and change a chunk by its verbs alone.

    Attributes:
        sequence: the event that accepted the first job; it names the chunk.
        origin: the origin of the jobs, and `first`, the number of the first one.
        count: the number of jobs.
        terms: the properties that all jobs have in common.
        size: the bytes of all bodies and headers.
        columns: the keys, due times and headers of the jobs; None if no job has any of these.
        records: the records of the jobs that have one, by index; `NO_RECORD` stands for the others.
        unfinished: the number of jobs that have not ended.
        finished_at: the time at which the last job ended.
        has_gaps: whether a span of ready jobs may contain jobs that are not ready.
        is_kept_dead: whether it is past its retention, and kept because it has dead jobs.
        newest_lease: the newest lease of its jobs that is in force; it leads to the others (`leases`).
    """

    __slots__ = (
        "_accepted_at",
        "_accepted_by",
        "_at",
        "_bodies",
        "_ended_by",
        "_may_grow",
        "_row",
        "columns",
        "count",
        "finished_at",
        "first",
        "has_gaps",
        "is_kept_dead",
        "newest_lease",
        "origin",
        "records",
        "sequence",
        "size",
        "terms",
        "unfinished",
    )

    def __init__(
        self, sequence: int, event: Submitted, size: int | None = None, terms: Terms | None = None
    ) -> None:
        """Hold the jobs of *event*, which the journal knows by *sequence*; *size* is that of all bodies.

        *terms* equal those of the event, and may be an object that other chunks share.
        """
        bodies = event.bodies
        super().__init__(len(bodies))
        self.sequence = sequence
        self.origin = event.origin
        self.first = event.first
        self.count = self.unfinished = len(bodies)
        self.terms = terms or event.terms
        self.size = sum(map(len, bodies)) if size is None else size
        # A tuple of bytes, because the garbage collector stops tracking it at its first look. The window may
        # hold a million bodies, and walking over lists of them takes the collector tens of milliseconds.
        # None while only the journal has the bodies.
        self._bodies: tuple[bytes, ...] | list[bytes] | None = tuple(bodies)
        self._at = event.at
        # If the chunk has grown, the event that accepted each job, and the time of that event.
        self._accepted_by: array[int] | None = None
        self._accepted_at: array[float] | None = None
        # The row that has all bodies after a merge; 0 while each job's body is in the row that accepted it.
        self._row = 0
        # It stops to grow once it is merged or all its jobs have ended.
        self._may_grow = True
        # The sequence number of the event that ended each job; made when the first job ends.
        self._ended_by: array[int] | None = None
        self.records: dict[int, JobRecord] = {}
        self.finished_at = 0.0
        self.has_gaps = False
        self.is_kept_dead = False
        self.newest_lease: LeaseRecord | None = None
        self.columns: Columns | None = None
        if _has_columns(event):
            self._take_columns(event, 0)

    # --- growth and merging -------------------------------------------------------------------------

    @property
    def weight(self) -> int:
        """Estimated bytes of memory that the bodies take: each one is an object of its own in a list."""
        return self.size + self.count * BODY_OVERHEAD_BYTES

    def may_take(self, first: int, count: int, terms: Terms) -> bool:
        """Return whether `grow` may take *count* jobs from number *first* on; the chunk's own are older."""
        return (
            self._may_grow
            and first == self.first + self.count
            and self.count + count <= GROWN_JOBS_MAX
            and (terms is self.terms or terms == self.terms)
        )

    def grow(self, sequence: int, event: Submitted) -> int:
        """Take in the jobs of *event*, which `may_take` allows; return the growth of `weight`.

        Their bodies stay in memory if those of the other jobs are there.
        """
        if self._accepted_by is None or self._accepted_at is None:
            self._accepted_by = array("Q", (self.sequence,)) * self.count
            self._accepted_at = array("d", (self._at,)) * self.count
        before, size, bodies, count = self.count, self.size, event.bodies, len(event.bodies)
        self._accepted_by.extend((sequence,) * count)
        self._accepted_at.extend((event.at,) * count)
        self._states += bytes((READY_BYTE,)) * count
        if self._ended_by is not None:
            self._ended_by.extend((0,) * count)
        if isinstance(self._bodies, list):
            self._bodies += bodies
        elif self._bodies is not None:
            self._bodies = [*self._bodies, *bodies]
        self.size += sum(map(len, bodies))
        self.count += count
        self.unfinished += count
        if self.columns is not None or _has_columns(event):
            self._take_columns(event, before)
        return self.size - size + count * BODY_OVERHEAD_BYTES

    def _take_columns(self, event: Submitted, before: int) -> None:
        """Take the columns of *event*, whose jobs come after *before* others."""
        if self.columns is None:
            self.columns = Columns()
        self.columns.add(event, before, in_memory=self._bodies is not None)
        self.size += sum(map(len, event.headers))
        if event.dues:
            self._states[before:] = (JobState.SCHEDULED if due else READY_BYTE for due in event.dues)
        elif event.due is not None:
            self.mark(before, self.count, JobState.SCHEDULED)

    @property
    def has_grown(self) -> bool:
        """Whether its jobs came by several events."""
        return self._accepted_by is not None

    @property
    def mergeable(self) -> bool:
        """Whether its jobs came one by one, and nothing has happened to any of them since."""
        touched = self._ended_by or self.records or self.has_suspects
        return not (self._accepted_by is None or self._row or touched)

    def merge(self, row: int) -> None:
        """Note that row *row* has all bodies from now on."""
        self._row = row
        self._may_grow = False

    def restore(self, row: int, accepted_by: Sequence[int], accepted_at: Sequence[float]) -> None:
        """Note that row *row* has merged its jobs, which these events accepted at these times."""
        self._accepted_by, self._accepted_at = array("Q", accepted_by), array("d", accepted_at)
        self.merge(row)

    # --- bodies and rows ----------------------------------------------------------------------------

    @property
    def in_memory(self) -> bool:
        """Whether the bodies are in memory, and not in the journal alone."""
        return self._bodies is not None

    def bodies(self, start: int, stop: int) -> list[bytes]:
        """Return the bodies of the jobs in [start, stop) if they are in memory, or []."""
        return list(self._bodies[start:stop]) if self._bodies is not None else []

    def drop_bodies(self) -> int:
        """Leave the bodies to the journal; return the memory that they took: their `weight`, or 0."""
        if self._bodies is None:
            return 0
        self._bodies = None
        if self.columns is not None:
            self.columns.drop_headers()
        return self.weight

    def row_of(self, index: int) -> int:
        """Return the journal row that has the body of the job at *index*."""
        return self._row or self.sequence_of(index)

    def rows(self) -> list[int]:
        """Return the journal rows that have the bodies, in order."""
        if self._row or self._accepted_by is None:
            return [self._row or self.sequence]
        return list(dict.fromkeys(self._accepted_by))

    # --- one job ------------------------------------------------------------------------------------

    def sequence_of(self, index: int) -> int:
        """Return the sequence number of the event that accepted the job at *index*."""
        return self.sequence if self._accepted_by is None else self._accepted_by[index]

    def at_of(self, index: int) -> float:
        """Return the time at which the job at *index* was accepted."""
        return self._at if self._accepted_at is None else self._accepted_at[index]

    def due_of(self, index: int) -> float | None:
        """Return the due time of the job at *index*, or None if it was ready at once."""
        return None if self.columns is None else self.columns.due_of(index)

    def key_of(self, index: int) -> str:
        """Return the key of the job at *index*, or "" if it has none."""
        return self.columns.keys[index] if self.columns is not None and self.columns.keys else ""

    def is_consecutive(self, index: int) -> bool:
        """Return whether no other job can have come between the job at *index* and the one before it."""
        return self._accepted_by is None or self._accepted_by[index] - self._accepted_by[index - 1] <= 1

    def id(self, index: int) -> str:
        """Return the id of the job at *index*."""
        return job_id(self.origin, self.first + index)

    def ended_by(self, index: int) -> int:
        """Return the event that ended the job at *index*; 0 if it has not ended."""
        return 0 if self._ended_by is None else self._ended_by[index]

    def endings(self) -> Sequence[int]:
        """Return the events that ended the jobs, 0 for a job that has not ended; empty if none has."""
        return self._ended_by or ()

    def record(self, index: int) -> JobRecord:
        """Return the record of the job at *index*; make one if there is none."""
        found = self.records.get(index)
        if found is None:
            found = self.records[index] = JobRecord()
        return found

    # --- states -------------------------------------------------------------------------------------

    def deliverable(self, start: int, limit: int, room: int) -> int:
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

    def end(self, start: int, stop: int, state: JobState, sequence: int, at: float) -> None:
        """Record that the jobs in [start, stop) ended, by event *sequence* at time *at*."""
        if self._ended_by is None:
            self._ended_by = array("Q", bytes(8 * self.count))
        self.mark(start, stop, state)
        if stop - start == 1:
            self._ended_by[start] = sequence
        else:
            self._ended_by[start:stop] = array("Q", (sequence,)) * (stop - start)
        self.unfinished -= stop - start
        if not self.unfinished:
            self._may_grow = False
            self.finished_at = at

    def runs(self, state: JobState, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the [start, stop) runs of jobs in [first, last) that are in *state*; see `consecutive_runs`.

        The caller must not change the state of a job meanwhile.
        """
        for run in _RUNS[state].finditer(self._states, first, self.count if last is None else last):
            yield from self.consecutive_runs(*run.span())

    def consecutive_runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the jobs in [start, stop) as runs within which no other job can have come."""
        by = self._accepted_by
        if by is not None and any(gap > 1 for gap in map(sub, by[start + 1 : stop], by[start : stop - 1])):
            for index in range(start + 1, stop):
                if not self.is_consecutive(index):
                    yield start, index
                    start = index
        yield start, stop

    # --- rare changes -------------------------------------------------------------------------------

    def reopen(self, index: int) -> int:
        """Let a job that has ended be unfinished again; return the event that had ended it."""
        ended_by = self.ended_by(index)
        if self._ended_by is not None:
            self._ended_by[index] = 0
        self.unfinished += 1
        return ended_by

    def purge(self, start: int, stop: int, finished_at: float) -> list[int]:
        """Purge the jobs in [start, stop); return the events that had ended them, 0 for one that had none.

        If all others have ended, the last of all did at *finished_at*.
        """
        unfinished = stop - start - sum(map(self._states.count, FINISHED, repeat(start), repeat(stop)))
        if self._ended_by is None:
            self._ended_by = array("Q", bytes(8 * self.count))
        ended_by = self._ended_by[start:stop].tolist()
        self._states[start:stop] = bytes((PURGED,)) * (stop - start)
        self._ended_by[start:stop] = array("Q", bytes(8 * (stop - start)))
        self.unfinished -= unfinished
        if not self.unfinished:
            self._may_grow = False
            self.finished_at = finished_at
        return ended_by

    def note_purge(self, sequence: int) -> None:
        """Note the event that purges some of its jobs."""
        self.purges = (*self.purges, sequence)

    def note_kept_dead(self, *, on: bool) -> None:
        """Note whether it is kept beyond its retention."""
        self.is_kept_dead = on

    def note_newest_lease(self, lease: LeaseRecord | None) -> None:
        """Note the newest of its leases."""
        self.newest_lease = lease

    def take_record(self, index: int) -> JobRecord:
        """Take the record of a job out."""
        return self.records.pop(index)

    def note_gaps(self) -> None:
        """Note that a span of ready jobs may contain jobs that are not ready from now on."""
        self.has_gaps = True

    def set_back(self, at: float, by: float) -> None:
        """Move the times after *at* back by *by* seconds; a delay counts from when its job was accepted."""
        late = [self.at_of(index) > at for index in range(self.count)]
        if self.columns is not None:
            self.columns.set_back(late, by)
        if self._accepted_at is not None:
            self._accepted_at = array("d", (each - by if each > at else each for each in self._accepted_at))
        for record in self.records.values():
            # Retries wait for minutes: one that is due after *at* was scheduled while the clock was ahead.
            if record.due is not None and record.due > at:
                record.due -= by
        self._at -= by if self._at > at else 0.0
        self.finished_at -= by if self.finished_at > at else 0.0


def _has_columns(event: Submitted) -> bool:
    return bool(event.due is not None or event.key or event.dues or event.keys or event.headers)
