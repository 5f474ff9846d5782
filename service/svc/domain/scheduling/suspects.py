"""The suspects that wait, run, or are on trial; what is durable of them is in `losses`."""

from __future__ import annotations

from typing import NamedTuple

from svc.domain.chunk import Chunk
from svc.domain.losses import suspects_in
from svc.domain.members import LeaseRecord
from svc.domain.scheduling.lanes import Lanes


class Trial(NamedTuple):
    """A suspect that has lost its worker, whose name and life are given, after it ran for some `seconds`."""

    at: float
    worker: tuple[str, int]
    lease: LeaseRecord
    seconds: float


class Suspects:
    """Those of a queue; `suspicion` decides about them.

    Attributes:
        lanes: those that are ready.
        running: the leases under which some were handed out; those that have ended may still be here.
        trials: those on trial, oldest first.
        lost_at: for each worker that was lost of late, by name and life, when.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.lanes = Lanes(apart=True)
        self.running: list[LeaseRecord] = []
        self.trials: list[Trial] = []
        self.lost_at: dict[tuple[str, int], float] = {}

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
