"""Items that each have a deadline, to find the earliest one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
#: Places of removed items that may stay in the heap, in addition to as many as there are items.
_REMOVED_MAX = 64


@dataclass(eq=False, slots=True)
class _Place(Generic[T]):
    deadline: float
    number: int
    item: T | None

    def __lt__(self, other: _Place[T]) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class Deadlines(Generic[T]):
    """Items by deadline. A removed item is let go at once, also while earlier ones stay."""

    def __init__(self) -> None:
        """Begin with none."""
        self._places: dict[T, _Place[T]] = {}
        self._heap: list[_Place[T]] = []
        self._count = 0

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._places)

    def __iter__(self) -> Iterator[T]:
        """Return the items in the order in which they came."""
        return iter(self._places)

    def add(self, item: T, deadline: float) -> None:
        """Add an item; among those with one deadline the first comes first."""
        self._count += 1
        place = self._places[item] = _Place(deadline, self._count, item)
        heapq.heappush(self._heap, place)

    def remove(self, item: T) -> None:
        """Remove an item."""
        self._places.pop(item).item = None
        if len(self._heap) > 2 * len(self._places) + _REMOVED_MAX:
            self._heap = list(self._places.values())
            heapq.heapify(self._heap)

    def first(self) -> T | None:
        """Return the item with the earliest deadline; None if there is no item."""
        heap = self._heap
        while heap and heap[0].item is None:
            heapq.heappop(heap)
        return heap[0].item if heap else None
