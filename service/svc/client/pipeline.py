"""The way of jobs to the manager: a call becomes a job, jobs become a frame, each job gets its answer.

`Client.submit` gives its job to the pipeline that all threads of the client share (`submit`). `submit_each`
has a pipeline for its stream and sends frame by frame (`send`). An executor and an asynchronous client have
one whose own thread sends (`client.background`): there, no caller waits for an answer. In all of them:

- Jobs are sent in the order in which they were added. One frame is on its way at a time, of at most 1,000
  jobs and about 4 MiB, and jobs that come meanwhile wait for the next one. So fifty threads of a process wait
  for two commits, not for fifty, and a single thread waits for no other.
- Each job is answered once: with the id under which it is durable, or with an error object of its own. A job
  that is refused makes no other job fail, also if both were in one chunk.
- A job is named by its origin and number, so that it is harmless to send a frame again. If the numbers belong
  to other jobs, this process is a copy of another one, as in a cloned virtual machine, or a child that no
  hook was told of. Then the jobs are sent under another origin.
- A forked child starts without jobs and with another origin. Its parent sends what was added before.
- A signal handler may add and submit jobs, also while its own thread sends.
"""

from __future__ import annotations

import secrets
import threading
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import FunctionType
from typing import Any

import msgspec

from svc import codec
from svc.broker.forks import begin_anew_in_children
from svc.client.specs import JobSpec, JobTemplate, Options, TaskLike
from svc.domain.job import NewChunk, Terms, job_id
from svc.domain.replies import Note
from svc.envelope import PickleKeys
from svc.errors import JobTooLarge, ManagerUnreachable, ServiceError, error_for
from svc.wire import MESSAGE_BYTES_MAX

#: Jobs in one frame at most.
FRAME_JOBS = 1000
#: Bytes of arguments in a frame; once it has so many, it takes no further job.
FRAME_BYTES = 4 * 1024 * 1024
#: Jobs, and bytes of arguments, that may wait to be sent; beyond that a pipeline is full.
WAITING_JOBS_MAX = 10 * FRAME_JOBS
WAITING_BYTES_MAX = 4 * FRAME_BYTES
#: Bytes of arguments that fit into a message, whatever the manager's own limit is.
BODY_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024
#: Tasks whose templates are remembered, and the types of these tasks.
_KNOWN_MAX = 256
_NAMED = (str, FunctionType)
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

#: Submits chunks: the name of their origin, the chunks, and whether their tasks must be known.
Submit = Callable[[str, Sequence[NewChunk], bool], list[Note]]


class PendingJob(msgspec.Struct, eq=False):
    """A job in the form in which the manager stores it, until the manager has answered its submit.

    Attributes:
        strict: whether to refuse a task that no connected worker knows.
        alone: whether the job must be a chunk of its own.
        origin, number: its name; empty and -1 until it is sent, unless its owner has named it before.
        id: the id under which it was accepted, or will be if its owner has named it.
        error: the reason why it was not accepted.
        answered: whether the manager has accepted it or `error` is set.
        owner: the owner's own; the pipeline does not use it.
    """

    terms: Terms
    body: bytes
    delay: float = 0.0
    key: str = ""
    strict: bool = False
    alone: bool = False
    origin: str = ""
    number: int = -1
    id: str = ""
    error: ServiceError | None = None
    answered: bool = False
    owner: Any = None


#: Jobs to send together; an error stands for a call that cannot become a job.
Frame = list[PendingJob | ServiceError]


