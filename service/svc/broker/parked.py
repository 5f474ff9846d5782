"""Requests that are parked until they can be answered."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import feeds
from svc.domain.handlers import REPLY_BYTES
from svc.domain.queue_state import Ended, QueueState
from svc.domain.scheduling import read_ahead

#: Bytes that a waiting request takes by itself, and each id that it names beside its characters.
WAITING_BYTES: Final = 1000
ID_BYTES: Final = 70

#: Deadlines are told apart by 20 ms, as a manager looks at them five times less often.
_TICKS: Final = 50

#: Later deadlines are looked at again by then. So `Expiries` has at most 15,000 ticks.
_HORIZON_SECONDS: Final = 300


class Waiting:
    """A request whose last command cannot be answered yet.

    Attributes:
        command: that command, or another one that is applied in its place.
        deadline: a Unix time, from which on it is answered with the jobs or outcomes so far.
        turn: the host's turn in which the request came.
        order: its number among all requests that have waited, from 1.
        origin: of an `Await`, the origin of the job that it waits for.
        ids: of an `Await`, the jobs that it names.
        unseen: of an `Await`, how many jobs at the start of *ids* may not have ended.
        size: of a `Put`, the bytes of its job; of others but those of consumers and their workers, about what
            they take, with the ids that they name and the replies that wait with them.
        list: the list on which it waits.
        tick: the tick under which `Expiries` keeps it.
    """

    __slots__ = (
        "command",
        "deadline",
        "ids",
        "list",
        "order",
        "origin",
        "request",
        "size",
        "tick",
        "turn",
        "unseen",
    )

    def __init__(self, request: Request, deadline: float, turn: int) -> None:
        """Keep *request*, so that its last command can be applied again."""
        command = request.commands[-1]
        self.command = command
        if isinstance(command, c.Feed):
            self.command = feeds.awaited(command) or command
        elif isinstance(command, c.Extend):
            self.command = c.StopsAwaited(command.wait)
        self.request = request
        self.deadline = deadline
        self.turn = turn
        self.order = 0
        self.origin = ""
        self.ids: list[str] = []
        if isinstance(self.command, c.Await):
            self.ids = list(dict.fromkeys(self.command.ids))
            self.command = msgspec.structs.replace(self.command, ids=self.ids)
        self.unseen = len(self.ids)
        self.size = self._size(command)
        self.list: WaitList | None = None
        self.tick = 0

    def _size(self, command: c.Command) -> int:
        if isinstance(command, c.Put):
            return len(command.body)
        replies = REPLY_BYTES - int(self.request.room.size)
        if isinstance(command, c.Lease | c.Extend):
            return replies
        return WAITING_BYTES + replies + sum(ID_BYTES + len(each) for each in self.ids)


class WaitList(dict[int, Waiting]):
    """Requests that wait for the same thing, oldest first.

    Attributes:
        lists: the dict that holds this list under *key* while it is not empty.
        cursor: of a feed, the cursor up to which there are no outcomes for any of the requests.
    """

    __slots__ = ("cursor", "key", "lists")

    def __init__(self, lists: WaitLists, key: Hashable, cursor: int = 0) -> None:
        """Begin empty, and not yet in *lists*."""
        super().__init__()
        self.lists = lists
        self.key = key
        self.cursor = cursor


#: Lists by the key of the thing that is waited for.
WaitLists: TypeAlias = dict[Any, WaitList]


class Postponed:
    """Requests of consumers that run jobs, for others to run behind these, by the time of their answer.

    Attributes:
        lists: the list of those that still wait.
        soonest: the first of their times; infinity if there is none.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.lists: WaitLists = {}
        self.soonest = math.inf
        self._by_time: list[tuple[float, int, Waiting]] = []

    def add(self, waiting: Waiting, at: float) -> None:
        """Keep a request until time *at*; infinity is never."""
        if at < math.inf:
            heapq.heappush(self._by_time, (at, waiting.order, waiting))
            self.soonest = self._by_time[0][0]

    def take(self) -> Waiting:
        """Return the request whose time comes first; it may have been answered meanwhile."""
        waiting = heapq.heappop(self._by_time)[2]
        self.soonest = self._by_time[0][0] if self._by_time else math.inf
        return waiting


