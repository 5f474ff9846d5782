"""An index of very many lanes, which is made over several turns.

To make one of 300,000 lanes takes 90 ms. Until it is made, consumers of its subscription get no jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svc.domain.scheduling.lanes import Lane, Place

#: Lanes that are looked at in one step, in some 5 ms. An index of no more is made at once.
INDEXED_AT_ONCE = 10_000
#: Indexes that are made at the same time.
UNFINISHED_MAX = 4


class UnfinishedIndex:
    """An index that is being made.

    Attributes:
        places: the heap, as far as it is made.
    """

    __slots__ = ("_lanes", "places")

    def __init__(self, groups: Iterable[Iterable[dict[int, Lane]]]) -> None:
        """Begin with *groups* of lanes, which may come and go; those that come add their own places."""
        self.places: list[Place] = []
        self._lanes = (lane for some in groups for lanes in some for lane in list(lanes.values()))

    def go_on(self) -> bool:
        """Look at some more lanes; return whether that were all."""
        seen = 0
        for lane in islice(self._lanes, INDEXED_AT_ONCE):
            seen += 1
            if lane.place is not None:
                heapq.heappush(self.places, lane.place)
        return seen < INDEXED_AT_ONCE