class SubmitPipeline:
    """Sends jobs of any thread; see the module."""

    def __init__(self, submit: Submit, pickle_keys: PickleKeys | None = None) -> None:
        """Send with *submit*, which one thread calls at a time; pickles are signed with *pickle_keys*."""
        self._submit = submit
        self._pickle_keys = pickle_keys
        self._templates: dict[tuple[TaskLike, int], JobTemplate] = {}
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Start without jobs: those that wait are the parent's, as are the threads that wait for them."""
        self.origin = new_origin()
        self._next = 0
        self.lock = threading.RLock()
        self._sending = threading.RLock()
        self._is_sending = False
        self._waiting: list[PendingJob] = []
        self._waiting_bytes = 0

    # --- calls become jobs --------------------------------------------------------------------------

    def template(self, task: TaskLike, options: Options) -> JobTemplate:
        """Return the template of *task*; that of a task with a name is remembered.

        Raises:
            BadRequest: the task is none, or one of the options is out of bounds.
            CodecError: the jobs are pickles, and there is no key to sign them with.
        """
        is_named = isinstance(task, _NAMED)
        found = self._templates.get((task, id(options))) if is_named else None
        if found is None or found.options is not options:
            found = JobTemplate.of(task, options, signs=self._pickle_keys is not None)
            if is_named and found.name is not None:
                if len(self._templates) >= _KNOWN_MAX:
                    self._templates = {}
                self._templates[task, id(options)] = found
        return found

    def entries(
        self, specs: Iterable[JobSpec | ServiceError | None], strict: bool
    ) -> Iterator[PendingJob | ServiceError | None]:
        """Yield the job of each spec, or the error from encoding it; pass on all that is no spec."""
        template: JobTemplate | None = None
        for spec in specs:
            entry: PendingJob | ServiceError | None
            try:
                if isinstance(spec, JobSpec):
                    if template is None or not template.fits(spec):
                        template = self.template(spec.task, spec.options)
                    entry = encoded(template, spec.args, spec.kwargs, strict)
                else:
                    entry = spec
            except ServiceError as error:
                entry = error
            yield entry

    # --- jobs wait for a frame ----------------------------------------------------------------------

    def submit(self, job: PendingJob) -> str:
        """Send *job* with those of other threads; return its id once it is durable.

        Raises:
            ServiceError: it was not accepted, or it is not known whether it was.
        """
        self.add(job)
        while not job.answered:
            with self._sending:
                if not job.answered:
                    self._send_next(job)
        if job.error is not None:
            raise job.error
        return job.id

    def add(self, job: PendingJob) -> None:
        """Let *job* wait for the next frame, behind those without a number or with a lower one."""
        with self.lock:
            # The insertion is a single call, which no signal handler can interrupt.
            insort(self._waiting, job, key=_number_of)
            self._waiting_bytes += len(job.body)

    def is_full(self) -> bool:
        """Return whether as many jobs wait as may."""
        return len(self._waiting) >= WAITING_JOBS_MAX or self._waiting_bytes >= WAITING_BYTES_MAX

    def take(self) -> list[PendingJob]:
        """Remove the jobs of the next frame from those that wait; return them."""
        with self.lock:
            taken = self._waiting[: len(next(frames(self._waiting), ()))]
            del self._waiting[: len(taken)]
            self._waiting_bytes -= sum(len(job.body) for job in taken)
            return taken

    def _send_next(self, own: PendingJob) -> None:
        """Send the next frame; in a signal handler that interrupted this thread in that, only *own*."""
        if self._is_sending:
            self._remove(own)
            # The interrupted thread may be just numbering jobs, so this one has an origin of its own.
            SubmitPipeline(self._submit, self._pickle_keys).send([own])
            return
        self._is_sending = True
        try:
            self.send(self.take())
        except ServiceError:
            pass  # each job of the frame has its error
        except BaseException:
            self._remove(own)
            raise
        finally:
            self._is_sending = False

    def _remove(self, job: PendingJob) -> None:
        with self.lock:
            if job in self._waiting:
                self._waiting.remove(job)
                self._waiting_bytes -= len(job.body)

    # --- a frame is sent ----------------------------------------------------------------------------

    def send(self, jobs: Sequence[PendingJob]) -> None:
        """Submit *jobs*, and return once each of them is answered.

        Raises:
            ServiceError: a request failed; the jobs without an answer have errors like this one.
        """
        left = jobs
        failed: ServiceError | None = None
        try:
            while left:
                again: list[PendingJob] = []
                for (origin, strict), chunks in _requests(left).items():
                    try:
                        again += self._sent(origin, strict, chunks)
                    except ServiceError as error:
                        # The other requests may well succeed: a refusal of this one need not be theirs.
                        failed = error
                        _fail((job for chunk in chunks for job in chunk), error)
                left = again
        except BaseException as error:
            _fail(jobs, error)
            raise
        if failed is not None:
            raise failed

    def _sent(self, origin: str, strict: bool, chunks: list[list[PendingJob]]) -> list[PendingJob]:
        """Submit *chunks* and note the answers; return the jobs that are to be sent once more."""
        content = [self._new_chunk(chunk) for chunk in chunks]
        notes = self._submit(origin or self.origin, content, strict)
        again: set[int] = set()
        for note in notes:
            jobs = chunks[note.chunk]
            if note.anew:
                self._renumber(jobs)
                again.add(note.chunk)
            elif note.code == JobTooLarge.code and len(jobs) > 1:
                # A job over the limit must not make the other jobs of its chunk fail.
                for job in jobs:
                    job.alone = True
                again.add(note.chunk)
            else:
                for job in jobs:
                    job.id = note.id
                    job.error = error_for(note.code, note.message) if note.code else None
        for place, jobs in enumerate(chunks):
            for job in () if place in again else jobs:
                job.id = job.id or job_id(job.origin, job.number)
                job.answered = True
        return [job for place in sorted(again) for job in chunks[place]]

    def _new_chunk(self, jobs: Sequence[PendingJob]) -> NewChunk:
        """Return *jobs* in the form in which they are sent: with numbers, and pickles sealed."""
        first = jobs[0]
        if first.number < 0:
            for number, job in enumerate(jobs, start=self._next):
                job.origin, job.number = self.origin, number
            self._next += len(jobs)
        bodies = [job.body for job in jobs]
        keys = self._pickle_keys
        if keys is not None and first.terms.codec == codec.PICKLE:
            bodies = [
                keys.of(job_id(job.origin, job.number)).seal_arguments(
                    job.terms, job.body, keyed=bool(job.key)
                )
                for job in jobs
            ]
        return NewChunk(first.number, first.terms, bodies, first.delay, first.key)

    def _renumber(self, jobs: Sequence[PendingJob]) -> None:
        """Take from *jobs* the numbers that other jobs have; they get others of another origin."""
        if jobs[0].origin == self.origin:
            self.origin, self._next = new_origin(), 0
        for job in jobs:
            job.origin, job.number, job.id = "", -1, ""


