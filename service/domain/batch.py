"""Jobs that were submitted together, held in a few bytes each.

A job that simply runs and succeeds never becomes an object: its state is one byte of its batch, its
outcome a reference to the event that recorded it. Only a job with a history gets a `JobRecord`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from service.domain.events import Submitted
from service.domain.job import Attempt, Terms, job_id
from service.domain.lifecycle import JobState

#: Ended attempts that are kept of one job; the counts go on.
ATTEMPTS_KEPT = 20
#: Memory that CPython takes for a bytes object and its place in a list, beside the bytes themselves.
BODY_OVERHEAD_BYTES = 48


class JobRecord:
    """What is particular about one job: its three ledgers and its ended attempts."""

    __slots__ = ("attempts", "crashes", "due", "failures", "interruptions", "sequences")

    def __init__(self) -> None:
        """Start with empty ledgers."""
        self.failures = 0
        self.crashes = 0
        self.interruptions = 0
        self.due: float | None = None
        self.attempts: list[Attempt] = []
        #: Sequence numbers of the journal's events about this job alone.
        self.sequences: list[int] = []

    def remember(self, attempt: Attempt) -> None:
        """Add an ended attempt, and drop the oldest where too many are kept."""
        self.attempts.append(attempt)
        del self.attempts[:-ATTEMPTS_KEPT]

    def pardon(self) -> None:
        """Give the job fresh budgets; its history stays."""
        self.failures = 0
        self.crashes = 0
        self.due = None


class Batch:
    """Consecutive jobs of one origin, accepted by one event.

    Indexes count from 0 within the batch; job numbers are `first + index`. `bodies` is None while
    they are only in the journal.
    """

    __slots__ = (
        "at",
        "bodies",
        "count",
        "digest",
        "due",
        "finished_at",
        "first",
        "key",
        "origin",
        "outcomes",
        "ragged",
        "records",
        "sequence",
        "size",
        "states",
        "terms",
        "unfinished",
    )

    def __init__(self, sequence: int, event: Submitted) -> None:
        """Hold the jobs of *event*, which the journal knows by *sequence*."""
        self.sequence = sequence
        self.origin = event.origin
        self.first = event.first
        self.count = len(event.bodies)
        self.terms: Terms = event.terms
        self.bodies: list[bytes] | None = event.bodies
        self.size = sum(map(len, event.bodies))
        self.at = event.at
        self.due = event.due
        self.key = event.key
        self.digest = b""
        initial = JobState.READY if event.due is None else JobState.SCHEDULED
        self.states = bytearray((initial,)) * self.count
        #: For each job the sequence number of the event that ended it; made when the first one ends.
        self.outcomes: array[int] | None = None
        self.records: dict[int, JobRecord] = {}
        self.unfinished = self.count
        self.finished_at = 0.0
        #: Whether some span of ready jobs may contain jobs that are not ready.
        self.ragged = False

    @property
    def weight(self) -> int:
        """About how many bytes of memory the bodies take: each is an object of its own in a list."""
        return self.size + self.count * BODY_OVERHEAD_BYTES

    def id(self, index: int) -> str:
        """Return the id of the job at *index*."""
        return job_id(self.origin, self.first + index)

    def state(self, index: int) -> JobState:
        """Return the state of the job at *index*."""
        return JobState(self.states[index])

    def record(self, index: int) -> JobRecord:
        """Return the record of the job at *index*, making one where there is none."""
        found = self.records.get(index)
        if found is None:
            found = self.records[index] = JobRecord()
        return found

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

    def runs(self, state: JobState) -> Iterator[tuple[int, int]]:
        """Yield the maximal [start, stop) runs of jobs that are in *state*."""
        wanted = bytes((state,))
        start = self.states.find(wanted)
        while start >= 0:
            stop = start + 1
            while stop < self.count and self.states[stop] == state:
                stop += 1
            yield start, stop
            start = self.states.find(wanted, stop)

    def event_sequences(self) -> Iterator[int]:
        """Yield the sequence numbers of all events that are about this batch alone."""
        yield self.sequence
        for record in self.records.values():
            yield from record.sequences
