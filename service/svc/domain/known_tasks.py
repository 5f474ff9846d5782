"""The tasks that the connected consumers know in each queue, and the codecs that they accept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from svc.domain.job import ITEM, PILL, SHELL, Terms
from svc.domain.members import Member
from svc.domain.names import LARGE, TYPED
from svc.domain.scheduling.lanes import Subscription, added, takes
from svc.domain.tables import Mapped

#: Tasks that consumers of one kind know; None: all tasks.
_Tasks = frozenset[str] | None
_Codecs = frozenset[str] | None
_NONE: frozenset[str] = frozenset()
#: Tasks that no consumer has to know: items are for plain clients, pills for any consumer.
_OF_THE_MANAGER = frozenset((ITEM, PILL))


class _Index:
    """The numbers of the kinds that serve a queue, know a task, accept a codec; under None all of the latter.

    One submit may ask for a thousand queues and tasks, of thousands of kinds: no question looks at each kind.
    """

    def __init__(self, kinds: Iterable[Subscription]) -> None:
        self.serving: defaultdict[str, set[int]] = defaultdict(set)
        self.knowing: defaultdict[str | None, set[int]] = defaultdict(set)
        self.accepting: defaultdict[str | None, set[int]] = defaultdict(set)
        serving = self.serving
        for number, (queues, tasks, codecs) in enumerate(kinds):
            for queue in queues:
                serving[queue].add(number)
            for task in (None,) if tasks is None else tasks:
                self.knowing[task].add(number)
            for codec in (None,) if codecs is None else codecs:
                self.accepting[codec].add(number)


class KnownTasks:
    """The tasks that some consumers know in each queue, at the time when this was made.

    Thousands of consumers are of a few kinds: the consumers of one worker serve the same queues and know the
    same tasks. Each kind is looked at once.
    """

    def __init__(self, consumers: Iterable[Member]) -> None:
        """Look at the *consumers* that are connected."""
        self._kinds = {member.subscription for member in consumers if member.connected}
        #: The union of the tasks that several kinds know.
        self._together: dict[tuple[_Tasks, ...], _Tasks] = {}

    def serves(self, queue: str) -> bool:
        """Return whether one of the consumers takes jobs from *queue*."""
        return queue in self._by_queue

    def has(self, queue: str, task: str) -> bool:
        """Return whether one of the consumers serves *queue* and knows *task*."""
        return any(self._able(queue, task))

    def accepts(self, terms: Terms) -> bool:
        """Return whether one of the consumers can run jobs with these terms."""
        accepting = [self._index.accepting.get(terms.codec)]
        if terms.codec != LARGE:
            accepting.append(self._index.accepting.get(None))
        able = list(self._able(terms.queue, terms.task))
        return any(not each.isdisjoint(some) for some in accepting if some for each in able)

    def _able(self, queue: str, task: str) -> Iterator[set[int]]:
        """Yield the kinds that serve *queue* and know *task*: those that name it, and those that know all."""
        serving = self._index.serving.get(queue, set())
        for knowing in (self._index.knowing.get(task), self._index.knowing.get(None)):
            if knowing:
                yield serving & knowing

    @cached_property
    def _index(self) -> _Index:
        return _Index(self._kinds)

    @cached_property
    def _by_queue(self) -> Mapping[str, list[tuple[_Tasks, _Codecs]]]:
        found: defaultdict[str, list[tuple[_Tasks, _Codecs]]] = defaultdict(list)
        for queues, tasks, codecs in self._kinds:
            able = tasks, codecs
            for queue in queues:
                found[queue].append(able)
        return found

    def of(self, queue: str, codec: str | None = None) -> _Tasks:
        """Return the tasks that consumers of *queue* know; if *codec* is named, those who accept it."""
        kinds = self._by_queue.get(queue, ())
        known = [tasks for tasks, codecs in kinds if codec is None or takes(codecs, codec)]
        return known[0] if len(known) == 1 else self._union(tuple(known))

    def accept(self, queue: str, codec: str) -> bool:
        """Return whether all consumers of *queue* take jobs of *codec*."""
        return all(takes(codecs, codec) for _, codecs in self._by_queue.get(queue, ()))

    def _union(self, kinds: tuple[_Tasks, ...]) -> _Tasks:
        if kinds not in self._together:
            self._together[kinds] = None if None in kinds else _NONE.union(*filter(None, kinds))
        return self._together[kinds]


class Unserved:
    """What no consumer of a queue can run of its ready jobs, as far as these were looked at.

    Attributes:
        tasks: the tasks that a consumer has to know and none knows.
        codecs: those of jobs whose task is known, but to nobody who takes it in that codec.
    """

    def __init__(self, known: KnownTasks, queue: str) -> None:
        """Begin with nothing; *known* has the tasks that consumers know."""
        self.tasks: Mapped[str, None] = {}
        self.codecs: Mapped[str, None] = {}
        self._all, self._queue = known, queue
        self._known = known.of(queue)

    def add(self, codec: str, tasks: Mapping[str, object]) -> None:
        """Look at some *tasks* of the jobs with this codec."""
        known = self._known
        if known is not None:
            for task in frozenset(tasks) - known - _OF_THE_MANAGER:
                self.tasks = added(self.tasks, task, None)
        if codec in self.codecs or self._all.accept(self._queue, codec):
            return
        able = self._all.of(self._queue, codec)
        if able is not None:
            waiting = frozenset(tasks) - able - _OF_THE_MANAGER
            if waiting if known is None else waiting & known:
                self.codecs = added(self.codecs, codec, None)


def not_known(terms: Terms) -> str:
    """Return a sentence that says why a job with these terms waits if no consumer knows its task."""
    text = f"no connected worker of queue {terms.queue!r} knows the task {terms.task!r}"
    return f"{text}; start one with `--shell`" if terms.task == SHELL else text


def not_accepted(terms: Terms) -> str:
    """Return a sentence that says why a job with these terms waits although its task is known."""
    wanted = "of this release" if terms.codec in {TYPED, LARGE} else f"with `--accept {terms.codec}`"
    return (
        f"no connected worker of queue {terms.queue!r} that knows the task {terms.shown_task!r} accepts the "
        f"codec {terms.codec!r}; start one {wanted}"
    )
