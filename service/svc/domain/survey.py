"""The counts of all queues, taken a few queues at a time: there may be ten thousand, at 6 µs each.

What is counted in several steps is no picture of one moment: a queue that appears meanwhile is left out.
"""

from __future__ import annotations

import math
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

from svc.domain import replies as r
from svc.domain.known_tasks import Unserved
from svc.domain.outcomes import text_bytes
from svc.domain.tables import Mapped, in_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from svc.domain.members import LeaseRecord
    from svc.domain.queue_state import QueueState

#: Names of tasks that no consumer knows, and of codecs that none accepts, that are given of one queue.
UNKNOWN_NAMES_MAX = 100
#: Bytes of those of all queues together, about: they share an answer, and there may be 10,000 queues.
UNKNOWN_NAMES_BYTES = 1024 * 1024
#: Lanes of one step, and lanes, tasks or leases in the time of a queue: 100,000 lanes take 20 ms.
LANES_AT_ONCE = 1000
LANES_OF_A_QUEUE = 30
#: The cost of a codec, in lanes, beside its tasks.
_CODEC_LANES = 10
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
        #: When the oldest lease of each queue was granted.
        self._running_since: dict[str, float] = {}
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
        state = self._state
        for leases in state.leases.in_parts():
            self._note_oldest(leases.values())
            yield len(leases) / LANES_OF_A_QUEUE
        for name in names:
            oldest, unserved = math.inf, Unserved(state.known_tasks, name)
            for lanes in (state.lanes, state.suspects.lanes, state.absentees.lanes):
                if name not in lanes.queues:
                    continue
                for at, count in lanes.oldest(name, LANES_AT_ONCE):
                    oldest = min(oldest, at)
                    yield count / LANES_OF_A_QUEUE
                for codec, tasks in lanes.tasks(name):
                    unserved.add(codec, tasks)
                    yield (_CODEC_LANES + len(tasks)) / LANES_OF_A_QUEUE
            if name in state.ledger.counts:  # it may have been forgotten since the beginning
                self.queues.append(self._count(name, oldest, unserved))
                yield 1.0
            for part in (*in_parts(unserved.tasks), *in_parts(unserved.codecs)):
                if len(part) > LANES_AT_ONCE:
                    part.clear()  # not all parts of a large table in one step
                    yield 1.0

    def _note_oldest(self, leases: Iterable[LeaseRecord]) -> None:
        since = self._running_since
        for lease in leases:
            queue, at = lease.chunk.terms.queue, lease.granted_at
            if at < since.get(queue, math.inf):
                since[queue] = at

    def _count(self, name: str, oldest: float, unserved: Unserved) -> r.QueueStats:
        counts, now = self._state.ledger.counts[name], self._now
        return r.QueueStats(
            name=name,
            **counts.by_state(),
            submitted=counts.submitted,
            oldest=max(0.0, now - oldest),
            oldest_running=max(0.0, now - self._running_since.get(name, now)),
            unknown=self._fitting(_shown(unserved.tasks)),
            unknown_tasks=len(unserved.tasks),
            unaccepted=self._fitting(_shown(unserved.codecs)),
        )

    def _fitting(self, names: list[str]) -> list[str]:
        """Return the first of *names* for which there is room in the answer."""
        for place, name in enumerate(names):
            self._names_left -= text_bytes(name)
            if self._names_left < 0:
                return names[:place]
        return names


def _shown(names: Mapped[str, None]) -> list[str]:
    if len(names) > _SORTED_NAMES_MAX:
        return sorted(islice(names, UNKNOWN_NAMES_MAX))
    return nsmallest(UNKNOWN_NAMES_MAX, names) if len(names) > 1 else list(names)
