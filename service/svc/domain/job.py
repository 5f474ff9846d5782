"""The values that jobs are made of, on the wire and in the journal, and the ids of jobs.

All are `msgspec` structs that are encoded as MessagePack arrays: fields may be added at the end, with a
default, and never removed or reordered (an older reader ignores fields that it does not know).

An *alias* is a second name of a job that has an idempotency key. With the id of a job, a client that may wait
for jobs can read its outcome; with its origin, the outcomes of all jobs of that submission. A client that
repeats another client's keyed submit has shown that it knows the key and the content of one job. It gets an
alias, made of just these two, which gives access to the outcome of that job and to nothing else.
"""

from __future__ import annotations

import enum
import re

import msgspec

from svc.domain import field_bounds as bounds
from svc.domain import names
from svc.domain.lifecycle import JobState

#: The queue of a job that names no queue.
DEFAULT_QUEUE = "default"
#: The task name of plain data that only plain clients take. No real task name starts with `#`.
ITEM = "#item"
#: The codec of items and of pills: a pickle that the manager made from data that it had scanned.
ITEM_CODEC = "item"
#: The task name of a pill that a plain client put: it stops exactly one consumer.
PILL = "#pill"
#: The queue of the data that plain clients put into `results`.
RESULTS_QUEUE = "#results"
#: Queues that are always known: `default`, and the queue of `results`.
PERMANENT_QUEUES = (DEFAULT_QUEUE, RESULTS_QUEUE)
#: The task name of a job whose callable is sent as a pickle.
CALL = "svc:call"
#: The task name of a job that is a shell command; only workers with `--shell` know it.
SHELL = "svc:shell"
#: The reason of a job that a connected consumer can run as soon as it is free.
IDLE = "waits for an idle consumer"
#: The reason of a suspect, which is granted singly.
ALONE = "a worker that held it was lost: it waits to run alone"
#: The reasons of ready jobs that run without anybody doing something about it.
PASSING = frozenset((IDLE, ALONE))
_ALIAS_PREFIX = "key."
_DIGEST_DIGITS = 32
_PUT_ORIGIN = re.compile(r"put[0-9]+")
#: An origin and a number without leading zeros, which may still be too large.
_JOB_ID = re.compile(
    rf"(.{{1,{bounds.ORIGIN_MAX}}})-(0|[1-9][0-9]{{0,{len(str(bounds.NUMBER_MAX)) - 1}}})", re.DOTALL
)


class Struct(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=False):
    """Base of all values that are sent or stored."""


class Terms(Struct, frozen=True, gc=False):
    """The properties that all jobs of a chunk have in common.

    `retries`, `backoff` (seconds before the first retry) and `timeout` (seconds) override the task's own
    settings if they are not None, and so do `soft_timeout` (seconds) and `max_rss` (bytes). With `answer`,
    the outcome is also put into the `results` queue of plain clients. `label` names the callable of a job
    whose task is `CALL`. With `typed`, the submitter can read extension types in the result, and with
    `large`, fetch a result in pieces.
    """

    task: str
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    codec: str = "plain"
    retries: int | None = None
    backoff: float | None = None
    timeout: float | None = None
    answer: bool = False
    label: str = ""
    soft_timeout: float | None = None
    max_rss: int | None = None
    typed: bool = False
    large: bool = False

    @property
    def shown_task(self) -> str:
        """The task's name for people: for a pickled callable, the name that its submitter gave."""
        return self.label if self.label and self.task == CALL else self.task


class NewChunk(Struct, frozen=True):
    """Jobs submitted together: numbers `first`, `first + 1`, … of their origin, one body each.

    `delay` is in seconds. `key` makes a chunk of one idempotent: the same key with the same task
    and body is the same job. `headers` is empty, or has a header for each job: bytes that the manager keeps
    beside the body and hands to the consumer. `large` has the sizes of the large arguments of the only job,
    which are stored already.
    """

    first: int
    terms: Terms
    bodies: bounds.Bodies
    delay: float = 0.0
    key: str = ""
    headers: bounds.Headers = []
    large: bounds.LargeSizes = []


class Cause(enum.StrEnum):
    """The reason why an attempt ended without a result."""

    #: The task raised. Charged to `failures`.
    FAILED = "failed"
    #: The task ran over its timeout and its consumer was killed. Charged to `failures`.
    TIMED_OUT = "timed_out"
    #: The process running the job died. Charged to `crashes`.
    CRASHED = "crashed"
    #: The job can never run (arguments, codec, result): it is dead at once.
    REFUSED = "refused"
    #: Drain, scale-in or a lost host. Charged to `interruptions`, which has no budget.
    INTERRUPTED = "interrupted"
    #: Its worker was lost while it ran, and it may be why. Charged to `suspicions`, and to `interruptions`.
    SUSPECTED = "suspected"
    #: The task asked to run again later. Counted with `interruptions`, which has no budget.
    SNOOZED = "snoozed"


