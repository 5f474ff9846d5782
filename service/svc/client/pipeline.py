"""The way of jobs to the manager: a call becomes a job, jobs become a frame, each job gets its answer.

`Client.submit` gives its job to the pipeline that all threads of the client share (`submit`). `submit_each`
has a pipeline for its stream (`client.submit_stream`). An executor and an asynchronous client have one whose
own thread sends (`client.background`): there, no caller waits for an answer. In all of them:

- Jobs are sent in the order in which they were added, in frames of at most 1,000 jobs and about 4 MiB.
- Of the jobs that threads submit one by one, one frame is on its way at a time, and those that come meanwhile
  wait for the next one. So fifty threads of a process wait for two commits, not for fifty, and a single
  thread waits for no other. Of a stream, and of an executor, several frames are on their way (`begin`,
  `finish`), so that no frame waits for the network. Jobs that have to be sent again come behind those.
- Each job is answered once: with the id under which it is durable, or with an error object of its own. A job
  that is refused makes no other job fail, also if both were in one chunk.
- A job is named by its origin and number, so that it is harmless to send a frame again. If the numbers belong
  to other jobs, this process is a copy of another one, as in a cloned virtual machine, or a child that no
  hook was told of. Then the jobs are sent under another origin.
- A forked child starts without jobs and with another origin. Its parent sends what was added before.
- A signal handler may add and submit jobs, also while its own thread sends.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from types import FunctionType

from svc import codec
from svc.broker.forks import begin_anew_in_children
from svc.client.frames import FRAME_BYTES, FRAME_JOBS, Answer, Chunks, SentFrame, frames, requests_of, size_of
from svc.client.pending import KeyedJob, LargeSender, PendingJob, fail, new_origin, store, with_values
from svc.client.specs import JobSpec, JobTemplate, Options, TaskLike
from svc.domain.job import NewChunk, job_id, job_ids
from svc.domain.limits import BODY_BYTES_MAX
from svc.domain.replies import Note
from svc.envelope import PickleKeys
from svc.error_codes import error_for
from svc.errors import Conflict, JobTooLarge, ServiceError

#: Jobs, and bytes of arguments, that may wait to be sent; beyond that a pipeline is full.
WAITING_JOBS_MAX = 10 * FRAME_JOBS
WAITING_BYTES_MAX = 4 * FRAME_BYTES
#: Tasks whose templates are remembered, and the types of these tasks.
_KNOWN_MAX = 256
_NAMED = (str, FunctionType)

#: Submits chunks: the name of their origin, the chunks, and whether their tasks must be known.
Submit = Callable[[str, Sequence[NewChunk], bool], list[Note]]
#: Sends the same, and returns a function that waits for the answer; answers are waited for in order.
Post = Callable[[str, Sequence[NewChunk], bool], Answer]


class SubmitPipeline:
    """Sends jobs of any thread; see the module."""

    def __init__(
        self,
        submit: Submit,
        pickle_keys: PickleKeys | None = None,
        values: LargeSender | None = None,
        post: Post | None = None,
    ) -> None:
        """Send with *submit*, which one thread calls at a time; pickles are signed with *pickle_keys*.

        Large arguments are sent by *values*; without it, there are none. With *post*, several frames can be
        on their way; without it, each is sent when its answer is waited for.
        """
        self._submit = submit
        self._post: Post = post or partial(partial, submit)
        self.values = values
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
                    if (
                        template is None
                        or spec.task is not template.task
                        or spec.options is not template.options
                    ):
                        template = self.template(spec.task, spec.options)
                    entry = encoded(template, spec.args, spec.kwargs, strict, self.values)
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
        # In the caller's own thread, so that no other waits for it.
        if job.store is not None:
            store(job)
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
            self._waiting_bytes -= size_of(taken)
            return taken

    def _send_next(self, own: PendingJob) -> None:
        """Send the next frame; in a signal handler that interrupted this thread in that, only *own*."""
        if self._is_sending:
            self._remove(own)
            # The interrupted thread may be just numbering jobs, so this one has an origin of its own.
            SubmitPipeline(self._submit, self._pickle_keys, self.values).send([own])
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
        self.finish(self.begin(jobs))

    def begin(self, jobs: Sequence[PendingJob]) -> SentFrame:
        """Send *jobs* without a wait for the answer; `finish` waits, in the order of these calls."""
        try:
            left = with_values(jobs) if any(map(_store_of, jobs)) else jobs
            frame = SentFrame(jobs)
            for (origin, strict), chunks in requests_of(left).items():
                frame.requests.append((chunks, self._begin(origin, strict, chunks)))
        except BaseException as error:
            fail(jobs, error)
            raise
        return frame

    def finish(self, frame: SentFrame) -> None:
        """Return once all jobs of a sent frame are answered; some of them may have to be sent once more.

        Raises:
            ServiceError: a request failed; the jobs without an answer have errors like this one.
        """
        failed: ServiceError | None = None
        again: list[PendingJob] = []
        try:
            for chunks, answer in frame.requests:
                try:
                    again += self._note_answers(chunks, answer())
                except ServiceError as error:
                    # The other requests may well succeed: a refusal of this one need not be theirs.
                    failed = error
                    fail((job for chunk in chunks for job in chunk), error)
            if again:
                self.send(again)
        except BaseException as error:
            fail(frame.jobs, error)
            raise
        if failed is not None:
            raise failed

    def _begin(self, origin: str, strict: bool, chunks: Chunks) -> Answer:
        try:
            content = [self._new_chunk(chunk) for chunk in chunks]
            return self._post(origin or self.origin, content, strict)
        except ServiceError as error:
            return partial(_raise, error)

    def _note_answers(self, chunks: Chunks, notes: Sequence[Note]) -> list[PendingJob]:
        """Note the answers to the jobs of *chunks*; return the jobs that are to be sent once more."""
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
            elif note.code == Conflict.code and _has_other_body(jobs[0]):
                again.add(note.chunk)
            else:
                for job in jobs:
                    job.id = note.id
                    job.error = error_for(note.code, note.message) if note.code else None
        for place, jobs in enumerate(chunks):
            if place not in again:
                _accept(jobs)
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
        return NewChunk(first.number, first.terms, bodies, first.delay, first.key, [], list(first.large))

    def _renumber(self, jobs: Sequence[PendingJob]) -> None:
        """Take from *jobs* the numbers that other jobs have; they get others of another origin."""
        if jobs[0].origin == self.origin:
            self.origin, self._next = new_origin(), 0
        for job in jobs:
            job.origin, job.number, job.id, job.stored = "", -1, "", False


def encoded(
    template: JobTemplate,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    strict: bool = False,
    values: LargeSender | None = None,
) -> PendingJob:
    """Return a job of *template* with its arguments; large ones are sent by *values*.

    Raises:
        CodecError: the arguments are not data that the job's codec can carry, or not what the function's
            annotations ask for once they have travelled.
        JobTooLarge: they are larger than any message may be.
    """
    if template.demands is not None:
        template.demands.check(args, kwargs)
    terms, options = template.terms, template.options
    if options.key and (in_order := codec.by_name(kwargs)) is not kwargs:
        return _keyed(template, args, in_order, kwargs, strict, values)
    body = codec.encode_quickly(args, kwargs) if terms.codec == codec.PLAIN else None
    if body is None:
        sent = args if template.name is not None else (template.task, *args)
        try:
            body, used = codec.encode_call(
                terms.codec, sent, kwargs, template.parameter_names, whole=values is None
            )
        except codec.LargeArguments:
            if values is not None and (job := values.job(template, args, kwargs)) is not None:
                job.strict = strict
                return job
            body, used = codec.encode_call(terms.codec, sent, kwargs, template.parameter_names, whole=True)
        if used == codec.TYPED:
            terms = template.typed_terms
    if len(body) > BODY_BYTES_MAX:
        raise JobTooLarge(
            f"the arguments take {len(body)} bytes and no message carries over {BODY_BYTES_MAX}"
        )
    key = options.key
    return PendingJob(terms, body, options.delay, key, strict, key != "")


def _keyed(
    template: JobTemplate,
    args: Sequence[object],
    in_order: Mapping[str, object],
    written: Mapping[str, object],
    strict: bool,
    values: LargeSender | None,
) -> PendingJob:
    """Return a job with a key, with keyword arguments that are *in_order*, and not as they were *written*."""
    job = encoded(template, args, in_order, strict, values)
    if job.store is not None:
        return job
    sent = args if template.name is not None else (template.task, *args)
    body, _ = codec.encode_call(template.terms.codec, sent, written, template.parameter_names, whole=True)
    return KeyedJob(job.terms, job.body, job.delay, job.key, strict, alone=True, written=body)


def _has_other_body(job: PendingJob) -> bool:
    """Return whether the conflict of a job may be one of order alone; it has its other body then.

    The key may belong to a job of an earlier release, which has its keyword arguments as they were written.
    """
    if not isinstance(job, KeyedJob) or not job.written:
        return False
    job.body, job.written = job.written, b""
    return True


def _accept(jobs: Sequence[PendingJob]) -> None:
    """Note that the jobs of a chunk, whose numbers are consecutive, are answered; each has an id then."""
    first = jobs[0]
    for job, own in zip(jobs, job_ids(first.origin, first.number, len(jobs)), strict=True):
        job.id = job.id or own
        job.answered = True


_store_of, _number_of = attrgetter("store"), attrgetter("number")


def _raise(error: ServiceError) -> list[Note]:
    raise error
