"""Runs: consecutive chunks of one submit, which one event accepts together.

A client sends each job with a key, or with a delay of its own, as a chunk of one job. If each of these were
recorded by itself, it would take a row and a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from svc.domain import events as e
from svc.domain.job import NewChunk
from svc.domain.origins import Origin
from svc.domain.queue_state import QueueState
from svc.domain.repeats import Repeats

#: Jobs that one event accepts at most if they come as several chunks.
RUN_JOBS_MAX = 1000
#: Jobs that one event accepts at most: they become a chunk, which is read and forgotten in one step.
EVENT_JOBS_MAX = 5000


class Run:
    """Chunks that were found acceptable and are not recorded yet."""

    __slots__ = ("_chunks", "_inside", "_now", "_origin", "_repeats", "_size", "_state", "count", "keys")

    def __init__(self, state: QueueState, origin: str, now: float, *, inside: bool = False) -> None:
        """Start empty. Chunks will be of *origin*, the manager's own if *inside*, and come at time *now*."""
        self._inside = inside
        self._state = state
        self._origin = origin
        self._now = now
        self._chunks: list[NewChunk] = []
        self._repeats: Repeats | None = None
        #: The number of jobs, and the keys, that the next event accepts.
        self.count = 0
        self.keys: set[str] = set()
        #: Bytes of the jobs' bodies.
        self._size = 0

    @property
    def begins_origin(self) -> bool:
        """Whether no job of the client is known before these chunks."""
        return not self._inside and self._state.ledger.origins.get(self._origin) is None

    def repeats(self, origin: Origin) -> Repeats:
        """Return the comparison of chunks with known jobs of their *origin*; made at the first need."""
        if self._repeats is None:
            self._repeats = Repeats(self._state, origin)
        return self._repeats

    def goes_on_with(self, chunk: NewChunk) -> bool:
        """Return whether the event of the held chunks can accept *chunk* too."""
        if not self._chunks or self.count + len(chunk.bodies) > RUN_JOBS_MAX:
            return False
        first = self._chunks[0]
        return (
            chunk.first == first.first + self.count
            and (chunk.terms is first.terms or chunk.terms == first.terms)
            and chunk.key not in self.keys
        )

    def add(self, chunk: NewChunk, size: int) -> None:
        """Hold *chunk*, which is acceptable after the held ones; its bodies have *size* bytes."""
        self._chunks.append(chunk)
        self._size += size
        self.count += len(chunk.bodies)
        if chunk.key:
            self.keys.add(chunk.key)

    def record(self) -> None:
        """Accept the held chunks with one event or, if it is one very large chunk, with several."""
        if not self._chunks:
            return
        state, whole = self._state, self._event()
        state.observer.submitted(whole.terms, self.count, self._size)
        for event in _parts(whole):
            size = self._size if event is whole else None
            added, start = state.ledger.submitted(state.record(event), event, size)
            state.admit(added, start, self._now)
        self._chunks, self.keys, self.count, self._size = [], set(), 0, 0

    def _event(self) -> e.Submitted:
        now, origin, chunks = self._now, self._origin, self._chunks
        first, terms = chunks[0].first, chunks[0].terms
        joins = self._state.ledger.origins.joined_by(origin, first, self.count, terms) is not None
        if len(chunks) == 1:
            due, key, bodies = self._due(chunks[0]) or None, chunks[0].key, chunks[0].bodies
            return e.Submitted(now, origin, first, terms, bodies, due, key, [], [], joins, chunks[0].headers)
        bodies = [body for chunk in chunks for body in chunk.bodies]
        dues = [self._due(chunk) for chunk in chunks for _ in chunk.bodies]
        keys = [chunk.key for chunk in chunks for _ in chunk.bodies] if self.keys else []
        headers: list[bytes] = []
        if any(chunk.headers for chunk in chunks):
            headers = [header for each in chunks for header in each.headers or [b""] * len(each.bodies)]
        if dues.count(dues[0]) == len(dues):
            return e.Submitted(
                now, origin, first, terms, bodies, dues[0] or None, "", [], keys, joins, headers
            )
        return e.Submitted(now, origin, first, terms, bodies, None, "", dues, keys, joins, headers)

    def _due(self, chunk: NewChunk) -> float:
        """Return the due time of the jobs of *chunk*; 0 if they are ready at once."""
        return self._now + chunk.delay if chunk.delay > 0 else 0.0


def _parts(event: e.Submitted) -> Iterator[e.Submitted]:
    """Yield *event*, or several that accept its jobs; an event that is split has no keys or dues columns."""
    bodies = event.bodies
    if len(bodies) <= EVENT_JOBS_MAX:
        yield event
        return
    for start in range(0, len(bodies), EVENT_JOBS_MAX):
        stop = start + EVENT_JOBS_MAX
        part, headers = bodies[start:stop], event.headers[start:stop]
        yield msgspec.structs.replace(event, first=event.first + start, bodies=part, headers=headers)
