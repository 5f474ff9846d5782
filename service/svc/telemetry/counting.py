"""The counters behind the manager's metrics: plain numbers, cheap enough for the hot path."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from svc.domain.names import NAME_MAX
from svc.telemetry.catalogue import LABEL_BOUNDS, OTHER

#: The largest observation, in seconds or bytes (31,000 years; a terabyte), so that every sum stays finite.
OBSERVATION_MAX = 1e12


class Histogram:
    """Counts of observations between bucket bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """The sum of all observations."""
        return self._sum

    def observe(self, value: float, count: int = 1) -> None:
        """Add *count* observations of one *value*."""
        if not 0 <= value <= OBSERVATION_MAX:
            value = _sound(value)
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def observe_all(self, values: Sequence[float]) -> None:
        """Add many observations; if all are in one bucket, they take a single step."""
        if not values:
            return
        total, least, most = sum(values), min(values), max(values)
        if not (least >= 0 and most <= OBSERVATION_MAX and total < math.inf):
            values = [_sound(value) for value in values]
            total, least, most = sum(values), min(values), max(values)
        self._sum += total
        low, high = bisect_left(self._bounds, least), bisect_left(self._bounds, most)
        if low == high:
            self._counts[low] += len(values)
            return
        for value in values:
            self._counts[bisect_left(self._bounds, value, low, high)] += 1

    def buckets(self) -> list[tuple[float, int]]:
        """Return (upper bound, observations up to it), the last bound being infinity."""
        # One copy, so that a scrape during an observation still gets consistent buckets.
        return list(zip((*self._bounds, math.inf), accumulate(self._counts[:]), strict=True))


def _sound(value: float) -> float:
    # Run times come from consumers: one NaN or infinity would stay in the sum for ever.
    return min(value, OBSERVATION_MAX) if 0 <= value < math.inf else 0.0


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Labels:
    """The known values of each label, up to a bound; all further values count as `other`."""

    def __init__(self, bounds: Mapping[str, int] = LABEL_BOUNDS) -> None:
        self._bounds = bounds
        self._known: dict[str, set[tuple[str, str]]] = {label: set() for label in self._bounds}
        self._overflow = dict.fromkeys(self._bounds, 0)

    def fold(self, label: str, value: str, of: str = "") -> str:
        """Return *value*, or `other` if *label* already has as many other values as it may have.

        The result is also `other` if the value is longer than a name or cannot be encoded. A value counts
        once for each *of* with which it occurs: the bound is on pairs, since each pair has its own series.
        """
        known = self._known[label]
        if (of, value) in known or value == OTHER:
            return value
        if len(value) > NAME_MAX or not _encodable(value):
            return OTHER
        if not self.is_full(label):
            known.add((of, value))
            return value
        self._overflow[label] += 1
        return OTHER

    def is_full(self, label: str) -> bool:
        """Return whether the next new value of *label* counts as `other`."""
        return len(self._known[label]) >= self._bounds[label]

    def overflow(self) -> Iterator[tuple[str, int]]:
        """Yield each label, with how often one of its values was replaced by `other`."""
        yield from list(self._overflow.items())
