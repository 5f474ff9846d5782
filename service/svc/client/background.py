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

from svc.client.pipeline import FRAME_JOBS, PendingJob, Submit, SubmitPipeline, new_origin
from svc.domain.job import job_id
from svc.envelope import PickleKeys

#: Seconds that a job waits for others, if several jobs were sent together just before.
FLUSH_SECONDS = 0.001
#: Seconds that the exit of the program waits for jobs to be sent, for all executors together.
EXIT_SECONDS = 30.0
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
        answered: Callable[[list[PendingJob]], object],
        ended: Callable[[], None],
    ) -> None:
        """Start without a thread.

        Args:
            submit: sends chunks, as in `SubmitPipeline`.
            pickle_keys: the keys that sign pickles, as there.
            named: called with each new job, before it can be sent.
            answered: called in the thread with the jobs of each frame, once all are answered.
            ended: called once the pipeline is closed and the thread, if there is one, at its end.
        """
        self._named = named
        self._tell_answered = answered
        self._tell_ended = ended
        self._closed = False
        super().__init__(submit, pickle_keys)
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
        self._refusals, self._last_refusal = 0, ""
        self._thread: threading.Thread | None = None

    def put(self, job: PendingJob) -> None:
        """Give *job* its id and send it soon; block while the pipeline is full.

        Raises:
            RuntimeError: the pipeline is closed.
        """
        with self.lock:
            while self.is_full() and not self._closed and not self.is_own_thread():
                self._room.wait()
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
        count = 0
        while count := self._send_frame(linger=count > 1):
            pass
        self._tell_ended()

    def _send_frame(self, linger: bool) -> int:
        """Send one frame, once there are jobs; return the number of its jobs, 0 at the end.

        While the thread waits for the next frame, it must hold nothing of this one: that would keep futures
        and results alive.
        """
        jobs = self._next_frame(linger)
        if jobs:
            # Any error is that of the jobs, and the thread has to go on.
            with contextlib.suppress(BaseException):
                self.send(jobs)
            refused = [job.error.message for job in jobs if job.error is not None]
            self._tell_answered(jobs)
            with self.lock:
                self._answered = self._taken
                self._refusals += len(refused)
                self._last_refusal = refused[-1] if refused else self._last_refusal
                self._room.notify_all()
        return len(jobs)

    def _next_frame(self, linger: bool) -> list[PendingJob]:
        with self.lock:
            while not self._waiting and not self._closed:
                self._work.wait()
            if linger and 0 < len(self._waiting) < FRAME_JOBS and not self._closed:
                self._work.wait(FLUSH_SECONDS)
            jobs = self.take()
            if jobs:
                self._taken = jobs[-1].number + 1
            self._room.notify_all()
            return jobs


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
