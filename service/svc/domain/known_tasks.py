"""The tasks that the connected consumers know in each queue, and the codecs that they accept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from svc.domain.job import ITEM, PILL, Terms
from svc.domain.members import Member

#: Tasks that consumers of one kind know; None: all tasks.
_Tasks = frozenset[str] | None
_Codecs = frozenset[str] | None
_NONE: frozenset[str] = frozenset()
#: Tasks that no consumer has to know: items are for plain clients, pills for any consumer.
_OF_THE_MANAGER = frozenset((ITEM, PILL))


class KnownTasks:
    """The tasks that some consumers know in each queue, at the time when this was made.

    Thousands of consumers are of a few kinds: the consumers of one worker serve the same queues and know the
    same tasks. Each kind is looked at once.
    """

    def __init__(self, consumers: Iterable[Member]) -> None:
        """Look at the *consumers* that are connected."""
        kinds = {member.subscription for member in consumers if member.connected}
        self._by_queue: defaultdict[str, list[tuple[_Tasks, _Codecs]]] = defaultdict(list)
        for queues, tasks, codecs in kinds:
            for queue in queues:
                self._by_queue[queue].append((tasks, codecs))
        #: The union of the tasks that several kinds know.
        self._together: dict[tuple[_Tasks, ...], _Tasks] = {}

    def serves(self, queue: str) -> bool:
        """Return whether one of the consumers takes jobs from *queue*."""
        return queue in self._by_queue

    def has(self, queue: str, task: str) -> bool:
        """Return whether one of the consumers serves *queue* and knows *task*."""
        known = self._of(queue)
        return known is None or task in known

    def accepts(self, terms: Terms) -> bool:
        """Return whether one of the consumers can run jobs with these terms."""
        able = self._of(terms.queue, terms.codec)
        return able is None or terms.task in able

    def unknown(self, queue: str, tasks: Mapping[str, AbstractSet[str]]) -> AbstractSet[str]:
        """Return those of *tasks*, by codec, that a consumer of *queue* has to know and none knows."""
        known = self._of(queue)
        if known is None:
            return _NONE
        unknown: AbstractSet[str] = _NONE
        for each in tasks.values():
            unknown = unknown | (each - known) if unknown else each - known
        return unknown - _OF_THE_MANAGER if unknown else unknown

    def unaccepted(self, queue: str, tasks: Mapping[str, AbstractSet[str]]) -> list[str]:
        """Return the codecs with a known task that no consumer of *queue* can run in that codec."""
        return [codec for codec, names in tasks.items() if self._lacks(queue, codec, names)]

    def _lacks(self, queue: str, codec: str, tasks: AbstractSet[str]) -> bool:
        kinds = self._by_queue.get(queue, ())
        if all(codecs is None or codec in codecs for _, codecs in kinds):
            return False
        known, able = self._of(queue), self._of(queue, codec)
        if able is None:
            return False
        waiting = tasks - able - _OF_THE_MANAGER
        return bool(waiting if known is None else waiting & known)

    def _of(self, queue: str, codec: str | None = None) -> _Tasks:
        """Return the tasks that consumers of *queue* know; if *codec* is named, those who accept it."""
        kinds = self._by_queue.get(queue, ())
        known = [tasks for tasks, codecs in kinds if codec is None or codecs is None or codec in codecs]
        return known[0] if len(known) == 1 else self._union(tuple(known))

    def _union(self, kinds: tuple[_Tasks, ...]) -> _Tasks:
        if kinds not in self._together:
            self._together[kinds] = None if None in kinds else _NONE.union(*filter(None, kinds))
        return self._together[kinds]


def not_accepted(terms: Terms) -> str:
    """Return a sentence that says why a job with these terms waits although its task is known."""
    return (
        f"no connected worker of queue {terms.queue!r} that knows the task {terms.shown_task!r} accepts the "
        f"codec {terms.codec!r}; start one with `--accept {terms.codec}`"
    )
