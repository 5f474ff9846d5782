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
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias, TypeVar

from svc.domain.chunk import Chunk
from svc.domain.job import Terms
from svc.domain.names import LARGE
from svc.domain.scheduling.indexes import (
    INDEXED_AT_ONCE,
    UNFINISHED_MAX,
    UnfinishedIndex,
    accepted_of,
    each_of,
    named,
)
from svc.domain.tables import SPLIT, Mapped, by_digits, by_hash, in_parts, split

K = TypeVar("K")
V = TypeVar("V")
#: Subscriptions whose lanes are indexed. The index of a new one replaces the one that was used longest ago.
INDEXES_MAX = 64
#: Out-of-date entries that a heap may hold beyond the number of its other entries.
STALE_MAX = 64
#: Corrections are made for one in so many places of an index, or of so many; then it is built again.
_CORRECTED_PART, _CORRECTED_SIZE = 16, 16_000
#: Bits of the order of a job, which is the number of an event.
_ORDER_BITS = 64


class ReadySpan(NamedTuple):
    """Ready jobs [start, stop) of a chunk, ordered by the age of the first one. `ready_at` is a Unix time."""

    order: int
    start: int
    stop: int
    ready_at: float
    chunk: Chunk


class Lane:
    """The ready jobs of one queue, priority, task and codec.

    Attributes:
        terms: those of its first job; other jobs may have other retries, for example.
        count: the number of its jobs.
        place: its place among the other lanes. It may be too far in front, never too far behind; `settle`
            corrects it. None before the first job.
    """

    __slots__ = ("_priority_rank", "apart", "count", "number", "place", "spans", "terms")

    def __init__(self, terms: Terms, number: int, *, apart: bool = False) -> None:
        """Start empty; *number* is that of no other lane. It is for suspects alone if *apart*."""
        self.apart, self.terms, self.number = apart, terms, number
        self._priority_rank = -(terms.priority << _ORDER_BITS)
        self.count = 0
        self.spans: list[ReadySpan] = []
        self.place: Place | None = None

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> Place | None:
        """Add jobs, at the place that the age of the first one gives them, or at *order*.

        Return the place of the lane if that moved it to the front.
        """
        self.count += stop - start
        last = self.spans[-1] if self.spans and not order else None
        if (
            last is not None
            and last.chunk is chunk
            and last.stop == start
            and chunk.is_consecutive(start)
            and ready_at <= chunk.at_of(start)
        ):  # they were ready on acceptance, and continue the last span directly
            self.spans[-1] = ReadySpan(last.order, last.start, stop, last.ready_at, chunk)
            return None
        order = order or chunk.sequence_of(start)
        heapq.heappush(self.spans, ReadySpan(order, start, stop, ready_at, chunk))
        rank = order + self._priority_rank
        if self.place is not None and self.place[0] <= rank:
            return None
        self.place = (rank, self.number, self)
        return self.place

    def head(self) -> ReadySpan | None:
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
        spans, place = self.spans, self.place
        head = spans[0] if spans and not spans[0].chunk.has_gaps else self.head()
        if head is None:
            return None
        rank = head.order + self._priority_rank
        if place is None or place[0] != rank:
            place = self.place = (rank, self.number, self)
        return place

    def comes_before(self, other: Lane) -> bool:
        """Return whether the first job of this lane is to be taken before that of *other*."""
        place, others = self.settle(), other.settle()
        return place is not None and (others is None or place[0] < others[0])

    def take(self, limit: int) -> ReadySpan:
        """Remove and return up to *limit* of the jobs of the head that follow each other.

        `head`, `settle` or `Lanes.best` has found the head, and nothing has changed since.
        """
        span = self.spans[0]
        order, start, end, ready_at, chunk = span
        stop = min(end, start + limit)
        if chunk.has_gaps:
            stop = chunk.ready_until(start, stop, apart=self.apart)
        self._replace_head(span, stop)
        self.count -= stop - start
        return span if stop == end else ReadySpan(order, start, stop, ready_at, chunk)

    def drop_stale_spans(self) -> None:
        """Remove the spans without a ready job, if most spans may be such."""
        if len(self.spans) > 2 * self.count + STALE_MAX:
            apart = self.apart
            ready = [s for s in self.spans if s.chunk.next_ready(s.start, s.stop, apart=apart) < s.stop]
            self.spans = list({span[:3]: span for span in ready}.values())
            heapq.heapify(self.spans)

    def _replace_head(self, span: ReadySpan, start: int) -> None:
        if start < span.stop:  # not `_replace`, which takes five times as long
            heapq.heapreplace(self.spans, ReadySpan(span.order, start, span.stop, span.ready_at, span.chunk))
        else:
            heapq.heappop(self.spans)


