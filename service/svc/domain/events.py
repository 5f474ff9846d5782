"""The events: facts that the journal stores and that recovery replays.

Leases are not among them: after a lost lease an attempt is only repeated. Events are encoded as MessagePack
arrays: fields may be added at the end, with a default, and never removed or reordered.
"""

from __future__ import annotations

from typing import Final

import msgspec

from svc.domain.job import Cause, ErrorInfo, Terms


class Event(msgspec.Struct, frozen=True, array_like=True, tag_field="event"):
    """Base of all events. `at` is a Unix time in seconds."""


class Submitted(Event, frozen=True, tag="submitted"):
    """Jobs `first`, `first + 1`, … of `origin` were accepted; ready at once, or at `due`.

    `key` is the key of the only job. If several jobs have keys or due times of their own, `keys` and `dues`
    have one entry for each job: its key or "", and its due time or 0; otherwise they are empty. `joins` says
    whether the jobs joined the chunk of the job before them; it is None in older journals, in which
    `may_take` decides that. `headers` has the header of each job, or is empty if no job has one.
    """

    at: float
    origin: str
    first: int
    terms: Terms
    bodies: list[bytes]
    due: float | None = None
    key: str = ""
    dues: list[float] = []
    keys: list[str] = []
    joins: bool | None = None
    headers: list[bytes] = []


class Merged(Event, frozen=True, tag="merged"):
    """Waiting jobs `first`, `first + 1`, … of `origin`, accepted one by one, are in one row from now on.

    `accepted_by` has for each job the event that accepted it, whose row is gone, and `accepted_at` has the
    time of that event. `dues`, `keys` and `headers` are as in `Submitted`.
    """

    at: float
    origin: str
    first: int
    terms: Terms
    bodies: list[bytes]
    accepted_by: list[int]
    accepted_at: list[float]
    dues: list[float] = []
    keys: list[str] = []
    headers: list[bytes] = []


class Range(msgspec.Struct, frozen=True, array_like=True):
    """The results of consecutive jobs of one origin, recorded under one lease; `consumer` held that.

    `code` is the version of its tasks' code. `peaks` has the most memory in bytes that each job took, or is
    empty if none was measured.
    """

    origin: str
    first: int
    token: int
    results: list[bytes]
    seconds: list[float]
    consumer: str = ""
    code: str = ""
    peaks: list[int] = []


class Succeeded(Event, frozen=True, tag="succeeded"):
    """Jobs ended with results."""

    at: float
    ranges: list[Range]


class Aside(msgspec.Struct, frozen=True, array_like=True):
    """Digests of an error's long texts that a journal stores beside the event; each is b"" without a text.

    `cut` is the position in the traceback from which the message of the error is left out, or 0.
    """

    traceback: bytes
    cut: int = 0
    exception: bytes = b""


class Failed(Event, frozen=True, tag="failed"):
    """An attempt ended without a result; the job is retried at `retry_at`, or is dead if that is None.

    `token` is that of the lease whose holder reported it, or 0 where another did. `failures`, `crashes` and
    `interruptions` are the job's charges after it, so that the events of earlier attempts need not be kept;
    all are 0 in older journals, in which each event counts one of them up. `aside` is set by a journal alone:
    what it replays has no long texts. `suspicions` and `attempt`, the number of the attempt, are 0 in older
    journals too. `suspect` says whether the job is a suspect after it. `code` is the version of the code that
    ran, and `peak` the most memory in bytes that it took, or 0 if that was not measured.
    """

    at: float
    origin: str
    number: int
    cause: Cause
    error: ErrorInfo
    retry_at: float | None
    seconds: float = 0.0
    consumer: str = ""
    token: int = 0
    failures: int = 0
    crashes: int = 0
    interruptions: int = 0
    aside: Aside | None = None
    suspicions: int = 0
    attempt: int = 0
    suspect: bool = False
    code: str = ""
    peak: int = 0

    @property
    def charges(self) -> tuple[int, int, int, int] | None:
        """The job's charges after the attempt, or None if an older release wrote the event."""
        known = (self.failures, self.crashes, self.interruptions, self.suspicions)
        return known if any(known) else None


class Suspected(Event, frozen=True, tag="suspected"):
    """A worker was lost that held jobs `first`, `first + 1`, … of `origin` by one lease: they are suspects.

    `again` says that it was a suspect already, `charged` that it got a suspicion for this loss.
    """

    at: float
    origin: str
    first: int
    count: int
    token: int
    again: bool = False
    charged: bool = False


class Cleared(Event, frozen=True, tag="cleared"):
    """The process came back whose loss made jobs suspects, under the lease `token`.

    `suspicions` is what a job that was charged for it has left.
    """

    at: float
    origin: str
    first: int
    token: int
    suspicions: int | None = None


