"""Ends the futures of an executor as the outcomes of their jobs come.

Its thread is a daemon. It starts with the first future, and ends once the executor is closed and no future
waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from svc.broker.forks import begin_anew_in_children
from svc.chance import CHANCE
from svc.client.background import AFTER_SHUTDOWN
from svc.client.feed_pages import FeedPages
from svc.client.futures import Future
from svc.client.pending import PendingJob, copy_of
from svc.client.session import PAGE, ROUND_SECONDS, SLICE_SECONDS, Deadline, Session
from svc.domain.job import Outcome
from svc.domain.lifecycle import JobState
from svc.errors import UnknownJob

#: Seconds that one request for outcomes waits: other work may be noticed so much later.
LOOK_SECONDS = 1.0


class Collector:
    """The futures that wait for an outcome, by job id. Many threads can use it safely."""

    def __init__(self, session: Session, origin: Callable[[], str], ended: Callable[[], None]) -> None:
        """Start without futures.

        Args:
            session: asks for outcomes.
            origin: returns the origin of the executor's own jobs.
            ended: called once the collector is closed and the thread, if there is one, at its end.
        """
        self._session = session
        self._origin = origin
        self._tell_ended = ended
        self._closed = False
        self._futures: dict[str, Future] = {}
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Start without futures; in a forked child, those of the parent fail."""
        left = self._futures
        self._lock = threading.RLock()
        self._expected = threading.Condition(self._lock)  # there are outcomes to collect, or the end has come
        self._futures = {}
        #: The ids of jobs of another origin than the executor's; their outcomes are asked for one by one.
        self._foreign: set[str] = set()
        #: Outcomes of jobs that are not acknowledged yet, by their ids.
        self._early: dict[str, Outcome] = {}
        self._thread: threading.Thread | None = None
        for future in left.values():
            future.leave_to_parent()

    def expect(self, future: Future) -> None:
        """Let *future* wait for the outcome of the executor's own job, which is still to be sent."""
        with self._lock:
            future.is_own = True
            self._futures[future.job_id] = future
            self._collect_more()

    def watch(self, future: Future) -> Future:
        """Let *future* wait for a job that may be another client's; return the one that does already.

        Raises:
            RuntimeError: the executor was shut down.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError(AFTER_SHUTDOWN)
            future = self._futures.setdefault(future.job_id, future)
            self._foreign.add(future.job_id)
            self._collect_more()
            return future

    def get(self, name: str) -> Future | None:
        """Return the future of a job, or None if it does not wait."""
        with self._lock:
            return self._futures.get(name)

    def own(self) -> list[Future]:
        """Return the waiting futures of the executor's own jobs."""
        with self._lock:
            return [future for future in self._futures.values() if future.is_own]

    def pop(self, name: str) -> Future | None:
        """Remove and return the future of a job, or None; no other caller gets it after that."""
        with self._lock:
            self._foreign.discard(name)
            future = self._futures.pop(name, None)
            if not self._futures:
                self._expected.notify_all()
            return future

    def acknowledge(self, jobs: Sequence[PendingJob]) -> None:
        """Take the answers to the submit of *jobs*, whose owners are futures."""
        early: list[Outcome] = []
        with self._lock:
            for job in jobs:
                if job.owner.job_id != job.id and job.error is None:
                    self._move(job.owner, job.id)
                job.owner.sent = job.error is None
                outcome = self._early.pop(job.owner.job_id, None)
                if outcome is not None:
                    early.append(outcome)
        for job in jobs:
            if job.error is not None and self.pop(job.owner.job_id):
                job.owner.fail(job.error)
        self._end(early)

    def close(self) -> None:
        """Let the thread end when no future waits."""
        with self._lock:
            is_first, self._closed = not self._closed, True
            self._expected.notify_all()
            if is_first and self._thread is None:
                self._tell_ended()

    def join(self) -> None:
        """Wait until the thread has ended; a call from it does not wait for itself."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _move(self, future: Future, name: str) -> None:
        """Give a waiting future the id under which its job was accepted; the lock is held."""
        # An early outcome with the id so far is that of another job.
        self._early.pop(future.job_id, None)
        if self.pop(future.job_id) is not None:
            future.job_id = name
            self._futures[name] = future
            self._foreign.add(name)

    def _collect_more(self) -> None:
        """Make sure that the thread collects outcomes; the lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="svc-executor-collect", daemon=True)
            self._thread.start()
        elif len(self._futures) == 1:
            self._expected.notify()

    def _run(self) -> None:
        pages, checked = FeedPages(self._session), time.monotonic()
        while self._wait_expected():
            try:
                self._collect(pages)
                if time.monotonic() - checked > SLICE_SECONDS:
                    # The outcome of a job that was missed so far may not be kept any more.
                    sent = self._sent_names()
                    self._look_up(CHANCE.sample(sent, min(PAGE, len(sent))))
                    checked = time.monotonic()
            except BaseException as error:  # noqa: BLE001  # for any error, futures must end and the thread go on
                self._fail_sent(error)
        self._tell_ended()

    def _wait_expected(self) -> bool:
        """Wait until a future waits for an outcome; return False at the end."""
        with self._lock:
            while not self._futures and not self._closed:
                self._expected.wait()
            return bool(self._futures)

    def _collect(self, pages: FeedPages) -> None:
        foreign = list(self._foreign)
        seconds = ROUND_SECONDS if foreign else LOOK_SECONDS
        self._end(pages.next(self._origin(), seconds, Deadline(None)).unfolded().outcomes)
        self._look_up(foreign)

    def _end(self, outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            ended = [(outcome, self._ended(outcome)) for outcome in reversed(outcomes)]
        while ended:
            # No local name may keep a future or its result alive until the next outcome.
            _end(*ended.pop(), self._session)

    def _ended(self, outcome: Outcome) -> Future | None:
        """Remove and return the future that *outcome* ends, or None; the lock is held.

        Until a job is acknowledged, its number may belong to another job, and the outcome to that one.
        """
        future = self._futures.get(outcome.id)
        if future is not None and not future.sent:
            self._early[outcome.id] = outcome
            return None
        return self.pop(outcome.id)

    def _look_up(self, names: Sequence[str]) -> None:
        """End the futures of those jobs that have ended, or that are no longer known."""
        for first in range(0, len(names), PAGE):
            page = names[first : first + PAGE]
            found = self._session.wait(lambda broker: broker.get(page), Deadline(None))  # noqa: B023  # called at once
            views = {view.id: view for view in found}
            ended = [name for name, view in views.items() if JobState[view.state.upper()].finished]
            self._end(self._session.outcomes(ended, Deadline(0.0)))
            for name in page:
                if name not in views and (future := self.pop(name)):
                    future.fail(UnknownJob(f"there is no job {name}, or its retention time has passed"))

    def _fail_sent(self, error: BaseException) -> None:
        """Fail the futures of sent jobs: the manager was away for longer than the session's patience."""
        for name in self._sent_names():
            future = self.pop(name)
            if future is not None:
                future.fail(copy_of(error))
        # Unsent jobs fail by themselves, if they do. There is no need to ask all the time until then.
        with self._lock:
            self._expected.wait(ROUND_SECONDS)

    def _sent_names(self) -> list[str]:
        with self._lock:
            return [future.job_id for future in self._futures.values() if future.sent]


def _end(outcome: Outcome, future: Future | None, session: Session) -> None:
    if future is not None:
        future.end_as(outcome, session.reader, session.values.fetch)