#: The place of a lane: its rank, its number and itself. Jobs are taken from the lane with the smallest place;
#: no two lanes have equal places. The rank is one number, which is compared fast: the order of the lane's
#: first job, with the negated priority above its bits.
Place: TypeAlias = tuple[int, int, Lane]
#: The queues that a consumer serves, and the tasks and codecs that it takes (None: all; but see `takes`).
Subscription: TypeAlias = tuple[frozenset[str], frozenset[str] | None, frozenset[str] | None]
#: The lanes of one queue, by codec, task and priority; clients choose all three, so each may be many.
_QueueLanes: TypeAlias = Mapped[str, Mapped[str, Mapped[int, Lane]]]
_NO_LANES: _QueueLanes = {}


def added(entries: Mapped[K, V], key: K, value: V, part_of: Callable[[K], int] = by_hash) -> Mapped[K, V]:
    """Set the value of *key*; return the entries, as a table if they have become many."""
    if type(entries) is dict and len(entries) >= SPLIT:
        entries = split(entries, part_of)
    entries[key] = value
    return entries


def covers(subscription: Subscription, terms: Terms) -> bool:
    """Return whether jobs with these terms are for a consumer with this subscription."""
    queues, tasks, codecs = subscription
    return terms.queue in queues and (tasks is None or terms.task in tasks) and takes(codecs, terms.codec)


def takes(codecs: frozenset[str] | None, codec: str) -> bool:
    """Return whether a consumer with these codecs takes jobs of *codec*; None stands for all but `large`."""
    return codec != LARGE if codecs is None else codec in codecs


