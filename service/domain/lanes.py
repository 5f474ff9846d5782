"""The ready jobs in their order.

A *lane* holds the ready jobs of one queue, one priority and one task, oldest first, as spans of batches.
A consumer takes from the lane of the highest priority, then of the oldest job, among those whose task it
knows: so a task that nobody knows blocks nothing but itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from typing import NamedTuple

from service.domain.batch import Batch
from service.domain.lifecycle import JobState


class Span(NamedTuple):
    """Ready jobs [start, stop) of a batch, sorted by the age of the first one. `ready_at` is a Unix time."""

    order: int
    start: int
    stop: int
    ready_at: float
    batch: Batch


class Lane:
    """The ready jobs of one queue, priority and task."""

    __slots__ = ("count", "priority", "queue", "spans", "task")

    def __init__(self, queue: str, priority: int, task: str) -> None:
        """Start empty."""
        self.queue = queue
        self.priority = priority
        self.task = task
        self.count = 0
        self.spans: list[Span] = []

    def push(self, batch: Batch, start: int, stop: int, ready_at: float) -> None:
        """Add jobs, at the place that the age of the first one gives them."""
        self.count += stop - start
        last = self.spans[-1] if self.spans else None
        if last is not None and _goes_on(last, batch, start, ready_at):
            self.spans[-1] = Span(last.order, last.start, stop, last.ready_at, batch)
        else:
            heapq.heappush(self.spans, Span(batch.sequence_of(start), start, stop, ready_at, batch))

    def head(self) -> Span | None:
        """Return the span of the oldest ready job, cut to begin with it, or None where none is left."""
        while self.spans:
            span = self.spans[0]
            if not span.batch.ragged:
                return span
            states = span.batch.states
            start = span.start
            while start < span.stop and states[start] != JobState.READY:
                start += 1
            if start == span.start:
                return span
            self._replace_head(span, start)
        return None

    def take(self, limit: int) -> Span | None:
        """Remove and return up to *limit* of the oldest jobs, consecutive ones of one batch."""
        span = self.head()
        if span is None:
            return None
        order, start, end, ready_at, batch = span
        stop = min(end, start + limit)
        if batch.ragged:
            states = batch.states
            ready = start
            while ready < stop and states[ready] == JobState.READY:
                ready += 1
            stop = ready
        self._replace_head(span, stop)
        self.count -= stop - start
        return span if stop == end else Span(order, start, stop, ready_at, batch)

    def _replace_head(self, span: Span, start: int) -> None:
        if start < span.stop:
            # Not `_replace`, which takes five times as long.
            heapq.heapreplace(self.spans, Span(span.order, start, span.stop, span.ready_at, span.batch))
        else:
            heapq.heappop(self.spans)


def _goes_on(span: Span, batch: Batch, start: int, ready_at: float) -> bool:
    """Return whether jobs that were ready when they were accepted simply go on where *span* ends."""
    return (
        span.batch is batch
        and span.stop == start
        and batch.unbroken(start)
        and ready_at <= batch.at_of(start)
    )


class Lanes:
    """All lanes that hold something."""

    def __init__(self) -> None:
        """Start with none."""
        self._lanes: dict[tuple[str, int, str], Lane] = {}

    def __bool__(self) -> bool:
        """Return whether anything is ready."""
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes that hold something."""
        return iter(self._lanes.values())

    def push(self, batch: Batch, start: int, stop: int, ready_at: float) -> None:
        """Make jobs [start, stop) of *batch* ready."""
        terms = batch.terms
        key = (terms.queue, terms.priority, terms.task)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key)
        lane.push(batch, start, stop, ready_at)

    def best(self, queues: Collection[str], tasks: Collection[str] | None) -> Lane | None:
        """Return the lane to take from for one who knows *tasks* (None: all) and serves *queues*."""
        best: Lane | None = None
        best_rank = (0, 0)
        empty: list[Lane] = []
        for lane in self._lanes.values():
            if lane.queue not in queues or (tasks is not None and lane.task not in tasks):
                continue
            head = lane.head()
            if head is None:
                empty.append(lane)
                continue
            rank = (-lane.priority, head.order)
            if best is None or rank < best_rank:
                best, best_rank = lane, rank
        for lane in empty:
            self.tidy(lane)
        return best

    def skip(self, batch: Batch, count: int) -> None:
        """Account for *count* ready jobs of *batch* that left their state other than by `take`."""
        batch.ragged = True
        terms = batch.terms
        lane = self._lanes.get((terms.queue, terms.priority, terms.task))
        if lane is not None:
            lane.count -= count

    def tidy(self, lane: Lane) -> None:
        """Forget a lane that has run empty."""
        if lane.head() is None:
            self._lanes.pop((lane.queue, lane.priority, lane.task), None)
