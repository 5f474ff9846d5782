"""The ready jobs, in the order in which consumers take them.

A *lane* holds the ready jobs of one queue, priority, task and codec, oldest first, as spans of chunks. A
consumer takes from the lane of the highest priority, then of the oldest job, among those whose task it knows
and whose codec it accepts: so a task that nobody knows blocks nothing but itself. Suspects stand *apart*, in
lanes of their own.

Clients choose priorities, queues and tasks, so there may be as many lanes as jobs. The choice of a lane
takes time in the logarithm of their number, with two levels of heaps. A *road* holds the lanes of one queue,
task and codec, by priority. An *interest* holds the roads that consumers of one kind take from, by their
first job. Consumers are of one kind if they serve the same queues, know the same tasks and accept the same
codecs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias

from svc.domain.chunk import Chunk

#: Kinds of consumers whose roads are kept in order. A new kind replaces the one that asked longest ago,
#: whose roads are put in order again when it asks the next time.
INTERESTS_MAX = 64
#: Out-of-date entries that a heap may hold beyond the number of its other entries.
STALE_MAX = 64
#: Single corrections are made for one in so many places of an interest; then all are put in order again.
_CORRECTED_PART = 16


class Span(NamedTuple):
    """Ready jobs [start, stop) of a chunk, ordered by the age of the first one. `ready_at` is a Unix time."""

    order: int
    start: int
    stop: int
    ready_at: float
    chunk: Chunk


class Lane:
    """The ready jobs of one queue, priority, task and codec."""

    __slots__ = ("apart", "codec", "count", "priority", "queue", "spans", "task")

    def __init__(self, queue: str, priority: int, task: str, codec: str, *, apart: bool = False) -> None:
        """Start empty; it is for suspects alone if *apart*, and otherwise for all others."""
        self.apart = apart
        self.queue = queue
        self.priority = priority
        self.task = task
        self.codec = codec
        self.count = 0
        self.spans: list[Span] = []

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> None:
        """Add jobs, at the place that the age of the first one gives them, or at *order*."""
        self.count += stop - start
        if order:
            heapq.heappush(self.spans, Span(order, start, stop, ready_at, chunk))
            return
        last = self.spans[-1] if self.spans else None
        if last is not None and _goes_on(last, chunk, start, ready_at):
            self.spans[-1] = Span(last.order, last.start, stop, last.ready_at, chunk)
        else:
            heapq.heappush(self.spans, Span(chunk.sequence_of(start), start, stop, ready_at, chunk))

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


class Road:
    """The lanes of one queue, task and codec; the one of the highest priority is found at once.

    Attributes:
        lanes: the lanes that hold jobs, by priority.
        place: the road's place among the others. It may be too far in front, never too far behind; `settle`
            corrects it. None before the first job.
    """

    __slots__ = ("apart", "codec", "lanes", "number", "place", "priorities", "queue", "task")

    def __init__(self, queue: str, task: str, codec: str, number: int, *, apart: bool = False) -> None:
        """Start without lanes; *number* is that of no other road."""
        self.apart = apart
        self.queue = queue
        self.task = task
        self.codec = codec
        self.number = number
        self.lanes: dict[int, Lane] = {}
        #: A heap of negated priorities: those of all lanes, and of some lanes that have become empty.
        self.priorities: list[int] = []
        self.place: Place | None = None

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> Place | None:
        """Add jobs to their lane; return the place of the road if that moved it to the front."""
        priority = chunk.terms.priority
        lane = self.lanes.get(priority)
        if lane is None:
            lane = Lane(self.queue, priority, self.task, self.codec, apart=self.apart)
            self.lanes[priority] = lane
            heapq.heappush(self.priorities, -priority)
        lane.push(chunk, start, stop, ready_at, order)
        place, order = self.place, lane.spans[0].order
        if place is not None and (place[0] < -priority or (place[0] == -priority and place[1] <= order)):
            return None
        self.place = (-priority, order, self.number, self)
        return self.place

    def settle(self) -> tuple[Lane, Place] | None:
        """Return the lane to take from and the road's place with it; None if no job is left."""
        priorities = self.priorities
        while priorities:
            lane = self.lanes.get(-priorities[0])
            if lane is None:
                heapq.heappop(priorities)
                continue
            head = lane.head()
            if head is not None:
                place = self.place
                if place is None or place[1] != head.order or place[0] != priorities[0]:
                    place = self.place = (priorities[0], head.order, self.number, self)
                return lane, place
            self.remove(lane)
            priorities = self.priorities
        return None

    def remove(self, lane: Lane) -> None:
        """Remove a lane that has become empty."""
        if self.lanes.get(lane.priority) is lane:
            del self.lanes[lane.priority]
        if len(self.priorities) > 2 * len(self.lanes) + STALE_MAX:
            self.priorities = [-priority for priority in self.lanes]
            heapq.heapify(self.priorities)