class ErrorInfo(Struct, frozen=True):
    """The error of an attempt: exception class name, its message, and the traceback if any.

    `exception` is the pickled exception of a job whose codec is `pickle`; the manager never opens it.
    """

    type: str
    message: str
    traceback: str = ""
    exception: bytes = b""

    @property
    def line(self) -> str:
        """Its class and its message."""
        return ": ".join(filter(None, (self.type, self.message)))

    def redacted(self) -> ErrorInfo:
        """Return the error without its texts."""
        return ErrorInfo(self.type, "(hidden)" if self.message else "")

    def within_bounds(self) -> ErrorInfo:
        """Return the error within the bounds; it is cut and not refused, as a report must not be lost."""
        name, message, traceback, exception = msgspec.structs.astuple(self)
        fits = len(message) <= bounds.MESSAGE_MAX and len(traceback) <= bounds.TRACEBACK_MAX
        if fits and len(exception) <= bounds.EXCEPTION_MAX and names.is_name(name):
            return self
        exception = exception if len(exception) <= bounds.EXCEPTION_MAX else b""
        shown = names.shown_name(name) or "Error"
        return ErrorInfo(shown, message[: bounds.MESSAGE_MAX], traceback[: bounds.TRACEBACK_MAX], exception)


class Attempt(Struct, frozen=True):
    """One ended attempt in a job's history. `at` is a Unix time, `seconds` the run time.

    `number` counts all attempts of the job from 1 on; it is 0 where the manager is older. One that brought a
    suspicion is `suspected`, one that the task put off is `snoozed`, and one during which its job was
    cancelled is `cancelled`; the cause of all three is INTERRUPTED: older clients know no other. `code` is
    the version of the code that ran, "" where it is not known, and `peak_rss` the most memory in bytes that
    the attempt took, None if it was not measured.
    """

    at: float
    cause: Cause
    error: ErrorInfo
    seconds: float = 0.0
    consumer: str = ""
    number: int = 0
    suspected: bool = False
    snoozed: bool = False
    code: str = ""
    peak_rss: int | None = None
    cancelled: bool = False

    @property
    def how(self) -> str:
        """How it ended, in a word."""
        if self.cancelled:
            return JobState.CANCELLED.word
        if self.snoozed:
            return Cause.SNOOZED.value
        return Cause.SUSPECTED.value if self.suspected else self.cause.value

    @property
    def timed(self) -> bool:
        """Whether its run time is known: that of an attempt whose worker was lost may not be."""
        return self.seconds > 0 or self.cause is not Cause.INTERRUPTED

    @property
    def said(self) -> str:
        """Why it ended: the message of a task that put its job off, else the error with its class."""
        return self.error.message if self.snoozed else self.error.line


class OutputStream(enum.IntEnum):
    """A stream of a process's output, by its descriptor; STDERR has the records of `logging`, too."""

    STDOUT = 1
    STDERR = 2


class OutputPiece(Struct, frozen=True):
    """A piece of the output of one attempt: the bytes of a stream from `offset` on.

    What is missing between two pieces was dropped. A piece without data tells that all up to it was.
    """

    id: bounds.JobId
    attempt: bounds.Number
    stream: OutputStream
    offset: bounds.Number
    data: bounds.OutputData


class Outcome(Struct, frozen=True):
    """The end of one job: its result (encoded by its codec) or its error.

    `attempts` counts the attempts of a dead job; it is 0 for other jobs, and from an older manager.
    """

    id: str
    state: JobState
    result: bytes = b""
    error: ErrorInfo | None = None
    codec: str = "plain"
    finished_at: float = 0.0
    seconds: float = 0.0
    task: str = ""
    attempts: int = 0


def job_id(origin: str, number: int) -> str:
    """Return the id of job *number* of *origin*."""
    return f"{origin}-{number}"


def job_ids(origin: str, first: int, count: int) -> list[str]:
    """Return the ids of *count* jobs of *origin* from number *first* on."""
    return [f"{origin}-{number}" for number in range(first, first + count)]


