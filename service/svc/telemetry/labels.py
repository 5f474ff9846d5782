"""Bounds on the values of labels, so that the number of series is bounded too."""

from __future__ import annotations

from collections.abc import Mapping

from svc.domain.names import NAME_MAX
from svc.telemetry.label_values import LABEL_BOUNDS, OTHER


class Labels:
    """The known values of each label, up to a bound; all further values count as `other`."""

    def __init__(self, bounds: Mapping[str, int] = LABEL_BOUNDS) -> None:
        self._bounds = bounds
        self._known: dict[str, set[tuple[str, str]]] = {label: set() for label in self._bounds}
        #: How often a value of each label was replaced by `other`.
        self.overflow = dict.fromkeys(self._bounds, 0)

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
        self.overflow[label] += 1
        return OTHER

    def is_full(self, label: str) -> bool:
        """Return whether the next new value of *label* counts as `other`."""
        return len(self._known[label]) >= self._bounds[label]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
