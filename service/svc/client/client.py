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
from typing import Any, Self

from svc import codec
from svc.broker.base import Broker
from svc.client.outcomes import Idle, Reason, follow, reasons
from svc.client.pipeline import SubmitPipeline
from svc.client.session import PATIENCE_SECONDS, Deadline, Session
from svc.client.specs import Options, checked_grace
from svc.client.submitter import Job, Submitter
from svc.domain import commands as c
from svc.domain.job import Outcome
from svc.domain.job_view import JobView
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.domain.names import NAME_MAX, did_you_mean
from svc.domain.replies import Copy, Logged, Outcomes, Totals, WorkerView
from svc.envelope import PickleKeys
from svc.errors import BadRequest, UnknownWorker


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
        under: Callable[[], int] | None = None,
    ) -> None:
        """Connect with *connect* at the first use.

        Args:
            connect: returns a connected broker.
            accept: codecs of the results that may be read; with `pickle`, a holder of a pickle key can run
                code here.
            patience: seconds for which a wait keeps asking a manager that does not answer.
            pickle_keys: the keys that sign pickled jobs and verify pickled results; without, there are no
                pickles.
            under: returns the token of the job whose task submits.

        Raises:
            ConfigurationError: *accept* names `pickle` and there are no keys.
        """
        session = Session(connect, accept, patience, pickle_keys)
        session.under = under or session.under
        super().__init__(session, SubmitPipeline(session.submit, pickle_keys, session.values), Options())
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
        return [self._session.value(found[name]) for name in names]

    def pieces(self, outcome: Outcome) -> Iterator[bytes] | None:
        """Return the pieces of a large result; None if *outcome* has its result whole."""
        return self._session.values.pieces(outcome)

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

    def view(self, job_id: str, *, content: bool = False) -> JobView:
        """Describe the job *job_id*; with *content* also its arguments and its result, encoded.

        Raises:
            UnknownJob: there is none, or its retention has passed.
        """
        return self.job(job_id).view(content=content)

    def logs(self, job_id: str, *, attempt: int = 0, stream: int = 0, cursor: int = 0) -> Logged:
        """Return a part of the output of the last attempt at a job, or of *attempt*.

        The answer has the cursor for the next part.

        *stream* is 1 for stdout, 2 for stderr and the records of `logging`, 0 for both.

        Raises:
            UnknownJob: neither the job nor output of it is known.
        """
        return self._session.ask(lambda broker: broker.logs(c.Logs(job_id, attempt, stream, cursor)))

    def find(self, *, state: str = "", queue: str = "", task: str = "", limit: int = 50) -> list[JobView]:
        """Describe up to *limit* jobs, newest first, of a state, a queue and a task if these are named."""
        return self._session.ask(lambda broker: broker.find(c.List(state, queue, task, limit)))

    def cancel(
        self, ids: Iterable[str | Job], *, running: bool = True, grace: float = CANCEL_GRACE_SECONDS
    ) -> int:
        """Cancel those of the jobs that have not ended; return their number.

        Those that run are cancelled as by `Job.cancel`, or left alone without *running*.
        """
        names, seconds = [_id(job) for job in ids], checked_grace(grace)
        return self._session.ask(lambda broker: broker.cancel(names, running=running, grace=seconds))

    def cancel_all(
        self,
        *,
        queue: str = "",
        task: str = "",
        running: bool = True,
        grace: float = CANCEL_GRACE_SECONDS,
    ) -> int:
        """Cancel as `cancel` all jobs of *queue* and of *task*, or of any; return their number."""
        seconds = checked_grace(grace)
        return self._session.ask(
            lambda broker: broker.cancel_all(queue=queue, task=task, running=running, grace=seconds)
        )

    def requeue(self, ids: Iterable[str | Job] | None = None, *, queue: str = "") -> int:
        """Make dead jobs ready again: those of *ids*, or all of *queue*, or all. Return their number.

        An empty selection of ids is none of them: it makes no job ready.
        """
        names = None if ids is None else [_id(job) for job in ids]
        return self._session.ask(lambda broker: broker.requeue(names, queue=queue))

    def purge(
        self,
        ids: Iterable[str | Job] | None = None,
        *,
        states: Iterable[str] | None = None,
        queue: str = "",
        task: str = "",
        older_than: float = 0.0,
        every: bool = False,
        dry_run: bool = False,
    ) -> int:
        """Remove jobs that have ended, as if their retention had passed; return their number.

        These are the jobs of *ids*, or those that match all that is given of the others: the state in which
        they ended, their queue, their task, and the seconds since their end. *every* is for all of them.
        Jobs that wait or run are left alone. With *dry_run* the jobs are only counted. An empty selection of
        ids or states is none of them: it removes no job.

        Raises:
            BadRequest: neither ids nor conditions nor *every* is given, or several of these.
        """
        names = None if ids is None else [_id(job) for job in ids]
        words = None if states is None else list(states)
        if names is not None and (words is not None or queue or task or older_than or every):
            raise BadRequest("name either ids of jobs, or conditions, or all of them")
        if names == [] or words == []:
            return 0
        command = c.Purge(names or [], words or [], queue, task, older_than, every, dry_run)
        return self._session.ask(lambda broker: broker.purge(command))

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

    def hand_over(self) -> None:
        """Have the manager end, and a standby take the lead.

        Raises:
            Conflict: there is no standby that has caught up with the journal.
        """
        self._session.ask(lambda broker: broker.hand_over())

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
