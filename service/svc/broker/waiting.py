"""The requests that wait, each indexed by the one thing that it waits for.

A request for jobs waits for the queues and tasks of its consumer, an `Await` for one job that has not ended,
a `Feed` for its origin, a `Take` for the `results` queue, a `Join` for its queue. So the end of a job costs
nothing for requests that wait for something else, however many there are. A request that can be answered is
*due*. If many are due, they are answered over several turns, so that no turn becomes long.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator

import msgspec

from svc.broker.broken import Place, StateBroken, is_told, only_reads, unread
from svc.domain import commands as c
from svc.domain import feeds, outcomes
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.handlers import FIND_WORK, REPLY_BYTES, REPLY_WORK, Room
from svc.domain.members import Member
from svc.domain.queue_state import Ended, QueueState
from svc.domain.scheduling.grants import offers, pill_for

Deliver = Callable[[list[r.Reply]], None]


class Waiting:
    """A request whose last command cannot be answered yet.

    Attributes:
        asked: the command as it came.
        deadline: a Unix time.
        turn: the host's turn in which the request came.
        order: its number among all requests that have waited, from 1.
        origin: of an `Await`, the origin of the job that it waits for.
        given_up: whether its time is up, so that it is answered with the jobs or outcomes so far.
        ids: of an `Await`, the jobs that it names.
        unseen: of an `Await`, how many jobs at the start of *ids* may not have ended.
        shelf: the shelf on which it waits.
        size: how many bytes its answer may have.
    """

    __slots__ = (
        "asked",
        "command",
        "deadline",
        "deliver",
        "given_up",
        "ids",
        "member",
        "order",
        "origin",
        "replies",
        "shelf",
        "size",
        "turn",
        "unseen",
    )

    def __init__(
        self,
        command: c.Command,
        member: Member,
        deadline: float,
        replies: list[r.Reply],
        deliver: Deliver,
        turn: int,
        size: float = REPLY_BYTES,
    ) -> None:
        """Keep the request, so that its last command can be applied again."""
        self.size = size
        self.given_up = False
        self.turn = turn
        self.asked = command
        self.command = (isinstance(command, c.Feed) and feeds.awaited(command)) or command
        self.member = member
        self.deadline = deadline
        self.replies = replies
        self.deliver = deliver
        self.order = 0
        self.origin = ""
        self.ids = list(dict.fromkeys(self.command.ids)) if isinstance(self.command, c.Await) else []
        self.unseen = len(self.ids)
        self.shelf: Shelf | None = None


class Shelf(dict[int, Waiting]):
    """Requests that wait for the same thing, oldest first.

    Attributes:
        home: the dict that holds this shelf under *key* while it is not empty.
        cursor: of a feed, the cursor up to which there are no outcomes for any of the requests.
    """

    __slots__ = ("cursor", "home", "key")

    def __init__(self, home: dict[Hashable, Shelf], key: Hashable, cursor: int = 0) -> None:
        """Begin empty, and not yet in *home*."""
        super().__init__()
        self.home = home
        self.key = key
        self.cursor = cursor


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
        self._parked = 0
        self._all: dict[int, Waiting] = {}
        self._of_member: dict[Member, dict[int, Waiting]] = {}
        self._lessees: dict[Hashable, Shelf] = {}
        self._awaiting: dict[Hashable, Shelf] = {}
        #: How many requests wait for a job of each origin.
        self._awaited: Counter[str] = Counter()
        self._feeds: dict[Hashable, Shelf] = {}
        self._takers: dict[Hashable, Shelf] = {}
        self._joins: dict[Hashable, Shelf] = {}
        #: Requests that can be answered, or whose time is up; they are on no shelf.
        self._due: deque[Waiting] = deque()
        #: The room that is left for the answers of this turn.
        self._room = Room()
        #: The epoch of the newest drain whose pills were handed out.
        self._drain_epoch = 0
        #: No waiting request has a deadline before this time.
        self._soonest = 0.0

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._all)

    @property
    def lessees(self) -> int:
        """How many requests wait for jobs."""
        return sum(map(len, self._lessees.values()))

    @property
    def due(self) -> bool:
        """Whether some requests are to be answered at the next turn."""
        return bool(self._due)

    def park(self, waiting: Waiting, now: float) -> None:
        """Let a request wait that cannot be answered yet."""
        self._parked += 1
        waiting.order = self._parked
        self._all[waiting.order] = waiting
        self._of_member.setdefault(waiting.member, {})[waiting.order] = waiting
        self._soonest = min(self._soonest, waiting.deadline)
        if isinstance(waiting.command, c.Await):
            self._await_next(waiting, now)
        else:
            self._put(waiting, *self._place_of(waiting))

    def wake(self, member: Member) -> None:
        """Make all waiting requests of *member* due, to be answered with the jobs or outcomes so far."""
        for waiting in self._of_member.get(member, {}).values():
            self._give_up(waiting)

    def expire(self, now: float) -> None:
        """Make the requests due whose time is up, to be answered with the jobs or outcomes so far."""
        if now < self._soonest:
            return
        for waiting in self._all.values():
            if waiting.deadline <= now:
                self._give_up(waiting)
        self._soonest = min((each.deadline for each in self._all.values()), default=math.inf)

    def answer_reports(self) -> None:
        """Answer, without jobs, the requests that wait for jobs and also reported outcomes."""
        for waiting in list(self._all.values()):
            if waiting.replies and isinstance(waiting.command, c.Lease):
                self._answer(waiting, r.Grant())

    def disconnect(self, member: Member) -> None:
        """Forget the waiting requests of *member*."""
        for waiting in list(self._of_member.get(member, {}).values()):
            self._remove(waiting)

    def serve_lessees(self, now: float) -> None:
        """Hand ready jobs to the requests that wait for jobs, the oldest request first."""
        state = self._state
        epoch, self._drain_epoch = self._drain_epoch, state.ledger.drains.epoch
        if epoch != self._drain_epoch and state.ledger.drains.in_force:
            for shelf in list(self._lessees.values()):
                for waiting in list(shelf.values()):
                    if pill_for(state, waiting.member):
                        self._try(waiting, now)
        if now < state.hold_until or not self._lessees:
            return
        candidates = [self._candidates(shelf) for shelf in self._lessees.values()]
        for waiting in heapq.merge(*candidates, key=_order):
            if not state.any_ready:
                return
            self._try(waiting, now)

    def progress(self, ended: Collection[Ended], now: float) -> None:
        """Answer or make due the requests that wait for the end of one of these jobs, or of any job."""
        if not (self._awaiting or self._feeds or self._takers or self._joins):
            return
        for waiting in list(self._awaiting_one_of(ended)):
            self._make_due(waiting)
        for origin in {"", *(origin for origin, _, _ in ended)}:
            self._serve_feeds(origin, now)
        for shelf in [*self._takers.values(), *self._joins.values()]:
            for waiting in list(shelf.values()):
                if not self._try(waiting, now):
                    break  # nor can the others on the shelf be answered

    def answer_due(self, now: float) -> None:
        """Answer due requests; all answers of one turn together have no more room than a single answer."""
        if self._due:
            self._room = Room()
        while self._due and self._room.left:
            waiting = self._due.popleft()
            if waiting.order not in self._all:
                continue  # its member has disconnected
            self._room.take(0, FIND_WORK * (1 + len(waiting.ids)))
            if waiting.given_up:
                self._answer(waiting, self._ask(waiting, impatient(waiting.command), now) or r.Done())
            elif isinstance(waiting.command, c.Await):
                self._await_next(waiting, now)
            elif not self._try(waiting, now):
                self._put(waiting, *self._place_of(waiting))

    # --- shelves ------------------------------------------------------------------------------------

    def _place_of(self, waiting: Waiting) -> tuple[dict[Hashable, Shelf], Hashable]:
        match waiting.command:
            case c.Lease():
                return self._lessees, waiting.member.subscription
            case c.Feed(origin=origin):
                return self._feeds, origin
            case c.Join(queue=queue):
                return self._joins, queue
        return self._takers, None

    def _put(self, waiting: Waiting, home: dict[Hashable, Shelf], key: Hashable) -> None:
        shelf = home.get(key)
        if shelf is None:
            newest = feeds.newest(self._state, str(key)) if home is self._feeds else 0
            shelf = home[key] = Shelf(home, key, newest)
        shelf[waiting.order] = waiting
        waiting.shelf = shelf

    def _unshelve(self, waiting: Waiting) -> None:
        shelf, waiting.shelf = waiting.shelf, None
        if shelf is None:
            return
        del shelf[waiting.order]
        if not shelf:
            del shelf.home[shelf.key]
        if shelf.home is self._awaiting:
            self._awaited[waiting.origin] -= 1
            if not self._awaited[waiting.origin]:
                del self._awaited[waiting.origin]

    def _remove(self, waiting: Waiting) -> None:
        self._unshelve(waiting)
        del self._all[waiting.order]
        own = self._of_member[waiting.member]
        del own[waiting.order]
        if not own:
            del self._of_member[waiting.member]

    # --- answers ------------------------------------------------------------------------------------

    def _give_up(self, waiting: Waiting) -> None:
        waiting.given_up = True
        waiting.deadline = math.inf
        self._make_due(waiting)

    def _make_due(self, waiting: Waiting) -> None:
        if waiting.shelf is not None:
            self._unshelve(waiting)
            self._due.append(waiting)

    def _try(self, waiting: Waiting, now: float) -> bool:
        reply = self._ask(waiting, waiting.command, now)
        if reply is None:
            return False
        self._answer(waiting, reply)
        return True

    def _ask(self, waiting: Waiting, command: c.Command, now: float) -> r.Reply | None:
        """Apply *command*: that of *waiting*, perhaps with a later cursor or without a wait."""
        room = Room(waiting.size)
        try:
            reply = apply(self._state, command, waiting.member, now, room)
        except Exception as error:
            if is_told(error):
                raise
            if self._careful and only_reads(command):
                self._state.observer.counted("svc_manager_recoveries_total", Place.READING)
                return unread(error)
            raise StateBroken(Place.WAITING, error, waiting.asked, waiting.member) from error
        self._room.take(waiting.size - room.size, REPLY_WORK - room.work)
        return reply

    def _answer(self, waiting: Waiting, reply: r.Reply) -> None:
        self._remove(waiting)
        self._conclude(waiting, reply)

    def _candidates(self, shelf: Shelf) -> Iterator[Waiting]:
        """Yield those who take the same jobs, oldest first, until nothing is left for them."""
        state = self._state
        for waiting in list(shelf.values()):
            member = waiting.member
            if state.suspects.lanes and not offers(state, member):
                continue  # but a suspect may be for another one
            yield waiting
            if waiting.shelf is shelf and not state.suspects.lanes and not offers(state, member):
                return

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
        self._awaited[waiting.origin] += 1
        self._put(waiting, self._awaiting, (waiting.origin, number))

    def _awaiting_one_of(self, ended: Iterable[Ended]) -> Iterator[Waiting]:
        for origin, first, count in ended:
            if origin in self._awaited:
                for number in range(first, first + count):
                    yield from self._awaiting.get((origin, number), {}).values()

    def _serve_feeds(self, origin: str, now: float) -> None:
        shelf = self._feeds.get(origin)
        if shelf is None:
            return
        newest = feeds.newest(self._state, origin)
        for place, waiting in enumerate(list(shelf.values())):
            waiting.command = msgspec.structs.replace(waiting.command, cursor=shelf.cursor)
            if place:
                self._make_due(waiting)
            elif not self._try(waiting, now):
                shelf.cursor = newest  # there is no kept outcome up to here
                return


def impatient(command: c.Command) -> c.Command:
    """Return the same command with no time to wait."""
    return msgspec.structs.replace(command, wait=0.0)


def _order(waiting: Waiting) -> int:
    return waiting.order
