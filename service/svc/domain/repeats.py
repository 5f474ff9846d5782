"""Submits of numbers that an origin has already: the same jobs again, or others under the same numbers.

A client that had no answer submits the same again, which changes nothing. A client that is a copy of another
one, as in a cloned virtual machine, submits other jobs under numbers that the other has used. The two are
told apart by what is kept of the jobs: their terms, keys and bodies, in memory or in the journal. Of a job
whose retention has passed only the number is known, and it counts as the same.
"""

from __future__ import annotations

from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.job import NewChunk
from svc.domain.origins import Origin
from svc.domain.queue_state import QueueState
from svc.domain.room import READ_BYTE_WORK, READ_WORK, Room


class Repeats:
    """Compares the chunks of one submit with the jobs that are kept; bounded in what it reads for that."""

    def __init__(self, state: QueueState, origin: Origin) -> None:
        """Compare with the jobs of *origin*."""
        self._state = state
        self._origin = origin
        self._room = Room()
        #: The kept that was read last: the host still has its rows.
        self._read: Chunk | None = None

    def note(self, chunk: NewChunk, known: int) -> r.Note | None:
        """Return why *chunk* is refused; *known* of its numbers were accepted before. None if it repeats."""
        first, count = chunk.first, len(chunk.bodies)
        name = f"{self._origin.name}-{first}"
        for kept, low, high in self._origin.overlaps(first, first + count):
            if not self._may_read(kept):
                message = f"job {name} and those after it were submitted before; repeat fewer of them at once"
                return r.Note(0, code="bad_request", message=message)
            if self._differs(chunk, kept, low, high):
                message = f"the numbers from {name} on belong to other jobs; number anew"
                return r.Note(0, code="conflict", message=message, anew=True)
        if known == count:
            return None
        message = f"{known} of the jobs from {name} on were accepted before, the others not"
        return r.Note(0, code="conflict", message=f"{message}; repeat a submit as it was, or number anew")

    def _may_read(self, kept: Chunk) -> bool:
        """Return whether there is room to read the bodies of *kept*; the last one may be of any size."""
        if kept.bodies is not None or kept is self._read:
            return True
        if not self._room.left:
            return False
        self._read = kept
        self._room.take(kept.size, READ_WORK + READ_BYTE_WORK * kept.size)
        return True

    def _differs(self, chunk: NewChunk, kept: Chunk, low: int, high: int) -> bool:
        """Return whether jobs *low* to *high* of *chunk* are others than those of *kept*."""
        start, stop = low - kept.first, high - kept.first
        if chunk.terms != kept.terms:
            return True
        if (chunk.key or kept.keys) and any(kept.key_of(each) != chunk.key for each in range(start, stop)):
            return True
        bodies = chunk.bodies[low - chunk.first : high - chunk.first]
        return self._state.bodies(kept, start, stop) != bodies
