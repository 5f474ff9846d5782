"""The contract between clients, consumers and supervisors, and the engine that keeps the jobs.

Most methods take and return many jobs at once. All engines pass `tests/contract`, which checks all of this.

*The broker records decisions, it does not make them*: `domain.retry` decides in the caller whether and when a
failed job is tried again, and the decision arrives as an argument.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple, Self

import msgspec

from svc.broker.operator_verbs import OperatorVerbs, R
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Outcome
from svc.domain.job_view import JobView, Progress
from svc.domain.lifecycle import UNFINISHED, WAITING
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.error_codes import error_for
from svc.errors import BadRequest, ManagerUnreachable

#: The commands on an attempt that its consumer sends as well as its supervisor.
AttemptReport = c.Nack | c.Release | c.Checkpoint
#: The commands that report the outcome of an attempt, or what it leaves before that.
Settlement = c.Ack | AttemptReport | c.Yield
#: The news of a supervisor: the leases of its consumers, the jobs that one leaves behind, and its own end.
Report = AttemptReport | c.Extend | c.Lost | c.Recall | c.Leave | c.TellProgress

_CANCEL_PASSES = 10  #: How often jobs that can be cancelled are looked for.


class Leased(NamedTuple):
    """The result of `lease`.

    Attributes:
        grant: the new leases; if it is `early`, the outcomes in the same request are recorded only when the
            next call has returned.
        refused: the refusals of outcomes in the same request.
    """

    grant: r.Grant
    refused: list[r.Refused]


class Broker(OperatorVerbs):
    """A durable job queue.

    An instance belongs to one member (a client, a consumer or a supervisor). One thread at a time may use it,
    unless its engine allows more. Every method returns within its own deadline or raises an error of
    `svc.errors`. If that is `ManagerUnreachable`, it is not known whether the change was made; to call the
    method again with the same arguments is harmless.
    """

    #: The engine's answer to the last hello: its limits, and the held leases that were lost.
    welcome: r.Welcome
    trouble = ""  #: Why the last attempt to reach the engine has failed; "" after one that has not.
    on_failure: Callable[[], None] | None = None  #: Called after a failed attempt; its error ends the call.

    @abc.abstractmethod
    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        """Apply *commands* in order, in one round trip; return a reply for each, refusals included.

        The verbs here are made of it; workers and clients use them alone. *wait* is the longest time in
        seconds that one of the commands itself may wait.
        """

    def send(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> int:  # noqa: ARG002 - see below
        """Send *commands* as `call` does, and do not wait; return the number under which `receive` finds it.

        0 if they were not sent: the connection is broken, or the engine has no network that takes time. A
        request that was sent may still be lost, and then its replies never come.
        """
        return 0

    def receive(
        self,
        numbers: Collection[int],  # noqa: ARG002 - engines with a network override both
        seconds: float,  # noqa: ARG002
        *,
        final: bool = True,  # noqa: ARG002
    ) -> tuple[int, list[r.AnyReply]] | None:
        """Return the number and the replies of one of the sent requests *numbers*, waiting some *seconds*.

        It is None if no replies are there and there is no wait, or it is not the *final* one.

        Raises:
            ManagerUnreachable: one of them is lost, or has no replies in time; it is not known whether its
                changes were made.
        """
        raise ManagerUnreachable("nothing was sent")

    def forget(self, number: int) -> None:
        """Drop the answer to a sent request, also if it is still to come. Thread-safe."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Let a call that waits in another thread return at once. Thread-safe.

        No later call waits either, nor for an engine that is away: the first attempt that fails raises
        `ManagerUnreachable`. Jobs that were being granted are in the answer of the interrupted call.
        """

    def give_up(self) -> None:
        """Do the same, and let a call that has begun raise `ManagerUnreachable`, answered or not."""
        self.interrupt()

    @abc.abstractmethod
    def wake(self, *told: c.Recall) -> None:
        """Let the call that waits, or the next one alone, return; tell *told* if it can. Thread-safe."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection. May be called twice. A consumer's jobs go back without a charged attempt."""

    def submit(
        self, origin: str, chunks: Sequence[NewChunk], *, strict: bool = False, under: int = 0
    ) -> list[r.Note]:
        """Accept jobs, which are durable when the method returns; return notes on special chunks.

        Jobs are identified by *origin* and number: to submit the same jobs again changes nothing. For a
        chunk whose key is known there is a note with the known job's id, or with code `conflict` if task or
        body differ. For a chunk that would exceed a bound there is a note with the code of that error.
        *under* is the token of the job whose task submits.

        Raises:
            LeaseLost: the token is not in force.
        """
        return self._one(c.Submit(origin, list(chunks), strict, under), r.Accepted).notes

    def lease(
        self,
        *,
        limit: int,
        wait: timedelta,
        ahead: timedelta | None = None,
        early: bool = False,
        outcomes: Sequence[Settlement] = (),
        beside: str = "",
    ) -> Leased:
        """Report *outcomes*, then take up to *limit* ready jobs, waiting at most *wait* for the first.

        The highest priority comes first; jobs of equal priority come in the order of their submission. No job
        has two valid leases. With *ahead*, the result is one job, or as many jobs as should run in that time
        by the run times of their tasks so far. The answer may be empty (time is up) or a pill (stop: finish
        and leave). With *early*, the answer may come before the outcomes are recorded. They are recorded when
        the next call has returned, also over a new connection, if the hello names their leases until then.
        With *beside*, the jobs are of that task alone, each under its own lease; the answer is empty at once
        if another task is first in turn.
        """
        read_ahead = None if ahead is None else ahead.total_seconds()
        request = c.Lease(limit, wait.total_seconds(), read_ahead, early, beside)
        return self.take(request, outcomes)

    def take(self, request: c.Lease, outcomes: Sequence[Settlement] = ()) -> Leased:
        """Do the same as `lease`, whose arguments are fields of *request*.

        If that is `running`, an earlier request of the same kind that still waits is answered with no jobs,
        and jobs behind those that are held come when these are nearly over.
        """
        replies = self.call([*outcomes, request], wait=request.wait)
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

    def report(self, reports: Sequence[Report], wait: timedelta = timedelta(0)) -> list[r.AnyReply]:
        """Send the observations of a supervisor, in order; return the answer to each, refusals included.

        *wait* is the time that the last one of them may wait.
        """
        return self.call(reports, wait=wait.total_seconds())

    def cancel(
        self, ids: Sequence[str], *, running: bool = False, grace: float = CANCEL_GRACE_SECONDS
    ) -> int:
        """Cancel those of the jobs that wait; return how many. Jobs that have ended are not changed.

        With *running*, jobs that consumers have are cancelled too: no result of theirs is recorded any more.
        The attempt is ended by its worker, at the latest after *grace* seconds.

        Raises:
            UnknownJob: an id is not known. With very many ids, some jobs may be cancelled before this error.
        """
        pages = _pages(ids)
        return sum(self._one(c.Cancel(page, running, grace), r.Done).count for page in pages)

    def cancel_all(
        self, *, queue: str = "", task: str = "", running: bool = False, grace: float = CANCEL_GRACE_SECONDS
    ) -> int:
        """Cancel as `cancel` all jobs of *queue* and of *task*, or of any; return how many.

        Jobs that come meanwhile may be left.
        """
        count = 0
        for _ in range(_CANCEL_PASSES):
            # Jobs move from one state to the next meanwhile, and a few move back.
            found = [
                self.cancel([job.id for job in page], running=running, grace=grace)
                for state in (UNFINISHED if running else WAITING)
                for page in self._found(c.List(state.word, queue, task, c.CHANGED_JOBS_MAX, paged=True))
            ]
            count += sum(found)
            if not sum(found):
                break
        return count

    def _found(self, query: c.List) -> Iterator[list[JobView]]:
        """Yield all jobs that match *query*, a page at a time."""
        while True:
            page = self._one(query, r.Views)
            if page.jobs:
                yield page.jobs
            if not page.before:
                return
            query = msgspec.structs.replace(query, before=page.before)

    def requeue(self, ids: Sequence[str] | None = None, *, queue: str = "") -> int:
        """Make dead jobs ready again with new budgets; if *ids* is None, all dead jobs. Return how many."""
        if ids is not None:
            return sum(self._one(c.Requeue(page), r.Done).count for page in _pages(ids))
        done = self._one(c.Requeue([], queue), r.Done)
        count = done.count
        while done.more is not None:
            done = self._one(c.Requeue([], queue, done.more), r.Done)
            count += done.count
        return count

    def purge(self, command: c.Purge) -> int:
        """Remove jobs that have ended, by id or those that match; return how many.

        With `dry` it only counts them. Ids that are not known, and jobs that have not ended, are left out.
        """
        count = 0
        for page in _pages(command.ids) if command.ids else [[]]:
            after: int | None = 0
            while after is not None:
                part = msgspec.structs.replace(command, ids=list(page), after=after)
                done = self._one(part, r.Done)
                count, after = count + done.count, done.more
        return count

    def get(self, ids: Sequence[str], *, content: bool = False) -> list[JobView]:
        """Describe jobs; ids that are not known are left out. *content* adds arguments and results."""
        found: list[JobView] = []
        left = len(ids)
        while left:
            page = self._one(c.Get(list(ids[-left:]), paged=True, content=content), r.Views)
            found, left = found + page.jobs, page.left
        return found

    def keep(self, output: c.Output) -> None:
        """Keep output of attempts beside the journal; to keep the same again changes nothing."""
        self._one(output, r.Done)

    def logs(self, query: c.Logs) -> r.Logged:
        """Return a part of the output of a job; the answer has the cursor for the next part.

        Raises:
            UnknownJob: neither the job nor output of it is known.
        """
        return self._one(query, r.Logged)

    def store(self, pieces: Sequence[c.StorePiece | c.StoreResultPiece]) -> int:
        """Store pieces of one large value, in their order; return how many bytes of it are stored then.

        That is the offset of the piece to send next: less than was sent if the value was begun anew.

        Raises:
            QueueFull, JournalFull: there is no room for the value.
            JobTooLarge: it is over the limit.
            LeaseLost: the token is not in force.
        """
        return [expect(reply, r.Done).count for reply in self.call(pieces)][-1]

    def fetch(self, pieces: Sequence[c.FetchArgument | c.FetchResult]) -> list[bytes]:
        """Return pieces of a large value.

        Raises:
            LargeValueLost: the manager does not have it.
            LeaseLost: the token is not in force.
            UnknownJob: the job is not known.
        """
        return [expect(reply, r.Piece).data for reply in self.call(pieces)]

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

    def progress(self, ids: Sequence[str]) -> list[Progress | None]:
        """Return how far each of the jobs is, by its last report; None if it does not run or tells nothing.

        Raises:
            UnknownJob: an id is not known.
        """
        found: list[Progress | None] = []
        for first in range(0, len(ids), c.CHANGED_JOBS_MAX):
            page = list(ids[first : first + c.CHANGED_JOBS_MAX])
            found += self._one(c.AskProgress(page), r.ProgressReports).reports
        return found

    def read_stream(self, query: c.ReadStream) -> r.StreamPart:
        """Return partial results of a job once there is one, or it has ended, or time is up.

        Raises:
            UnknownJob: the id is not known.
        """
        return self._one(query, r.StreamPart, wait=query.wait)

    def feed(self, feed: c.Feed) -> r.Outcomes:
        """Return outcomes after a cursor in the order of recording, and the next cursor; folded if asked."""
        deadline = time.monotonic() + feed.wait
        folded = msgspec.structs.replace(feed, folded=True)
        page = self._one(folded, r.Outcomes, wait=feed.wait)
        while not (page.outcomes or page.spans) and page.cursor != folded.cursor:
            # The outcomes up to the new cursor are forgotten; there may still be later ones.
            seconds = max(0.0, deadline - time.monotonic())
            folded = msgspec.structs.replace(folded, cursor=page.cursor, wait=seconds)
            page = self._one(folded, r.Outcomes, wait=seconds)
        return page if feed.folded else page.unfolded()

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
