"""The Python client of svc: submit jobs, follow them, read their results.

::

    with Client("localhost:7077", authkey_file="authkey") as client:
        job = client.submit("wordcount:count", "moby.txt", top=10)
        print(job.result(timeout=60))
        for total in client.options(queue="night").map("wordcount:total", paths):
            print(total)

`svc.Client` adds the address and the authkey; the class here gets a function that connects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from svc import codec
from svc.broker.base import Broker
from svc.client.outcomes import Idle, Reason, follow, late, reasons
from svc.client.pipeline import PendingJob, SubmitPipeline, encoded, frames
from svc.client.session import PATIENCE_SECONDS, Deadline, Session, value_of
from svc.client.specs import JobSpec, Options, TaskLike
from svc.domain import commands as c
from svc.domain.job import JobView, Outcome
from svc.domain.lifecycle import JobState
from svc.domain.names import NAME_MAX, did_you_mean
from svc.domain.replies import Copy, Outcomes, Totals, WorkerView
from svc.envelope import PickleKeys
from svc.errors import ServiceError, UnknownJob, UnknownWorker


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
        return value_of(outcomes[0], self._session.reader)

    def cancel(self) -> bool:
        """Cancel the job if it is waiting; return whether it was cancelled."""
        return self._session.ask(lambda broker: broker.cancel([self.id])) == 1

    def view(self) -> JobView:
        """Describe the job: its state, the reason why it waits, its attempts.

        Raises:
            UnknownJob: there is none of this id, or its retention has passed.
        """
        views = self._session.ask(lambda broker: broker.get([self.id]))
        if not views:
            raise UnknownJob(f"there is no job {self.id}, or its retention time has passed")
        return views[0]

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
            TypeError: there is no such option.
        """
        return Submitter(self._session, self._pipeline, replace(self._options, **changes))

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
        job = encoded(template, spec.args, spec.kwargs, self._options.strict)
        return Job(self._session, self._pipeline.submit(job))

    def submit_many(self, task: TaskLike, arguments: Iterable[tuple[object, ...] | JobSpec]) -> list[Job]:
        """Submit a job for each tuple of positional arguments (or each `JobSpec`), in frames of 1,000.

        Raises:
            ServiceError: a job was not accepted, as for `submit`. The jobs of earlier frames and the other
                jobs of its own frame were accepted; a note on the error has their number.
        """
        specs = (self._spec(task, item) for item in arguments)
        jobs: list[Job] = []
        for answers in self.submit_each(specs):
            jobs += [answer for answer in answers if isinstance(answer, Job)]
            for answer in answers:
                if isinstance(answer, ServiceError):
                    answer.add_note(f"{len(jobs)} jobs of the same call were accepted")
                    raise answer
        return jobs

    def submit_each(
        self, specs: Iterable[JobSpec | ServiceError | None]
    ) -> Iterator[list[Job | ServiceError]]:
        """Submit a stream of jobs; yield for each frame a list of jobs or their errors, in input order.

        An error in place of a spec keeps its place in the answer. None sends the jobs that there are, without
        waiting for the frame to fill.
        """
        # Jobs of one origin can be followed together, so each stream has its own.
        pipeline = SubmitPipeline(self._session.submit, self._session.pickle_keys)
        for frame in frames(pipeline.entries(specs, self._options.strict)):
            pipeline.send([entry for entry in frame if isinstance(entry, PendingJob)])
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
        jobs = self.submit_many(task, zip(*iterables, strict=False))
        return self._in_order(jobs, follow(self._session, [job.id for job in jobs], timeout))

    def _in_order(self, jobs: Sequence[Job], outcomes: Iterator[Outcome]) -> Iterator[Any]:
        early: dict[str, Outcome] = {}
        for job in jobs:
            while job.id not in early:
                outcome = next(outcomes)
                early[outcome.id] = outcome
            yield value_of(early.pop(job.id), self._session.reader)

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


