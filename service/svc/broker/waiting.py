"""The requests that wait, each indexed by the one thing that it waits for.

A request for jobs waits for the queues and tasks of its consumer, an `Await` for one job that has not ended,
a `Feed` for its origin, a `Take` for the `results` queue, a `Join` for its queue. So the end of a job costs
nothing for requests that wait for something else, however many there are. A request that can be answered is
*due*. If many are due, they are answered over several turns, so that no turn becomes long.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from itertools import count
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from svc.broker.broken import Place, StateBroken, only_reads, passes_through, refused_reading
from svc.domain import commands as c
from svc.domain import feeds, outcomes
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.handlers import FIND_WORK, REPLY_WORK, Room
from svc.domain.members import Member
from svc.domain.queue_state import Ended, QueueState
from svc.domain.scheduling.grants import offers, pill_for

Deliver = Callable[[list[r.Reply]], None]


class Request:
    """The commands of one request, and the replies to those that are applied; a long one takes many turns."""

    __slots__ = ("commands", "deliver", "member", "replies", "room")

    def __init__(self, commands: Sequence[c.Command], member: Member, deliver: Deliver) -> None:
        """Hold *commands* of *member*, of which none is applied yet."""
        self.commands = commands
        self.member = member
        self.deliver = deliver
        self.replies: list[r.Reply] = []
        #: The room that is left for the other replies.
        self.room = Room()


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
        "turn",
        "unseen",
    )

    def __init__(self, request: Request, deadline: float, turn: int) -> None:
        """Keep *request*, so that its last command can be applied again."""
        command = request.commands[-1]
        self.command = (isinstance(command, c.Feed) and feeds.awaited(command)) or command
        self.request = request
        self.deadline = deadline
        self.turn = turn
        self.order = 0
        self.origin = ""
        self.ids = list(dict.fromkeys(self.command.ids)) if isinstance(self.command, c.Await) else []
        self.unseen = len(self.ids)
        self.list: WaitList | None = None


class WaitList(dict[int, Waiting]):
    """Requests that wait for the same thing, oldest first.

    Attributes:
        lists: the dict that holds this list under *key* while it is not empty.
        cursor: of a feed, the cursor up to which there are no outcomes for any of the requests.
    """

    __slots__ = ("cursor", "key", "lists")

    def __init__(self, lists: _WaitLists, key: Hashable, cursor: int = 0) -> None:
        """Begin empty, and not yet in *lists*."""
        super().__init__()
        self.lists = lists
        self.key = key
        self.cursor = cursor


#: Lists by the key of the thing that is waited for.
_WaitLists: TypeAlias = dict[Any, WaitList]


class Waiters:
    """All requests that wait. Used only by the host's thread."""

    def __init__(
        self, state: QueueState, conclude: Callable[[Waiting, r.Reply], None], *, careful: bool = False
    ) -> None:
        """Apply waiting commands to *state* again after changes; *conclude* gets each request with its reply.

        If *careful* is set, a request that only reads is refused if it fails, and does not break the state.
        """
        self._state = state
        self._careful = careful
        self._conclude = conclude
        self._orders = count(1)
        #: All requests that wait, by their order.
        self.all: dict[int, Waiting] = {}
        self._of_member: dict[Member, dict[int, Waiting]] = {}
        #: The requests for jobs, by subscription.
        self._lessees: _WaitLists = {}
        #: The requests for the end of a job, by its origin and then its number.
        self._awaiting: dict[str, _WaitLists] = {}
        #: The feeds by origin, "" for those of all origins.
        self._feeds: _WaitLists = {}
        #: Each `Join` by its queue, and under None each `Take`.
        self._others: _WaitLists = {}
        #: Requests that can be answered, or whose time is up; they are on no list.
        self.due: deque[Waiting] = deque()
        #: The room that is left for the answers of this turn.
        self._room = Room()
        #: The epoch of the newest drain whose pills were handed out.
        self._drain_epoch = 0
        #: No waiting request has a deadline before this time.
        self.soonest = 0.0

    def park(self, waiting: Waiting, now: float) -> None:
        """Let a request wait that cannot be answered yet."""
        order = waiting.order = next(self._orders)
        self.all[order] = self._of_member.setdefault(waiting.request.member, {})[order] = waiting
        self.soonest = min(self.soonest, waiting.deadline)
        if isinstance(waiting.command, c.Await):
            self._await_next(waiting, now)
        else:
            self._put(waiting)

    def wake(self, member: Member) -> None:
        """Make all waiting requests of *member* due, to be answered with the jobs or outcomes so far."""
        for waiting in self._of_member.get(member, {}).values():
            waiting.deadline = 0.0
            self._make_due(waiting)

    def expire(self, now: float) -> None:
        """Make the requests due whose time is up, to be answered with the jobs or outcomes so far."""
        for waiting in self.all.values():
            if waiting.deadline <= now:
                self._make_due(waiting)
        self.soonest = min((each.deadline for each in self.all.values()), default=math.inf)

    def answer_reports(self) -> None:
        """Answer, without jobs, the requests that wait for jobs and also reported outcomes."""
        for waiting in list(self.all.values()):
            if waiting.request.replies and isinstance(waiting.command, c.Lease):
                self._answer(waiting, r.Grant())

    def disconnect(self, member: Member) -> None:
        """Forget the waiting requests of *member*."""
        for waiting in list(self._of_member.get(member, {}).values()):
            self._remove(waiting)

    def serve_lessees(self, now: float) -> None:
        """Hand ready jobs to the requests that wait for jobs, the oldest request first.

        Subscriptions without jobs cost a look at their queues, or at the index of their lanes.
        """
        state = self._state
        if self._drain_epoch != state.ledger.drains.epoch:
            self._hand_out_pills(now)
        if now < state.hold_until:
            return
        lists = list(self._lessees.values())
        if not state.suspects.lanes.queues:
            queues, best = state.lanes.queues, state.lanes.best
            lessees = self._lessees.items()
            lists = [each for key, each in lessees if not queues.isdisjoint(key[0]) and best(key) is not None]
        for waiting in heapq.merge(*map(self._candidates, lists), key=attrgetter("order")):
            self._try(waiting, now)

    def progress(self, ended: Collection[Ended], now: float) -> None:
        """Answer or make due the requests that wait for the end of one of these jobs, or of any job."""
        if self._awaiting:
            for waiting in list(self._awaiting_one_of(ended)):
                self._make_due(waiting)
        if self._feeds:
            for origin in {"", *(origin for origin, _, _ in ended)}:
                self._serve_feeds(origin, now)
        for each in list(self._others.values()):
            for waiting in list(each.values()):
                if not self._try(waiting, now):
                    break  # nor can the others on the list be answered

    def answer_due(self, now: float) -> None:
        """Answer due requests; all answers of one turn together have no more room than a single answer."""
        self._room = Room()
        while self.due and self._room.left:
            waiting = self.due.popleft()
            if waiting.order not in self.all:
                continue  # its member has disconnected
            self._room.take(0, FIND_WORK * (1 + len(waiting.ids)))
            if waiting.deadline <= now:
                self._answer(waiting, self._ask(waiting, impatient(waiting.command), now) or r.Done())
            elif isinstance(waiting.command, c.Await):
                self._await_next(waiting, now)
            elif not self._try(waiting, now):
                self._put(waiting)

    # --- lists --------------------------------------------------------------------------------------

    def _put(self, waiting: Waiting, number: int = 0) -> None:
        """Put a request on its list; *number* is that of the job that an `Await` waits for."""
        lists: _WaitLists = self._others
        key: Hashable = None
        match waiting.command:
            case c.Lease():
                lists, key = self._lessees, waiting.request.member.subscription
            case c.Await():
                lists, key = self._awaiting.setdefault(waiting.origin, {}), number
            case c.Feed(origin=origin):
                lists, key = self._feeds, origin
            case c.Join(queue=queue):
                key = queue
        if key not in lists:
            newest = feeds.newest(self._state, str(key)) if lists is self._feeds else 0
            lists[key] = WaitList(lists, key, newest)
        waiting.list = lists[key]
        waiting.list[waiting.order] = waiting

    def _take_off(self, waiting: Waiting) -> None:
        """Take a request off its list, if it is on one."""
        found, waiting.list = waiting.list, None
        if found is None:
            return
        del found[waiting.order]
        if not found:
            del found.lists[found.key]
            if waiting.origin and not found.lists:
                del self._awaiting[waiting.origin]

    def _remove(self, waiting: Waiting) -> None:
        self._take_off(waiting)
        del self.all[waiting.order]
        own = self._of_member[waiting.request.member]
        del own[waiting.order]
        if not own:
            del self._of_member[waiting.request.member]

    # --- answers ------------------------------------------------------------------------------------

    def _make_due(self, waiting: Waiting) -> None:
        if waiting.list is not None:
            self._take_off(waiting)
            self.due.append(waiting)

    def _try(self, waiting: Waiting, now: float) -> bool:
        reply = self._ask(waiting, waiting.command, now)
        if reply is None:
            return False
        self._answer(waiting, reply)
        return True

    def _ask(self, waiting: Waiting, command: c.Command, now: float) -> r.Reply | None:
        """Apply *command*: that of *waiting*, perhaps with a later cursor or without a wait."""
        request = waiting.request
        room = Room(request.room.size)
        try:
            reply = apply(self._state, command, request.member, now, room)
        except Exception as error:
            if passes_through(error):
                raise
            if self._careful and only_reads(command):
                self._state.observer.counted("svc_manager_recoveries_total", Place.READING)
                return refused_reading(error)
            raise StateBroken(Place.WAITING, error, request.commands[-1], request.member) from error
        self._room.take(request.room.size - room.size, REPLY_WORK - room.work)
        return reply

    def _answer(self, waiting: Waiting, reply: r.Reply) -> None:
        self._remove(waiting)
        self._conclude(waiting, reply)

    def _candidates(self, waiting_list: WaitList) -> Iterator[Waiting]:
        """Yield those who take the same jobs, oldest first, until nothing is left for them."""
        for waiting in list(waiting_list.values()):
            if offers(self._state, waiting.request.member):
                yield waiting
            elif not self._state.suspects.lanes.queues:
                return  # but a suspect may be for another one

    def _hand_out_pills(self, now: float) -> None:
        """Answer the requests for jobs that a new drain concerns."""
        self._drain_epoch = self._state.ledger.drains.epoch
        for each in list(self._lessees.values()):
            for waiting in list(each.values()):
                if pill_for(self._state, waiting.request.member):
                    self._try(waiting, now)

    def _await_next(self, waiting: Waiting, now: float) -> None:
        """Let an `Await` wait for the last of its jobs that has not ended, or answer it if all have ended.

        That job is likely to end last, so that one check is often enough.
        """
        found = outcomes.last_unfinished(self._state, waiting.ids, waiting.unseen)
        while found is None:
            if self._try(waiting, now):
                return
            # A job that had ended was made ready again.
            found = outcomes.last_unfinished(self._state, waiting.ids, len(waiting.ids))
        waiting.unseen, waiting.origin, number = found
        self._put(waiting, number)

    def _awaiting_one_of(self, ended: Iterable[Ended]) -> Iterator[Waiting]:
        for origin, first, jobs in ended:
            lists = self._awaiting.get(origin)
            if lists is not None:
                for number in range(first, first + jobs):
                    yield from lists.get(number, {}).values()

    def _serve_feeds(self, origin: str, now: float) -> None:
        waiting_list = self._feeds.get(origin)
        if waiting_list is None:
            return
        newest = feeds.newest(self._state, origin)
        for place, waiting in enumerate(list(waiting_list.values())):
            waiting.command = msgspec.structs.replace(waiting.command, cursor=waiting_list.cursor)
            if place:
                self._make_due(waiting)
            elif not self._try(waiting, now):
                waiting_list.cursor = newest  # there is no kept outcome up to here
                return


def impatient(command: c.Command) -> c.Command:
    """Return the same command with no time to wait."""
    return msgspec.structs.replace(command, wait=0.0)