def parse_job_id(text: str) -> tuple[str, int]:
    """Return (origin, number) of an id that `job_id` wrote; a job has only one id.

    Raises:
        ValueError: *text* does not have the form of a job id.
    """
    found = _JOB_ID.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[: names.NAME_MAX]!r} is not a job id; an id looks like k3v9x0m2q7w1z-0")
    origin, digits = found.groups()
    number = int(digits)
    if number > bounds.NUMBER_MAX or not origin.isprintable():
        raise ValueError(
            f"{text[: names.NAME_MAX]!r} is not a job id: a number goes up to {bounds.NUMBER_MAX}"
        )
    return origin, number


def alias_of(key: str, digest: bytes) -> str:
    """Return the alias of the job that has *key* and whose task and arguments have the digest *digest*."""
    return job_id(f"{_ALIAS_PREFIX}{digest.hex()}.{key}", 0)


def is_alias(origin: str) -> bool:
    """Return whether *origin* is the origin of an alias."""
    return origin.startswith(_ALIAS_PREFIX)


def key_and_digest(origin: str) -> tuple[str, bytes]:
    """Return the key and the content's digest in the origin of an alias; the digest is b"" if malformed."""
    digits, _, key = origin.removeprefix(_ALIAS_PREFIX).partition(".")
    try:
        return key, bytes.fromhex(digits) if len(digits) == _DIGEST_DIGITS else b""
    except ValueError:
        return key, b""


def put_origin(incarnation: int) -> str:
    """Return the origin of the jobs that plain clients put during one life of the manager."""
    return f"put{incarnation}"


def is_put_origin(origin: str) -> bool:
    """Return whether *origin* is one of `put_origin`: it can be guessed, so to know it proves nothing."""
    return origin.startswith("put") and _PUT_ORIGIN.fullmatch(origin) is not None


def is_reserved_origin(origin: str) -> bool:
    """Return whether only the manager itself makes jobs of this origin."""
    return is_alias(origin) or is_put_origin(origin)


class ChunkBounds(Struct, frozen=True):
    """The bounds of a chunk's fields: its `Terms`, and the other fields but the bodies.

    Those types do not have the bounds themselves, for two reasons. A chunk out of bounds is refused alone,
    and not with the whole frame in which it came; and an older journal may hold such chunks.
    """

    first: bounds.Number
    delay: bounds.Delay
    key: bounds.NameOrNone
    task: bounds.Name
    queue: bounds.Name
    priority: bounds.Priority
    codec: bounds.Label
    retries: bounds.Number | None
    backoff: bounds.Seconds | None
    timeout: bounds.Seconds | None
    answer: bool
    label: bounds.NameOrNone
    soft_timeout: bounds.Seconds | None
    max_rss: bounds.Memory | None
    typed: bool
    large: bool


# msgspec looks at a type's fields at their first use, and no job should wait for that.
msgspec.msgpack.Decoder(ChunkBounds)


def check_chunk(chunk: NewChunk) -> None:
    """Check the fields of a chunk against their bounds.

    Raises:
        ValueError: a field is out of bounds; the message names it.
    """
    terms = chunk.terms
    values = (chunk.first, chunk.delay, chunk.key, *msgspec.structs.astuple(terms))
    try:
        msgspec.convert(values, ChunkBounds)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    # Each for itself: to join them first takes three times as long.
    if not (terms.task.isprintable() and terms.queue.isprintable() and terms.codec.isprintable()):
        raise ValueError("queues, tasks and codecs have names of printable characters")
    if terms.label and not terms.label.isprintable():
        raise ValueError("labels have printable characters")
    if not chunk.key.isprintable():
        raise ValueError("keys have printable characters")
    if chunk.headers:
        _check_headers(chunk)
    if chunk.first + len(chunk.bodies) > bounds.NUMBER_MAX:
        raise ValueError(f"numbers of jobs go up to {bounds.NUMBER_MAX}")


def _check_headers(chunk: NewChunk) -> None:
    if len(chunk.headers) != len(chunk.bodies):
        raise ValueError(f"{len(chunk.headers)} headers came with {len(chunk.bodies)} bodies")
    if max(map(len, chunk.headers)) > bounds.HEADER_MAX:
        raise ValueError(f"a header has at most {bounds.HEADER_MAX} bytes")


def _in_words(text: str) -> str:
    """Turn "Expected `int` >= 0 - at `$[5]`" into a sentence that names the field."""
    expected, _, path = text.partition(" - at `$[")
    name = ChunkBounds.__struct_fields__[int(path.partition("]")[0])]
    return f"{name}: {expected[:1].lower()}{expected[1:]}"
