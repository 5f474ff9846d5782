"""Follows jobs until they end, and tells why they have not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, TypeVar

from svc.broker.base import Broker
from svc.chance import CHANCE
from svc.client.feed_pages import FeedPages
from svc.client.session import PAGE, ROUND_SECONDS, SLICE_SECONDS, Deadline, Session
from svc.domain import commands as c
from svc.domain.job import IDLE, PASSING, SHELL, Outcome, parse_job_id
from svc.domain.job_view import JobView
from svc.domain.lifecycle import JobState
from svc.domain.names import did_you_mean
from svc.domain.replies import Outcomes, WorkerView
from svc.errors import Forbidden, ResultTimeout, ServiceError, UnknownJob

#: Seconds without an outcome after which an observer is told so for the first time.
IDLE_SECONDS = 0.2
#: Seconds for which one asks why a job has not ended.
REASON_SECONDS = 2.0

#: Jobs of which one question asks.
SAMPLE = 100
#: Seconds in which outcomes gather while many jobs are awaited, so that not each takes a request.
GATHER_SECONDS = 0.1
#: Called with the jobs that have not ended.
Idle = Callable[[Collection[str]], None]

T = TypeVar("T")


class Reason(NamedTuple):
    """Why a job has not ended.

    Attributes:
        text: the rest of a sentence that begins with the job, for instance `waits: no worker is connected`.
        blocked: whether the job goes on only if somebody does something about it.
    """

    text: str
    blocked: bool


def reasons(session: Session, ids: Collection[str]) -> dict[str, Reason]:
    """Return why jobs have not ended, of the first 100 of *ids*.

    It is empty if the key may not look at jobs, or the manager does not answer.
    """
    if not session.may_look:
        return {}
    try:
        return session.wait(lambda broker: _reasons_of(broker, ids), Deadline(REASON_SECONDS))
    except Forbidden:
        session.may_look = False
    except ServiceError:
        pass
    return {}


def late(session: Session, ids: Collection[str], deadline: Deadline, subject: str = "") -> ResultTimeout:
    """Return the error for jobs that have not ended by the deadline: which ones, and why one has not."""
    left = sorted(ids)
    found = reasons(session, left)
    job, reason = min(found.items(), key=lambda item: not item[1].blocked, default=(left[0], None))
    which = subject or ("1 job has" if len(left) == 1 else f"{len(left)} jobs have")
    text = f"{which} not ended within {deadline.timeout:g} s and will go on"
    if reason is None:
        return ResultTimeout(text, job_ids=left)
    who = "it" if subject else f"job {job}"
    first = [job, *(each for each in left if each != job)]
    return ResultTimeout(f"{text}: {who} {reason.text}", job_ids=first, reason=reason.text)


def follow(
    session: Session, ids: Iterable[str], timeout: float | None, idle: Idle | None = None
) -> Iterator[Outcome]:
    """Return the outcomes of the jobs as they end, each once, within *timeout* seconds.

    The jobs of one submission are followed as they end; a mixture is checked four times a second, by one
    request for each submission or for 1,000 jobs. While none ends, *idle* is called now and then with the ids
    of those that have not.

    Raises:
        ResultTimeout: raised by the iterator if the time is up first.
        UnknownJob: raised by the iterator if a job is not known, or its retention has passed.
    """
    return _Following(session, [*ids], Deadline(timeout), idle).outcomes()


def follow_results(
    session: Session, ids: Collection[str], timeout: float | None
) -> Iterator[dict[str, bytes | Outcome]]:
    """Return the ends of jobs as `follow` does, page by page: the encoded result of each job by its id.

    A job that has not succeeded has its outcome there, and so may another one.
    """
    return _Following(session, ids, Deadline(timeout), None).results()


def _reasons_of(broker: Broker, ids: Collection[str]) -> dict[str, Reason]:
    """Return why jobs have not ended, of the first `SAMPLE` of *ids*; those that have are left out."""
    views = broker.get(list(islice(ids, SAMPLE)))
    blocked = any(view.state == JobState.READY.word and view.reason not in PASSING for view in views)
    roster = broker.members() if blocked else []
    return {view.id: _reason(view, roster) for view in views if not JobState[view.state.upper()].finished}


def _reason(view: JobView, roster: list[WorkerView]) -> Reason:
    if view.state == JobState.LEASED.word:
        return Reason(f"is with the consumer {view.consumer}", blocked=False)
    if view.state == JobState.SCHEDULED.word or view.reason == IDLE:
        return Reason(view.reason + _last_error(view), blocked=False)
    if view.reason in PASSING:
        return Reason(f"waits: {view.reason}", blocked=False)
    return Reason(f"waits: {view.reason}{_nearest(view, roster)}", blocked=True)


def _last_error(view: JobView) -> str:
    said = view.attempts[-1].said if view.attempts else ""
    return f" ({said})" if said else ""


def _nearest(view: JobView, roster: list[WorkerView]) -> str:
    """Return the end of a sentence that names what the job's queue or task may have been meant to be."""
    queues = {queue for worker in roster for queue in worker.queues}
    if view.queue not in queues:
        return did_you_mean(view.queue, queues)
    tasks = {task for worker in roster if view.queue in worker.queues for task in worker.tasks}
    return "" if view.task in tasks or view.task == SHELL else did_you_mean(view.task, tasks)


