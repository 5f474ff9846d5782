"""A submit pipeline whose own thread sends: whoever adds a job has its id at once and waits for no answer.

The thread is a daemon. It starts with the first job and ends once the pipeline is closed and empty. At its
exit the interpreter would end the thread and lose its jobs. So exit waits for them, for a limited time. It
starts no thread, because CPython forbids that from 3.12 on.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from svc.client.frames import FRAME_BYTES, FRAME_JOBS, FramesInFlight, SentFrame, size_in_flight
from svc.client.pending import LargeSender, PendingJob, new_origin
from svc.client.pipeline import Post, Submit, SubmitPipeline
from svc.domain.job import job_id
from svc.envelope import PickleKeys

#: Seconds that a job waits for others, if several jobs were sent together just before.
FLUSH_SECONDS = 0.001
#: Seconds that the exit of the program waits for jobs to be sent, for all executors together.
EXIT_SECONDS = 30.0
#: Jobs with large arguments that wait: each holds its values until they are stored.
LARGE_JOBS_MAX = 2
#: Seconds after which a line on stderr explains the wait, and between two such lines.
PROGRESS_SECONDS = 1.0
#: The message of the RuntimeError for calls after the end, as in the standard library.
AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"


class BackgroundPipeline(SubmitPipeline):
    """Sends jobs from a thread of its own. Many threads can use it safely.

    Attributes:
        own_origin: the origin of the ids; a job has another one only if its numbers belong to other jobs.
    """

    def __init__(
        self,
        submit: Submit,
        pickle_keys: PickleKeys | None,
        *,
        named: Callable[[PendingJob], None],
        answered: Callable[[Sequence[PendingJob]], object],
        ended: Callable[[], None],
        values: LargeSender | None = None,
        post: Post | None = None,
    ) -> None:
        """Start without a thread.

        Args:
            submit: sends chunks, as in `SubmitPipeline`.
            pickle_keys: the keys that sign pickles, as there.
            named: called with each new job, before it can be sent.
            answered: called in the thread with the jobs of each frame, once all are answered.
            ended: called once the pipeline is closed and the thread, if there is one, at its end.
            values: sends large arguments, as in `SubmitPipeline`.
            post: sends chunks without a wait, as there.
        """
        self._named = named
        self._tell_answered = answered
        self._tell_ended = ended
        self._closed = False
        super().__init__(submit, pickle_keys, values, post)
        AT_EXIT.add(self)

    def begin_anew(self) -> None:
        """See `SubmitPipeline.begin_anew`."""
        super().begin_anew()
        self.own_origin = new_origin()
        # Each number is taken by a single call, which no signal handler can interrupt.
        self._numbers = itertools.count()
        self._work = threading.Condition(self.lock)  # there are jobs to send, or the end has come
        self._room = threading.Condition(self.lock)  # jobs were taken or answered, or the end has come
        self._taken = 0  # all jobs with lower numbers are sent or on their way
        self._answered = 0  # all jobs with lower numbers are answered
        self._large = 0  # jobs with large arguments that are not answered
        self._refusals, self._last_refusal = 0, ""
        self._in_flight = FramesInFlight()
        self._lingers = False  # several jobs were sent together just before
        self._thread: threading.Thread | None = None

    def put(self, job: PendingJob) -> None:
        """Give *job* its id and send it soon; block while the pipeline is full.

        Raises:
            RuntimeError: the pipeline is closed.
        """
        with self.lock:
            while self._has_no_room(job) and not self._closed and not self.is_own_thread():
                self._room.wait()
            self._large += job.store is not None
            if self._closed:
                raise RuntimeError(AFTER_SHUTDOWN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="svc-executor-submit", daemon=True)
                self._thread.start()
                AT_EXIT.add(self)
            job.origin, job.number = self.own_origin, next(self._numbers)
            job.id = job_id(job.origin, job.number)
            self._named(job)
            self.add(job)
            if len(self._waiting) in (1, FRAME_JOBS):
                self._work.notify()

    def _has_no_room(self, job: PendingJob) -> bool:
        return self.is_full() or (job.store is not None and self._large >= LARGE_JOBS_MAX)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all jobs so far are answered; return False after *timeout* seconds."""
        with self.lock:
            added = self._added()
            return self._room.wait_for(lambda: self._answered >= added, timeout)

    def unsent(self) -> int:
        """Return the number of jobs without an answer."""
        with self.lock:
            return self._added() - self._answered

    def refusals(self) -> tuple[int, str]:
        """Return the number of jobs refused so far, and the reason for the last one."""
        with self.lock:
            return self._refusals, self._last_refusal

    def close(self) -> None:
        """Accept no more jobs; the thread ends when no job is left."""
        with self.lock:
            is_first, self._closed = not self._closed, True
            self._work.notify_all()
            self._room.notify_all()
            if is_first and self._thread is None:
                self._tell_ended()

    def join(self) -> None:
        """Wait until the thread has ended; a call from it does not wait for itself."""
        if self._thread is not None and not self.is_own_thread():
            self._thread.join()

    def is_own_thread(self) -> bool:
        """Return whether the caller is the thread that sends, which cannot wait for an answer."""
        return threading.current_thread() is self._thread

    def _added(self) -> int:
        return self._waiting[-1].number + 1 if self._waiting else self._taken

    def _run(self) -> None:
        while self._go_on():
            pass
        self._tell_ended()

    def _go_on(self) -> bool:
        """Send a frame if that may be, or else wait for the answer to the oldest; return False at the end.

        While the thread waits for jobs, it must hold none that is answered: that would keep futures and
        results alive.
        """
        jobs = self._next_frame()
        if jobs:
            self._lingers = len(jobs) > 1
            size, sent = size_in_flight(jobs), SentFrame(jobs)
            # Any error is that of the jobs, and the thread has to go on.
            with contextlib.suppress(BaseException):
                sent = self.begin(jobs)
            sent.stop = self._taken
            self._in_flight.add(sent, size)
        elif self._in_flight:
            self._finish_oldest()
        else:
            return False
        return True

    def _finish_oldest(self) -> None:
        sent = self._in_flight.pop()
        with contextlib.suppress(BaseException):
            self.finish(sent)
        jobs = sent.jobs
        refused = [job.error.message for job in jobs if job.error is not None]
        self._tell_answered(jobs)
        with self.lock:
            self._answered = sent.stop
            if self._large:
                self._large -= sum(job.store is not None for job in jobs)
            self._refusals += len(refused)
            self._last_refusal = refused[-1] if refused else self._last_refusal
            self._room.notify_all()

    def _next_frame(self) -> Sequence[PendingJob]:
        """Return the jobs to send now, none if an answer comes first, or at the end.

        Behind a frame without an answer goes only a full one: with fewer jobs in each, the manager would have
        more to do.
        """
        with self.lock:
            while not (self._waiting or self._closed or self._in_flight):
                self._work.wait()
            if self._in_flight:
                size = min(self._waiting_bytes, FRAME_BYTES)
                if not (self._fills_frame() and self._in_flight.has_room(size)):
                    return ()
            elif self._lingers and not (self._fills_frame() or self._closed):
                self._work.wait(FLUSH_SECONDS)
            jobs = self.take()
            if jobs:
                self._taken = jobs[-1].number + 1
            self._room.notify_all()
            return jobs

    def _fills_frame(self) -> bool:
        return len(self._waiting) >= FRAME_JOBS or self._waiting_bytes >= FRAME_BYTES


