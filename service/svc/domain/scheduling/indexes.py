"""An index of very many lanes, which is made over several turns, and the lanes that it is made of.

To make one of 300,000 lanes takes 90 ms. Until it is made, consumers of its subscription get no jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from svc.domain.names import LARGE
from svc.domain.tables import Mapped, in_parts

if TYPE_CHECKING:
    from svc.domain.scheduling.lanes import Lane, Place

#: Lanes that are looked at in one step, in some 5 ms. An index of no more is made at once.
INDEXED_AT_ONCE = 10_000
#: Indexes that are made at the same time.
UNFINISHED_MAX = 4


K = TypeVar("K")
V = TypeVar("V")


class UnfinishedIndex:
    """An index that is being made.

    Attributes:
        places: the heap, as far as it is made.
    """

    __slots__ = ("_lanes", "places")

    def __init__(self, groups: Iterable[Iterable[Mapped[int, Lane]]]) -> None:
        """Begin with *groups* of lanes, which may come and go; those that come add their own places."""
        self.places: list[Place] = []
        self._lanes = (lane for some in groups for lanes in some for lane in each_of(lanes))

    def go_on(self) -> bool:
        """Look at some more lanes; return whether that were all."""
        seen = 0
        for lane in islice(self._lanes, INDEXED_AT_ONCE):
            seen += 1
            if lane.place is not None:
                heapq.heappush(self.places, lane.place)
        return seen < INDEXED_AT_ONCE


def each_of(entries: Mapped[K, V]) -> Iterator[V]:
    """Yield the values, while others may come and go."""
    for part in in_parts(entries):
        yield from list(part.values())


def accepted_of(codecs: Mapped[str, V], accepted: frozenset[str] | None) -> Iterable[V]:
    """Return the entries of the codecs that are accepted; None stands for all but `large`."""
    if accepted is None and LARGE in codecs:
        return [entry for codec, entry in codecs.items() if codec != LARGE]
    return named(codecs, accepted)


def named(entries: Mapped[str, V], names: frozenset[str] | None) -> Iterable[V]:
    """Return the entries that have one of these names, or all; oldest first if that is no more work.

    A heap that is made of lanes in the order of their age is in order at once, also in memory.
    """
    if names is None:
        return entries.values()
    if len(names) < len(entries):
        return [entries[name] for name in names if name in entries]
    return [entry for name, entry in entries.items() if name in names]
