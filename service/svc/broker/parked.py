"""Requests that are parked until they can be answered."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Any, Final, TypeAlias

import msgspec

from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import feeds
from svc.domain.handlers import REPLY_BYTES
from svc.domain.queue_state import QueueState
from svc.domain.scheduling import read_ahead

#: Bytes that a waiting request takes by itself, and each id that it names beside its characters.
WAITING_BYTES: Final = 1000
ID_BYTES: Final = 70


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


def may_begin_at(state: QueueState, waiting: Waiting) -> float:
    """Return the time from which on jobs may be granted to a request; 0 if its member runs none."""
    command, member = waiting.command, waiting.request.member
    if not (isinstance(command, c.Lease) and command.running and member.leases):
        return 0.0
    return read_ahead.window(state.run_times, member)[0]