class Expiries:
    """Requests that wait, by the time from which on they are answered with the jobs or outcomes so far.

    Attributes:
        soonest: no request has a deadline before this Unix time; infinity if none waits.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.soonest = math.inf
        self._by_tick: dict[int, dict[int, Waiting]] = {}
        #: The keys of `_by_tick`, as a heap.
        self._ticks: list[int] = []

    def add(self, waiting: Waiting, now: float) -> None:
        """Keep a request until its deadline."""
        tick = waiting.tick = math.ceil(min(waiting.deadline, now + _HORIZON_SECONDS) * _TICKS)
        found = self._by_tick.get(tick)
        if found is None:
            found = self._by_tick[tick] = {}
            heapq.heappush(self._ticks, tick)
            self.soonest = self._ticks[0] / _TICKS
        found[waiting.order] = waiting

    def discard(self, waiting: Waiting) -> None:
        """Forget a request if it is kept."""
        if found := self._by_tick.get(waiting.tick):
            found.pop(waiting.order, None)

    def take(self, now: float, most: int) -> list[Waiting]:
        """Return requests whose deadline has come, *most* of them, and keep them no longer."""
        late: list[Waiting] = []
        for _ in range(most):
            if self.soonest > now:
                break
            found = self._by_tick[self._ticks[0]]
            if not found:
                del self._by_tick[heapq.heappop(self._ticks)]
                self.soonest = self._ticks[0] / _TICKS if self._ticks else math.inf
                continue
            _, waiting = found.popitem()
            if waiting.deadline > now + 1 / _TICKS:
                self.add(waiting, now)
                continue
            waiting.deadline = min(waiting.deadline, now)  # a tick is rounded
            late.append(waiting)
        return late


class DueList:
    """Requests that can be answered, or whose time is up; in truth, if there is one."""

    def __init__(self) -> None:
        """Begin empty."""
        self._alone: deque[Waiting] = deque()
        self._lists: WaitLists = {}

    def __bool__(self) -> bool:
        """Return whether there is a request, which may have been forgotten meanwhile."""
        return bool(self._alone or self._lists)

    def add(self, waiting: Waiting) -> None:
        """Add a request that is on no list."""
        self._alone.append(waiting)

    def add_list(self, waiting_list: WaitList) -> None:
        """Add all requests of a list that is among no others, in one step however many they are."""
        waiting_list.lists, waiting_list.key = self._lists, id(waiting_list)
        self._lists[waiting_list.key] = waiting_list

    def take(self) -> Waiting:
        """Return a request, which is then on no list."""
        if self._alone:
            return self._alone.popleft()
        waiting_list = next(iter(self._lists.values()))
        _, waiting = waiting_list.popitem()
        waiting.list = None
        if isinstance(waiting.command, c.Feed):
            waiting.command = msgspec.structs.replace(waiting.command, cursor=waiting_list.cursor)
        if not waiting_list:
            del self._lists[waiting_list.key]
        return waiting


def may_begin_at(state: QueueState, waiting: Waiting) -> float:
    """Return the time from which on jobs may be granted to a request; 0 if its member runs none."""
    command, member = waiting.command, waiting.request.member
    if not (isinstance(command, c.Lease) and command.running and member.leases):
        return 0.0
    return read_ahead.window(state.run_times, member)[0]


def read_among(readers: WaitLists, ended: Iterable[Ended]) -> list[tuple[str, int]]:
    """Return the jobs in *ended* whose partial results *readers* wait for."""
    found: list[tuple[str, int]] = []
    for origin, first, jobs in ended:
        if jobs <= len(readers):
            found += ((origin, number) for number in range(first, first + jobs))
        else:
            found += ((a, b) for a, b in readers if a == origin and first <= b < first + jobs)
    return found
