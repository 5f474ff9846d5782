"""The requests that wait, each indexed by the one thing that it waits for.

A request for jobs waits for the queues and tasks of its consumer, an `Await` for one job that has not ended,
a `Feed` for its origin, a `ReadStream` for its job, a `Take` for the `results` queue, a `Join` for its queue,
a `Put` for room in its queue, an `Extend` for orders to its worker. So the end of a job
costs nothing for requests that wait for something else, however many there are. A request that can be
answered is *due*. If many are due, they are answered over several turns, so that no turn becomes long.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import count
from operator import attrgetter
from typing import Final

import msgspec

from svc.broker import parked
from svc.broker.broken import Place, StateBroken, only_reads, passes_through, refused_reading
from svc.broker.parked import DueList, Expiries, Postponed, Waiting, WaitList, WaitLists
from svc.broker.requests import impatient
from svc.broker.waiting_puts import WaitingPuts
from svc.domain import commands as c
from svc.domain import feeds, outcomes, streams
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.handlers import ANSWER_WORK, FIND_WORK, REPLY_WORK, Room, charge
from svc.domain.members import Member
from svc.domain.queue_state import Ended, QueueState
from svc.domain.scheduling import taking_back
from svc.domain.scheduling.grants import offers, pill_for

#: Requests whose time is up that one turn finds, in some 5 ms.
EXPIRED_MAX: Final = 10_000


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
        #: The requests for jobs, by subscription: of consumers that are idle, and of those that run others.
        self._lessees: WaitLists = {}
        self._behind: WaitLists = {}
        #: The requests of the latter whose time has not come.
        self.postponed = Postponed()
        #: The requests for the end of a job, by its origin and then its number.
        self._awaiting: dict[str, WaitLists] = {}
        #: The feeds by origin, "" for those of all origins.
        self._feeds: WaitLists = {}
        #: The readers of partial results, by the origin and the number of their job.
        self._readers: WaitLists = {}
        #: Each `Join` by its queue, and under None each `Take`.
        self._others: WaitLists = {}
        #: Each `Put` by its queue.
        self.puts = WaitingPuts(state)
        #: The bytes of all other requests.
        self.bytes = 0
        #: The renewals of supervisors; `wake` finds them by their member.
        self._renewals: WaitLists = {}
        self.due, self.expiries = DueList(), Expiries()
        #: The room that is left for the answers of this turn, and for its grants to those that waited.
        self._room, self._grants = Room(), Room()
        #: The epoch of the newest drain whose pills were handed out.
        self._drain_epoch = 0

    def park(self, waiting: Waiting, now: float) -> None:
        """Let a request wait that cannot be answered yet."""
        order = waiting.order = next(self._orders)
        self.all[order] = self._of_member.setdefault(waiting.request.member, {})[order] = waiting
        self.expiries.add(waiting, now)
        if isinstance(waiting.command, c.Await):
            self._await_next(waiting, now)
        else:
            self._put_back(waiting, now)
        if waiting.size and not self._has_room_for(waiting):
            waiting.deadline = 0.0  # it is answered in this turn, with room or without
            self._make_due(waiting)

    def _has_room_for(self, waiting: Waiting) -> bool:
        """Count the bytes of a request; return whether all that wait are within their bound."""
        if isinstance(waiting.command, c.Put):
            return self.puts.parked(waiting.size)
        self.bytes += waiting.size
        return self.bytes <= self._state.limits.parked_bytes

    def pending(self, now: float) -> bool:
        """Return whether there is something to do for `answer_due`."""
        if self.due or now >= self.soonest:
            return True
        return bool(self.puts.lists) and self.puts.may_find_room

    @property
    def soonest(self) -> float:
        """When time alone gives `answer_due` something to do; infinity if it never does."""
        return min(self.postponed.soonest, self._state.imbalance.look_at)

    def supersede(self, member: Member) -> None:
        """Answer the request for jobs that *member* sent before it asked again, with none."""
        for waiting in self._of(member):
            if isinstance(waiting.command, c.Lease):
                self._answer(waiting, r.Grant())

    def resume(self, now: float) -> None:
        """Hand out jobs to run behind those that are nearly over."""
        while self._grants.left and now >= self.postponed.soonest:
            waiting = self.postponed.take()
            if waiting.list is None or waiting.list.lists is not self.postponed.lists:
                continue  # it was answered meanwhile, or is due
            self._take_off(waiting)
            if not self._try(waiting, now):
                self._put_back(waiting, now)

    def _put_back(self, waiting: Waiting, now: float) -> None:
        """Let a request wait on, for its time if that has not come."""
        at = parked.may_begin_at(self._state, waiting)
        self._put(waiting) if at <= now else self._postpone(waiting, at)

    def _postpone(self, waiting: Waiting, at: float) -> None:
        """Let a request wait until time *at*, from which on jobs may be granted behind others."""
        self._enlist(waiting, self.postponed.lists, None)
        self.postponed.add(waiting, at)

    def wake(self, member: Member) -> None:
        """Make all waiting requests of *member* due, to be answered with the jobs or outcomes so far."""
        for waiting in self._of(member):
            waiting.deadline = 0.0
            self._make_due(waiting)

    def wake_supervisors(self) -> None:
        """Answer the renewals of workers for which there are orders."""
        names, self._state.stopped = self._state.stopped, set()
        for name in names:
            worker = self._state.workers.get(name)
            if worker is not None and worker.supervisor is not None:
                self.wake(worker.supervisor)

    def expire(self, now: float) -> None:
        """Make requests due whose time is up, to be answered with the jobs or outcomes so far."""
        for waiting in self.expiries.take(now, EXPIRED_MAX):
            self._make_due(waiting)

    def answer_reports(self) -> None:
        """Answer, without jobs, the requests that wait for jobs and also reported outcomes."""
        for waiting in list(self.all.values()):
            if waiting.request.replies and isinstance(waiting.command, c.Lease):
                self._answer(waiting, r.Grant())

    def disconnect(self, member: Member) -> None:
        """Forget the waiting requests of *member*."""
        for waiting in self._of(member):
            self._remove(waiting)

    def _of(self, member: Member) -> list[Waiting]:
        return list(self._of_member.get(member, {}).values())

    def serve_lessees(self, now: float) -> None:
        """Hand ready jobs to the requests that wait for jobs, the oldest request first.

        Subscriptions without jobs cost a look at their queues, or at the index of their lanes. Once the room
        for grants is used up, the others wait for the next turn.
        """
        if not self._grants.left:
            self._state.readied = True
            return
        if self._drain_epoch != self._state.ledger.drains.epoch:
            self._make_pills_due()
        if self._lessees:
            self._serve_from(self._lessees, now)
        if self._behind:
            self._serve_from(self._behind, now)

    def _serve_from(self, lessees: WaitLists, now: float) -> None:
        state = self._state
        lists = list(lessees.values())
        if not state.suspects.lanes.queues:
            queues, best = state.lanes.queues, state.lanes.best
            items = lessees.items()
            lists = [each for key, each in items if not queues.isdisjoint(key[0]) and best(key) is not None]
        for waiting in heapq.merge(*map(self._candidates, lists), key=attrgetter("order")):
            if not self._grants.left:
                state.readied = True
                return
            self._try(waiting, now)

    def progress(self, ended: Collection[Ended], now: float) -> None:
        """Answer or make due the requests that wait for the end of one of these jobs, or of any job."""
        if self._awaiting:
            for waiting_list in list(self._awaiting_one_of(ended)):
                self._make_list_due(waiting_list)
        if self._readers:
            self.wake_readers(parked.read_among(self._readers, ended))
        if self._feeds:
            for origin in {"", *(origin for origin, _, _ in ended)}:
                self._serve_feeds(origin, now)
        for each in list(self._others.values()):
            for waiting in list(each.values()):
                if not self._try(waiting, now):
                    break  # nor can the others on the list be answered
                if each and each.key is not None:
                    self._make_list_due(each)  # a queue is done for all who join it
                    break

    def wake_readers(self, jobs: Iterable[tuple[str, int]]) -> None:
        """Make the requests due that wait for partial results of one of *jobs*."""
        for job in jobs:
            if job in self._readers:
                self._make_list_due(self._readers[job])

    def answer_due(self, now: float) -> None:
        """Answer due requests; all answers of one turn together have no more room than a single answer."""
        self._room = Room()
        if now >= self.postponed.soonest:
            self.resume(now)
        if now >= self._state.imbalance.look_at:
            taking_back.look(self._state, now)
            self.wake_supervisors()
        if self.puts.lists:
            self.puts.admit(lambda waiting: self._try(waiting, now))
        while self.due and self._room.left:
            waiting = self.due.take()
            if waiting.order not in self.all:
                continue  # its member has disconnected
            self._room.take(0, ANSWER_WORK + FIND_WORK * len(waiting.ids))
            if waiting.deadline <= now:
                self._answer(waiting, self._ask(waiting, impatient(waiting.command), now) or r.Done())
            elif isinstance(waiting.command, c.Await):
                self._await_next(waiting, now)
            elif not self._try(waiting, now):
                self._put_back(waiting, now)

    def end_turn(self) -> None:
        """Make room for the grants of the next turn."""
        if self._grants.work < REPLY_WORK:
            self._grants = Room()

    # --- lists --------------------------------------------------------------------------------------

    def _put(self, waiting: Waiting, number: int = 0) -> None:
        """Put a request on its list; *number* is that of the job that an `Await` waits for."""
        lists: WaitLists = self._others
        key: Hashable = None
        match waiting.command:
            case c.Lease():
                member = waiting.request.member
                behind = waiting.command.running and member.leases
                lists, key = self._behind if behind else self._lessees, member.subscription
            case c.Await():
                lists, key = self._awaiting.setdefault(waiting.origin, {}), number
            case c.Feed(origin=origin):
                lists, key = self._feeds, origin
            case c.ReadStream(id=job):
                lists, key = self._readers, streams.job_of(self._state, job)
            case c.Join(queue=queue):
                key = queue
            case c.Put(terms=terms):
                lists, key = self.puts.lists, terms.queue
            case c.StopsAwaited():
                lists = self._renewals
        self._enlist(waiting, lists, key)

    def _enlist(self, waiting: Waiting, lists: WaitLists, key: Hashable) -> None:
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
            self._drop(found, waiting.origin)

    def _drop(self, waiting_list: WaitList, origin: str) -> None:
        """Forget a list; *origin* is that of the job that its requests wait for, "" if they await none."""
        lists = waiting_list.lists
        del lists[waiting_list.key]
        if not lists and lists is self._awaiting.get(origin):
            del self._awaiting[origin]

    def _remove(self, waiting: Waiting) -> None:
        self._take_off(waiting)
        del self.all[waiting.order]
        self.expiries.discard(waiting)
        if isinstance(waiting.command, c.Put):
            self.puts.bytes -= waiting.size
        else:
            self.bytes -= waiting.size
        own = self._of_member[waiting.request.member]
        del own[waiting.order]
        if not own:
            del self._of_member[waiting.request.member]

    # --- answers ------------------------------------------------------------------------------------

    def _make_due(self, waiting: Waiting) -> None:
        if waiting.list is not None:
            self._take_off(waiting)
            self.due.add(waiting)

    def _make_list_due(self, waiting_list: WaitList) -> None:
        self._drop(waiting_list, next(iter(waiting_list.values())).origin)
        self.due.add_list(waiting_list)

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
        if type(reply) is r.Grant:
            charge(self._room, reply)
            charge(self._grants, reply)
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

    def _make_pills_due(self) -> None:
        """Make the requests for jobs due that a new drain concerns: there may be ten thousand of them."""
        self._drain_epoch = self._state.ledger.drains.epoch
        lists = (self._lessees, self._behind, self.postponed.lists)
        for each in [found for kind in lists for found in kind.values()]:
            for waiting in list(each.values()):
                if pill_for(self._state, waiting.request.member):
                    self._make_due(waiting)

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

    def _awaiting_one_of(self, ended: Iterable[Ended]) -> Iterator[WaitList]:
        for origin, first, jobs in ended:
            lists = self._awaiting.get(origin)
            if lists is not None:
                yield from (lists[number] for number in range(first, first + jobs) if number in lists)

    def _serve_feeds(self, origin: str, now: float) -> None:
        waiting_list = self._feeds.get(origin)
        if waiting_list is None:
            return
        newest = feeds.newest(self._state, origin)
        waiting = next(iter(waiting_list.values()))
        waiting.command = msgspec.structs.replace(waiting.command, cursor=waiting_list.cursor)
        if not self._try(waiting, now):
            waiting_list.cursor = newest  # there is no kept outcome up to here
        elif waiting_list:
            self._make_list_due(waiting_list)
