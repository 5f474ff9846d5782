"""The time that a request to the manager takes which it answers at once."""

from __future__ import annotations

from collections import deque

#: Requests of which the quickest counts, and those that are made one after the other at the beginning.
_KEPT, _FIRST = 8, 3
#: Seconds between two requests later.
_PAUSE_SECONDS = 5.0


class RoundTrip:
    """The least of the last times of a request and its answer.

    The way there and back takes at least as long. The others had to wait: for a turn of the manager, for a
    commit, or for a processor of this host.
    """

    def __init__(self) -> None:
        """Begin with no measurement."""
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._next = 0.0

    @property
    def seconds(self) -> float:
        """The time in seconds; 0 if nothing was measured yet."""
        return min(self._times, default=0.0)

    def is_due(self, now: float) -> bool:
        """Return whether it is time for a measurement, at the monotonic time *now*."""
        return now >= self._next

    def note(self, seconds: float, now: float) -> None:
        """Note that a request has taken *seconds*, and was answered *now*."""
        self._times.append(seconds)
        self._next = now + _PAUSE_SECONDS if len(self._times) >= _FIRST else now

    def forget(self) -> None:
        """Begin anew: a new connection may take another way."""
        self._times.clear()
        self._next = 0.0
