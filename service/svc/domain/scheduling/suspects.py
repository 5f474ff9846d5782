"""The suspects that wait, run, or are on trial, and the choice of the next one to run.

Each suspect is handed out alone. The suspects of one queue run on one worker at a time. One that has lost a
worker as a suspect runs alone in its queue, and beside no other such suspect; `suspicion` tells why.
"""

from __future__ import annotations

from typing import NamedTuple

from svc.domain.chunk import Chunk
from svc.domain.leases import Leases
from svc.domain.losses import Losses, suspects_in
from svc.domain.members import ON_TRIAL, LeaseRecord, Member
from svc.domain.scheduling.lanes import Lane, Lanes


class Trial(NamedTuple):
    """A suspect that has lost its worker, whose name and life are given, after it ran for some `seconds`."""

    at: float
    worker: tuple[str, int]
    lease: LeaseRecord
    seconds: float


class Suspects:
    """Those of a queue state; `suspicion` decides what becomes of them.

    Attributes:
        lanes: those that are ready.
        running: the leases under which some were handed out; those that have ended may still be here.
        trials: those on trial, oldest first.
        lost_at: for each worker that was lost of late, by name and life, when.
    """

    def __init__(self, leases: Leases, losses: Losses) -> None:
        """Start with none; look into the *leases* that are in force, and the *losses* that made suspects."""
        self.lanes = Lanes(apart=True)
        self.running: list[LeaseRecord] = []
        self.trials: list[Trial] = []
        self.lost_at: dict[tuple[str, int], float] = {}
        self._leases = leases
        self._losses = losses

    def forget_ended(self) -> bool:
        """Forget the leases that have ended; return whether there were any, so that others may run now."""
        before = len(self.running)
        self.running = [lease for lease in self.running if self._leases.get(lease.token) is lease]
        return len(self.running) < before

    def lane_for(self, member: Member) -> Lane | None:
        """Return the lane of the suspect that *member* may have now, or None.

        The leases that have ended are forgotten already.
        """
        if member.role == "consumer" and member.leases:
            return None
        queues, tasks, codecs = member.subscription
        if self.running:
            alone = [each for each in self.running if not _shares(each, member) or self._lost_before(each)]
            queues -= {lease.chunk.terms.queue for lease in alone}
        while queues:
            lane = self.lanes.best((queues, tasks, codecs))
            head = lane.head() if lane is not None else None
            if lane is None or head is None:
                return None
            loss = self._losses.of(head.chunk, head.start)
            if loss is None or not loss.again or not self._in_the_way(lane.terms.queue):
                return lane
            queues -= {lane.terms.queue}
        return None

    def _in_the_way(self, queue: str) -> bool:
        """Return whether one that has lost a worker as a suspect has to wait."""
        return any(each.chunk.terms.queue == queue or self._lost_before(each) for each in self.running)

    def _lost_before(self, lease: LeaseRecord) -> bool:
        loss = self._losses.of(lease.chunk, lease.start)
        return loss is not None and loss.again

    def push(self, others: Lanes, chunk: Chunk, start: int, stop: int, ready_at: float) -> None:
        """Make jobs ready: suspects behind all that was there when they became that, the rest in *others*."""
        suspects = chunk.suspects
        for index in suspects_in(chunk, start, stop):
            if start < index:
                others.push(chunk, start, index, ready_at)
            self.lanes.push(chunk, index, index + 1, ready_at, suspects[index])
            start = index + 1
        if start < stop:
            others.push(chunk, start, stop, ready_at)

    def skip(self, others: Lanes, chunk: Chunk, start: int, stop: int) -> None:
        """Account for ready jobs that left their state, or will, other than by `Lane.take`."""
        apart = sum(1 for _ in suspects_in(chunk, start, stop))
        for lanes, count in ((self.lanes, apart), (others, stop - start - apart)):
            if count:
                lanes.skip(chunk, count)


def _shares(lease: LeaseRecord, member: Member) -> bool:
    """Return whether *member* may have a suspect of the same queue beside the one under *lease*."""
    on_trial, worker = lease.holder.role == ON_TRIAL, lease.holder.worker
    return not on_trial and worker is not None and worker is member.worker
