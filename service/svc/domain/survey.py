"""The counts of all queues, taken a few queues at a time: there may be ten thousand, at 6 µs each.

What is counted in several steps is no picture of one moment: a queue that appears meanwhile is left out.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

from svc.domain import replies as r

if TYPE_CHECKING:
    from collections.abc import Collection

    from svc.domain.queue_state import QueueState

#: Names of tasks that no consumer knows, and of codecs that none accepts, that are given of one queue.
UNKNOWN_NAMES_MAX = 100
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
        self._running_since = _running_since(state)
        self._names = iter(sorted(name for name in state.ledger.counts if name[0] != "#"))

    def advance(self, count: int) -> bool:
        """Count up to *count* more queues; return whether there may be others."""
        names = list(islice(self._names, count))
        # A queue may have been forgotten since the beginning.
        self.queues += [self._count(name) for name in names if name in self._state.ledger.counts]
        return len(names) == count

    def _count(self, name: str) -> r.QueueStats:
        state, now = self._state, self._now
        counts, known = state.ledger.counts[name], state.known_tasks
        oldest, tasks = state.lanes.oldest(name), state.lanes.tasks(name)
        if state.suspects.lanes.queues:
            apart = state.suspects.lanes
            oldest = min((at for at in (oldest, apart.oldest(name)) if at is not None), default=None)
            for codec, names in apart.tasks(name).items():
                tasks[codec] = tasks.get(codec, frozenset()) | names
        unknown = known.unknown(name, tasks)
        return r.QueueStats(
            name=name,
            **counts.by_state(),
            submitted=counts.submitted,
            oldest=max(0.0, now - oldest) if oldest is not None else 0.0,
            oldest_running=max(0.0, now - self._running_since.get(name, now)),
            unknown=_shown(unknown),
            unknown_tasks=len(unknown),
            unaccepted=_shown(known.unaccepted(name, tasks)),
        )


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
