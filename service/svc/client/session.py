"""The parts that all handles of one client share: its connections, its origin, and its requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from svc import codec
from svc.broker.base import Broker
from svc.broker.forks import begin_anew_in_children
from svc.client.connections import Connect, Connections
from svc.client.outcomes import Deadline, Idle, Patience, Watch, follow, value_of, wait_for
from svc.client.reasons import Reason, reasons_of
from svc.client.specs import Encoded, Frame, Group, groups, new_origin
from svc.client.submit_coalescer import SubmitCoalescer
from svc.domain.job import JobView, NewChunk, Outcome
from svc.domain.job import job_id as id_of
from svc.domain.lifecycle import JobState
from svc.envelope import PickleKeys
from svc.errors import (
    CodecError,
    ConfigurationError,
    Forbidden,
    JobTooLarge,
    ResultTimeout,
    ServiceError,
    UnknownJob,
    error_for,
)

#: Seconds for which a wait keeps asking a manager that does not answer.
PATIENCE_SECONDS = 60.0

#: Advice for a missing pickle key.
NEEDED = (
    "make one with `svc auth generate --pickle`, give it to submitters and workers, and name it with "
    "pickle_key_file or SVC_PICKLE_KEY_FILE"
)

#: Seconds for which one asks why a job has not ended.
REASON_SECONDS = 2.0

T = TypeVar("T")


class Origin:
    """A source of job numbers: a job is identified by the name of its origin and its number."""

    def __init__(self) -> None:
        """Choose a random name."""
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Choose another random name: a parent and its child must not give two jobs the same id."""
        self.name = new_origin()
        self._next = 0

    def take(self, count: int) -> int:
        """Return the first of *count* numbers that no other job of this origin has."""
        first = self._next
        self._next += count
        return first