class BrokerClient(Submitter):
    """A client of one manager. Many threads can use it safely; it starts none.

    Waits use connections of their own, so they do not delay a submit. The client stores nothing: a job
    whose handle is lost can be found again by its id.
    """

    def __init__(
        self,
        connect: Callable[[], Broker],
        *,
        accept: Collection[str] = (codec.PLAIN,),
        patience: float = PATIENCE_SECONDS,
        pickle_keys: PickleKeys | None = None,
    ) -> None:
        """Connect with *connect* at the first use.

        Args:
            connect: returns a connected broker.
            accept: codecs of the results that may be read; with `pickle`, a holder of a pickle key can run
                code here.
            patience: seconds for which a wait keeps asking a manager that does not answer.
            pickle_keys: the keys that sign pickled jobs and verify pickled results; without, there are no
                pickles.

        Raises:
            ConfigurationError: *accept* names `pickle` and there are no keys.
        """
        session = Session(connect, accept, patience, pickle_keys)
        super().__init__(session, SubmitPipeline(session.submit, pickle_keys), Options())
        #: The keys that sign pickles; None if none can be submitted.
        self.pickle_keys = pickle_keys
        #: Makes another connection to the same manager.
        self.connect = connect

    def job(self, job_id: str) -> Job:
        """Return a handle of the job *job_id*, without checking that the job exists."""
        return Job(self._session, job_id)

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Return the result of the job *job_id*; as `Job.result`."""
        return self.job(job_id).result(timeout)

    def results(self, jobs: Iterable[str | Job], timeout: float | None = None) -> list[Any]:
        """Return the results of *jobs*, in their order; wait for all of them.

        Raises:
            JobFailed: raised for the first dead job in that order; or JobCancelled, ResultTimeout.
        """
        names = [_id(job) for job in jobs]
        found = {outcome.id: outcome for outcome in follow(self._session, names, timeout)}
        return [value_of(found[name], self._session.reader) for name in names]

    def as_completed(self, jobs: Iterable[str | Job], timeout: float | None = None) -> Iterator[Job]:
        """Yield each of *jobs* once it has ended, well or not, in the order in which they end.

        Raises:
            ResultTimeout: not all ended within *timeout* seconds.
        """
        return (self.job(outcome.id) for outcome in self.follow(jobs, timeout))

    def follow(
        self, jobs: Iterable[str | Job], timeout: float | None = None, idle: Idle | None = None
    ) -> Iterator[Outcome]:
        """Yield the outcome of each of *jobs*, in the order in which they end; as `as_completed`.

        While none ends, *idle* is called now and then with the ids of those that have not.
        """
        return follow(self._session, [_id(job) for job in jobs], timeout, idle)

    def reasons(self, ids: Collection[str]) -> dict[str, Reason]:
        """Return why jobs have not ended, of the first 100 of *ids*; those that have ended are left out.

        It is empty if the key may not look at jobs, or the manager does not answer.
        """
        return reasons(self._session, ids)

    def feed(self, cursor: int = 0, *, origin: str = "", wait: float = 0.0) -> Outcomes:
        """Return outcomes recorded after *cursor*, and the next cursor; wait up to *wait* seconds for one."""
        ask = c.Feed(origin, cursor, wait=wait)
        return self._session.wait(lambda broker: broker.feed(ask), Deadline(None))

    def outcomes(self, ids: Sequence[str], timeout: float | None = None) -> list[Outcome]:
        """Return the outcomes of all jobs, or of those that ended within *timeout* seconds."""
        return self._session.outcomes(ids, Deadline(timeout))

    def view(self, job_id: str) -> JobView:
        """Describe the job *job_id*.

        Raises:
            UnknownJob: there is none, or its retention has passed.
        """
        return self.job(job_id).view()

    def find(self, *, state: str = "", queue: str = "", task: str = "", limit: int = 50) -> list[JobView]:
        """Describe up to *limit* jobs, newest first, of a state, a queue and a task if these are named."""
        return self._session.ask(lambda broker: broker.find(c.List(state, queue, task, limit)))

    def cancel(self, ids: Iterable[str | Job]) -> int:
        """Cancel those of the jobs that are waiting; return their number."""
        names = [_id(job) for job in ids]
        return self._session.ask(lambda broker: broker.cancel(names))

    def requeue(self, ids: Iterable[str | Job] = (), *, queue: str = "") -> int:
        """Make dead jobs ready again; without ids all of them, of *queue* or of all. Return their number."""
        names = [_id(job) for job in ids]
        return self._session.ask(lambda broker: broker.requeue(names, queue=queue))

    def stats(self) -> Totals:
        """Return the counts of every queue, of the workers and of the manager."""
        return self._session.ask(lambda broker: broker.stats())

    def workers(self) -> list[WorkerView]:
        """Describe the connected workers."""
        return self._session.ask(lambda broker: broker.members())

    def drain(self, *, worker: str = "", refuse: bool = False) -> None:
        """Hand a pill to every consumer that asks (of one worker, or of all) until `resume`.

        *refuse* also refuses new jobs meanwhile; otherwise they are accepted, and wait.

        Raises:
            UnknownWorker: no worker of that name is connected.
        """
        if worker:
            check_worker(worker, [view.name for view in self.workers()])
        self._session.ask(lambda broker: broker.drain(worker=worker, refuse=refuse))

    def resume(self, *, worker: str = "") -> None:
        """End a drain. Harmless if there is none.

        Raises:
            UnknownWorker: no worker of that name is drained or connected.
        """
        if worker and worker not in (drained := self.stats().drained_workers):
            check_worker(worker, [*drained, *(view.name for view in self.workers())])
        self._session.ask(lambda broker: broker.resume(worker=worker))

    def backup(self, name: str) -> Copy:
        """Begin the backup of the journal with that name on the manager's host; return its progress."""
        return self._session.ask(lambda broker: broker.backup(name))

    def accept_clock(self) -> bool:
        """Set the manager's clock to its host's time of day, which is away from it; return whether it was.

        The manager recovers its queue at once after this call, and connections are made anew.
        """
        return self._session.ask(lambda broker: broker.accept_clock())

    def metrics(self) -> str:
        """Return the manager's metrics as Prometheus text."""
        return self._session.ask(lambda broker: broker.metrics())

    def close(self) -> None:
        """Close the connections. May be called twice; jobs are not affected."""
        self._session.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


def check_worker(name: str, known: Sequence[str]) -> None:
    """Refuse the name of a worker that is not there.

    Raises:
        UnknownWorker: *name* is not among *known*; the message has the nearest.
    """
    if name not in known:
        raise UnknownWorker(f"no worker is named {name[:NAME_MAX]!r}{did_you_mean(name, known)}")


def _id(job: str | Job) -> str:
    return job if isinstance(job, str) else job.id
