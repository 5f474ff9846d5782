"""Reads outcomes: turns them into results or errors, and follows those of a submission as they come."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from svc import codec
from svc.broker.base import Broker
from svc.client.connections import AllWaiting, Connections
from svc.domain import commands as c
from svc.domain.job import Outcome, parse_job_id
from svc.domain.lifecycle import JobState
from svc.domain.replies import Outcomes
from svc.envelope import PickleKeys
from svc.errors import BadRequest, JobCancelled, JobFailed, ManagerUnreachable, ResultTimeout, UnknownJob

#: Seconds that one call waits at most, so that a dead connection is noticed.
SLICE_SECONDS = 20.0
#: Seconds between two checks of jobs that cannot be waited for in one call.
ROUND_SECONDS = 0.25
#: Outcomes in the answer to one call.
PAGE = 1000

#: Seconds without an outcome after which somebody who looks on is told so for the first time.
IDLE_SECONDS = 0.2

T = TypeVar("T")


def value_of(outcome: Outcome, pickle_keys: PickleKeys | None = None) -> Any:
    """Return the result in *outcome*; a pickled one is verified with *pickle_keys*.

    Raises:
        JobFailed: the job is dead.
        JobCancelled: it was cancelled.
        CodecError: the result is a pickled object and *pickle_keys* is None.
        UntrustedPickle: the pickle is not signed for this job.
    """
    if outcome.state == JobState.SUCCEEDED:
        envelopes = None if pickle_keys is None else pickle_keys.of(outcome.id)
        return codec.decode_result(outcome.result, envelopes)
    raise failure_of(outcome)


def failure_of(outcome: Outcome) -> JobFailed | JobCancelled:
    """Return the error for a job that did not succeed."""
    if outcome.state == JobState.CANCELLED:
        return JobCancelled(f"job {outcome.id} was cancelled")
    error = outcome.error
    if error is None:
        return JobFailed(f"job {outcome.id} failed", job_id=outcome.id)
    said = f"{error.type}: {error.message}" if error.message else error.type
    return JobFailed(
        f"job {outcome.id} failed: {said}",
        job_id=outcome.id,
        type=error.type,
        message=error.message,
        attempts=outcome.attempts,
        remote_traceback=error.traceback,
    )


class Deadline:
    """A time limit for a wait, or none.

    Attributes:
        timeout: the requested seconds; None for no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        """Start the count of *timeout* seconds.

        Raises:
            BadRequest: *timeout* is not a number; such a time would never pass.
        """
        if timeout is not None and math.isnan(timeout):
            raise BadRequest("the timeout is not a number of seconds")
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def slice(self, limit: float | None = None) -> float:
        """Return the seconds that the next call may wait: at most *limit*, which is one slice by default."""
        limit = SLICE_SECONDS if limit is None else limit
        return limit if self._end is None else max(0.0, min(limit, self._end - time.monotonic()))


class Patience:
    """Repeats a call over broken connections, until the manager was away for too long at a time."""

    def __init__(self, connections: Connections, deadline: Deadline, seconds: float) -> None:
        """Repeat until *deadline*, and no longer than *seconds* without an answer."""
        self._connections = connections
        self._deadline = deadline
        self._seconds = seconds

    def call(self, ask: Callable[[Broker], T]) -> T:
        """Return the answer to *ask*, which must be safe to repeat.

        Raises:
            ManagerUnreachable: the manager did not answer in time.
            ResultTimeout: other threads had all connections until the deadline.
        """
        lost = Deadline(self._seconds)
        while True:
            try:
                with self._connections.waiting(self._deadline.slice()) as broker:
                    return ask(broker)
            except AllWaiting:
                if self._deadline.passed:
                    raise ResultTimeout("too many threads of this client wait already") from None
            except ManagerUnreachable:
                if lost.passed or self._deadline.passed:
                    raise
                time.sleep(self._deadline.slice(ROUND_SECONDS))

    def wait(self, ids: Sequence[str], seconds: float) -> list[Outcome]:
        """Return the outcomes of *ids*; wait up to *seconds* for all of them."""
        return self.call(lambda broker: broker.wait(ids, timedelta(seconds=seconds)))

    def feed(self, feed: c.Feed) -> Outcomes:
        """Return the outcomes that *feed* asks for."""
        return self.call(lambda broker: broker.feed(feed))


