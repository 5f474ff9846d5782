"""The counts of all queues, taken a few queues at a time: there may be ten thousand, at 6 µs each.

What is counted in several steps is no picture of one moment: a queue that appears meanwhile is left out.
"""

from __future__ import annotations

import math
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

from svc.domain import replies as r
from svc.domain.outcomes import text_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from svc.domain.queue_state import QueueState

#: Names of tasks that no consumer knows, and of codecs that none accepts, that are given of one queue.
UNKNOWN_NAMES_MAX = 100
#: Bytes of those of all queues together, about: they share an answer, and there may be 10,000 queues.
UNKNOWN_NAMES_BYTES = 1024 * 1024
#: Lanes that are looked at in one step, and in the time of a queue: 100,000 of one queue take 20 ms.
LANES_AT_ONCE = 1000
LANES_OF_A_QUEUE = 30
#: Names among which the smallest ones are looked for; of more, any are given.
_SORTED_NAMES_MAX = 10_000


class Survey:
    """What each queue holds, as far as it was counted.

    Attributes:
        queues: the counts of the queues so far, by name.
    """

    def __init__(self, state: QueueState, now: float) -> None:
        """Begin with no queue, at time *now*."""
        self.queues: list[r.QueueStats] = []
        self._state = state
        self._now = now
        self._names_left = UNKNOWN_NAMES_BYTES
        self._running_since = _running_since(state)
        self._steps = self._count_all(sorted(name for name in state.ledger.counts if name[0] != "#"))

    def advance(self, count: int) -> bool:
        """Count up to *count* more queues, fewer if they have many lanes; return whether others are left."""
        left: float = count
        for step in self._steps:
            left -= step
            if left <= 0:
                return True
        return False

    def _count_all(self, names: Sequence[str]) -> Iterator[float]:
        """Count all queues; yield how many queues each step took as long as."""
        counts = self._state.ledger.counts
        for name in names:
            oldest = math.inf
            for lanes in (self._state.lanes, self._state.suspects.lanes, self._state.absentees.lanes):
                for at, count in lanes.oldest(name, LANES_AT_ONCE) if name in lanes.queues else ():
                    oldest = min(oldest, at)
                    yield count / LANES_OF_A_QUEUE
            if name in counts:  # it may have been forgotten since the beginning
                self.queues.append(self._count(name, oldest))
                yield 1.0

    def _count(self, name: str, oldest: float) -> r.QueueStats:
        state, now = self._state, self._now
        counts, known = state.ledger.counts[name], state.known_tasks
        tasks = state.lanes.tasks(name)
        for apart in (state.suspects.lanes, state.absentees.lanes):
            for codec, names in apart.tasks(name).items():
                tasks[codec] = tasks.get(codec, frozenset()) | names
        unknown = known.unknown(name, tasks)
        return r.QueueStats(
            name=name,
            **counts.by_state(),
            submitted=counts.submitted,
            oldest=max(0.0, now - oldest),
            oldest_running=max(0.0, now - self._running_since.get(name, now)),
            unknown=self._fitting(_shown(unknown)),
            unknown_tasks=len(unknown),
            unaccepted=self._fitting(_shown(known.unaccepted(name, tasks))),
        )

    def _fitting(self, names: list[str]) -> list[str]:
        """Return the first of *names* for which there is room in the answer."""
        for place, name in enumerate(names):
            self._names_left -= text_bytes(name)
            if self._names_left < 0:
                return names[:place]
        return names


def _running_since(state: QueueState) -> dict[str, float]:
    """Return when the oldest lease of each queue was granted."""
    since: dict[str, float] = {}
    for lease in state.leases.values():
        queue = lease.chunk.terms.queue
        granted_at = since.get(queue)
        if granted_at is None or lease.granted_at < granted_at:
            since[queue] = lease.granted_at
    return since


def _shown(names: Collection[str]) -> list[str]:
    if len(names) > _SORTED_NAMES_MAX:
        return sorted(islice(names, UNKNOWN_NAMES_MAX))
    return nsmallest(UNKNOWN_NAMES_MAX, names) if len(names) > 1 else list(names)
