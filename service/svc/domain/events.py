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
    """The results of consecutive jobs of one origin, recorded under one lease."""

    origin: str
    first: int
    token: int
    results: list[bytes]
    seconds: list[float]


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
    journals too. `suspect` says whether the job is a suspect after it.
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


class Cancelled(Event, frozen=True, tag="cancelled"):
    """Waiting jobs of one origin were cancelled."""

    at: float
    origin: str
    numbers: list[int]


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


class ClockSet(Event, frozen=True, tag="clock_set"):
    """The manager's clock was set to `at`; it showed `before`. Times after `at` were recorded in error."""

    at: float
    before: float


AnyEvent = (
    Submitted
    | Merged
    | Succeeded
    | Failed
    | Cancelled
    | Requeued
    | Answered
    | Drained
    | Resumed
    | Forgotten
    | Suspected
    | Cleared
    | ClockSet
)


#: The events that have arguments of jobs.
WITH_BODIES: Final = (Submitted, Merged)


def weight(event: AnyEvent | None) -> int:
    """Return the bytes of the results, arguments or texts in *event*."""
    match event:
        case Succeeded():
            return sum(sum(map(len, span.results)) for span in event.ranges)
        case Submitted() | Merged():
            return sum(map(len, event.bodies)) + sum(map(len, event.headers))
        case Failed():
            error = event.error
            return len(error.message) + len(error.traceback) + len(error.exception)
    return 0
