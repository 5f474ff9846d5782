"""Turns calls of functions into the chunks of a submit command: names, bodies, terms, frames. Pure."""

from __future__ import annotations

import inspect
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

import msgspec

from svc import codec
from svc.annotations import demands_of
from svc.callables import name_of
from svc.domain.job import CALL, DEFAULT_QUEUE, NewChunk, Terms, check_chunk
from svc.domain.names import shown_name
from svc.errors import BadRequest, JobTooLarge, ServiceError
from svc.wire import MESSAGE_BYTES_MAX

#: Jobs in one submit command at most.
FRAME_JOBS = 1000
#: Bytes of arguments in a submit command; once it has so many, it takes no further job.
FRAME_BYTES = 4 * 1024 * 1024
#: Bytes of arguments that fit into a message, whatever the manager's own limit is.
BODY_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

#: The task of a job: the name of a task, a function that workers can import, or any callable.
TaskLike = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The terms of a job that its caller may choose; None leaves the choice to the task.

    Attributes:
        queue: the queue of the job.
        priority: jobs of a higher priority are taken first.
        delay: seconds until the job is ready.
        key: the same key with the same task and arguments is the same job.
        retries: attempts after the first failed one.
        backoff: seconds before the first retry; doubled for each further retry.
        timeout: seconds after which an attempt is killed.
        codec: `plain`, or `pickle` for arguments that are not plain data.
        strict: whether to refuse a task that no connected worker knows.
    """

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    delay: float = 0.0
    key: str = ""
    retries: int | None = None
    backoff: float | None = None
    timeout: float | None = None
    codec: str = codec.PLAIN
    strict: bool = False

    def but(self, **changes: Any) -> Options:
        """Return these options with *changes*."""
        return replace(self, **changes)


# One of each of the next two is made for every job: a struct costs a tenth of a frozen dataclass.
class JobSpec(msgspec.Struct, frozen=True):
    """One job to submit."""

    task: TaskLike
    args: Sequence[object] = ()
    kwargs: dict[str, object] = {}
    options: Options = Options()


class Encoded(msgspec.Struct, frozen=True):
    """One job in the form in which the manager stores it."""

    terms: Terms
    body: bytes
    delay: float = 0.0
    key: str = ""


@dataclass(slots=True)
class Frame:
    """Jobs for one submit command; each entry of `jobs` is a job, or the error why it cannot be sent."""

    jobs: list[Encoded | ServiceError] = field(default_factory=list)
    size: int = 0

    def full_with(self, size: int) -> bool:
        """Return whether a job of *size* bytes has to wait for the next frame."""
        return len(self.jobs) >= FRAME_JOBS or self.size + size > FRAME_BYTES

    def add(self, job: Encoded | ServiceError, size: int) -> None:
        """Add *job* of *size* bytes."""
        self.jobs.append(job)
        self.size += size


@dataclass(slots=True)
class Group:
    """Jobs that are sent as one chunk: their places in the frame and their bodies."""

    first: Encoded
    places: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def takes(self, job: Encoded) -> bool:
        """Return whether *job* can join: its terms and delay are equal, and neither has a key."""
        first = self.first
        alike = (job.terms is first.terms or job.terms == first.terms) and job.delay == first.delay
        return alike and not job.key and not first.key

    def chunk(self, number: int, bodies: list[bytes]) -> NewChunk:
        """Return the chunk, its jobs numbered from *number* on; *bodies* are sealed if they are pickles."""
        return NewChunk(number, self.first.terms, bodies, self.first.delay, self.first.key)

    def parts(self) -> list[Group]:
        """Return the same jobs as one chunk each."""
        return [
            Group(self.first, [place], [body]) for place, body in zip(self.places, self.bodies, strict=True)
        ]


def new_origin() -> str:
    """Return a random 64-bit name: 13 characters of lower-case Crockford base 32."""
    number = secrets.randbits(64)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(60, -1, -5))


def task_name(task: TaskLike) -> str | None:
    """Return the name under which workers know *task*, or None if it has to be sent as a pickle.

    A function has the name under which it was registered; otherwise `module:qualname` if another process can
    import it. Lambdas, local functions, bound methods, objects, and the functions of a script cannot be
    imported.
    """
    if isinstance(task, str):
        return task
    registered = getattr(task, "task_name", None)
    if isinstance(registered, str):
        return registered
    if not (inspect.isroutine(task) or inspect.isclass(task)):
        return None
    module, path = getattr(task, "__module__", None), task.__qualname__
    return f"{module}:{path}" if module != "__main__" and _at(module, path) is task else None


def _at(module: str | None, path: str) -> object:
    found: object = sys.modules.get(module or "")
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


class Encoder:
    """Encodes jobs one after the other; parts that a job shares with the one before are made only once."""

    __slots__ = ("_demands", "_name", "_options", "_task", "_terms")

    def __init__(self) -> None:
        """Start without a job."""
        self._task: TaskLike | None = None
        self._options: Options | None = None

    def encode(self, spec: JobSpec) -> Encoded:
        """Return *spec* in the form in which the manager stores it.

        Raises:
            BadRequest: one of the job's options is out of bounds.
            CodecError: the arguments are not data that the job's codec can carry, or not what the function's
                annotations ask for once they have travelled.
            JobTooLarge: they are larger than any message may be.
        """
        if spec.task is not self._task or spec.options is not self._options:
            self._begin(spec.task, spec.options)
        if self._demands is not None:
            self._demands.check(spec.args, spec.kwargs)
        args = spec.args if self._name is not None else (spec.task, *spec.args)
        body = body_of(self._terms.codec, args, spec.kwargs)
        return Encoded(self._terms, body, spec.options.delay, spec.options.key)

    def _begin(self, task: TaskLike, options: Options) -> None:
        _check_kinds(task, options)
        self._name = task_name(task)
        self._terms = _terms(task, self._name, options)
        try:
            check_chunk(NewChunk(0, self._terms, [], options.delay, options.key))
        except ValueError as error:
            raise BadRequest(f"the job is out of bounds: {error}") from None
        by_data = isinstance(task, FunctionType) and self._terms.codec == codec.PLAIN
        self._demands = demands_of(task) if by_data else None
        if options.delay < 0:
            raise BadRequest(f"the job is out of bounds: delay: {options.delay:g} s have passed already")
        self._task, self._options = task, options


def _check_kinds(task: object, options: Options) -> None:
    """See to what no bound of a chunk says, as it is no part of one or any name would do.

    Raises:
        BadRequest: the task or an option is of a wrong kind.
    """
    if not (isinstance(task, str) or callable(task)):
        raise BadRequest(f"a task is a name or a callable, not {task!r:.60}")
    if options.codec not in codec.CODECS:
        raise BadRequest(f"{options.codec!r:.60} is not a codec; codecs are {', '.join(codec.CODECS)}")
    if not isinstance(options.strict, bool):
        raise BadRequest(f"strict is True or False, not {options.strict!r:.60}")


def encode(spec: JobSpec) -> Encoded:
    """Return one job in the form in which the manager stores it; as `Encoder.encode`."""
    return Encoder().encode(spec)


def body_of(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Return the arguments in the encoding of the codec *name*.

    Raises:
        CodecError: it cannot encode them.
        JobTooLarge: they do not fit into any message.
    """
    body = codec.encode_arguments(name, args, kwargs)
    if len(body) > BODY_BYTES_MAX:
        raise JobTooLarge(
            f"the arguments take {len(body)} bytes and no message carries over {BODY_BYTES_MAX}"
        )
    return body