#: Called with the jobs that have not ended.
Idle = Callable[[Collection[str]], None]
#: Makes the error for jobs that have not ended by a deadline.
Late = Callable[[Collection[str], Deadline], ResultTimeout]


def wait_for(patience: Patience, ids: list[str], deadline: Deadline) -> list[Outcome]:
    """Return the outcomes of all *ids*, or of those that have ended at *deadline*."""
    found: list[Outcome] = []
    # Page by page: a reply is bounded, and thousands of results may be large.
    for first in range(0, len(ids), PAGE):
        found += _wait_for_page(patience, ids[first : first + PAGE], deadline)
    return found


def _wait_for_page(patience: Patience, ids: list[str], deadline: Deadline) -> list[Outcome]:
    while True:
        found = patience.wait(ids, deadline.slice())
        if len(found) >= len(set(ids)) or deadline.passed:
            return found


class Watch:
    """What to do while jobs do not end, and what to raise if they have not ended in time."""

    def __init__(self, late: Late, idle: Idle | None = None) -> None:
        """Call *idle*, now and then, with the jobs that have not ended; *late* makes the error."""
        self.late = late
        self._idle = idle
        self._pause = IDLE_SECONDS

    def seconds(self, deadline: Deadline) -> float:
        """Return how long to wait in the next call: first short and then longer, if somebody looks on."""
        if self._idle is None:
            return deadline.slice()
        pause = self._pause
        self._pause = min(2 * pause, SLICE_SECONDS)
        return deadline.slice(pause)

    def idle(self, wanted: Collection[str]) -> None:
        """Say that none of *wanted* has ended."""
        if self._idle is not None:
            self._idle(wanted)


def follow(patience: Patience, ids: Iterable[str], deadline: Deadline, watch: Watch) -> Iterator[Outcome]:
    """Yield the outcome of each job of *ids* once, in the order in which they ended.

    The jobs of one submission are followed as they end; a mixture is checked four times a second.

    Raises:
        ResultTimeout: the deadline came first.
        UnknownJob: a job is not known, or its retention has passed.
    """
    wanted = set(ids)
    origins = {_origin_of(job_id) for job_id in wanted}
    pages = _fed(patience, origins.pop(), wanted, deadline, watch) if len(origins) == 1 else None
    for page in pages or _polled(patience, wanted, deadline, watch):
        fresh = {outcome.id: outcome for outcome in page if outcome.id in wanted}
        wanted.difference_update(fresh)
        yield from fresh.values()


def _fed(
    patience: Patience, origin: str, wanted: set[str], deadline: Deadline, watch: Watch
) -> Iterator[list[Outcome]]:
    cursor, seconds = 0, 0.0
    while wanted:
        page = patience.feed(c.Feed(origin, cursor, PAGE, seconds))
        yield page.outcomes
        if not page.outcomes and wanted:
            yield _looked_up(patience, random.sample(sorted(wanted), min(PAGE, len(wanted))))
        # A page may be short because its outcomes are large: only an empty page is the end.
        if not page.outcomes and wanted and deadline.passed:
            raise watch.late(wanted, deadline)
        if not page.outcomes and wanted and seconds:
            watch.idle(wanted)
        cursor, seconds = page.cursor, watch.seconds(deadline)


def _polled(
    patience: Patience, wanted: set[str], deadline: Deadline, watch: Watch
) -> Iterator[list[Outcome]]:
    while wanted:
        yield _looked_up(patience, sorted(wanted))
        if wanted and deadline.passed:
            raise watch.late(wanted, deadline)
        before = len(wanted)
        yield patience.wait(sorted(wanted)[:PAGE], deadline.slice(ROUND_SECONDS))
        if len(wanted) == before:
            watch.idle(wanted)


def _looked_up(patience: Patience, ids: list[str]) -> list[Outcome]:
    """Return the current outcomes; this also finds jobs that are unknown or no longer kept."""
    found: list[Outcome] = []
    for first in range(0, len(ids), PAGE):
        found += patience.wait(ids[first : first + PAGE], 0.0)
    return sorted(found, key=lambda outcome: outcome.finished_at)


def _origin_of(job_id: str) -> str:
    try:
        return parse_job_id(job_id)[0]
    except ValueError as error:
        raise UnknownJob(str(error)) from None
