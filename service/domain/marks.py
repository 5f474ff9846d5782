"""The suspects: jobs that a lost worker held. Durable, so a part of the ledger.

One event marks all jobs of a lost lease. A mark stays until its job ends, a later loss marks it anew, or the
process comes back. A job that is no suspect costs nothing; a suspect costs an entry of a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.domain import events as e
from service.domain.batch import Batch


class Mark:
    """What one lost lease has done to the jobs that it held.

    Attributes:
        sequence: its event; suspects stand in their lane in this order.
        token: the lease.
        again: whether its job was a suspect before.
        charged: whether its job got a suspicion for it.
        start: the first job of the lease, which has `stop - start`.
        left: how many of them still have this mark.
    """

    __slots__ = ("again", "batch", "charged", "left", "sequence", "start", "stop", "token")

    def __init__(self, sequence: int, batch: Batch, start: int, event: e.Suspected) -> None:
        """Mark the jobs of *event*, of which the first is at *start* of *batch*."""
        self.sequence = sequence
        self.batch = batch
        self.start = start
        self.stop = min(start + event.count, batch.count)
        self.token = event.token
        self.again = event.again
        self.charged = event.charged
        self.left = 0

    def jobs(self) -> list[int]:
        """Return the indexes of the jobs that still have this mark."""
        suspects = self.batch.suspects or {}
        return [index for index in range(self.start, self.stop) if suspects.get(index) == self.sequence]


class Marks:
    """All marks, by event and by lease. *refer* and *unrefer* count the jobs that keep an event."""

    def __init__(self, refer: Callable[[int, int], None], unrefer: Callable[[int, int], None]) -> None:
        """Start with none."""
        self._refer = refer
        self._unrefer = unrefer
        self._by_event: dict[int, Mark] = {}
        self._by_token: dict[int, Mark] = {}

    def __bool__(self) -> bool:
        """Return whether any job is a suspect."""
        return bool(self._by_event)

    def of(self, batch: Batch, index: int) -> Mark | None:
        """Return the mark of a job, or None if it is no suspect."""
        suspects = batch.suspects
        return self._by_event.get(suspects.get(index, 0)) if suspects else None

    def of_lease(self, token: int) -> Mark | None:
        """Return the mark that the loss of a lease has made, if some job still has it."""
        return self._by_token.get(token)

    def add(self, mark: Mark) -> None:
        """Make all jobs of *mark* suspects, by this loss in place of any earlier one.

        In a replay one may seem to have ended: what requeued it has gone, and a later event tells the same.
        """
        batch = mark.batch
        if batch.suspects is None:
            batch.suspects = {}
        for index in range(mark.start, mark.stop):
            self.remove(batch, index)
            batch.suspects[index] = mark.sequence
            mark.left += 1
        if mark.left:
            self._by_event[mark.sequence] = self._by_token[mark.token] = mark
            self._refer(mark.sequence, mark.left)

    def remove(self, batch: Batch, index: int) -> None:
        """Make a job no suspect any more, if it is one."""
        sequence = batch.suspects.pop(index, 0) if batch.suspects else 0
        mark = self._by_event.get(sequence)
        if mark is None:
            return
        mark.left -= 1
        self._unrefer(sequence, 1)
        if not mark.left:
            del self._by_event[sequence]
            if self._by_token.get(mark.token) is mark:
                del self._by_token[mark.token]

    def ended(self, batch: Batch, start: int, stop: int) -> None:
        """Note that the jobs in [start, stop) of *batch* have ended."""
        for index in list(suspects_in(batch, start, stop)):
            self.remove(batch, index)

    def withdraw(self, mark: Mark) -> None:
        """Undo what a loss has done: its jobs are suspects no more, but for one that was before."""
        if mark.again:
            self.settle(mark)
            return
        for index in mark.jobs():
            self.remove(mark.batch, index)

    def settle(self, mark: Mark) -> None:
        """Let a loss stand, or its withdrawal: it is not looked at again."""
        if self._by_token.get(mark.token) is mark:
            del self._by_token[mark.token]


def suspects_in(batch: Batch, start: int, stop: int) -> Iterator[int]:
    """Return the suspects in [start, stop) of *batch*, in order."""
    suspects = batch.suspects
    if not suspects:
        return iter(())
    if stop - start < len(suspects):
        return (index for index in range(start, stop) if index in suspects)
    return iter(sorted(index for index in suspects if start <= index < stop))
