"""The submitting of jobs, and the handle of a submitted one: wait for its result, look at it, cancel it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from svc.client.outcomes import follow_results, late
from svc.client.partial_results import PartialResults
from svc.client.pending import PendingJob
from svc.client.pipeline import SubmitPipeline, encoded
from svc.client.session import Deadline, Session, result_of, value_of
from svc.client.specs import JobSpec, Options, TaskLike, checked_grace
from svc.client.submit_stream import SubmitStream
from svc.domain.job import Outcome
from svc.domain.job_view import JobView, Progress
from svc.domain.lifecycle import JobState
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.errors import ServiceError, UnknownJob


class Job:
    """A submitted job; it equals any other handle of the same job.

    Attributes:
        id: the job's id; valid in every client of the same manager.
    """

    __slots__ = ("_session", "id")

    def __init__(self, session: Session, job_id: str) -> None:
        """Hold the id; this makes no request."""
        self._session = session
        self.id = job_id

    def result(self, timeout: float | None = None) -> Any:
        """Return the job's result; wait up to *timeout* seconds, or without limit.

        Raises:
            JobFailed: the job is dead; the error has the consumer's traceback.
            JobCancelled: the job was cancelled.
            ResultTimeout: the job has not ended in time; it goes on.
        """
        deadline = Deadline(timeout)
        outcomes = self._session.outcomes([self.id], deadline)
        if not outcomes:
            raise late(self._session, [self.id], deadline, f"job {self.id} has")
        return self._session.value(outcomes[0])

    def save(self, path: str | os.PathLike[str], timeout: float | None = None) -> Path:
        """Write the job's result, which is bytes or a file, to *path*; return that. Otherwise as `result`.

        However large it is, it is not held in memory. The file is written whole or not at all.

        Raises:
            CodecError: the result is neither, or the file cannot be written.
        """
        deadline = Deadline(timeout)
        outcomes = self._session.outcomes([self.id], deadline)
        if not outcomes:
            raise late(self._session, [self.id], deadline, f"job {self.id} has")
        self._session.values.save_result(outcomes[0], Path(path))
        return Path(path)

    def cancel(self, grace: float = CANCEL_GRACE_SECONDS) -> bool:
        """Cancel the job; return whether it was cancelled, and had not ended before.

        If it runs, `svc.Cancelled` is raised in its task, whose consumer is killed if that does not end it
        within *grace* seconds. Whatever the task does then, the job ends as cancelled.
        """
        seconds = checked_grace(grace)
        return self._session.ask(lambda broker: broker.cancel([self.id], running=True, grace=seconds)) == 1

    def view(self, *, content: bool = False) -> JobView:
        """Describe the job: its state, the reason why it waits, its attempts; *content* adds encoded values.

        Raises:
            UnknownJob: there is none of this id, or its retention has passed.
        """
        views = self._session.ask(lambda broker: broker.get([self.id], content=content))
        if not views:
            raise UnknownJob(f"there is no job {self.id}, or its retention time has passed")
        return views[0]

    def progress(self) -> Progress | None:
        """Return the last report of `current_job().progress`; None while the job does not run.

        Raises:
            UnknownJob: there is none of this id, or its retention has passed.
        """
        return self._session.ask(lambda broker: broker.progress([self.id]))[0]

    def stream(self, start: int = 0, *, number: int = 0, timeout: float | None = None) -> PartialResults:
        """Return an iterator over the partial results of the job, from index *start* on, also while it runs.

        They are those of one attempt. If a later one begins anew, the iterator raises `StreamRestarted`, and
        never mixes the two. To go on at *start* in another process, give the *number* of the stream that was
        read before. *timeout* counts in seconds from this call.

        Raises:
            ArgumentError: *start* or *number* is no whole number, or negative.
        """
        return PartialResults(self._session, self.id, start, number, timeout)

    def done(self) -> bool:
        """Return whether the job has ended, well or not."""
        return JobState[self.view().state.upper()].finished

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is a handle of the same job."""
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        """Return the hash of the id."""
        return hash(self.id)

    def __repr__(self) -> str:
        """Return `Job('id')`."""
        return f"Job({self.id!r})"


