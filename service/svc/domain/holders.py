"""Finds the member that holds a job."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from svc.domain.chunk import Chunk
from svc.domain.members import LeaseRecord, Member


class Holders:
    """The holders of jobs; the first question makes one pass over all leases."""

    def __init__(self, leases: Iterable[LeaseRecord]) -> None:
        """Look at *leases*, which must not change while this object is in use."""
        self._leases = leases
        self._by_chunk: dict[int, list[LeaseRecord]] | None = None

    def of(self, chunk: Chunk, index: int) -> Member | None:
        """Return the member that holds the job at *index* of *chunk*, or None."""
        if self._by_chunk is None:
            self._by_chunk = _by_chunk(self._leases)
        leases = self._by_chunk.get(chunk.sequence, [])
        place = bisect_right(leases, index, key=lambda lease: lease.start) - 1
        return leases[place].holder if place >= 0 and index < leases[place].stop else None


def _by_chunk(leases: Iterable[LeaseRecord]) -> dict[int, list[LeaseRecord]]:
    """Return the leases of each chunk, by its sequence number, in the order of their jobs."""
    found: defaultdict[int, list[LeaseRecord]] = defaultdict(list)
    for lease in leases:
        found[lease.chunk.sequence].append(lease)
    for those in found.values():
        those.sort(key=lambda lease: lease.start)
    return found
