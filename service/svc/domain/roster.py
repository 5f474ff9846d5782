"""The roster: the workers that may hold leases, and how far the jobs of each queue were granted. Durable.

Leases are not in the journal. After a restart the roster says for which workers the manager has to wait, and
which jobs they may hold: those up to the queue's *watermark*. It is moved ahead of the grants, so that one
event serves many of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from svc.domain.scheduling.kinds import Kinds, covers_all
from svc.domain.scheduling.lanes import Subscription

#: A watermark is moved twice as far ahead as the last time if it served fewer grants than the first number,
#: and half as far if it served more than the second one.
FEW_GRANTS, MANY_GRANTS = 16, 64
#: Events that a watermark is ahead of the granted job at most.
AHEAD_MAX: Final = 4096


class Enrolment(NamedTuple):
    """The row of a worker, and the jobs that its consumers take."""

    row: int
    subscription: Subscription


class Watermark:
    """Jobs of a queue whose chunk began after event `up_to` were never granted.

    Attributes:
        up_to: that event.
        row: the event that moved the watermark there.
        grants: the number of grants since.
        ahead: by how many events it was moved ahead of the job that needed it.
    """

    __slots__ = ("ahead", "grants", "row", "up_to")

    def __init__(self, up_to: int, row: int, ahead: int) -> None:
        """Begin without grants."""
        self.up_to = up_to
        self.row = row
        self.ahead = ahead
        self.grants = 0

    @property
    def next_ahead(self) -> int:
        """By how many events the next one is moved ahead."""
        if self.grants < FEW_GRANTS:
            return min(AHEAD_MAX, 2 * self.ahead + 1)
        return self.ahead // 2 if self.grants > MANY_GRANTS else self.ahead


class WorkerRoster:
    """The enrolled workers and the watermarks; the methods that change it return rows of no more use.

    Attributes:
        begun: the event from which on the journal has all of them; 0 in an older journal.
        kinds: what the consumers of enrolled and connected workers take.
    """

    def __init__(self) -> None:
        """Start without workers and watermarks."""
        self.begun = 0
        self.kinds = Kinds()
        self.workers: dict[str, Enrolment] = {}
        self.watermarks: dict[str, Watermark] = {}

    def rows(self) -> Iterator[int]:
        """Iterate over the rows of the roster."""
        if self.begun:
            yield self.begun
        yield from (worker.row for worker in self.workers.values())
        yield from (mark.row for mark in self.watermarks.values())

    def begin(self, row: int) -> list[int]:
        """Note that event *row* begins the roster, unless one has begun it before."""
        if self.begun:
            return [row]
        self.begun = row
        return []

    def knows(self, worker: str, subscription: Subscription) -> bool:
        """Return whether a worker is enrolled for all jobs that *subscription* takes."""
        known = self.workers.get(worker)
        return known is not None and covers_all(known.subscription, subscription)

    def enrol(self, worker: str, subscription: Subscription, row: int) -> list[int]:
        """Enrol a worker, in place of its last enrolment."""
        replaced = self.strike(worker)
        self.workers[worker] = Enrolment(row, self.kinds.shared(subscription))
        return replaced

    def strike(self, worker: str) -> list[int]:
        """Remove a worker that holds no lease any more."""
        known = self.workers.pop(worker, None)
        return [] if known is None else [known.row]

    def ahead(self, queue: str) -> int:
        """Return by how many events the next watermark of *queue* is moved ahead of the job that needs it."""
        known = self.watermarks.get(queue)
        return 0 if known is None else known.next_ahead

    def move(self, queue: str, up_to: int, row: int) -> list[int]:
        """Move the watermark of *queue* to event *up_to*."""
        known, ahead = self.watermarks.get(queue), self.ahead(queue)
        self.watermarks[queue] = Watermark(up_to, row, ahead)
        return [] if known is None else [known.row]

    def drop(self, queue: str) -> list[int]:
        """Remove the watermark of a queue without jobs."""
        known = self.watermarks.pop(queue, None)
        return [] if known is None else [known.row]