class Submitter:
    """Submits jobs with options of its own; `Client.options` makes one."""

    def __init__(self, session: Session, pipeline: SubmitPipeline, options: Options) -> None:
        """Submit over *session*; every job gets *options*, unless its spec has others."""
        self._session = session
        self._pipeline = pipeline
        self._options = options

    def options(self, **changes: Any) -> Submitter:
        """Return a submitter like this one but with *changes*; `Options` has the names.

        Raises:
            BadRequest: an option is out of bounds.
            TypeError: there is no such option.
        """
        options = self._options.changed(changes)
        options.check()
        return Submitter(self._session, self._pipeline, options)

    def submit(self, task: TaskLike, /, *args: object, **kwargs: object) -> Job:
        """Submit one job. When this returns, the job is durable.

        *task* is the name of a task, or a function that workers can import. Any other callable (a
        lambda, a bound method, an object with `__call__`) is sent as a signed pickle. Workers must accept
        pickles for that, and share the pickle key.

        Raises:
            CodecError: the codec cannot encode the arguments, or there is no key to sign with.
            JobTooLarge: they are over the manager's limit.
            QueueFull: the queue is at its bound.
            Draining: the service takes no jobs now.
            UnknownTask: no worker knows the task, and the option `strict` is set.
            Conflict: the option `key` names another job.
            ManagerUnreachable: it is not known whether the job was accepted; a job with a key may be
                submitted again.
        """
        return self.submit_spec(JobSpec(task, args, kwargs, self._options))

    def submit_spec(self, spec: JobSpec) -> Job:
        """Submit the job in *spec*; as `submit`."""
        template = self._pipeline.template(spec.task, spec.options)
        job = encoded(template, spec.args, spec.kwargs, self._options.strict, self._pipeline.values)
        return Job(self._session, self._pipeline.submit(job))

    def submit_many(self, task: TaskLike, arguments: Iterable[tuple[object, ...] | JobSpec]) -> list[Job]:
        """Submit a job for each tuple of positional arguments (or each `JobSpec`), in frames of 1,000.

        Raises:
            ServiceError: a job was not accepted, as for `submit`. Those of earlier frames were, and so may be
                the others of its own frame and of those that were on their way behind it; a note on the
                error has the number of all that were. Nothing else is submitted then.
        """
        return [Job(self._session, job_id) for job_id in self._accepted(task, arguments)]

    def submit_each(
        self, specs: Iterable[JobSpec | ServiceError | None]
    ) -> Iterator[list[Job | ServiceError]]:
        """Submit a stream of jobs; yield for each frame a list of jobs or their errors, in input order.

        Several frames are on their way at a time, so jobs are read ahead of the answers. An error in place of
        a spec keeps its place in the answer. None sends the jobs that there are, without waiting for the
        frame to fill, and yields the answers to all before the next spec is read.
        """
        # Jobs of one origin can be followed together, so each stream has its own.
        for frame in SubmitStream(self._session, strict=self._options.strict).answered(specs):
            yield [self._answer(entry) for entry in frame]

    def map(
        self, task: TaskLike, *iterables: Iterable[object], timeout: float | None = None
    ) -> Iterator[Any]:
        """Submit a job for each step through *iterables* at once; yield the results in that order.

        As in `concurrent.futures.Executor.map`, *timeout* counts in seconds from this call, and a failed job
        raises when its turn comes. The other jobs go on.

        Raises:
            JobFailed: raised by the iterator, as are JobCancelled and ResultTimeout.
        """
        ids = self._accepted(task, zip(*iterables, strict=False))
        return self._in_order(ids, follow_results(self._session, ids, timeout))

    def _accepted(self, task: TaskLike, arguments: Iterable[tuple[object, ...] | JobSpec]) -> list[str]:
        """Submit a job for each of *arguments*; return their ids. Raises errors as `submit_many`."""
        ids: list[str] = []
        refused: list[ServiceError] = []
        options = self._options

        def specs() -> Iterator[JobSpec]:
            for item in arguments:
                if refused:
                    raise refused[0]
                # Nearly all are tuples, and each job waits for this, so it is done without a call.
                yield JobSpec(task, item, {}, options) if type(item) is tuple else self._spec(task, item)

        try:
            for frame in SubmitStream(self._session, strict=options.strict).answered(specs()):
                answers = [entry if isinstance(entry, ServiceError) else entry.error for entry in frame]
                refused += filter(None, answers)
                ids += [entry.id for entry in frame if isinstance(entry, PendingJob) and not entry.error]
            if refused:
                raise refused[0]
        except ServiceError as error:
            error.add_note(f"{len(ids)} jobs of the same call were accepted")
            raise
        return ids

    def _in_order(self, ids: Sequence[str], pages: Iterator[dict[str, bytes | Outcome]]) -> Iterator[Any]:
        """Yield the results of jobs in their order, from pages of the ends of all of them."""
        early: dict[str, bytes | Outcome] = {}
        reader, fetch = self._session.reader, self._session.values.fetch
        # Equal jobs with one key are one job, whose end comes once.
        again = Counter(ids) - Counter(set(ids)) if len(set(ids)) < len(ids) else None
        for job_id in ids:
            while job_id not in early:
                early.update(next(pages))
            found = early.pop(job_id)
            if again and again[job_id]:
                again[job_id] -= 1
                early[job_id] = found
            if isinstance(found, bytes):
                yield result_of(job_id, found, reader, fetch)
            else:
                yield value_of(found, reader, fetch)

    def _answer(self, entry: PendingJob | ServiceError) -> Job | ServiceError:
        if isinstance(entry, ServiceError):
            return entry
        return entry.error or Job(self._session, entry.id)

    def _spec(self, task: TaskLike, item: tuple[object, ...] | JobSpec) -> JobSpec:
        if isinstance(item, JobSpec):
            return item
        if not isinstance(item, tuple):
            raise TypeError(f"arguments come as tuples, one for each job; wrap {item!r:.60} in one")
        return JobSpec(task, item, {}, self._options)
