"""Recent events, kept in memory because they are likely to be read soon.

They are outcomes, which clients fetch soon after their commit, and submitted chunks that were read from the
journal, since their other jobs are requested next.
"""

from __future__ import annotations

from collections import OrderedDict

from svc.domain import events as e

#: The most events that are kept, and the most bytes in them.
RECENT_EVENTS = 2048
RECENT_BYTES = 32 * 1024 * 1024
#: An event with this many bytes of results or more is not kept.
RECENT_EVENT_BYTES = 2 * 1024 * 1024


class Recent:
    """The last events, up to a number and a size."""

    def __init__(self, most_bytes: int = RECENT_BYTES) -> None:
        """Begin empty; keep at most *most_bytes*, or one event if it alone is larger."""
        self._events: OrderedDict[int, tuple[e.AnyEvent, int]] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._events)

    def get(self, sequence: int) -> e.AnyEvent | None:
        """Return an event, if it is kept."""
        known = self._events.get(sequence)
        return None if known is None else known[0]

    def committed(self, sequence: int, event: e.AnyEvent, size: int | None = None) -> None:
        """Keep a committed event if it reports an outcome and is not too large.

        *size* is its `events.weight`, if that is already known.
        """
        if isinstance(event, e.Submitted | e.Merged):
            return
        weight = e.weight(event) if size is None else size
        if weight < RECENT_EVENT_BYTES:
            self._keep(sequence, event, weight)

    def read(self, sequence: int, event: e.AnyEvent) -> None:
        """Keep an event that was read from the journal, if it has arguments."""
        if isinstance(event, e.Submitted | e.Merged):
            self._keep(sequence, event, e.weight(event))

    def _keep(self, sequence: int, event: e.AnyEvent, weight: int) -> None:
        self._events[sequence] = event, weight
        self._bytes += weight
        while len(self._events) > RECENT_EVENTS or (self._bytes > self._most_bytes and len(self._events) > 1):
            self._bytes -= self._events.popitem(last=False)[1][1]
