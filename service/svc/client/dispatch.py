"""The two threads behind an Executor: one submits the collected jobs, the other collects outcomes.

Both are daemons. They start with the first job, and end once the executor is shut down or gone and the last
future has ended. They hold no reference to the executor. `client.at_exit` flushes it at interpreter exit.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from bisect import insort
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from svc.broker.forks import begin_anew_in_children
from svc.client.at_exit import AT_EXIT
from svc.client.awaited import Awaited
from svc.client.futures import Future, copied, end, unforeseen
from svc.client.outcomes import PAGE, ROUND_SECONDS, SLICE_SECONDS
from svc.client.specs import FRAME_BYTES, FRAME_JOBS, Encoded, new_origin
from svc.client.unsent import Unsent, next_frame, number_of, runs
from svc.domain import commands as c
from svc.domain.job import NewChunk, Outcome, job_id
from svc.domain.lifecycle import JobState
from svc.errors import JobTooLarge, ServiceError, UnknownJob, error_for

if TYPE_CHECKING:
    from svc.client.session import Session

#: Seconds that a job waits for others, if several jobs were submitted together just before.
FLUSH_SECONDS = 0.001
#: Jobs, and bytes of arguments, that may wait to be submitted; beyond that `submit` blocks.
UNSENT_JOBS_MAX = 10 * FRAME_JOBS
UNSENT_BYTES_MAX = 4 * FRAME_BYTES
#: Seconds that one request for outcomes waits: other work may be noticed so much later.
LOOK_SECONDS = 1.0

_AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"


class Dispatch:
    """Jobs that are being submitted, and futures that wait for an outcome. Many threads can use it safely."""

    def __init__(self, session: Session) -> None:
        """Use *session*, and close it at the end."""
        self.session = session
        self._futures = Awaited()
        self._closed = False
        self.begin_anew()
        begin_anew_in_children(self)
        AT_EXIT.add(self)

    def begin_anew(self) -> None:
        """Start without jobs. After a fork, the parent sends earlier jobs and keeps their futures.

        The lock is reentrant, because a signal handler may submit a job while its own thread holds it.
        """
        self.origin = new_origin()
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # there are jobs to submit, or the end has come
        self._room = threading.Condition(self._lock)  # jobs were acknowledged or refused
        self._expected = threading.Condition(self._lock)  # there are outcomes to collect, or the end has come
        self._unsent: list[Unsent] = []
        self._unsent_bytes = 0
        # Each number is taken by a single call, which no signal handler can interrupt.
        self._numbers = itertools.count()
        self._next = 0
        self._answered = 0  # all jobs with lower numbers were acknowledged or refused
        self._refusals, self._last_refusal = 0, ""
        left, self._futures = self._futures, Awaited()
        self._threads = 0
        self._sender: threading.Thread | None = None
        self._collector: threading.Thread | None = None
        for future in left:
            future.leave_to_parent()

    # --- requests of the executor -------------------------------------------------------------------

    def submit(self, job: Encoded, strict: bool) -> Future:
        """Return the future of *job*, which is sent soon; block while too many jobs wait to be sent.

        Raises:
            RuntimeError: the executor was shut down.
        """
        with self._lock:
            while self._is_full() and not self._closed and threading.current_thread() is not self._sender:
                self._room.wait()
            if self._closed:
                raise RuntimeError(_AFTER_SHUTDOWN)
            if self._sender is None:
                self._sender = self._started("svc-executor-submit", self._send_all)
                AT_EXIT.add(self)
            number = next(self._numbers)
            self._next = max(self._next, number + 1)
            future = Future(job_id(self.origin, number), self.cancel, self.session.is_leased)
            self._expect(future)
            insort(self._unsent, Unsent(number, job, strict, future), key=number_of)
            self._unsent_bytes += len(job.body)
            if len(self._unsent) in (1, FRAME_JOBS):
                self._work.notify()
        return future

    def failed(self, error: ServiceError) -> Future:
        """Return a future that has failed and has no job."""
        future = Future("", self.cancel, self.session.is_leased)
        future.fail(error)
        return future

    def watch(self, name: str) -> Future:
        """Return the future of a job that may be another client's.

        Raises:
            RuntimeError: the executor was shut down.
            UnknownJob: there is no such job.
        """
        with self._lock:
            known = self._futures.get(name)
        if known is not None:
            return known
        ended = self.session.outcomes([name], 0.0)
        future = Future(name, self.cancel, self.session.is_leased)
        future.sent = True
        if ended:
            future.end_as(ended[0], self.session.reader)
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError(_AFTER_SHUTDOWN)
            future = self._futures.watch(future)
            self._expected_more()
        return future

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all jobs so far are acknowledged or refused; return False after *timeout* seconds."""
        with self._lock:
            return self._wait_answered(self._next, timeout)

    def unsent(self) -> int:
        """Return the number of jobs that are neither acknowledged nor refused."""
        with self._lock:
            return self._next - self._answered

    def refusals(self) -> tuple[int, str]:
        """Return the number of jobs refused so far, and the reason for the last one."""
        with self._lock:
            return self._refusals, self._last_refusal

    def cancel(self, future: Future) -> bool:
        """Cancel a job at the manager; return whether it is cancelled."""
        try:
            if not self.cancel_all([future]):
                return future.cancelled()
        except ServiceError:
            return future.cancelled()
        if self._forget(future.job_id):
            future.end_cancelled()
        return True

    def cancel_all(self, futures: Collection[Future]) -> int:
        """Cancel the waiting jobs, once all are sent; return their number. Futures end a little later.

        Raises:
            BrokerError: the manager does not answer, or does not know one of them.
        """
        self._wait_sent(futures)
        names = [future.job_id for future in futures if not future.done()]
        pages = [names[first : first + PAGE] for first in range(0, len(names), PAGE)]
        return sum(self.session.cancel(page) for page in pages)

    def own_futures(self) -> list[Future]:
        """Return the futures of this executor's own jobs that have not ended."""
        with self._lock:
            return self._futures.own()

    def close(self) -> None:
        """Accept no more jobs; the threads end when no work is left."""
        with self._lock:
            self._closed = True
            for condition in (self._work, self._room, self._expected):
                condition.notify_all()
            unused = not self._threads
        if unused:
            self.session.close()

    def join(self) -> None:
        """Wait until the threads have ended; a call from one of them does not wait for itself."""
        for thread in (self._sender, self._collector):
            if thread not in (None, threading.current_thread()):
                thread.join()

    # --- submitting ---------------------------------------------------------------------------------

    def _send_all(self) -> None:
        count = 0
        while count := self._send_some(linger=count > 1):
            pass
        self._leave()

    def _send_some(self, linger: bool) -> int:
        """Submit one frame, once there are jobs; return the number of its jobs, 0 at the end.

        While the thread waits for the next frame, it must hold nothing of this one: that would keep futures
        and results alive.
        """
        taken = self._take(linger)
        for strict in (False, True):
            self._send(runs([unsent for unsent in taken if unsent.strict is strict]), strict)
        if taken:
            with self._lock:
                self._answered = taken[-1].number + 1
                self._room.notify_all()
                for unsent in taken:
                    unsent.future.sent = True
                early = self._futures.take_early()
            self._end(early)
        return len(taken)

    def _take(self, linger: bool) -> list[Unsent]:
        """Return the jobs of the next frame, once there are some; none at the end."""
        with self._lock:
            while not self._unsent and not self._closed:
                self._work.wait()
            if linger and 0 < len(self._unsent) < FRAME_JOBS and not self._closed:
                self._work.wait(FLUSH_SECONDS)
            count, size = next_frame(self._unsent)
            taken, self._unsent = self._unsent[:count], self._unsent[count:]
            self._unsent_bytes -= size
            self._room.notify_all()
            return taken

    def _send(self, chunks: list[list[Unsent]], strict: bool, origin: str = "") -> None:
        if not chunks:
            return
        name = origin or self.origin
        content = [self._chunk(name, chunk) for chunk in chunks]
        try:
            notes = self.session.ask(lambda broker: broker.submit(name, content, strict=strict))
        except ServiceError as error:
            self._refuse([unsent for chunk in chunks for unsent in chunk], error)
            return
        except BaseException as error:  # noqa: BLE001  # for any error, futures must end and the thread go on
            self._refuse([unsent for chunk in chunks for unsent in chunk], unforeseen(error))
            return
        apart: list[list[Unsent]] = []
        of_others: list[list[Unsent]] = []
        for note in notes:
            chunk = chunks[note.chunk]
            if note.code == JobTooLarge.code and len(chunk) > 1:
                # A job over the limit must not make the other jobs of its chunk fail.
                apart += [[unsent] for unsent in chunk]
            elif note.anew and not origin:
                of_others.append(chunk)
            elif note.code:
                self._refuse(chunk, error_for(note.code, note.message))
        self._send(apart, strict, origin)
        self._send_anew(of_others, strict)

    def _send_anew(self, chunks: list[list[Unsent]], strict: bool) -> None:
        """Submit jobs under a new origin: this process is a copy of another, which has used their numbers."""
        if not chunks:
            return
        origin = new_origin()
        self._send(chunks, strict, origin)
        with self._lock:
            for unsent in (unsent for chunk in chunks for unsent in chunk):
                self._futures.move(unsent.future, job_id(origin, unsent.number))

    def _chunk(self, origin: str, jobs: Sequence[Unsent]) -> NewChunk:
        first = jobs[0]
        bodies = self.session.sealed(origin, first.number, first.job, [each.job.body for each in jobs])
        return NewChunk(first.number, first.job.terms, bodies, first.job.delay)

    def _refuse(self, jobs: Sequence[Unsent], error: ServiceError) -> None:
        with self._lock:
            self._refusals += len(jobs)
            self._last_refusal = error.message
        for unsent in jobs:
            if self._forget(unsent.future.job_id):
                unsent.future.fail(copied(error))

    def _is_full(self) -> bool:
        return len(self._unsent) >= UNSENT_JOBS_MAX or self._unsent_bytes >= UNSENT_BYTES_MAX

    def _wait_sent(self, futures: Collection[Future]) -> None:
        last = max((each.number_in(self.origin) for each in futures if not each.done()), default=-1)
        # A callback runs in the thread that would have to send, so it cannot wait for that.
        if threading.current_thread() is not self._sender:
            with self._lock:
                self._wait_answered(last + 1, None)

    def _wait_answered(self, number: int, timeout: float | None) -> bool:
        return self._room.wait_for(lambda: self._answered >= number, timeout)

    # --- collecting ---------------------------------------------------------------------------------

    def _expect(self, future: Future) -> None:
        """Add *future* to those that wait; the lock is held."""
        self._futures.add(future)
        self._expected_more()

    def _expected_more(self) -> None:
        """Make sure that a thread collects outcomes; the lock is held."""
        if self._collector is None:
            self._collector = self._started("svc-executor-collect", self._collect_all)
        elif len(self._futures) == 1:
            self._expected.notify()

    def _forget(self, name: str) -> Future | None:
        """Remove and return the future of a job, or None; no other caller gets it after that."""
        with self._lock:
            future = self._futures.pop(name)
            if not self._futures:
                self._expected.notify_all()
            return future

    def _collect_all(self) -> None:
        cursor, checked = 0, time.monotonic()
        while self._wait_expected():
            try:
                cursor = self._collect(cursor)
                if time.monotonic() - checked > SLICE_SECONDS:
                    self._check()
                    checked = time.monotonic()
            except ServiceError as error:
                self._fail_sent(error)
            except BaseException as error:  # noqa: BLE001  # as in _send
                self._fail_sent(unforeseen(error))
        self._leave()

    def _wait_expected(self) -> bool:
        """Wait until a future waits for an outcome; return False at the end."""
        with self._lock:
            while not self._futures and not self._closed:
                self._expected.wait()
            return bool(self._futures)

    def _collect(self, cursor: int) -> int:
        foreign = self._futures.foreign
        seconds = ROUND_SECONDS if foreign else LOOK_SECONDS
        page = self.session.wait(lambda broker: broker.feed(c.Feed(self.origin, cursor, PAGE, seconds)))
        self._end(page.outcomes)
        if foreign:
            self._look_up(list(foreign))
        return page.cursor

    def _end(self, outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            ended = [(outcome, self._futures.take(outcome)) for outcome in reversed(outcomes)]
        while ended:
            # No local name may keep a future or its result alive until the next outcome.
            end(*ended.pop(), self.session.reader)

    def _look_up(self, names: Sequence[str]) -> None:
        """End the futures of those jobs that have ended, or that are no longer known."""
        for first in range(0, len(names), PAGE):
            page = names[first : first + PAGE]
            views = {view.id: view for view in self.session.ask(lambda broker: broker.get(page))}  # noqa: B023  # called at once
            ended = [name for name, view in views.items() if JobState[view.state.upper()].finished]
            self._end(self.session.outcomes(ended, 0.0))
            for name in page:
                if name not in views and (future := self._forget(name)):
                    future.fail(UnknownJob(f"there is no job {name}, or its retention time has passed"))

    def _check(self) -> None:
        """Check some of the jobs whose outcome has not come: it may not be kept any more."""
        sent = self._sent_names()
        self._look_up(random.sample(sent, min(PAGE, len(sent))))

    def _fail_sent(self, error: ServiceError) -> None:
        """Fail the futures of sent jobs: the manager was away for longer than the session's patience."""
        for name in self._sent_names():
            future = self._forget(name)
            if future is not None:
                future.fail(copied(error))
        # Unsent jobs fail by themselves, if they do. There is no need to ask all the time until then.
        with self._lock:
            self._expected.wait(ROUND_SECONDS)

    def _sent_names(self) -> list[str]:
        with self._lock:
            return [future.job_id for future in self._futures if future.sent]

    def _leave(self) -> None:
        """End a thread; the last one closes the connections, which the other thread may need until then."""
        with self._lock:
            self._threads -= 1
            last = not self._threads
        if last:
            self.session.close()

    def _started(self, name: str, run: Callable[[], None]) -> threading.Thread:
        """Return a thread that runs; the lock is held."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._threads += 1
        return thread
