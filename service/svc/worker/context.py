"""The job that runs here, as its task sees it: `current_job()`.

A task finds its job by a context variable, which coroutines and generators inherit. A thread does not
inherit it before Python 3.14; there the job is the only one that runs in this process, if it is the only one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from svc import codec
from svc.domain.commands import Checkpoint, JobProgress
from svc.domain.field_bounds import AMOUNT_MAX, CHECKPOINT_MAX, PROGRESS_NOTE_MAX
from svc.domain.job import job_id
from svc.errors import ArgumentError, JobTooLarge, OutsideJob

if TYPE_CHECKING:
    from svc.domain.replies import Delivery
    from svc.worker.failure import Failure
    from svc.worker.runner import ResolvedTask
    from svc.worker.value_sender import Recorder

#: The name of the logger that tasks have; all other loggers of structlog here are the worker's own.
TASK_LOGGER = "task"


class Channel(Protocol):
    """Takes the reports of the jobs that run in this process.

    Attributes:
        recorder: has their partial results recorded; None if that cannot be done.
    """

    recorder: Recorder | None

    def tell(self, report: JobProgress) -> None:
        """Pass on how far a job is."""

    def keep(self, checkpoint: Checkpoint, *, durable: bool) -> None:
        """Pass on a checkpoint; return once it is as safe as asked for."""

    def submitter(self, token: int) -> Any:
        """Return a client that submits jobs for the task of the job that runs under *token*."""


class CurrentJob:
    """The job that runs here. Made by `current_job()`, and of use until its attempt has ended."""

    __slots__ = ("_checkpoint", "_delivery", "_logger", "_running", "deadline", "number")

    def __init__(self, running: Running, number: int) -> None:
        """Describe job *number* of *running*."""
        self._running = running
        self._delivery = running.delivery
        self._checkpoint = self._delivery.checkpoint
        self._logger: Any = None
        #: The number of the job within its origin.
        self.number = number
        #: The time on the clock of `time.monotonic()` at which the timeout ends this attempt, or None.
        self.deadline = None if running.timeout is None else running.started + running.timeout

    @property
    def id(self) -> str:
        """The id of the job."""
        return job_id(self._delivery.origin, self.number)

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._delivery.terms.shown_task

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._delivery.terms.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1 on."""
        return 1 + self.failures + self.crashes + self.interruptions

    @property
    def failures(self) -> int:
        """How often the job has failed before."""
        return self._delivery.failures

    @property
    def crashes(self) -> int:
        """How often the process that ran the job has died."""
        return self._delivery.crashes

    @property
    def interruptions(self) -> int:
        """How often the job was interrupted: by a drain, a scale-in or a lost host."""
        return self._delivery.interruptions

    @property
    def suspicions(self) -> int:
        """How many of the interruptions were a lost worker for which the job may be to blame."""
        return self._delivery.suspicions

    @property
    def submitted_at(self) -> float:
        """The Unix time at which the manager accepted the job."""
        return self._delivery.submitted_at

    @property
    def logger(self) -> Any:
        """A structlog logger whose lines name the job and its task; the job's output has them, too."""
        if self._logger is None:
            import structlog

            self._logger = structlog.get_logger(TASK_LOGGER).bind(job_id=self.id, task=self.task)
        return self._logger

    @property
    def last_checkpoint(self) -> Any:
        """The data of the job's last checkpoint, which this attempt or an earlier one has left; or None."""
        return codec.decode_result(self._checkpoint) if self._checkpoint else None

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell how far the job is: *done* of *total*, in any unit, and a *note* of up to 200 characters.

        Call it as often as you like: it costs microseconds, and the manager hears of the last report only, 5
        times a second at most. Without a total, or with a total of 0, no share is shown.

        Raises:
            ArgumentError: an amount is negative, infinite, or no number.
            OutsideJob: the attempt has ended, or this is another process than the one that runs the job.
        """
        most = None if total is None else _amount("total", total)
        text = str(note)[:PROGRESS_NOTE_MAX].encode("utf-8", "replace").decode()
        report = JobProgress(self._delivery.token, self.number, _amount("done", done), most, text)
        self._channel().tell(report)

    def checkpoint(self, data: Any, *, durable: bool = False) -> None:
        """Leave *data* for the next attempt, which reads it as `last_checkpoint`; the last checkpoint counts.

        It may be bytes or plain data, of up to 64 KiB. When this returns, the supervisor has it, and the data
        outlives this process; with *durable* the journal has it, and it outlives this host.

        Raises:
            CodecError: the data is not plain.
            JobTooLarge: it is over 64 KiB.
            LeaseLost: the job was given to another consumer: stop, no outcome of this attempt will be taken.
            JournalFull: the disk of the journal is nearly full.
            OutsideJob: as for `progress`.
        """
        encoded = _encoded(data)
        self._channel().keep(Checkpoint(self._delivery.token, self.number, encoded), durable=durable)
        self._checkpoint = encoded

    def submit(self, task: Any, /, *args: object, **kwargs: object) -> Any:
        """Submit a job, over a connection of the worker's own; return its handle, as `Client.submit` does.

        It is durable when this returns, and goes on whatever becomes of this attempt. A second attempt
        submits it again, unless it has a key: `options(key=...)`. Do not wait for it here: that would hold a
        consumer, and the worker's key may not read its result.

        Raises:
            LeaseLost: the job was given to another consumer; nothing was submitted.
            OutsideJob: as for `progress`.
            ServiceError: as for `Client.submit`.
        """
        return self.options().submit(task, *args, **kwargs)

    def options(self, **changes: Any) -> Any:
        """Return a submitter of jobs with options, as `Client.options` does.

        Raises:
            BadRequest: an option is out of bounds.
            TypeError: there is no such option.
        """
        return self._channel().submitter(self._delivery.token).options(**changes)

    def _channel(self) -> Channel:
        if self._running.number != self.number:
            raise OutsideJob(f"the attempt at job {self.id} has ended; it cannot report any more")
        if self._running.channel is None:
            raise OutsideJob("the job was run without a way to report")
        return self._running.channel

    def __repr__(self) -> str:
        return f"<CurrentJob {self.id} {self.task} attempt {self.attempt}>"


class ListedJob(CurrentJob):
    """One of the jobs that a task with a batch gets: all that `current_job()` tells, and its arguments."""

    __slots__ = ("args", "kwargs")

    def __init__(self, running: Running, number: int, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Describe job *number* of *running*."""
        super().__init__(running, number)
        #: The positional arguments, as they were submitted.
        self.args = tuple(args)
        #: The keyword arguments.
        self.kwargs = kwargs