class Lanes:
    """All lanes that hold jobs.

    To take jobs, call `best` for a lane, and `take` with it. Report jobs that stop being ready in any other
    way with `skip`.
    """

    def __init__(self, *, apart: bool = False) -> None:
        """Start with none; they are for suspects alone if *apart*, and otherwise for all others."""
        self._apart = apart
        #: By queue; only those that hold something.
        self._lanes: dict[str, _QueueLanes] = {}
        #: The queues that have ready jobs, at any time.
        self.queues = self._lanes.keys()
        self._count = 0
        self._made = 0
        #: A heap for each subscription: no place in it is behind its lane's own. The last one was used last.
        self._indexes: OrderedDict[Subscription, list[Place]] = OrderedDict()
        self._shared: dict[Subscription, Subscription] = {}
        #: Those that are being made.
        self.unfinished: dict[Subscription, UnfinishedIndex] = {}

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes that hold jobs."""
        return (lane for queue in list(self._lanes) for lane in self._lanes_of(queue))

    def tasks(self, queue: str) -> Iterator[tuple[str, dict[str, Mapped[int, Lane]]]]:
        """Yield the codecs of one queue's ready jobs, each with some of its tasks; lanes may come and go."""
        for codecs in in_parts(self._lanes.get(queue, _NO_LANES)):
            for codec, tasks in list(codecs.items()):
                yield from ((codec, some) for some in in_parts(tasks))

    def oldest(self, queue: str, at_once: int) -> Iterator[tuple[float, int]]:
        """Yield when the first job of *at_once* lanes became ready (infinity: none), and their number."""
        lanes = self._lanes_of(queue)
        while some := list(islice(lanes, at_once)):
            oldest = math.inf
            for lane in some:
                spans = lane.spans  # no call for each lane: there may be 100,000 of them
                head = spans[0] if spans and not spans[0].chunk.has_gaps else lane.head()
                if head is not None and head.ready_at < oldest:
                    oldest = head.ready_at
            yield oldest, len(some)

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> None:
        """Make jobs [start, stop) of *chunk* ready, at the place of their age or at *order*."""
        lane = self._lane(chunk.terms) or self._new_lane(chunk.terms)
        place = lane.push(chunk, start, stop, ready_at, order)
        if place is not None:
            self._index(lane, place)

    def move(self, lane: Lane, to: Lanes) -> None:
        """Move the jobs of *lane*, one of these, to other lanes."""
        other = to._lane(lane.terms) or to._new_lane(lane.terms)
        if len(other.spans) < len(lane.spans):
            other.spans, lane.spans = lane.spans, other.spans
        for span in lane.spans:
            heapq.heappush(other.spans, span)
        other.count += lane.count
        other.place = None
        to._index(other, other.settle())
        self._remove(lane)

    def shared(self, subscription: Subscription) -> Subscription:
        """Return *subscription* as the one object of all its consumers; `best` finds its index fast."""
        if len(self._shared) >= INDEXES_MAX:
            self._shared.clear()
        return self._shared.setdefault(subscription, subscription)

    def best(self, subscription: Subscription) -> Lane | None:
        """Return the lane that consumers with this subscription take from next, or None.

        None also as long as the index of very many lanes is `unfinished`; see `go_on`.
        """
        if self.queues.isdisjoint(subscription[0]):
            return None
        places = self._places(subscription)
        # If others have taken from very many lanes, it is less work to build the index again.
        corrections = min(len(places), _CORRECTED_SIZE) // _CORRECTED_PART + STALE_MAX
        while places:
            top = places[0]
            place = top[2].settle()
            if place == top:
                return top[2]
            if corrections == 0:
                del self._indexes[subscription]
                places = self._places(subscription)
            elif place is None:
                heapq.heappop(places)
            else:
                heapq.heapreplace(places, place)
                while places[0] == top:  # the lane has moved forward to the same place before
                    heapq.heappop(places)
            corrections -= 1
        return None

    def take(self, lane: Lane, limit: int) -> ReadySpan:
        """Take jobs of *lane*, as `Lane.take` does; forget it if it is empty."""
        span = lane.take(limit)
        if not lane.count:
            self._remove(lane)
        return span

    def skip(self, chunk: Chunk, count: int) -> None:
        """Account for *count* ready jobs of *chunk* that leave their state, or will, other than by `take`."""
        chunk.note_gaps()
        lane = self._lane(chunk.terms)
        if lane is None:
            return
        lane.count -= count
        if lane.count > 0:
            lane.drop_stale_spans()
        else:
            self._remove(lane)

    def _lane(self, terms: Terms) -> Lane | None:
        """Return the lane of jobs with these terms, if it holds any job."""
        tasks = self._lanes.get(terms.queue, _NO_LANES).get(terms.codec)
        lanes = tasks.get(terms.task) if tasks is not None else None
        return lanes.get(terms.priority) if lanes is not None else None

    def _lanes_of(self, queue: str) -> Iterator[Lane]:
        for tasks in each_of(self._lanes.get(queue, _NO_LANES)):
            for lanes in each_of(tasks):
                yield from each_of(lanes)

    def _new_lane(self, terms: Terms) -> Lane:
        self._made += 1
        self._count += 1
        lane = Lane(terms, self._made, apart=self._apart)
        codecs = self._lanes.get(terms.queue) or {}
        tasks = codecs.get(terms.codec) or {}
        lanes = added(tasks.get(terms.task) or {}, terms.priority, lane, by_digits)
        self._lanes[terms.queue] = added(codecs, terms.codec, added(tasks, terms.task, lanes))
        return lane

    def _index(self, lane: Lane, place: Place | None) -> None:
        """Add the new place of a lane to the indexes."""
        if place is None:
            return
        for subscription, places in list(self._indexes.items()):
            if covers(subscription, lane.terms):
                heapq.heappush(places, place)
                if len(places) > 2 * self._count + STALE_MAX:  # its consumers ask no more
                    del self._indexes[subscription]
        for subscription, index in self.unfinished.items():
            if covers(subscription, lane.terms):
                heapq.heappush(index.places, place)

    def _remove(self, lane: Lane) -> None:
        """Forget a lane without jobs; its places in an index go when they come to the top."""
        lane.spans.clear()  # jobs in stale spans may become ready again, in another lane
        lane.place = None  # it refers to the lane, which would have to wait for a collection of garbage
        terms = lane.terms
        codecs = self._lanes[terms.queue]
        tasks = codecs[terms.codec]
        lanes = tasks[terms.task]
        lanes.pop(terms.priority)
        self._count -= 1
        if not lanes:
            tasks.pop(terms.task)
            if not tasks:
                codecs.pop(terms.codec)
                if not codecs:
                    del self._lanes[terms.queue]
        if not self._count:
            self.unfinished.clear()
            for places in self._indexes.values():
                places.clear()

    def _places(self, subscription: Subscription) -> list[Place]:
        """Return the heap of a subscription, built if need be."""
        indexes = self._indexes
        places = indexes.get(subscription)
        if places is not None and len(places) <= 2 * self._count + STALE_MAX:
            indexes.move_to_end(subscription)
            return places
        indexes.pop(subscription, None)
        if self._count > INDEXED_AT_ONCE:
            if subscription not in self.unfinished and len(self.unfinished) < UNFINISHED_MAX:
                self.unfinished[subscription] = UnfinishedIndex(self._groups_for(subscription))
            return []
        # Lanes in the order of their age are mostly a heap at once, also in memory.
        groups = self._groups_for(subscription)
        places = [lane.place for some in groups for lanes in some for lane in lanes.values() if lane.place]
        if places:  # consumers that nothing is there for do not replace the index of others
            heapq.heapify(places)
            self._keep(subscription, places)
        return places

    def _keep(self, subscription: Subscription, places: list[Place]) -> None:
        if len(self._indexes) >= INDEXES_MAX:
            self._indexes.popitem(last=False)
        self._indexes[subscription] = places

    def go_on(self) -> bool:
        """Go on with one of the `unfinished` indexes for some milliseconds; return whether there is one."""
        if not self.unfinished:
            return False
        subscription, index = next(iter(self.unfinished.items()))
        if index.go_on():
            del self.unfinished[subscription]
            if index.places or len(self._indexes) < INDEXES_MAX:  # an empty one is not made again and again
                self._keep(subscription, index.places)
        return True

    def _groups_for(self, subscription: Subscription) -> Iterator[list[Mapped[int, Lane]]]:
        """Yield the lanes that a subscription covers, by task; others may come and go meanwhile."""
        queues, known, accepted = subscription
        for codecs in list(named(self._lanes, queues)):
            for tasks in list(accepted_of(codecs, accepted)):
                yield list(named(tasks, known))
