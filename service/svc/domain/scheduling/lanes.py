"""The ready jobs, in the order in which consumers take them.

A *lane* holds the ready jobs of one queue, priority, task and codec, oldest first, as spans of chunks. A
consumer takes from the lane of the highest priority, then of the oldest job, among those whose task it knows
and whose codec it accepts: so a task that nobody knows blocks nothing but itself. Suspects stand *apart*, in
lanes of their own.

Clients choose priorities, queues and tasks, so there may be as many lanes as jobs. The choice of a lane
takes time in the logarithm of their number: there is an *index* of lanes for each distinct subscription of
consumers. A *subscription* is the queues, tasks and codecs that a consumer takes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias, TypeVar

from svc.domain.chunk import Chunk

V = TypeVar("V")

#: Subscriptions whose lanes are indexed. The index of a new one replaces the one that was used longest ago.
INDEXES_MAX = 64
#: Out-of-date entries that a heap may hold beyond the number of its other entries.
STALE_MAX = 64
#: Single corrections are made for one in so many places of an index; then it is built again.
_CORRECTED_PART = 16
#: Bits of the order of a job, which is the number of an event.
_ORDER_BITS = 64


class Span(NamedTuple):
    """Ready jobs [start, stop) of a chunk, ordered by the age of the first one. `ready_at` is a Unix time."""

    order: int
    start: int
    stop: int
    ready_at: float
    chunk: Chunk


class Lane:
    """The ready jobs of one queue, priority, task and codec.

    Attributes:
        count: the number of its jobs.
        place: its place among the other lanes. It may be too far in front, never too far behind; `settle`
            corrects it. None before the first job.
    """

    __slots__ = ("apart", "codec", "count", "number", "place", "priority", "queue", "spans", "task")

    def __init__(
        self, queue: str, priority: int, task: str, codec: str, number: int, *, apart: bool = False
    ) -> None:
        """Start empty; *number* is that of no other lane.

        It is for suspects alone if *apart*, and otherwise for all others.
        """
        self.apart = apart
        self.queue = queue
        self.priority = priority
        self.task = task
        self.codec = codec
        self.number = number
        self.count = 0
        self.spans: list[Span] = []
        self.place: Place | None = None

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> Place | None:
        """Add jobs, at the place that the age of the first one gives them, or at *order*.

        Return the place of the lane if that moved it to the front.
        """
        self.count += stop - start
        last = self.spans[-1] if self.spans else None
        if last is not None and not order and _goes_on(last, chunk, start, ready_at):
            self.spans[-1] = Span(last.order, last.start, stop, last.ready_at, chunk)
            return None
        order = order or chunk.sequence_of(start)
        heapq.heappush(self.spans, Span(order, start, stop, ready_at, chunk))
        rank = order - (self.priority << _ORDER_BITS)
        if self.place is not None and self.place[0] <= rank:
            return None
        self.place = (rank, self.number, self)
        return self.place

    def head(self) -> Span | None:
        """Return the span that begins with the oldest ready job, or None if no job is left."""
        while self.spans:
            span = self.spans[0]
            if not span.chunk.has_gaps:
                return span
            start = span.chunk.next_ready(span.start, span.stop, apart=self.apart)
            if start == span.start:
                return span
            self._replace_head(span, start)
        return None

    def settle(self) -> Place | None:
        """Correct the place of the lane and return it; None if no job is left."""
        head = self.head()
        if head is None:
            return None
        rank = head.order - (self.priority << _ORDER_BITS)
        if self.place is None or self.place[0] != rank:
            self.place = (rank, self.number, self)
        return self.place

    def comes_before(self, other: Lane) -> bool:
        """Return whether the first job of this lane is to be taken before that of *other*."""
        place, others = self.settle(), other.settle()
        return place is not None and (others is None or place[0] < others[0])

    def take(self, limit: int) -> Span | None:
        """Remove and return up to *limit* of the oldest jobs that follow each other in one chunk."""
        span = self.head()
        if span is None:
            return None
        order, start, end, ready_at, chunk = span
        stop = min(end, start + limit)
        if chunk.has_gaps:
            stop = chunk.ready_until(start, stop, apart=self.apart)
        self._replace_head(span, stop)
        self.count -= stop - start
        return span if stop == end else Span(order, start, stop, ready_at, chunk)

    def drop_stale_spans(self) -> None:
        """Remove the spans without a ready job, if most spans may be such."""
        if len(self.spans) > 2 * self.count + STALE_MAX:
            spans = {span[:3]: span for span in self.spans if self._any_ready(span)}
            self.spans = list(spans.values())
            heapq.heapify(self.spans)

    def _any_ready(self, span: Span) -> bool:
        return span.chunk.next_ready(span.start, span.stop, apart=self.apart) < span.stop

    def _replace_head(self, span: Span, start: int) -> None:
        if start < span.stop:
            # Not `_replace`, which takes five times as long.
            heapq.heapreplace(self.spans, Span(span.order, start, span.stop, span.ready_at, span.chunk))
        else:
            heapq.heappop(self.spans)


def _goes_on(span: Span, chunk: Chunk, start: int, ready_at: float) -> bool:
    """Return whether jobs that were ready on acceptance continue *span* directly."""
    return (
        span.chunk is chunk
        and span.stop == start
        and chunk.unbroken(start)
        and ready_at <= chunk.at_of(start)
    )


#: The place of a lane: its rank, its number and itself. Jobs are taken from the lane with the smallest place;
#: no two lanes have equal places. The rank is one number, which is compared fast: the order of the lane's
#: first job, with the negated priority above its bits.
Place: TypeAlias = tuple[int, int, Lane]
#: The queues that a consumer serves, and the tasks and codecs that it takes (None: all).
Subscription: TypeAlias = tuple[frozenset[str], frozenset[str] | None, frozenset[str] | None]
#: The lanes of one queue, by codec, task and priority.
_QueueLanes: TypeAlias = dict[str, dict[str, dict[int, Lane]]]
_NO_LANES: _QueueLanes = {}


class LaneIndex:
    """The lanes of one subscription, by their places.

    Attributes:
        places: a heap, or None if it has to be built. It has at least one place for each lane, and that place
            is not behind the lane's own. Out-of-date places are corrected when they come to the top.
    """

    __slots__ = ("codecs", "places", "queues", "subscription", "tasks")

    def __init__(self, subscription: Subscription) -> None:
        """Start without places."""
        self.subscription = subscription
        self.queues, self.tasks, self.codecs = subscription
        self.places: list[Place] | None = None

    def add(self, lane: Lane, place: Place, lanes: int) -> None:
        """Note that *lane* has moved forward to *place*; *lanes* is the number of all lanes."""
        if (
            self.places is None
            or lane.queue not in self.queues
            or (self.tasks is not None and lane.task not in self.tasks)
            or (self.codecs is not None and lane.codec not in self.codecs)
        ):
            return
        if len(self.places) > 2 * lanes + STALE_MAX:
            self.places = None
        else:
            heapq.heappush(self.places, place)


class Lanes:
    """All lanes that hold jobs.

    To take jobs, call `best` for a lane, take from it with `Lane.take`, and then call `tidy` with it. Report
    jobs that stop being ready in any other way with `skip`.
    """

    def __init__(self, *, apart: bool = False) -> None:
        """Start with none; they are for suspects alone if *apart*, and otherwise for all others."""
        self._apart = apart
        #: By queue; only those that hold something.
        self._lanes: dict[str, _QueueLanes] = {}
        self._count = 0
        self._made = 0
        #: The index that was used last is the last.
        self._indexes: dict[Subscription, LaneIndex] = {}

    def __bool__(self) -> bool:
        """Return whether any job is ready."""
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes that hold jobs."""
        return (lane for queue in self._lanes for lane in self._lanes_of(queue))

    def tasks(self, queue: str) -> dict[str, AbstractSet[str]]:
        """Return the tasks of one queue's ready jobs, by codec."""
        return {codec: tasks.keys() for codec, tasks in self._lanes.get(queue, _NO_LANES).items()}

    def oldest(self, queue: str) -> float | None:
        """Return the earliest time at which the first job of one of the queue's lanes became ready."""
        oldest: float | None = None
        for lane in self._lanes_of(queue):
            # The fast way needs no call for each lane, as there may be 100,000 of them.
            spans = lane.spans
            head = spans[0] if spans and not spans[0].chunk.has_gaps else lane.head()
            if head is not None and (oldest is None or head.ready_at < oldest):
                oldest = head.ready_at
        return oldest

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> None:
        """Make jobs [start, stop) of *chunk* ready, at the place of their age or at *order*."""
        lane = self._lane_of(chunk) or self._new_lane(chunk)
        place = lane.push(chunk, start, stop, ready_at, order)
        if place is not None:
            for index in self._indexes.values():
                index.add(lane, place, self._count)

    def shared(self, subscription: Subscription) -> Subscription:
        """Return *subscription* as the object that all its consumers share.

        So thousands of consumers have one set of names, and `best` finds their index fast.
        """
        return (self._indexes.get(subscription) or self._keep(LaneIndex(subscription))).subscription

    def best(self, subscription: Subscription) -> Lane | None:
        """Return the lane that consumers with this subscription take from next, or None."""
        places = self._places(subscription)
        # If others have taken from very many lanes, it is less work to build the index again.
        patience = len(places) // _CORRECTED_PART + STALE_MAX
        while places:
            top = places[0]
            place = top[2].settle()
            if place == top:
                return top[2]
            if patience == 0:
                places = self._build(self._indexes[subscription])
            elif place is None:
                heapq.heappop(places)
            else:
                heapq.heapreplace(places, place)
                while places[0] == top:  # the lane has moved forward to the same place before
                    heapq.heappop(places)
            patience -= 1
        return None

    def skip(self, chunk: Chunk, count: int) -> None:
        """Account for *count* ready jobs of *chunk* that leave their state, or will, other than by `take`."""
        chunk.note_gaps()
        lane = self._lane_of(chunk)
        if lane is None:
            return
        lane.count -= count
        if lane.count > 0:
            lane.drop_stale_spans()
        else:
            self._remove(lane)

    def tidy(self, lane: Lane) -> None:
        """Forget a lane that has become empty."""
        if not lane.count:
            self._remove(lane)

    def _lane_of(self, chunk: Chunk) -> Lane | None:
        """Return the lane of the jobs of *chunk*, if it holds any job."""
        terms = chunk.terms
        tasks = self._lanes.get(terms.queue, _NO_LANES).get(terms.codec)
        lanes = tasks.get(terms.task) if tasks is not None else None
        return lanes.get(terms.priority) if lanes is not None else None

    def _lanes_of(self, queue: str) -> Iterator[Lane]:
        tasks = (lanes for codec in self._lanes.get(queue, _NO_LANES).values() for lanes in codec.values())
        return (lane for lanes in tasks for lane in lanes.values())

    def _new_lane(self, chunk: Chunk) -> Lane:
        terms = chunk.terms
        self._made += 1
        self._count += 1
        lane = Lane(terms.queue, terms.priority, terms.task, terms.codec, self._made, apart=self._apart)
        tasks = self._lanes.setdefault(terms.queue, {}).setdefault(terms.codec, {})
        tasks.setdefault(terms.task, {})[terms.priority] = lane
        return lane

    def _remove(self, lane: Lane) -> None:
        """Forget a lane without jobs; its places in an index go when they come to the top."""
        lane.spans.clear()  # jobs in stale spans may become ready again, in another lane
        codecs = self._lanes[lane.queue]
        tasks = codecs[lane.codec]
        lanes = tasks[lane.task]
        del lanes[lane.priority]
        self._count -= 1
        if not lanes:
            del tasks[lane.task]
            if not tasks:
                del codecs[lane.codec]
                if not codecs:
                    del self._lanes[lane.queue]

    def _places(self, subscription: Subscription) -> list[Place]:
        """Return the heap of an index, built if need be."""
        if self._lanes.keys().isdisjoint(subscription[0]):
            return []
        index = self._indexes.pop(subscription, None)
        if index is None:
            index = LaneIndex(subscription)
            if not self._build(index):
                return []  # consumers that nothing is there for do not replace the index of others
        self._keep(index)
        if index.places is None or len(index.places) > 2 * self._count + STALE_MAX:
            return self._build(index)
        return index.places

    def _keep(self, index: LaneIndex) -> LaneIndex:
        """Keep *index* as the one that was used last."""
        if len(self._indexes) >= INDEXES_MAX:
            del self._indexes[next(iter(self._indexes))]
        self._indexes[index.subscription] = index
        return index

    def _build(self, index: LaneIndex) -> list[Place]:
        index.places = places = []
        for codecs in _named(self._lanes, index.queues):
            for tasks in _named(codecs, index.codecs):
                groups = _named(tasks, index.tasks)
                places += [lane.place for lanes in groups for lane in lanes.values() if lane.place]
        heapq.heapify(places)
        return places


def _named(entries: dict[str, V], names: frozenset[str] | None) -> Iterable[V]:
    """Return the entries that have one of these names, or all; oldest first if that is no more work.

    A heap that is made of lanes in the order of their age is in order at once, also in memory.
    """
    if names is None:
        return entries.values()
    if len(names) < len(entries):
        return [entries[name] for name in names if name in entries]
    return [entry for name, entry in entries.items() if name in names]