def encoded(
    template: JobTemplate, args: Sequence[object], kwargs: Mapping[str, object], strict: bool = False
) -> PendingJob:
    """Return a job of *template* with its arguments.

    Raises:
        CodecError: the arguments are not data that the job's codec can carry, or not what the function's
            annotations ask for once they have travelled.
        JobTooLarge: they are larger than any message may be.
    """
    if template.demands is not None:
        template.demands.check(args, kwargs)
    terms, options = template.terms, template.options
    body = codec.encode_arguments(
        terms.codec, args if template.name is not None else (template.task, *args), kwargs
    )
    if len(body) > BODY_BYTES_MAX:
        raise JobTooLarge(
            f"the arguments take {len(body)} bytes and no message carries over {BODY_BYTES_MAX}"
        )
    return PendingJob(terms, body, options.delay, options.key, strict, bool(options.key))


def frames(entries: Iterable[PendingJob | ServiceError | None]) -> Iterator[Frame]:
    """Divide jobs into frames, in their order; None ends the current frame."""
    frame: Frame = []
    size = 0
    for entry in entries:
        more = len(entry.body) if isinstance(entry, PendingJob) else 0
        if frame and (entry is None or len(frame) >= FRAME_JOBS or size + more > FRAME_BYTES):
            yield frame
            frame, size = [], 0
        if entry is not None:
            frame.append(entry)
            size += more
    if frame:
        yield frame


def new_origin() -> str:
    """Return a random 64-bit name: 13 characters of lower-case Crockford base 32."""
    number = secrets.randbits(64)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(60, -1, -5))


_number_of = attrgetter("number")


def _requests(jobs: Sequence[PendingJob]) -> dict[tuple[str, bool], list[list[PendingJob]]]:
    """Divide *jobs* into chunks, for each request; no job overtakes one of its queue and priority."""
    found: dict[tuple[str, bool], list[list[PendingJob]]] = {}
    last: dict[tuple[str, bool, str, int], list[PendingJob]] = {}
    for job in jobs:
        lane = (job.origin, job.strict, job.terms.queue, job.terms.priority)
        chunk = last.get(lane)
        if chunk is None or not _continues(job, chunk[-1]):
            chunk = last[lane] = []
            found.setdefault(lane[:2], []).append(chunk)
        chunk.append(job)
    return found


def _continues(job: PendingJob, last: PendingJob) -> bool:
    """Return whether *job* can be in one chunk with *last*, the job before it of its lane."""
    return (
        (job.terms is last.terms or job.terms == last.terms)
        and job.delay == last.delay
        and not (job.alone or last.alone)
        and (job.number < 0 or job.number == last.number + 1)
    )


def _fail(jobs: Iterable[PendingJob], error: BaseException) -> None:
    """Answer those of *jobs* that have no answer with an error."""
    for job in jobs:
        if not job.answered:
            job.error, job.answered = copy_of(error), True


def copy_of(error: BaseException) -> ServiceError:
    """Return the error for a job or future: a shared one would collect the tracebacks of all who raise it."""
    if isinstance(error, ServiceError):
        return error_for(error.code, error.message)
    return ManagerUnreachable(
        f"a thread of this client was stopped by {type(error).__name__}: {error}; it is not known whether "
        "the job was accepted, or how it ended"
    )
