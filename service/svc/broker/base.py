"""The contract between clients, consumers and supervisors, and the engine that keeps the jobs.

Most methods take and return many jobs at once. All engines pass `tests/contract`, which checks the sentences
below.

*The broker records decisions, it does not make them*: `domain.retry` decides in the caller whether and when a
failed job is tried again, and the decision arrives as an argument.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple, Self, TypeVar

import msgspec

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import JobView, NewChunk, Outcome
from svc.errors import BadRequest, error_for

#: The commands that report the outcome of an attempt.
Settlement = c.Ack | c.Nack | c.Release
#: The news of a supervisor: the leases of its consumers, the jobs that one leaves behind, and its own end.
Report = c.Extend | c.Nack | c.Lost | c.Recall | c.Release | c.Leave

R = TypeVar("R", bound=r.Reply)


class Leased(NamedTuple):
    """The result of `lease`.

    Attributes:
        grant: the new leases; if it is `early`, the outcomes in the same request are recorded only when the
            next call has returned.
        refused: the refusals of outcomes in the same request.
    """

    grant: r.Grant
    refused: list[r.Refused]


class Broker(abc.ABC):
    """A durable job queue.

    An instance belongs to one member (a client, a consumer or a worker's supervisor). One thread at a time
    may use it, unless its engine allows more. Every method returns within its own deadline or raises an error
    of `svc.errors`. `ManagerUnreachable` means that it is not known whether the change was made; to call the
    method again with the same arguments is harmless.
    """

    #: The engine's answer to the last hello: its limits, and the held leases that were lost.
    welcome: r.Welcome

    @abc.abstractmethod
    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        """Apply *commands* in order, in one round trip; return a reply for each, refusals included.

        The verbs below are made of it; workers and clients use them alone. *wait* is the longest time in
        seconds that one of the commands itself may wait.
        """

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Let a call that waits in another thread return at once. Thread-safe.

        No later call waits either, so the order of the two calls does not matter. Nothing is lost: jobs that
        were being granted are in the answer of the interrupted call.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection. May be called twice. A consumer's jobs go back without a charged attempt."""

    def submit(self, origin: str, chunks: Sequence[NewChunk], *, strict: bool = False) -> list[r.Note]:
        """Accept jobs, which are durable when the method returns; return notes on special chunks.

        Jobs are identified by *origin* and number: to submit the same jobs again changes nothing. For a
        chunk whose key is known there is a note with the known job's id, or with code `conflict` if task or
        body differ. For a chunk that would exceed a bound there is a note with the code of that error.
        """
        return self._one(c.Submit(origin, list(chunks), strict), r.Accepted).notes

    def lease(
        self,
        *,
        limit: int,
        wait: timedelta,
        ahead: timedelta | None = None,
        early: bool = False,
        outcomes: Sequence[Settlement] = (),
    ) -> Leased:
        """Report *outcomes*, then take up to *limit* ready jobs, waiting at most *wait* for the first.

        The highest priority comes first; jobs of equal priority come in the order of their submission. No job
        has two valid leases. With *ahead*, the result is one job, or as many jobs as should run in that time
        by the run times of their tasks so far. The answer may be empty (time is up) or a pill (stop: finish
        and leave). With *early*, the answer may come before the outcomes are recorded. They are recorded when
        the next call has returned, also over a new connection, if the hello names their leases until then.
        """
        seconds = wait.total_seconds()
        request = c.Lease(limit, seconds, None if ahead is None else ahead.total_seconds(), early)
        replies = self.call([*outcomes, request], wait=seconds)
        grant = expect(replies[-1], r.Grant)
        return Leased(grant, _refusals(replies[:-1]))

    def ping(self) -> None:
        """Connect if need be, and return once the queue has answered."""
        self._one(c.Ping(), r.Done)

    def settle(self, outcomes: Sequence[Settlement]) -> list[r.Refused]:
        """Record *outcomes* of attempts in order; return the refusals. The same ones again change nothing.

        A job that fails is tried again after `retry_in`, or is dead if that is None. A release charges no
        attempt, and its jobs are ready again at their old place. If a lease has expired or was replaced by a
        newer one, the outcome is refused with the code `lease_lost`, and nothing is recorded of it.
        """
        return _refusals(self.call(outcomes)) if outcomes else []

    def leave(self, outcomes: Sequence[Settlement]) -> list[r.Refused]:
        """Record *outcomes* and end the membership in order; return the refusals of outcomes."""
        return _refusals(self.call([*outcomes, c.Leave()])[:-1])

    def report(self, reports: Sequence[Report]) -> list[r.AnyReply]:
        """Send the observations of a supervisor, in order; return the answer to each, refusals included."""
        return self.call(reports)

    def cancel(self, ids: Sequence[str]) -> int:
        """Cancel those of the jobs that wait; return how many. Jobs that run or have ended are not changed.

        Raises:
            UnknownJob: an id is not known. With very many ids, some jobs may be cancelled before this error.
        """
        return sum(self._one(c.Cancel(page), r.Done).count for page in _pages(ids))

    def requeue(self, ids: Sequence[str] = (), *, queue: str = "") -> int:
        """Make dead jobs ready again with new budgets; without ids, all dead jobs. Return how many."""
        if ids:
            return sum(self._one(c.Requeue(page), r.Done).count for page in _pages(ids))
        done = self._one(c.Requeue([], queue), r.Done)
        count = done.count
        while done.more is not None:
            done = self._one(c.Requeue([], queue, done.more), r.Done)
            count += done.count
        return count

    def get(self, ids: Sequence[str]) -> list[JobView]:
        """Describe jobs; ids that are not known are left out."""
        found: list[JobView] = []
        left = len(ids)
        while left:
            page = self._one(c.Get(list(ids[-left:]), paged=True), r.Views)
            found, left = found + page.jobs, page.left
        return found

    def find(self, query: c.List) -> list[JobView]:
        """Describe the jobs that match a query, newest first."""
        ask = msgspec.structs.replace(query, paged=True)
        page = self._one(ask, r.Views)
        found = page.jobs
        while page.before and len(found) < query.limit:
            rest = query.limit - len(found)
            page = self._one(msgspec.structs.replace(ask, limit=rest, before=page.before), r.Views)
            found += page.jobs
        return found

    def wait(self, ids: Sequence[str], timeout: timedelta) -> list[Outcome]:
        """Return the outcomes of the jobs once all have ended, or the outcomes so far when time is up.

        Raises:
            UnknownJob: an id is not known.
        """
        seconds = timeout.total_seconds()
        deadline = time.monotonic() + seconds
        found: dict[str, Outcome] = {}
        left = list(ids)
        while left:
            page = self._one(c.Await(left, seconds, paged=True), r.Outcomes, wait=seconds)
            found.update((outcome.id, outcome) for outcome in page.outcomes)
            left = [job for job in dict.fromkeys(left) if job not in found] if page.left else []
            seconds = max(0.0, deadline - time.monotonic())
        return [found[job] for job in ids if job in found]

    def feed(self, feed: c.Feed) -> r.Outcomes:
        """Return the outcomes after a cursor, in the order of recording; the answer has the next cursor."""
        deadline = time.monotonic() + feed.wait
        folded = msgspec.structs.replace(feed, folded=True)
        page = self._one(folded, r.Outcomes, wait=feed.wait).unfolded()
        while not page.outcomes and page.cursor != folded.cursor:
            # The outcomes up to the new cursor are forgotten; there may still be later ones.
            seconds = max(0.0, deadline - time.monotonic())
            folded = msgspec.structs.replace(folded, cursor=page.cursor, wait=seconds)
            page = self._one(folded, r.Outcomes, wait=seconds).unfolded()
        return page

    def drain(self, *, worker: str = "", refuse: bool = False) -> None:
        """Hand a pill to every consumer that asks (of one worker, or of all) until `resume`. Durable.

        If *refuse* is set, new jobs are refused meanwhile.
        """
        self._one(c.Drain(worker, refuse), r.Done)

    def resume(self, *, worker: str = "") -> None:
        """End a drain. Does nothing if there is none."""
        self._one(c.Resume(worker), r.Done)

    def stats(self) -> r.Totals:
        """Return the counts of every queue and of the members, as one consistent snapshot."""
        return self._one(c.Stats(), r.Totals)

    def members(self) -> list[r.WorkerView]:
        """Describe the connected workers."""
        found: list[r.WorkerView] = []
        after: str | None = ""
        while after is not None:
            page = self._one(c.Members(after, paged=True), r.Roster)
            found, after = found + page.workers, page.after or None
        return found

    def backup(self, name: str) -> r.Copy:
        """Begin a backup of the journal under a file name, or return its progress; call until it is done.

        Raises:
            BadRequest: the name is not allowed, or the engine keeps no journal.
            Conflict: the file exists, or another backup is running.
        """
        return self._one(c.Backup(name), r.Copy)

    def accept_clock(self) -> bool:
        """Have the manager's clock set to its host's time of day; return whether it was another."""
        return bool(self._one(c.AcceptClock(), r.Done).count)

    def metrics(self) -> str:
        """Return the queue's metrics as Prometheus text.

        Raises:
            BadRequest: the engine keeps none.
        """
        return self._one(c.Exposition(), r.Text).text

    def __enter__(self) -> Self:
        """Return the broker itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the broker."""
        self.close()

    def _one(self, command: c.AnyCommand, kind: type[R], *, wait: float = 0.0) -> R:
        return expect(self.call([command], wait=wait)[0], kind)


def _refusals(replies: Sequence[r.AnyReply]) -> list[r.Refused]:
    return [reply for reply in replies if isinstance(reply, r.Refused)]


def _pages(ids: Sequence[str]) -> Iterator[list[str]]:
    """Yield the ids in lists that are short enough for one request, each id once."""
    names = list(dict.fromkeys(ids))
    for first in range(0, len(names), c.CHANGED_JOBS_MAX):
        yield names[first : first + c.CHANGED_JOBS_MAX]


def expect(reply: r.Reply, kind: type[R]) -> R:
    """Return *reply*, which is of *kind* unless it is a refusal.

    Raises:
        ServiceError: the command was refused, or answered by something else.
    """
    if isinstance(reply, r.Refused):
        raise error_for(reply.code, reply.message)
    if not isinstance(reply, kind):
        raise BadRequest(f"the manager answered {type(reply).__name__} where {kind.__name__} was due")
    return reply