def _terms(task: TaskLike, name: str | None, options: Options) -> Terms:
    return Terms(
        task=CALL if name is None else name,
        queue=options.queue,
        priority=options.priority,
        codec=codec.PICKLE if name is None else options.codec,
        retries=options.retries,
        backoff=options.backoff,
        timeout=options.timeout,
        label="" if name is not None or isinstance(task, str) else shown_name(name_of(task)),
    )


def frames(specs: Iterable[JobSpec | ServiceError | None]) -> Iterator[Frame]:
    """Divide jobs into frames of at most 1,000 jobs and about 4 MiB, in their order.

    An error in *specs*, or one from encoding a job, keeps its place. None ends the current frame.
    """
    frame, encoder = Frame(), Encoder()
    for spec in specs:
        job = None if spec is None else _encoded(encoder, spec)
        size = len(job.body) if isinstance(job, Encoded) else 0
        if frame.jobs and (job is None or frame.full_with(size)):
            yield frame
            frame = Frame()
        if job is not None:
            frame.add(job, size)
    if frame.jobs:
        yield frame


def _encoded(encoder: Encoder, spec: JobSpec | ServiceError) -> Encoded | ServiceError:
    if isinstance(spec, ServiceError):
        return spec
    try:
        return encoder.encode(spec)
    except ServiceError as error:
        return error


def groups(jobs: Sequence[Encoded | ServiceError]) -> list[Group]:
    """Group jobs with equal terms into chunks, so that no job overtakes one of its queue and priority."""
    found: list[Group] = []
    last: dict[tuple[str, int], Group] = {}
    for place, job in enumerate(jobs):
        if isinstance(job, ServiceError):
            continue
        lane = (job.terms.queue, job.terms.priority)
        group = last.get(lane)
        if group is None or not group.takes(job):
            group = last[lane] = Group(job)
            found.append(group)
        group.places.append(place)
        group.bodies.append(job.body)
    return found
