"""Recognises a repeated submit: the same jobs again, or other jobs under the same numbers.

A client that got no answer submits the same jobs again, which changes nothing. A client that is a copy of
another, as in a cloned virtual machine, submits other jobs under numbers that the other client has used. The
stored terms, keys and bodies of the jobs, in memory or in the journal, tell the two cases apart. Of a job
whose retention has passed, only the number is known; it counts as the same job.
"""

from __future__ import annotations

from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.handlers import READ_BYTE_WORK, READ_WORK, Room
from svc.domain.job import NewChunk
from svc.domain.origins import Origin
from svc.domain.queue_state import QueueState


class Repeats:
    """Compares the chunks of one submit with the kept jobs; the amount that it reads is bounded."""

    def __init__(self, state: QueueState, origin: Origin) -> None:
        """Compare with the jobs of *origin*."""
        self._state = state
        self._origin = origin
        self._room = Room()
        #: The kept chunk that was read last: the host still has its rows.
        self._read: Chunk | None = None

    def note(self, chunk: NewChunk, known: int) -> r.Note | None:
        """Return why *chunk* is refused, or None; *known* of its numbers were accepted before."""
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
        """Return whether there is room to read the bodies of *kept*; the last chunk may have any size."""
        if kept.in_memory or kept is self._read:
            return True
        if not self._room.left:
            return False
        self._read = kept
        self._room.take(kept.size, READ_WORK + READ_BYTE_WORK * kept.size)
        return True

    def _differs(self, chunk: NewChunk, kept: Chunk, low: int, high: int) -> bool:
        """Return whether jobs *low* to *high* of *chunk* differ from those of *kept*."""
        start, stop = low - kept.first, high - kept.first
        if chunk.terms != kept.terms:
            return True
        if kept.columns is not None or chunk.key or chunk.headers:
            none = [b""] * (stop - start)
            headers = chunk.headers[low - chunk.first : high - chunk.first] or none
            if any(kept.key_of(each) != chunk.key for each in range(start, stop)) or headers != (
                self._state.headers(kept, start, stop) or none
            ):
                return True
        bodies = chunk.bodies[low - chunk.first : high - chunk.first]
        return self._state.bodies(kept, start, stop) != bodies
