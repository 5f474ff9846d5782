"""The commit of a turn: its events go to the journal, and only then the replies to those who asked.

Nothing is acknowledged before it is durable, and one fsync serves all requests of the turn. An *early grant*
need not wait: it hands out jobs and confirms nothing, so it leaves before the commit, which then runs beside
the first job (decision 15). `ReplyOutbox` alone decides which grants are early, and when they leave.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TypeAlias

import msgspec

from svc.broker.broken import Cause, Place, StateBroken, cause_of
from svc.broker.journal import Journal
from svc.broker.waiting import Deliver
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

_Deliveries: TypeAlias = list[tuple[Deliver, list[r.Reply]]]


class ReplyOutbox:
    """The replies that are not delivered yet."""

    def __init__(self) -> None:
        """Begin empty."""
        #: Replies that wait for this turn's commit.
        self.ready: _Deliveries = []
        #: Early grants. They may leave at any time.
        self.early: _Deliveries = []
        #: Early grants beside reports of this turn. They leave at its end: a consumer that got one sooner
        #: could send its next request in the same turn, and would take its reports as recorded.
        self.beside_reports: _Deliveries = []

    def put(
        self,
        last: c.Command | None,
        replies: list[r.Reply],
        deliver: Deliver,
        member: Member,
        *,
        recorded: bool,
    ) -> None:
        """Keep *replies* for delivery before or after this turn's commit.

        A grant is early in three cases. All that came earlier on its connection is *recorded*, as the request
        has waited for a turn. Or it answers the only request of a plain client that waits for no other: the
        other answers of such a client are never early. Or *last*, the last command of the request, says that
        the consumer takes early grants; if it has reported outcomes with it, the grant is marked as early.
        """
        if not (replies and _hands_out(replies[-1])):
            self.ready.append((deliver, replies))
        elif recorded or (member.role == "plain" and member.outstanding == len(replies) == 1):
            self.early.append((deliver, replies))
        elif not (isinstance(last, c.Lease) and last.early):
            self.ready.append((deliver, replies))
        elif len(replies) == 1:
            self.early.append((deliver, replies))
        else:
            replies[-1] = msgspec.structs.replace(replies[-1], early=True)
            self.beside_reports.append((deliver, replies))

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
            _deliver(ready)


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
        if isinstance(event, e.WITH_BODIES):
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
    """

    def __init__(self, state: QueueState, journal: Journal, observer: Observer) -> None:
        """Commit to *journal*, and read from it for *state*."""
        self.outbox = ReplyOutbox()
        self.recent = RecentEvents()
        self.causes: list[Cause] = []
        self._state = state
        self._journal = journal
        self._observer = observer
        self._failure: JournalError | None = None
        state.read = self.read

    def commit(self) -> None:
        """Deliver the grants, write the events, and deliver the replies that waited for that.

        Raises:
            JournalError: the commit failed, now or before; nothing was acknowledged.
            StateBroken: an event cannot be a row of the journal.
        """
        if self._failure is None:  # after a failed commit, a grant would confirm that turn's reports
            self.outbox.deliver_grants()
        self._write()
        self.outbox.deliver()

    def _write(self) -> None:
        state = self._state
        events, forgotten = state.take_events()
        sizes, state.result_bytes = state.result_bytes, {}
        if self._failure is not None and self.outbox.ready:
            # The state holds changes of the failed turn that are not durable, so no reply may tell of them.
            self.outbox = ReplyOutbox()
            raise self._failure
        if not events and not forgotten:
            return
        started = time.perf_counter()
        try:
            self._journal.append(events, forgotten)
        except JournalError as error:
            self.outbox, self._failure = ReplyOutbox(), error
            raise
        except Exception as error:
            raise StateBroken(Place.COMMIT, error, *cause_of(self.causes, events)) from error
        self.causes.clear()
        self._observer.committed(len(events), time.perf_counter() - started)
        for sequence, event in events:
            self.recent.committed(sequence, event, sizes.get(sequence))

    def read(self, sequence: int) -> e.AnyEvent | None:
        """Return a committed event."""
        event = self.recent.get(sequence)
        if event is None:
            event = self._journal.read(sequence)
            self._state.read_bytes += e.weight(event)
            self.recent.read(sequence, event)
        return event


def _deliver(deliveries: _Deliveries) -> None:
    for deliver, replies in deliveries:
        deliver(replies)


def _hands_out(reply: r.Reply) -> bool:
    """Return whether a reply only hands out jobs; a pill is a change of state that has to be recorded."""
    return isinstance(reply, r.Grant) and bool(reply.deliveries) and not reply.pill