class Session:
    """One client's connections, and the requests over them. Many threads can use it safely.

    Attributes:
        pickle_keys: the keys that sign pickled jobs; None if none can be submitted.
        reader: the keys that verify pickled results; None if these are not opened.
    """

    def __init__(
        self,
        connect: Connect,
        accept: Collection[str],
        patience: float,
        pickle_keys: PickleKeys | None = None,
    ) -> None:
        """Connect with *connect* at the first use; *patience* is in seconds, as `PATIENCE_SECONDS`.

        Raises:
            ConfigurationError: *accept* names `pickle`, and there are no keys.
        """
        if codec.PICKLE in accept and pickle_keys is None:
            raise ConfigurationError(
                f"pickles are read with the key that signs them, and there is none; {NEEDED}"
            )
        if pickle_keys is not None:
            codec.load_pickler()
        self.pickle_keys = pickle_keys
        self.reader = pickle_keys if codec.PICKLE in accept else None
        self._connections = Connections(connect)
        self._patience = patience
        self._may_not_look = False
        self._singles = Origin()
        self._coalescers = {
            strict: SubmitCoalescer(partial(self.send, origin=None, strict=strict))
            for strict in (False, True)
        }

    def ask(self, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call that does not wait."""
        with self._connections.main() as broker:
            return question(broker)

    def check(self, job: Encoded) -> None:
        """Refuse a job that no worker would run.

        Raises:
            CodecError: it is a pickle, and there is no key to sign it with.
        """
        if job.terms.codec == codec.PICKLE and self.pickle_keys is None:
            raise CodecError(f"a pickled job has to be signed; {NEEDED}")

    def sealed(self, origin: str, first: int, job: Encoded, bodies: list[bytes]) -> list[bytes]:
        """Return *bodies* in the form in which they are sent, with pickles sealed.

        They are of jobs like *job*, numbered from *first* on.
        """
        keys = self.pickle_keys
        if job.terms.codec != codec.PICKLE or keys is None:
            return bodies
        return [
            keys.of(id_of(origin, number)).seal_arguments(job.terms, body, keyed=bool(job.key))
            for number, body in enumerate(bodies, start=first)
        ]

    def send(self, frame: Frame, origin: Origin | None, strict: bool) -> list[str | ServiceError]:
        """Submit *frame*; return the id of each of its entries, or the error why it was not accepted."""
        jobs = [self._signable(job) for job in frame.jobs]
        answers: list[str | ServiceError] = [job if isinstance(job, ServiceError) else "" for job in jobs]
        with self._connections.main() as broker:
            # A signal handler may have interrupted this thread while it took numbers.
            source = origin or (self._singles if self._connections.is_main(broker) else Origin())
            again = self._send(broker, source, groups(jobs), strict, answers)
            if again:
                self._send(broker, source, again, strict, answers)
        return answers

    def send_one(self, job: Encoded, strict: bool) -> str:
        """Submit one job, together with jobs that other threads submit at the same time; return its id.

        Raises:
            BrokerError: it was not accepted.
        """
        return self._coalescers[strict].submit(job)

    def result(self, job_id: str, timeout: float | None) -> Any:
        """Return a job's result; as `Job.result`."""
        deadline = Deadline(timeout)
        outcomes = wait_for(self._patient(deadline), [job_id], deadline)
        if not outcomes:
            raise self._late([job_id], deadline, f"job {job_id} has")
        return value_of(outcomes[0], self.reader)

    def outcomes(self, ids: Sequence[str], timeout: float | None) -> list[Outcome]:
        """Return the outcomes of all jobs, or of those that ended within *timeout* seconds."""
        deadline = Deadline(timeout)
        return wait_for(self._patient(deadline), list(ids), deadline)

    def follow(
        self, ids: Iterable[str], timeout: float | None, idle: Idle | None = None
    ) -> Iterator[Outcome]:
        """Yield the outcomes of the jobs as they end, within *timeout* seconds.

        While none ends, *idle* is called now and then with the ids of those that have not.
        """
        deadline = Deadline(timeout)
        return follow(self._patient(deadline), ids, deadline, Watch(self._late, idle))

    def reasons(self, ids: Collection[str]) -> dict[str, Reason]:
        """Return why jobs have not ended, of the first 100 of *ids*.

        It is empty if the key may not look at jobs, or the manager does not answer.
        """
        if self._may_not_look:
            return {}
        try:
            return self._patient(Deadline(REASON_SECONDS)).call(lambda broker: reasons_of(broker, ids))
        except Forbidden:
            self._may_not_look = True
        except ServiceError:
            pass
        return {}

    def wait(self, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call that may wait and is safe to repeat."""
        return self._patient(Deadline(None)).call(question)

    def view(self, job_id: str) -> JobView:
        """Describe a job.

        Raises:
            UnknownJob: there is none, or its retention has passed.
        """
        views = self.ask(lambda broker: broker.get([job_id]))
        if not views:
            raise UnknownJob(f"there is no job {job_id}, or its retention time has passed")
        return views[0]

    def is_leased(self, job_id: str) -> bool:
        """Return whether a consumer has the job; also False if the manager does not answer or know it."""
        try:
            return self.view(job_id).state == JobState.LEASED.word
        except ServiceError:
            return False

    def cancel(self, ids: Sequence[str]) -> int:
        """Cancel those of the jobs that are waiting; return their number."""
        return self.ask(lambda broker: broker.cancel(ids))

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._connections.close()

    def _late(self, ids: Collection[str], deadline: Deadline, subject: str = "") -> ResultTimeout:
        """Return the error for jobs that have not ended by the deadline: which ones, and why one has not."""
        left = sorted(ids)
        reasons = self.reasons(left)
        job, reason = min(reasons.items(), key=lambda item: not item[1].blocked, default=(left[0], None))
        which = subject or ("1 job has" if len(left) == 1 else f"{len(left)} jobs have")
        text = f"{which} not ended within {deadline.timeout:g} s and will go on"
        if reason is None:
            return ResultTimeout(text, job_ids=left)
        who = "it" if subject else f"job {job}"
        first = [job, *(each for each in left if each != job)]
        return ResultTimeout(f"{text}: {who} {reason.text}", job_ids=first, reason=reason.text)

    def _patient(self, deadline: Deadline) -> Patience:
        return Patience(self._connections, deadline, self._patience)

    def _send(
        self,
        broker: Broker,
        source: Origin,
        chunks: list[Group],
        strict: bool,
        answers: list[str | ServiceError],
    ) -> list[Group]:
        """Submit *chunks* and note the answer to each job; return the chunks to send once more.

        A job over the limit must not make the other jobs of its chunk fail. If the numbers belong to other
        jobs, this process is a copy of another one, as in a cloned virtual machine: then *source* chooses a
        new name.
        """
        sent = [self._chunk(source, group) for group in chunks]
        for group, chunk in zip(chunks, sent, strict=True):
            for number, place in enumerate(group.places, start=chunk.first):
                answers[place] = id_of(source.name, number)
        notes = broker.submit(source.name, sent, strict=strict)
        for note in notes:
            for place in chunks[note.chunk].places:
                answers[place] = error_for(note.code, note.message) if note.code else note.id
        too_large = [chunks[note.chunk] for note in notes if note.code == JobTooLarge.code]
        again = [part for group in too_large if len(group.places) > 1 for part in group.parts()]
        of_others = [chunks[note.chunk] for note in notes if note.anew]
        if of_others:
            source.begin_anew()
        return again + of_others

    def _signable(self, job: Encoded | ServiceError) -> Encoded | ServiceError:
        try:
            if not isinstance(job, ServiceError):
                self.check(job)
        except CodecError as error:
            return error
        return job

    def _chunk(self, source: Origin, group: Group) -> NewChunk:
        number = source.take(len(group.bodies))
        return group.chunk(number, self.sealed(source.name, number, group.first, group.bodies))
