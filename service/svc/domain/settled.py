"""The last settled leases.

They distinguish a report that is sent twice, which gets its answer again, from one that is too late.
"""

from __future__ import annotations

from collections import OrderedDict

#: Settled leases that are remembered.
SETTLED_KEPT = 10_000


class Settled:
    """The job numbers that were settled under each of the last tokens; results and failures are apart."""

    def __init__(self) -> None:
        """Start with none."""
        #: (token, whether it failed) -> ranges [first, stop) of job numbers.
        self.ranges: OrderedDict[tuple[int, bool], list[tuple[int, int]]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of settled leases."""
        return len(self.ranges)

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
