"""Which tasks of which queues the connected consumers know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from service.domain.job import ITEM, PILL
from service.domain.members import Member

#: What consumers of one kind know; None: all tasks.
_Tasks = frozenset[str] | None
_NONE: frozenset[str] = frozenset()
#: Tasks of jobs that no consumer has to know: items are for plain clients, pills for any consumer.
_OF_THE_MANAGER = frozenset((ITEM, PILL))


class KnownTasks:
    """Which tasks of which queues some consumers know, as they were when this was made.

    Thousands of consumers are of a few kinds: those of one worker serve the same queues and know the same
    tasks. Each kind is looked at once.
    """

    def __init__(self, consumers: Iterable[Member]) -> None:
        """Look at those of *consumers* that are connected."""
        kinds = {(member.queues, member.tasks) for member in consumers if member.connected}
        self._by_queue: defaultdict[str, list[_Tasks]] = defaultdict(list)
        for queues, tasks in kinds:
            for queue in queues:
                self._by_queue[queue].append(tasks)
        #: The tasks that several kinds know together.
        self._together: dict[tuple[_Tasks, ...], _Tasks] = {}

    def has(self, queue: str, task: str) -> bool:
        """Return whether one of the consumers serves *queue* and knows *task*."""
        known = self._of(queue)
        return known is None or task in known

    def unknown(self, queue: str, tasks: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of *tasks* that a consumer of *queue* would have to know, and none does."""
        known = self._of(queue)
        if known is None:
            return _NONE
        unknown = tasks - known
        return unknown - _OF_THE_MANAGER if unknown else unknown

    def _of(self, queue: str) -> _Tasks:
        kinds = self._by_queue.get(queue)
        if kinds is None:
            return _NONE
        return kinds[0] if len(kinds) == 1 else self._union(kinds)

    def _union(self, kinds: list[_Tasks]) -> _Tasks:
        key = tuple(kinds)
        if key not in self._together:
            self._together[key] = None if None in kinds else _NONE.union(*filter(None, kinds))
        return self._together[key]
