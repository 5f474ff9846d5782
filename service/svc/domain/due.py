"""Jobs that wait for a due time: after a delay, or before a retry.

The heap has one entry for jobs that are due together, and one for all jobs of a chunk that have due times of
their own. So a million jobs with their own due times take a few bytes each.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from svc.domain.chunk import Chunk
from svc.domain.lifecycle import JobState

#: Cancelled scheduled jobs after which their entries are looked for.
CANCELLED_MAX = 1000
#: Entries that are checked for each job that is cancelled meanwhile, and at each look for due jobs.
SWEPT_FOR_EACH = 2
SWEPT_AT_A_LOOK = 1000
#: Jobs that are made ready together in about the time that a single job takes.
RUN_COST_JOBS = 10


class Due(NamedTuple):
    """Scheduled jobs [start, stop) of a chunk; if `stop` is 0, its delayed jobs that are due first."""

    at: float
    order: int
    start: int
    stop: int
    chunk: Chunk


class DelayedJobs:
    """The jobs of one chunk that wait for due times of their own, each until its time in *dues*."""

    __slots__ = ("_due_of", "_last_first")

    def __init__(self, dues: Sequence[float]) -> None:
        """Start with none."""
        self._due_of = dues.__getitem__
        self._last_first = array("I")

    @property
    def next_at(self) -> float:
        """The time at which the next job is due; infinite if there is none."""
        return self._due_of(self._last_first[-1]) if self._last_first else math.inf

    def add(self, indexes: Iterable[int]) -> None:
        """Hold more jobs."""
        if not self._last_first:
            self._last_first.extend(sorted(indexes, key=self._due_of, reverse=True))
            return
        for index in indexes:
            insort(self._last_first, index, key=lambda each: -self._due_of(each))

    def take_due(self, now: float) -> list[int]:
        """Remove and return the indexes of the due jobs, in order."""
        indexes, due_of = self._last_first, self._due_of
        found: list[int] = []
        while indexes and due_of(indexes[-1]) <= now:
            found.append(indexes.pop())
        found.sort()
        return found


class Schedule:
    """All scheduled jobs, by due time.

    A cancelled job leaves its entry behind. If there may be many such entries, all entries become `_unswept`.
    From there a few at a time go back, if one of their jobs is still scheduled: so no single call takes long.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._heap: list[Due] = []
        self._unswept: list[Due] = []
        self._cancelled = 0
        self._delayed: dict[Chunk, DelayedJobs] = {}

    @property
    def next_at(self) -> float:
        """The time at which the next entry is due; infinite if there is none."""
        heap = self._first_heap()
        return heap[0].at if heap else math.inf

    @property
    def has_unswept(self) -> bool:
        """Whether entries wait to be checked for cancelled jobs."""
        return bool(self._unswept)

    def add(self, chunk: Chunk, start: int, stop: int, at: float) -> None:
        """Add the jobs [start, stop) of *chunk*, all due at time *at*."""
        heapq.heappush(self._heap, Due(at, chunk.sequence, start, stop, chunk))

    def admit(self, chunk: Chunk, start: int, stop: int, but: Collection[int] = ()) -> None:
        """Add the jobs [start, stop) of *chunk* *but* some, due at the times of its columns."""
        columns = chunk.columns
        if columns is None or not columns.dues:
            due = columns.due or 0.0 if columns is not None else 0.0
            for index in (*sorted(but), stop):
                if start < index:
                    self.add(chunk, start, index, due)
                start = index + 1
            return
        delayed = self._delayed.get(chunk) or DelayedJobs(columns.dues)
        before = delayed.next_at
        delayed.add([index for index in range(start, stop) if index not in but])
        self._delayed[chunk] = delayed
        if delayed.next_at != before:
            self._push_delayed(chunk, delayed)

    def restore(self, chunk: Chunk, start: int, stop: int) -> None:
        """Add jobs after a replay: one that waits for a retry by itself, the others by their delays."""
        retried = [(each, record.due) for each, record in chunk.records.items() if start <= each < stop]
        waiting = {index: due for index, due in retried if due is not None}
        for index, due in waiting.items():
            self.add(chunk, index, index + 1, due)
        self.admit(chunk, start, stop, but=waiting)

    def take_due(self, now: float, limit: int) -> Iterator[tuple[Chunk, int, int, float]]:
        """Remove due entries and yield their jobs as (chunk, start, stop, at), up to about *limit* jobs.

        A run of jobs counts as `RUN_COST_JOBS` more, and so does an entry without any job. The caller makes
        the jobs ready before it asks for the next ones.
        """
        self._sweep(SWEPT_AT_A_LOOK)
        while limit > 0 and (heap := self._first_heap()) and heap[0].at <= now:
            due = heapq.heappop(heap)
            runs = self._runs(due, now, 1 + limit // RUN_COST_JOBS)
            limit -= RUN_COST_JOBS * max(1, len(runs))
            for start, stop, at in runs:
                limit -= stop - start
                yield due.chunk, start, stop, at

    def cancelled(self, count: int) -> None:
        """Note that *count* scheduled jobs were cancelled; drop their entries once there may be many."""
        self._cancelled += count
        if self._unswept:
            self._sweep(SWEPT_FOR_EACH * count)
        elif self._cancelled > max(CANCELLED_MAX, len(self._heap) // 2):
            self._cancelled = 0
            self._heap, self._unswept = [], self._heap

    def _first_heap(self) -> list[Due]:
        """Return the heap with the entry that is due first; an empty one if there is no entry."""
        heap, unswept = self._heap, self._unswept
        return unswept if unswept and (not heap or unswept[0] < heap[0]) else heap

    def _sweep(self, count: int) -> None:
        """Check up to *count* entries, and drop those that have only cancelled jobs."""
        unswept = self._unswept
        for _ in range(min(count, len(unswept))):
            due = unswept.pop()  # a heap without its last element is a heap
            if _has_scheduled(due):
                heapq.heappush(self._heap, due)
            elif not due.stop:
                self._delayed.pop(
                    due.chunk, None
                )  # otherwise a job that joins the chunk would rely on this entry

    def _runs(self, due: Due, now: float, most: int) -> list[tuple[int, int, float]]:
        """Return (start, stop, at) of the jobs of *due* that are still scheduled.

        For jobs that are due together, return the first *most* runs; the others get an entry of their own.
        """
        chunk = due.chunk
        if due.stop:
            runs = list(islice(chunk.runs(JobState.SCHEDULED, due.start, due.stop), most))
            if len(runs) == most and runs[-1][1] < due.stop:
                heapq.heappush(self._heap, due._replace(start=runs[-1][1]))
            return [(start, stop, due.at) for start, stop in runs]
        delayed = self._delayed.get(chunk)
        if delayed is None or delayed.next_at != due.at:
            return []  # an out-of-date entry
        # One that was cancelled may have been purged since, and have no state.
        woken = [each for each in delayed.take_due(now) if chunk.count_in(JobState.SCHEDULED, each, each + 1)]
        self._push_delayed(chunk, delayed)
        spans = (span for run in runs_of(woken) for span in chunk.consecutive_runs(*run))
        return [(start, stop, chunk.due_of(start) or due.at) for start, stop in spans]

    def _push_delayed(self, chunk: Chunk, delayed: DelayedJobs) -> None:
        if delayed.next_at == math.inf:
            self._delayed.pop(chunk, None)
        else:
            heapq.heappush(self._heap, Due(delayed.next_at, chunk.sequence, 0, 0, chunk))


def _has_scheduled(due: Due) -> bool:
    return due.chunk.count_in(JobState.SCHEDULED, due.start, due.stop or None) > 0


def runs_of(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending indexes as runs [start, stop)."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs
