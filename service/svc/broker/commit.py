"""The commit of a turn: its events go to the journal, and only then the replies to those who asked.

Nothing is acknowledged before it is durable, and one fsync serves all requests of the turn. An *early grant*
need not wait: it hands out jobs and confirms nothing, so it leaves before the commit, which then runs beside
the first job (decision 15). `ReplyOutbox` alone decides which grants are early, and when they leave.

A journal on other hosts confirms a commit later, and the turns go on meanwhile (decision 45). The replies of
a turn then wait for the last commit that is not durable, also if the turn itself changed nothing: they may
tell of that commit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from svc.broker.broken import Cause, Place, StateBroken, cause_of
from svc.broker.journal import Journal, Ticket
from svc.broker.requests import Request
from svc.broker.unsettled import UnsettledCommits
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.domain.queue_state import QueueState
from svc.errors import JournalError

#: The most recent events that are kept in memory, and the most bytes in them.
RECENT_EVENTS = 2048
RECENT_BYTES = 32 * 1024 * 1024
#: An event with this many bytes of results or more is not kept.
RECENT_EVENT_BYTES = 2 * 1024 * 1024
#: Committed events that nobody reads soon: arguments are read by chunk, and the roster by a replay alone.
_NOT_READ_SOON = (*e.WITH_BODIES, *e.OF_ROSTER)


class ReplyOutbox:
    """The requests whose replies are not delivered yet."""

    def __init__(self) -> None:
        """Begin empty."""
        #: Those whose replies wait for this turn's commit.
        self.ready: list[Request] = []
        #: Those that get an early grant. It may leave at any time.
        self.early: list[Request] = []
        #: Early grants beside reports of this turn. They leave at its end: a consumer that got one sooner
        #: could send its next request in the same turn, and would take its reports as recorded.
        self.beside_reports: list[Request] = []
        #: Those whose reports of this turn are among the ready ones.
        self._reporting: set[Member] = set()
        #: Whether a commit of an earlier turn is not durable yet.
        self.behind = False

    @property
    def undelivered(self) -> bool:
        """Whether there is a request whose replies can be delivered."""
        return bool(self.ready or self.early or self.beside_reports)

    def put(self, request: Request, *, recorded: bool) -> None:
        """Keep the replies to *request* for delivery before or after this turn's commit.

        A grant is early in three cases. All that came earlier on its connection is *recorded*, as the request
        has waited for a turn. Or it answers the only request of a plain client that waits for no other: the
        other answers of such a client are never early. Or the last command of the request says that the
        consumer takes early grants; if it has reported outcomes with it, the grant is marked as early. Such a
        consumer takes its earlier reports as recorded, so its grant waits if a commit is not durable yet.
        Nor does it overtake the answer to an earlier report: a new connection begins with the reports of
        early grants, and would begin behind those without an answer.
        """
        replies, member = request.replies, request.member
        grant = replies[-1] if replies else None
        # A pill is a change of state that has to be recorded, and any other reply tells of one.
        if type(grant) is not r.Grant or not grant.deliveries or grant.pill:
            self._wait(request, recorded=recorded)
        elif recorded or (member.role == "plain" and member.outstanding == len(replies) == 1):
            self.early.append(request)
        elif self.behind or not (isinstance(last := request.commands[-1], c.Lease) and last.early):
            self._wait(request, recorded=False)
        elif len(replies) == 1:
            self.early.append(request)
        elif member in self._reporting:
            self._wait(request, recorded=False)
        else:
            replies[-1] = msgspec.structs.replace(grant, early=True)
            self.beside_reports.append(request)

    def _wait(self, request: Request, *, recorded: bool) -> None:
        self.ready.append(request)
        replies = request.replies
        if not recorded and (len(replies) > 1 or (replies and type(replies[0]) is not r.Grant)):
            self._reporting.add(request.member)

    def hand_out(self) -> None:
        """Deliver the early grants that need not wait for the end of the turn."""
        if self.early:
            early, self.early = self.early, []
            _deliver(early)

    def deliver_grants(self) -> None:
        """Deliver all early grants, at the end of the turn."""
        self.hand_out()
        if self.beside_reports:
            grants, self.beside_reports = self.beside_reports, []
            _deliver(grants)

    def deliver(self) -> None:
        """Deliver the replies that waited for the commit.

        A delivery may make its caller call again at once; replies that this adds are not delivered now.
        """
        if self.ready:
            ready, self.ready = self.ready, []
            self._reporting.clear()
            _deliver(ready)

    def take_all(self) -> list[Request]:
        """Remove and return all requests that are not delivered."""
        waiting = [*self.early, *self.beside_reports, *self.ready]
        self.early, self.beside_reports, self.ready = [], [], []
        self._reporting.clear()
        return waiting


class RecentEvents:
    """The last events, up to a number and a size, because they are likely to be read soon.

    They are outcomes, which clients fetch soon after their commit, and submitted chunks that were read from
    the journal, since their other jobs are requested next.
    """

    def __init__(self, most_bytes: int = RECENT_BYTES) -> None:
        """Begin empty; keep at most *most_bytes*, or one event if it alone is larger."""
        self._events: OrderedDict[int, tuple[e.AnyEvent, int]] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._events)

    def get(self, sequence: int) -> e.AnyEvent | None:
        """Return an event, if it is kept."""
        known = self._events.get(sequence)
        return None if known is None else known[0]

    def committed(self, sequence: int, event: e.AnyEvent, size: int | None = None) -> None:
        """Keep a committed event if it reports an outcome and is not too large.

        *size* is its `events.weight`, if that is already known.
        """
        if isinstance(event, _NOT_READ_SOON):
            return
        weight = e.weight(event) if size is None else size
        if weight < RECENT_EVENT_BYTES:
            self._keep(sequence, event, weight)

    def read(self, sequence: int, event: e.AnyEvent) -> None:
        """Keep an event that was read from the journal, if it has arguments."""
        if isinstance(event, e.WITH_BODIES):
            self._keep(sequence, event, e.weight(event))

    def _keep(self, sequence: int, event: e.AnyEvent, weight: int) -> None:
        self._events[sequence] = event, weight
        self._bytes += weight
        while len(self._events) > RECENT_EVENTS or (self._bytes > self._most_bytes and len(self._events) > 1):
            self._bytes -= self._events.popitem(last=False)[1][1]


class GroupCommit:
    """Commits the events that a state has recorded, all of a turn at once.

    Attributes:
        outbox: the replies of this turn.
        recent: the events that are still in memory.
        causes: the commands of this turn that recorded events.
        turns: how many turns have been committed.
        unsettled: the commits that are not durable yet.
    """

    def __init__(
        self, state: QueueState, journal: Journal, observer: Observer, now: Callable[[], float]
    ) -> None:
        """Commit to *journal*, and read from it for *state*; *now* is the time of the queue."""
        self.outbox = ReplyOutbox()
        self.recent = RecentEvents()
        self.causes: list[Cause] = []
        self.turns = 0
        self.unsettled = UnsettledCommits(observer, state.run_times, now)
        self._state = state
        self._journal = journal
        self._observer = observer
        self._now = now
        self._failure: JournalError | None = None
        state.read = self.read

    @property
    def recorded_turns(self) -> int:
        """How many turns are durable, counted from the first; this turn is not among them."""
        return self.unsettled.first_turn if self.outbox.behind else self.turns

    @property
    def grants_wait(self) -> bool:
        """Whether an event that says what may be granted is not durable yet."""
        return self._state.grants_wait or (self.outbox.behind and self.unsettled.grants_wait)

    def commit(self) -> None:
        """Deliver the grants, write the events, and deliver the replies that waited for that.

        If an event says what may be granted, the grants wait for it too.

        Raises:
            JournalError: the commit failed, now or before; nothing was acknowledged.
            StateBroken: an event cannot be a row of the journal.
        """
        grants_wait, marks = self.grants_wait, self._state.grants_wait
        if self._failure is None and not grants_wait:  # else a grant would confirm the failed turn's reports
            self.outbox.deliver_grants()
        ticket = self._write(marks=marks)
        self.turns += 1
        if ticket is not None or self.outbox.behind:
            self.outbox.behind = True
            _deliver(self.unsettled.hold(self.outbox.take_all()))
            return
        if self._failure is None and grants_wait:
            self.outbox.deliver_grants()
        self.outbox.deliver()

    def settle(self, wait: float = 0.0) -> None:
        """Deliver the replies whose commits have become durable, at the latest after *wait* seconds.

        Raises:
            JournalError: a commit failed; its replies are dropped.
        """
        if not self.outbox.behind:
            return
        try:
            if wait:
                self.unsettled.wait(wait)
            settled = self.unsettled.take_settled()
        except JournalError as error:
            self.unsettled.drop()
            self.outbox, self._failure = ReplyOutbox(), error
            raise
        self.outbox.behind = bool(self.unsettled)
        _deliver(settled)

    def _write(self, *, marks: bool) -> Ticket | None:
        """Write the events of this turn; return the ticket of the commit, or None if it is durable."""
        state = self._state
        events, forgotten = state.take_events()
        sizes, state.result_bytes = state.result_bytes, {}
        if self._failure is not None and self.outbox.ready:
            # The state holds changes of the failed turn that are not durable, so no reply may tell of them.
            self.outbox = ReplyOutbox()
            raise self._failure
        if not events and not forgotten:
            return None
        started, began = time.perf_counter(), self._now()
        try:
            ticket = self._journal.append(events, forgotten)
        except JournalError as error:
            self.outbox, self._failure = ReplyOutbox(), error
            raise
        except Exception as error:
            raise StateBroken(Place.COMMIT, error, *cause_of(self.causes, events)) from error
        self.causes.clear()
        if ticket is None:
            self._observer.committed(len(events), time.perf_counter() - started)
            state.run_times.committed(self._now() - began)
        else:
            size = sum(sizes[number] if number in sizes else e.weight(event) for number, event in events)
            self.unsettled.add(ticket, self.turns, len(events), size, marks=marks)
        for sequence, event in events:
            self.recent.committed(sequence, event, sizes.get(sequence))
        return ticket

    def read(self, sequence: int) -> e.AnyEvent | None:
        """Return a committed event."""
        event = self.recent.get(sequence)
        if event is None:
            event = self._journal.read(sequence)
            self._state.read_bytes += e.weight(event)
            self.recent.read(sequence, event)
        return event


def _deliver(requests: list[Request]) -> None:
    for request in requests:
        request.deliver(request.replies)
