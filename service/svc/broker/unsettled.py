"""Commits that other hosts have still to confirm, and the replies that wait for them.

A journal on this host's own disk has no such commits (see `journal.Ticket`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from svc.broker.journal import Ticket
from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.domain.scheduling.run_times import RunTimes
from svc.wire import MESSAGE_BYTES_MAX

#: Bytes in commits that are not durable above which no request that brings content is begun, as for the bytes
#: that connections buffer: a few seconds of a cluster that writes 40 MB/s.
UNSETTLED_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX
_CONFIRM_NOTHING: Final = frozenset((c.Ping, c.Exposition))


class UnsettledCommit(msgspec.Struct, eq=False):
    """A commit, and what waits for it.

    Attributes:
        ticket: tells when it is durable.
        turn: the first turn whose events it has.
        started: when it began (by `time.perf_counter`).
        began: the same by the time of the queue.
        records: how many events it has.
        size: their bytes.
        marks: whether one of them has to be durable before any grant leaves.
        requests: those whose replies wait for it.
    """

    ticket: Ticket
    turn: int
    started: float
    began: float
    records: int = 0
    size: int = 0
    marks: bool = False
    requests: list[Request] = []


class UnsettledCommits:
    """All commits of a queue that are not durable yet, oldest first.

    Attributes:
        size: the bytes of their events: of arguments, results and texts.
    """

    def __init__(self, observer: Observer, run_times: RunTimes, now: Callable[[], float]) -> None:
        """Begin with none; *observer* and *run_times* are told how long each took.

        *now* is the time of the queue.
        """
        self.size = 0
        self._commits: deque[UnsettledCommit] = deque()
        self._members: Counter[Member] = Counter()
        self._observer = observer
        self._run_times = run_times
        self._now = now

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._commits)

    @property
    def full(self) -> bool:
        """Whether no request that brings content is begun until some of them are durable."""
        return self.size > UNSETTLED_BYTES_MAX

    @property
    def first_turn(self) -> int:
        """The first turn whose events are not durable; only if there is one."""
        return self._commits[0].turn

    @property
    def grants_wait(self) -> bool:
        """Whether one of their events has to be durable before any grant leaves."""
        return any(each.marks for each in self._commits)

    def add(self, ticket: Ticket, turn: int, records: int, size: int, *, marks: bool) -> None:
        """Add the commit of a turn; turns in a row may share one ticket."""
        last = self._commits[-1] if self._commits else None
        if last is None or last.ticket is not ticket:
            last = UnsettledCommit(ticket, turn, time.perf_counter(), self._now())
            self._commits.append(last)
        last.records += records
        last.size += size
        self.size += size
        last.marks = last.marks or marks

    def hold(self, requests: Iterable[Request]) -> list[Request]:
        """Keep *requests* until all commits are durable; return those that need not wait.

        These are answered by nothing that a commit could change, and nothing that came earlier on their
        connection waits: so a worker's renewals and an operator's ping are answered while no commit gets on.
        Metrics are, too, though they may count a change that is not durable: they tell that nothing gets on.
        """
        last, at_once = self._commits[-1], []
        for request in requests:
            if _tells_nothing(request) and request.member not in self._members:
                at_once.append(request)
            else:
                last.requests.append(request)
                self._members[request.member] += 1
        return at_once

    def take_settled(self) -> list[Request]:
        """Return the requests whose commits have become durable, oldest first.

        Raises:
            JournalError: a commit failed.
        """
        settled: list[Request] = []
        while self._commits and self._commits[0].ticket.settled():
            done = self._commits.popleft()
            self.size -= done.size
            self._observer.committed(done.records, time.perf_counter() - done.started)
            # A grant beside a report waits for it, so the next one has to be asked for that much sooner.
            self._run_times.committed(self._now() - done.began)
            settled += done.requests
        self._members.subtract(request.member for request in settled)
        self._members = +self._members
        return settled

    def wait(self, seconds: float) -> None:
        """Return once all commits are durable, or after *seconds*.

        Raises:
            JournalError: a commit failed.
        """
        if self._commits:
            self._commits[-1].ticket.wait(seconds)

    def drop(self) -> None:
        """Drop all, as a commit failed: nobody is told anything more."""
        self.size = 0
        self._commits.clear()
        self._members.clear()


def _tells_nothing(request: Request) -> bool:
    """Return whether the replies to *request* tell nothing that a commit has to confirm."""
    return all(
        type(command) in _CONFIRM_NOTHING
        or (type(reply) is r.Extended and not reply.stops and not reply.drain)
        for command, reply in zip(request.commands, request.replies, strict=True)
    )