class Running:
    """The jobs of one lease while they run here, one after the other; the job that runs is made on demand.

    Attributes:
        number: the job that runs, or -1.
        started: the monotonic time at which it began.
        listed: whether it is in the list of a task with a batch.
    """

    __slots__ = ("_job", "channel", "delivery", "listed", "number", "started", "timeout")

    def __init__(
        self, delivery: Delivery, timeout: float | None, channel: Channel | None, *, listed: bool = False
    ) -> None:
        """Run none yet of the jobs in *delivery*, each of which may take *timeout* seconds."""
        self.listed = listed
        self.delivery = delivery
        self.timeout = timeout
        self.channel = channel
        self._job: CurrentJob | None = None
        self.number = -1
        self.started = 0.0

    def job(self) -> CurrentJob:
        """Return the job that runs; the same object each time."""
        number, job = self.number, self._job
        if job is None or job.number != number:
            job = self._job = CurrentJob(self, number)
        return job

    def id(self, number: int) -> str:
        """Return the id of job *number*."""
        return job_id(self.delivery.origin, number)


_current: ContextVar[tuple[Running, int] | None] = ContextVar("svc_current_job", default=None)
#: The leases whose jobs run in this process.
_running: set[Running] = set()
#: Makes (`Running`, number) the current job of this context: one call for each job, as a job may do nothing.
set_current = _current.set


def current_job() -> CurrentJob:
    """Return the job that runs here.

    Raises:
        OutsideJob: no job runs here, or it has ended; or several do, and this thread belongs to none.
    """
    found = _current.get()
    if found is not None:
        running, number = found
        if running.number == number:
            return running.job()
        raise OutsideJob(f"the attempt at job {running.id(number)} has ended; this code outlives it")
    several = tuple(_running)
    if several and several[0].listed:
        raise OutsideJob("a task with a batch gets its jobs as its argument; use those")
    if len(several) == 1:
        return several[0].job()
    if several:
        raise OutsideJob(
            f"{len(several)} jobs run in this process, and this thread belongs to none of them; "
            "start it with `contextvars.copy_context().run`"
        )
    raise OutsideJob("no job runs here; `current_job()` is for the code of tasks, while they run")


def running_here() -> tuple[Delivery, int] | None:
    """Return the lease and the number of the job whose code this is; None if it is of none that still runs.

    A thread that a job has started without its context belongs to none.
    """
    found = _current.get()
    if found is None or found[0].number != found[1]:
        return None
    return found[0].delivery, found[1]


@contextmanager
def within(running: Running) -> Iterator[None]:
    """Make a listed job the one that `running_job` tells, meanwhile."""
    before = _current.set((running, running.number))
    try:
        yield
    finally:
        _current.reset(before)


def running_job() -> tuple[Running, int]:
    """Return the lease of the job that runs in this context, and its number.

    Raises:
        OutsideJob: no job runs here.
    """
    found = _current.get()
    if found is None:
        raise OutsideJob("no job runs here")
    return found


def begin(
    delivery: Delivery, timeout: float | None, channel: Channel | None = None, *, listed: bool = False
) -> Running:
    """Note that jobs of *delivery* run here from now on; then set `number`, `started` and `set_current`.

    Their reports go to *channel*. A job that is *listed* is no current one.
    """
    running = Running(delivery, timeout, channel, listed=listed)
    _running.add(running)
    return running


def end(running: Running) -> None:
    """Note that no job of *running* runs any more, in the context in which they ran."""
    running.number = -1
    _running.discard(running)
    _current.set(None)


def run_as_current(
    task: ResolvedTask, delivery: Delivery, number: int, body: bytes, channel: Channel | None = None
) -> bytes | Failure:
    """Run job *number* of *delivery*, which is the current one meanwhile."""
    outer = _current.get()
    running = begin(delivery, task.limits.timeout, channel)
    running.number, running.started = number, time.monotonic()
    _current.set((running, number))
    try:
        return task.run(body, delivery.origin, number)
    finally:
        end(running)
        _current.set(outer)


def _amount(name: str, value: float) -> float:
    """Return an amount for a report of progress."""
    try:
        amount = float(value)
    except (TypeError, ValueError, OverflowError):
        amount = -1.0
    if not 0 <= amount <= AMOUNT_MAX:
        raise ArgumentError(f"{name} is {value!r:.60}; progress is told in numbers from 0 to {AMOUNT_MAX:g}")
    return amount


def _encoded(data: Any) -> bytes:
    encoded = codec.encode_checkpoint(data)
    if len(encoded) > CHECKPOINT_MAX:
        raise JobTooLarge(
            f"the checkpoint takes {len(encoded)} bytes and {CHECKPOINT_MAX} are the most; "
            "leave a file or an object store's key instead"
        )
    return encoded
