"""The suspects: jobs that a lost worker held. Durable, so a part of the ledger.

One event makes suspects of all jobs of a lost lease. A job is one until it ends, or until the process that
had it comes back. A job that is no suspect costs nothing; a suspect costs an entry of a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from svc.domain import events as e
from svc.domain.chunk import Chunk


class Loss:
    """What one lost lease has done to the jobs that it held.

    Attributes:
        sequence: its event; suspects stand in their lane in this order.
        token: the lease.
        again: whether its job was a suspect before.
        charged: whether its job got a suspicion for it.
        start: the first job of the lease, which has `stop - start`.
        left: how many of them are suspects by this loss still.
    """

    __slots__ = ("again", "charged", "chunk", "left", "sequence", "start", "stop", "token")

    def __init__(self, sequence: int, chunk: Chunk, start: int, event: e.Suspected) -> None:
        """Take *event*, whose first job is at *start* of *chunk*; `Losses.add` makes suspects by it."""
        self.sequence = sequence
        self.chunk = chunk
        self.start = start
        self.stop = min(start + event.count, chunk.count)
        self.token = event.token
        self.again = event.again
        self.charged = event.charged
        self.left = 0

    def jobs(self) -> list[int]:
        """Return the indexes of the jobs that are suspects by this loss still."""
        suspects = self.chunk.suspects
        return [index for index in range(self.start, self.stop) if suspects.get(index) == self.sequence]


class Losses:
    """All losses that made suspects; *refer* and *unrefer* count the jobs for which an event is kept."""

    def __init__(self, refer: Callable[[int, int], None], unrefer: Callable[[int, int], None]) -> None:
        """Start with none."""
        self._refer = refer
        self._unrefer = unrefer
        #: The losses by which a job is a suspect still, by their events.
        self.by_event: dict[int, Loss] = {}
        self._by_token: dict[int, Loss] = {}

    def of(self, chunk: Chunk, index: int) -> Loss | None:
        """Return the last loss of a job, or None if it is no suspect."""
        return self.by_event.get(chunk.suspects.get(index, 0)) if chunk.suspects else None

    def of_lease(self, token: int) -> Loss | None:
        """Return the loss of a lease, if some job is a suspect by it still and it can be withdrawn."""
        return self._by_token.get(token)

    def add(self, loss: Loss) -> None:
        """Make all jobs of *loss* suspects, by this loss in place of any earlier one.

        In a replay one may seem to have ended: what requeued it has gone, and a later event tells the same.
        """
        for index in range(loss.start, loss.stop):
            self.remove(loss.chunk, index)
            loss.chunk.set_suspect(index, loss.sequence)
            loss.left += 1
        if loss.left:
            self.by_event[loss.sequence] = self._by_token[loss.token] = loss
            self._refer(loss.sequence, loss.left)

    def remove(self, chunk: Chunk, index: int) -> None:
        """Make a job no suspect any more, if it is one."""
        sequence = chunk.set_suspect(index, 0) if index in chunk.suspects else 0
        loss = self.by_event.get(sequence)
        if loss is None:
            return
        loss.left -= 1
        self._unrefer(sequence, 1)
        if not loss.left:
            del self.by_event[sequence]
            if self._by_token.get(loss.token) is loss:
                del self._by_token[loss.token]

    def ended(self, chunk: Chunk, start: int, stop: int) -> None:
        """Note that the jobs in [start, stop) of *chunk* have ended."""
        for index in list(suspects_in(chunk, start, stop)):
            self.remove(chunk, index)

    def withdraw(self, loss: Loss) -> None:
        """Undo what a loss has done: its jobs are suspects no more, but for one that was before."""
        if loss.again:
            self.settle(loss)
            return
        for index in loss.jobs():
            self.remove(loss.chunk, index)

    def settle(self, loss: Loss) -> None:
        """Let a loss stand, or its withdrawal: it is not looked at again."""
        if self._by_token.get(loss.token) is loss:
            del self._by_token[loss.token]


def suspects_in(chunk: Chunk, start: int, stop: int) -> Iterator[int]:
    """Return the suspects in [start, stop) of *chunk*, in order."""
    suspects = chunk.suspects
    if not suspects:
        return iter(())
    if stop - start < len(suspects):
        return (index for index in range(start, stop) if index in suspects)
    return iter(sorted(index for index in suspects if start <= index < stop))
