"""After a restart: the workers that have not come back yet, and the jobs that they may hold.

Only these jobs wait, until the last worker that may hold them has come back or said goodbye, or until their
time is over. All other jobs go out at once. A worker is back when its supervisor has renewed, and each
consumer that it named has said hello or has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from svc.domain.chunk import Chunk
from svc.domain.job import Terms
from svc.domain.roster import WorkerRoster
from svc.domain.scheduling.lanes import Lane, Lanes, Subscription, covers

#: The queue, the task and the codec of jobs.
_Kind: TypeAlias = tuple[str, str, str]


class Absentees:
    """Those of a queue state; none at first.

    Attributes:
        names: the workers that have not come back, and the jobs that each takes.
        until: the time at which the last of them is given up; 0 if none is expected.
        lanes: the ready jobs that wait for them.
    """

    def __init__(self) -> None:
        """Expect nobody."""
        self.names: dict[str, Subscription] = {}
        self.until = 0.0
        self.lanes = Lanes()
        self._by_subscription: Counter[Subscription] = Counter()
        #: The kinds of jobs of which somebody may hold some, each with the terms of one.
        self.kinds: dict[_Kind, Terms] = {}
        #: The event up to which chunks of each queue may be held.
        self._held: dict[str, int] = {}
        #: Whether the journal is older than the roster: any worker may hold any job.
        self._any = False

    def __bool__(self) -> bool:
        """Return whether somebody is expected."""
        return self.until > 0

    def expect(self, roster: WorkerRoster, chunks: Iterable[Chunk], last: int, until: float) -> None:
        """Expect the workers of *roster* until a Unix time.

        *chunks* are those with unfinished jobs, and *last* is the last event before the restart.
        """
        self._any = not roster.begun
        self.names = {name: worker.subscription for name, worker in roster.workers.items()}
        self._by_subscription = Counter(self.names.values())
        self._held = {queue: min(mark.up_to, last) for queue, mark in roster.watermarks.items()}
        kinds = {_kind(chunk.terms): chunk.terms for chunk in chunks}
        self.kinds = {kind: terms for kind, terms in kinds.items() if self._is_taken(terms)}
        self.until = until if self.names or self.kinds else 0.0

    def may_hold(self, chunk: Chunk) -> bool:
        """Return whether jobs of *chunk* wait for somebody."""
        if not self.kinds or _kind(chunk.terms) not in self.kinds:
            return False
        return self._any or chunk.sequence <= self._held.get(chunk.terms.queue, 0)

    def returned(self, name: str) -> list[Lane]:
        """Note that a worker is back, or will not come; return the lanes that need not wait any more."""
        subscription = self.names.pop(name, None)
        if subscription is None:
            return []
        self._by_subscription[subscription] -= 1
        if self._any or self._by_subscription[subscription]:
            return []
        del self._by_subscription[subscription]
        if not self.names:
            return self.give_up()
        free = {kind for kind, terms in self.kinds.items() if not self._is_taken(terms)}
        for kind in free:
            del self.kinds[kind]
        return [lane for lane in self.lanes if _kind(lane.terms) in free]

    def give_up(self) -> list[Lane]:
        """Expect nobody any more; return all lanes."""
        self.names.clear()
        self._by_subscription.clear()
        self.kinds.clear()
        self.until = 0.0
        return list(self.lanes)

    def _is_taken(self, terms: Terms) -> bool:
        """Return whether somebody who is expected takes jobs with these terms."""
        return self._any or any(covers(subscription, terms) for subscription in self._by_subscription)


def _kind(terms: Terms) -> _Kind:
    return terms.queue, terms.task, terms.codec
