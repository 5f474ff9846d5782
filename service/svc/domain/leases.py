"""The leases in force, by their tokens and by their jobs; and the reports that have settled leases."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from svc.domain.tables import PART_BITS, SHRUNK, Table, by_number, in_parts

if TYPE_CHECKING:
    from svc.domain.chunk import Chunk
    from svc.domain.job_view import Progress
    from svc.domain.members import LeaseRecord

#: Bytes of the last reports of all leased jobs: a consumer may lease very many and tell of each.
TOLD_BYTES_MAX = 64 * 1024 * 1024
#: Those of a report beside its note, each of whose characters may take four.
TOLD_OVERHEAD_BYTES = 224
#: Settled leases that are remembered.
SETTLED_KEPT = 10_000


class Settled:
    """The job numbers that were settled under each of the last tokens; results and failures are apart.

    They distinguish a report that is sent twice, which gets its answer again, from one that is too late.
    """

    def __init__(self) -> None:
        """Start with none."""
        #: (token, whether it failed) -> ranges [first, stop) of job numbers.
        self.ranges: OrderedDict[tuple[int, bool], list[tuple[int, int]]] = OrderedDict()

    def add(self, token: int, first: int, stop: int, *, failed: bool) -> None:
        """Remember that jobs [first, stop) were settled under *token*."""
        ranges = self.ranges.setdefault((token, failed), [])
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((first, stop))
        if len(self.ranges) > SETTLED_KEPT:
            self.ranges.popitem(last=False)

    def has(self, token: int, first: int, count: int, *, failed: bool) -> bool:
        """Return whether jobs `first` … `first + count - 1` were settled like this under *token*."""
        ranges = self.ranges.get((token, failed), ())
        return any(low <= first and first + count <= stop for low, stop in ranges)


class Leases:
    """All leases in force, by token. Those of a chunk are linked, so that nothing looks for them among all.

    The links take 16 bytes of a lease; a mapping for each chunk would take 230.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._by_token: Table[int, LeaseRecord] = Table(by_number)
        #: About the bytes that the last reports of all their jobs take.
        self.told_bytes = 0

    def __len__(self) -> int:
        """Return the number of leases."""
        return len(self._by_token)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._by_token)

    def __contains__(self, token: int) -> bool:
        """Return whether the lease under *token* is in force."""
        return self.get(token) is not None

    def __getitem__(self, token: int) -> LeaseRecord:
        """Return the lease under *token*.

        Raises:
            KeyError: it is not in force.
        """
        return self._by_token.parts[token >> PART_BITS][token]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the tokens."""
        return iter(self._by_token)

    def get(self, token: int) -> LeaseRecord | None:
        """Return the lease under *token*, or None if it is not in force."""
        part = self._by_token.parts.get(token >> PART_BITS)
        return None if part is None else part.get(token)

    def values(self) -> Iterator[LeaseRecord]:
        """Iterate over all leases."""
        return self._by_token.values()

    def in_parts(self) -> Iterator[dict[int, LeaseRecord]]:
        """Yield all leases, some thousand at a time; they may begin and end between these."""
        return in_parts(self._by_token)

    def of(self, chunk: Chunk) -> list[LeaseRecord]:
        """Return the leases of a chunk, in the order of their jobs."""
        found, lease = [], chunk.newest_lease
        while lease is not None:
            found.append(lease)
            lease = lease.older
        found.sort(key=_start)
        return found

    def add(self, lease: LeaseRecord) -> None:
        """Put a lease in force."""
        parts, number, chunk = self._by_token.parts, lease.token >> PART_BITS, lease.chunk
        if number not in parts:
            self._by_token.drop_empty_parts()
        parts[number][lease.token] = lease
        lease.older = older = chunk.newest_lease
        if older is not None:
            older.newer = lease
        chunk.note_newest_lease(lease)

    def remove(self, lease: LeaseRecord) -> None:
        """End a lease; nothing happens if it has ended."""
        number, older, newer = lease.token >> PART_BITS, lease.older, lease.newer
        part = self._by_token.parts.get(number, {})
        if part.pop(lease.token, None) is None:
            return
        if lease.progress is not None:
            self.told_bytes -= sum(map(_bytes_of, lease.progress.values()))
            lease.progress = None
        if len(part) in SHRUNK:
            self._by_token.shrink(number)
        if older is not None:
            older.newer = newer
        if newer is None:
            lease.chunk.note_newest_lease(older)
        else:
            newer.older = older
        lease.older = lease.newer = None

    def tell(self, lease: LeaseRecord, number: int, told: Progress) -> None:
        """Keep the last report of a job if there is room for it.

        Those of jobs that have ended go once there are as many reports as jobs, so few look at all.
        """
        kept = lease.progress
        if kept is None:
            kept = lease.progress = {}
        if (before := kept.get(number)) is not None:
            if before.note == told.note:  # the usual case
                kept[number] = told
                return
            self.told_bytes -= _bytes_of(before)
        elif len(kept) >= lease.stop - lease.start:
            first = lease.chunk.first + lease.start
            for each in [each for each in kept if each < first]:
                self.told_bytes -= _bytes_of(kept.pop(each))
        size = _bytes_of(told)
        if self.told_bytes + size <= TOLD_BYTES_MAX:
            kept[number] = told
            self.told_bytes += size
        elif before is not None:
            del kept[number]


def _bytes_of(told: Progress) -> int:
    return TOLD_OVERHEAD_BYTES + 4 * len(told.note)


def lease_at(leases: Sequence[LeaseRecord], index: int) -> LeaseRecord | None:
    """Return the one of `Leases.of` a chunk that has the job at *index*, or None."""
    place = bisect_right(leases, index, key=_start) - 1
    return leases[place] if place >= 0 and index < leases[place].stop else None


def _start(lease: LeaseRecord) -> int:
    return lease.start
