"""The drains in force: whose consumers get pills, and whether new jobs are refused meanwhile."""

from __future__ import annotations


class Drains:
    """Drains of single workers, by name, and of all workers, by "".

    Attributes:
        in_force: the epoch of each, and its row in the journal.
        refusing: the names of those that also refuse new jobs.
        epoch: that of the newest drain so far.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.in_force: dict[str, tuple[int, int]] = {}
        self.refusing: set[str] = set()
        self.epoch = 0

    def begin(self, worker: str, epoch: int, row: int, *, refuse: bool) -> list[int]:
        """Put a drain in force; return the rows that are of no more use."""
        replaced = self.end(worker)
        self.in_force[worker] = (epoch, row)
        self.epoch = max(self.epoch, epoch)
        if refuse:
            self.refusing.add(worker)
        return replaced

    def end(self, worker: str) -> list[int]:
        """End the drain of *worker*; return the rows that are of no more use."""
        self.refusing.discard(worker)
        known = self.in_force.pop(worker, None)
        return [] if known is None else [known[1]]
