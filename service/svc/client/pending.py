"""Jobs that the manager has not answered yet, and their large arguments, which are stored before them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from svc.client.specs import JobTemplate
from svc.domain.job import Terms
from svc.error_codes import error_for
from svc.errors import ManagerUnreachable, ServiceError

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


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
        large: the sizes of its large arguments.
        store: stores these under the job's name, and writes the body; None if there are none.
        stored: whether that is done.
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
    large: Sequence[int] = ()
    store: Callable[[PendingJob], None] | None = None
    stored: bool = False


class KeyedJob(PendingJob):
    """A job with a key whose keyword arguments are not in the order in which they were written.

    Attributes:
        written: its body with these as they were written, as earlier releases have sent it; b"" once that
            has been sent, too.
    """

    written: bytes = b""


class LargeSender(Protocol):
    """Makes jobs of calls with large arguments."""

    def job(
        self, template: JobTemplate, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> PendingJob | None:
        """Return the job of a call, or None if its arguments fit into a body."""


def store(job: PendingJob) -> None:
    """Store the large arguments of a job, under a name that no other job has."""
    if job.store is not None and not job.stored:
        if job.number < 0:
            job.origin, job.number = new_origin(), 0
        job.store(job)
        job.stored = True


def with_values(jobs: Sequence[PendingJob]) -> Sequence[PendingJob]:
    """Store the large arguments of *jobs*; return the jobs without those for which that failed."""
    for job in jobs:
        try:
            store(job)
        except ServiceError as error:
            fail([job], error)
    return [job for job in jobs if not job.answered]


def fail(jobs: Iterable[PendingJob], error: BaseException) -> None:
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


def new_origin() -> str:
    """Return a random 64-bit name: 13 characters of lower-case Crockford base 32."""
    number = secrets.randbits(64)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(60, -1, -5))
