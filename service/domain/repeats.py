"""Submits of numbers that an origin has already: the same jobs again, or others under the same numbers.

A client that had no answer submits the same again, which changes nothing. A client that is a copy of another
one, as in a cloned virtual machine, submits other jobs under numbers that the other has used. The two are
told apart by what is kept of the jobs: their terms, keys and bodies, in memory or in the journal. Of a job
whose retention has passed only the number is known, and it counts as the same.
"""

from __future__ import annotations

from service.domain import replies as r
from service.domain.batch import Batch
from service.domain.job import NewBatch
from service.domain.origins import Origin
from service.domain.queue_state import QueueState
from service.domain.room import READ_BYTE_WORK, READ_WORK, Room


class Repeats:
    """Compares the batches of one submit with the jobs that are kept; bounded in what it reads for that."""

    def __init__(self, state: QueueState, origin: Origin) -> None:
        """Compare with the jobs of *origin*."""
        self._state = state
        self._origin = origin
        self._room = Room()
        #: The chunk that was read last: the host still has its rows.
        self._read: Batch | None = None

    def note(self, batch: NewBatch, known: int) -> r.Note | None:
        """Return why *batch* is refused; *known* of its numbers were accepted before. None if it repeats."""
        first, count = batch.first, len(batch.bodies)
        name = f"{self._origin.name}-{first}"
        for chunk, low, high in self._origin.overlaps(first, first + count):
            if not self._may_read(chunk):
                message = f"job {name} and those after it were submitted before; repeat fewer of them at once"
                return r.Note(0, code="bad_request", message=message)
            if self._differs(batch, chunk, low, high):
                message = f"the numbers from {name} on belong to other jobs; number anew"
                return r.Note(0, code="conflict", message=message, anew=True)
        if known == count:
            return None
        message = f"{known} of the jobs from {name} on were accepted before, the others not"
        return r.Note(0, code="conflict", message=f"{message}; repeat a submit as it was, or number anew")

    def _may_read(self, chunk: Batch) -> bool:
        """Return whether there is room to read the bodies of *chunk*; the last one may be of any size."""
        if chunk.bodies is not None or chunk is self._read:
            return True
        if not self._room.left:
            return False
        self._read = chunk
        self._room.take(chunk.size, READ_WORK + READ_BYTE_WORK * chunk.size)
        return True

    def _differs(self, batch: NewBatch, chunk: Batch, low: int, high: int) -> bool:
        """Return whether jobs *low* to *high* of *batch* are others than those of *chunk*."""
        start, stop = low - chunk.first, high - chunk.first
        if batch.terms != chunk.terms:
            return True
        if (batch.key or chunk.keys) and any(chunk.key_of(each) != batch.key for each in range(start, stop)):
            return True
        bodies = batch.bodies[low - batch.first : high - batch.first]
        return self._state.bodies(chunk, start, stop) != bodies