class Checkpointed(Event, frozen=True, tag="checkpointed"):
    """The attempt at job `number` of `origin` under `token` left data for the next one."""

    at: float
    origin: str
    number: int
    token: int
    data: bytes


class Yielded(Event, frozen=True, tag="yielded"):
    """The attempt at job `number` of `origin` under `token` gave partial results, from number `first` on.

    They are of the job's stream number `stream`; `attempt` is the number of the attempt.
    """

    at: float
    origin: str
    number: int
    token: int
    first: int
    values: list[bytes]
    stream: int
    attempt: int


class Stored(Event, frozen=True, tag="stored"):
    """A piece of a large value came: an argument of job `number`, or the result of its attempt `token`.

    `place` and `size` are those of the whole value, and `offset` is where `data` begins in it.
    """

    at: float
    origin: str
    number: int
    token: int
    place: int
    size: int
    offset: int
    data: bytes


class CutRun(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that a cancel ended: at job `number`, by a consumer with this `code`, after some seconds."""

    number: int
    seconds: float
    consumer: str
    code: str = ""


class JobsCancelled(Event, frozen=True, tag="cancelled"):
    """Jobs of one origin were cancelled; `runs` has the attempts at those that ran, in order of the jobs."""

    at: float
    origin: str
    numbers: list[int]
    runs: list[CutRun] = []


class Requeued(Event, frozen=True, tag="requeued"):
    """Dead jobs of one origin were made ready again."""

    at: float
    origin: str
    numbers: list[int]


class Answered(Event, frozen=True, tag="answered"):
    """A plain client took the answers to these jobs out of the `results` queue."""

    origin: str
    numbers: list[int]


class Drained(Event, frozen=True, tag="drained"):
    """A drain came into force, for one worker or, without a name, for all."""

    at: float
    epoch: int
    worker: str = ""
    refuse: bool = False


class Resumed(Event, frozen=True, tag="resumed"):
    """A drain ended, for one worker or, without a name, for all."""

    at: float
    worker: str = ""


class Forgotten(Event, frozen=True, tag="forgotten"):
    """Jobs of `origin` have passed their retention; to submit them again changes nothing.

    These are the jobs in `ranges`, each [first, stop), and some below `floor`, under which no number may be
    used any more; in older journals, all jobs below `below`.
    """

    at: float
    origin: str
    below: int
    ranges: list[tuple[int, int]] = []
    floor: int = 0


class Purged(Event, frozen=True, tag="purged"):
    """Jobs of one chunk of `origin` were purged after they had ended: those in `ranges`, each [first, stop).

    What ended them may be gone since. `finished_at` is the time at which the last job of the chunk had ended,
    or 0 if one had not.
    """

    at: float
    origin: str
    ranges: list[tuple[int, int]]
    finished_at: float = 0.0


class RosterBegun(Event, frozen=True, tag="roster_begun"):
    """From here on the journal has each worker that may hold leases, and the watermarks of the queues."""

    at: float


class Enrolled(Event, frozen=True, tag="enrolled"):
    """Consumers of a worker may get jobs of these queues, tasks and codecs (None: all)."""

    at: float
    worker: str
    queues: list[str]
    tasks: list[str] | None = None
    codecs: list[str] | None = None


class Struck(Event, frozen=True, tag="struck"):
    """A worker left, or was given up: it holds no lease any more."""

    at: float
    worker: str


class WatermarkMoved(Event, frozen=True, tag="watermark_moved"):
    """Jobs of a queue may be granted from now on whose chunk began with event `up_to` or before."""

    at: float
    queue: str
    up_to: int


class ClockSet(Event, frozen=True, tag="clock_set"):
    """The manager's clock was set to `at`; it showed `before`. Times after `at` were recorded in error."""

    at: float
    before: float


AnyEvent = (
    Submitted
    | Merged
    | Succeeded
    | Failed
    | JobsCancelled
    | Requeued
    | Answered
    | Drained
    | Resumed
    | Forgotten
    | Suspected
    | Cleared
    | ClockSet
    | Checkpointed
    | Yielded
    | Purged
    | Stored
    | RosterBegun
    | Enrolled
    | Struck
    | WatermarkMoved
)


#: The events that have arguments of jobs.
WITH_BODIES: Final = (Submitted, Merged)
#: The events of the roster of workers, which only a replay reads.
OF_ROSTER: Final = (RosterBegun, Enrolled, Struck, WatermarkMoved)


def weight(event: AnyEvent | None) -> int:
    """Return the bytes of the results, arguments or texts in *event*."""
    match event:
        case Succeeded():
            return sum(sum(map(len, span.results)) for span in event.ranges)
        case Submitted() | Merged():
            return sum(map(len, event.bodies)) + sum(map(len, event.headers))
        case Checkpointed() | Stored():
            return len(event.data)
        case Yielded():
            return sum(map(len, event.values))
        case Failed():
            error = event.error
            return len(error.message) + len(error.traceback) + len(error.exception)
    return 0