class _Exit:
    """All pipelines of this process that may hold a job when it ends.

    Attributes:
        flushed: whether that was done; handlers of `atexit` that were registered earlier still run.
    """

    def __init__(self) -> None:
        self._pipelines: weakref.WeakSet[BackgroundPipeline] = weakref.WeakSet()
        self._is_hooked = False
        self._end = 0.0
        self.flushed = False

    def add(self, pipeline: BackgroundPipeline) -> None:
        """Have *pipeline* flushed at exit. Called when it is made, and by its first job in each process."""
        if not self._is_hooked:
            atexit.register(self._flush)
            self._is_hooked = True
        self._pipelines.add(pipeline)
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            # A child of multiprocessing ends without atexit.
            util.Finalize(None, self._flush, exitpriority=100)

    def check(self) -> None:
        """See that a job can still be sent.

        Raises:
            RuntimeError: the interpreter has stopped the threads that would send it.
        """
        if sys.is_finalizing():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def send(self, pipelines: Sequence[BackgroundPipeline]) -> None:
        """Have the jobs of *pipelines* sent now, and report those that will not run: no caller is left."""
        refused = [pipeline.refusals()[0] for pipeline in pipelines]
        for pipeline in pipelines:
            while not pipeline.flush(max(0.0, min(PROGRESS_SECONDS, self._end - time.monotonic()))):
                if time.monotonic() >= self._end:
                    break
                _say(f"sending {_jobs(pipeline.unsent())} before this program ends")
        for pipeline, before in zip(pipelines, refused, strict=True):
            count, reason = pipeline.refusals()
            if count > before:
                _say(f"{_jobs(count - before)} not accepted: {reason}")
            if left := pipeline.unsent():
                _say(f"{_jobs(left)} not sent: the manager did not answer within {EXIT_SECONDS:g} s")

    def _flush(self) -> None:
        self._end = time.monotonic() + EXIT_SECONDS
        self.send([pipeline for pipeline in self._pipelines if pipeline.unsent()])
        self.flushed = True


#: Has the waiting jobs of all executors sent before this process ends.
AT_EXIT = _Exit()


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"svc: {text}\n")