class _Following:
    """A wait for the outcomes of jobs, one after the other."""

    def __init__(self, session: Session, ids: Collection[str], deadline: Deadline, idle: Idle | None) -> None:
        self._session = session
        self._wanted = set(ids)
        #: The origins of the jobs, with one job each; to read a set in its order would take far longer.
        self._origins = {job_id.rpartition("-")[0]: job_id for job_id in ids}
        self._deadline = deadline
        self._idle = idle
        self._pause = IDLE_SECONDS

    def outcomes(self) -> Iterator[Outcome]:
        for page in self._pages():
            yield from self._fresh({outcome.id: outcome for outcome in page.unfolded().outcomes}).values()

    def results(self) -> Iterator[dict[str, bytes | Outcome]]:
        for page in self._pages():
            yield self._fresh(page.results())

    def _fresh(self, found: dict[str, T]) -> dict[str, T]:
        """Return those of *found* that are wanted, and want them no more."""
        if not self._wanted.issuperset(found):
            found = {job: told for job, told in found.items() if job in self._wanted}
        self._wanted.difference_update(found)
        return found

    def _pages(self) -> Iterator[Outcomes]:
        """Return pages of outcomes, among them those that are wanted, in the way that takes least."""
        origins = _checked(self._origins)
        if len(origins) == 1:
            return self._fed(origins.pop())
        return self._fed_in_turns(origins) if len(self._wanted) > PAGE * len(origins) else self._polled()

    def _fed_in_turns(self, origins: Collection[str]) -> Iterator[Outcomes]:
        """Read the feeds of a few origins that have very many jobs."""
        cursors = dict.fromkeys(origins, 0)
        while self._wanted:
            came = False
            for origin, cursor in cursors.items():
                feed = c.Feed(origin, cursor, PAGE, 0.0, folded=True)
                page = self._session.wait(lambda broker: broker.feed(feed), self._deadline)  # noqa: B023  # called at once
                cursors[origin] = page.cursor
                came = came or page.jobs > 0
                yield page
            if not came and self._wanted:
                some = CHANCE.sample(sorted(self._wanted), min(PAGE, len(self._wanted)))
                seconds = self._deadline.slice(ROUND_SECONDS)
                yield Outcomes(0, self._session.wait_page(some, seconds, self._deadline))
                self._check_time()
                self._tell_idle()

    def _fed(self, origin: str) -> Iterator[Outcomes]:
        pages, seconds = FeedPages(self._session), 0.0
        try:
            while self._wanted:
                page = pages.next(origin, seconds, self._deadline)
                yield page
                # A page may be short because its outcomes are large: only an empty page is the end.
                if not page.jobs and self._wanted:
                    yield self._looked_up(CHANCE.sample(sorted(self._wanted), min(PAGE, len(self._wanted))))
                    self._check_time()
                    if seconds:
                        self._tell_idle()
                elif len(self._wanted) > SAMPLE > page.jobs:
                    time.sleep(self._deadline.slice(GATHER_SECONDS))
                seconds = self._seconds()
        finally:
            pages.close()

    def _polled(self) -> Iterator[Outcomes]:
        while self._wanted:
            yield self._looked_up(sorted(self._wanted))
            self._check_time()
            before = len(self._wanted)
            seconds = self._deadline.slice(ROUND_SECONDS)
            some = sorted(self._wanted)[:PAGE]
            yield Outcomes(0, self._session.wait_page(some, seconds, self._deadline))
            if len(self._wanted) == before:
                self._tell_idle()

    def _check_time(self) -> None:
        if self._wanted and self._deadline.passed:
            raise late(self._session, self._wanted, self._deadline)

    def _tell_idle(self) -> None:
        if self._wanted and self._idle is not None:
            self._idle(self._wanted)

    def _seconds(self) -> float:
        """Return how long to wait in the next call: first short and then longer, if somebody looks on."""
        if self._idle is None:
            return self._deadline.slice()
        pause = self._pause
        self._pause = min(2 * pause, SLICE_SECONDS)
        return self._deadline.slice(pause)

    def _looked_up(self, ids: list[str]) -> Outcomes:
        """Return the current outcomes; this also finds jobs that are unknown or no longer kept."""
        found: list[Outcome] = []
        for first in range(0, len(ids), PAGE):
            found += self._session.wait_page(ids[first : first + PAGE], 0.0, self._deadline)
        return Outcomes(0, sorted(found, key=lambda outcome: outcome.finished_at))


def _checked(origins: Mapping[str, str]) -> set[str]:
    """Return *origins*; of each, one id is parsed, as the manager parses all.

    Raises:
        UnknownJob: an id is malformed.
    """
    try:
        return {parse_job_id(job_id)[0] for job_id in origins.values()}
    except ValueError as error:
        raise UnknownJob(str(error)) from None