#: The place of a road: its negated priority, the order of its first job, its number and itself. Jobs are
#: taken from the road with the smallest place; no two places are equal.
Place: TypeAlias = tuple[int, int, int, Road]


#: The roads of one queue, by codec and then by task.
_Roads: TypeAlias = dict[str, dict[str, Road]]
_NO_ROADS: _Roads = {}
#: Consumers of one kind: the queues that they serve, and the tasks and codecs that they take (None: all).
Kind: TypeAlias = tuple[frozenset[str], frozenset[str] | None, frozenset[str] | None]


class Interest:
    """The roads that consumers of one kind take from.

    `places` is a heap. It has at least one place for each road that holds jobs, and that place is not behind
    the road's own. Out-of-date places are corrected when they come to the top. It is None until a
    consumer of the kind asks, and again after it has grown too long.
    """

    __slots__ = ("codecs", "kind", "places", "queues", "tasks", "used")

    def __init__(self, kind: Kind) -> None:
        """Start without places."""
        self.kind = kind
        self.queues, self.tasks, self.codecs = kind
        self.places: list[Place] | None = None
        #: The number of its last use; the interest that was used last has the largest.
        self.used = 0

    def covers(self, road: Road) -> bool:
        """Return whether these consumers take from *road*."""
        return (
            road.queue in self.queues
            and (self.tasks is None or road.task in self.tasks)
            and (self.codecs is None or road.codec in self.codecs)
        )

    def add(self, place: Place, roads: int) -> None:
        """Note that a road has moved forward to *place*; *roads* is the number of all roads."""
        if self.places is None:
            return
        if len(self.places) > 2 * roads + STALE_MAX:
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
        #: By queue, codec and task; only those that hold something.
        self._roads: dict[str, _Roads] = {}
        self._count = 0
        self._made = 0
        self._interests: dict[Kind, Interest] = {}
        self._asked = 0

    def __bool__(self) -> bool:
        """Return whether any job is ready."""
        return bool(self._roads)

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes that hold jobs."""
        roads = (road for queue in self._roads for road in self._roads_of(queue))
        return (lane for road in roads for lane in road.lanes.values())

    def tasks(self, queue: str) -> dict[str, AbstractSet[str]]:
        """Return the tasks of one queue's ready jobs, by codec."""
        return {codec: roads.keys() for codec, roads in self._roads.get(queue, _NO_ROADS).items()}

    def oldest(self, queue: str) -> float | None:
        """Return the earliest time at which the first job of one of the queue's lanes became ready."""
        oldest: float | None = None
        for road in self._roads_of(queue):
            for lane in road.lanes.values():
                # The fast way needs no call for each lane, as there may be 100,000 of them.
                spans = lane.spans
                head = spans[0] if spans and not spans[0].chunk.has_gaps else lane.head()
                if head is not None and (oldest is None or head.ready_at < oldest):
                    oldest = head.ready_at
        return oldest

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float, order: int = 0) -> None:
        """Make jobs [start, stop) of *chunk* ready, at the place of their age or at *order*."""
        terms = chunk.terms
        road = self._road(terms.queue, terms.task, terms.codec)
        road = road or self._new_road(terms.queue, terms.task, terms.codec)
        place = road.push(chunk, start, stop, ready_at, order)
        if place is not None:
            for interest in self._interests.values():
                if interest.covers(road):
                    interest.add(place, self._count)

    def kind(self, kind: Kind) -> Kind:
        """Return *kind* as the object that all consumers of this kind share.

        So thousands of consumers have one set of names, and `best` finds their kind fast.
        """
        return self._interest(kind).kind

    def best(self, kind: Kind) -> Lane | None:
        """Return the lane that consumers of this kind take from next, or None."""
        interest = self._interest(kind)
        places = interest.places
        if places is None or len(places) > 2 * self._count + STALE_MAX:
            places = self._put_in_order(interest)
        # If others have taken from very many roads, it is less work to put all places in order again.
        patience = len(places) // _CORRECTED_PART + STALE_MAX
        while places:
            found = places[0][3].settle()
            if found is not None and found[1] == places[0]:
                return found[0]
            if patience == 0:
                places = self._put_in_order(interest)
            elif found is None:
                self._discard(heapq.heappop(places)[3])
            else:
                heapq.heapreplace(places, found[1])
            patience -= 1
        return None

    def skip(self, chunk: Chunk, count: int) -> None:
        """Account for *count* ready jobs of *chunk* that leave their state, or will, other than by `take`."""
        chunk.note_gaps()
        terms = chunk.terms
        road = self._road(terms.queue, terms.task, terms.codec)
        lane = road.lanes.get(terms.priority) if road is not None else None
        if road is None or lane is None:
            return
        lane.count -= count
        if lane.count > 0:
            lane.drop_stale_spans()
        else:
            self._remove(road, lane)

    def tidy(self, lane: Lane) -> None:
        """Forget a lane that has become empty."""
        if not lane.spans or lane.head() is None:
            road = self._road(lane.queue, lane.task, lane.codec)
            if road is not None:
                self._remove(road, lane)

    def _road(self, queue: str, task: str, codec: str) -> Road | None:
        roads = self._roads.get(queue, _NO_ROADS).get(codec)
        return roads.get(task) if roads is not None else None

    def _roads_of(self, queue: str) -> Iterator[Road]:
        return (road for roads in self._roads.get(queue, _NO_ROADS).values() for road in roads.values())

    def _new_road(self, queue: str, task: str, codec: str) -> Road:
        self._made += 1
        self._count += 1
        road = Road(queue, task, codec, self._made, apart=self._apart)
        self._roads.setdefault(queue, {}).setdefault(codec, {})[task] = road
        return road

    def _remove(self, road: Road, lane: Lane) -> None:
        road.remove(lane)
        if not road.lanes:
            self._discard(road)

    def _discard(self, road: Road) -> None:
        """Forget a road without lanes; its places in an interest go when they come to the top."""
        if self._road(road.queue, road.task, road.codec) is not road:
            return
        codecs = self._roads[road.queue]
        roads = codecs[road.codec]
        del roads[road.task]
        self._count -= 1
        if not roads:
            del codecs[road.codec]
        if not codecs:
            del self._roads[road.queue]

    def _put_in_order(self, interest: Interest) -> list[Place]:
        interest.places = places = list(self._places_for(interest))
        heapq.heapify(places)
        return places

    def _interest(self, kind: Kind) -> Interest:
        interest = self._interests.get(kind) or self._new_interest(kind)
        self._asked += 1
        interest.used = self._asked
        return interest

    def _new_interest(self, kind: Kind) -> Interest:
        if len(self._interests) >= INTERESTS_MAX:
            oldest = min(self._interests, key=lambda key: self._interests[key].used)
            del self._interests[oldest]
        interest = self._interests[kind] = Interest(kind)
        return interest

    def _places_for(self, interest: Interest) -> Iterator[Place]:
        for queue in interest.queues & self._roads.keys():
            codecs, tasks = self._roads[queue], interest.tasks
            accepted = codecs if interest.codecs is None else interest.codecs & codecs.keys()
            for roads in (codecs[codec] for codec in accepted):
                known = roads.values() if tasks is None else [roads[task] for task in tasks & roads.keys()]
                yield from (road.place for road in known if road.place is not None)
