"""How an attempt without a result is put on record: its ledger, and what becomes of the job."""

from __future__ import annotations

from typing import NamedTuple

from svc.domain import events as e
from svc.domain import replay
from svc.domain.job import Cause, ErrorInfo
from svc.domain.job_records import NO_RECORD
from svc.domain.lifecycle import JobState
from svc.domain.members import LeaseRecord
from svc.domain.queue_state import QueueState


class Usage(NamedTuple):
    """The run time of an attempt in seconds, and the most memory in bytes that it took, 0 if not known."""

    seconds: float
    peak: int = 0


_INTERRUPTED = ErrorInfo(
    "Interrupted", "the attempt was interrupted: drain, scale-in, a stopped worker or a lost host"
)


def charge(
    state: QueueState,
    lease: LeaseRecord,
    cause: Cause,
    error: ErrorInfo,
    retry_in: float | None,
    usage: Usage,
    now: float,
    *,
    token: int = 0,
) -> None:
    """End the attempt at the first job of *lease*, which is dead if *retry_in* is None."""
    chunk, index, error = lease.chunk, lease.start, error.within_bounds()
    retry_at = None if retry_in is None else now + retry_in
    _record(state, lease, cause, error, retry_at, usage, now, token)
    if chunk.state(index) is JobState.SCHEDULED and retry_at is not None:
        state.schedule(chunk, index, index + 1, retry_at)
    elif chunk.state(index) is JobState.READY:
        state.make_ready(chunk, index, index + 1, now)
    state.settle_front(lease, index + 1)
    state.run_times.ran(chunk.terms.task, 1, usage.seconds)
    state.progressed.append((chunk.origin, chunk.first + index, 1))
    retried = retry_in is not None
    state.observer.failed(chunk.terms, cause, error.type, usage.seconds, retried, now - chunk.at_of(index))


def interrupt(state: QueueState, lease: LeaseRecord, seconds: float, now: float) -> None:
    """Put an interruption into the ledger of the first job of *lease*; the caller gives it back."""
    _record(state, lease, Cause.INTERRUPTED, _INTERRUPTED, now, Usage(seconds), now)


def return_jobs(
    state: QueueState, lease: LeaseRecord, seconds: float | None, now: float, *, expired: bool = True
) -> None:
    """End a lease and give back its jobs; the first one was executing if it has run for some *seconds*.

    The lease has *expired*, or its holder gives it up.
    """
    tell = state.observer.expired if expired else state.observer.released
    tell(lease.chunk.terms, lease.stop - lease.start)
    if seconds is not None:
        interrupt(state, lease, seconds, now)
    state.give_back(lease, lease.start, lease.stop, now)
    state.end_lease(lease)


def _record(
    state: QueueState,
    lease: LeaseRecord,
    cause: Cause,
    error: ErrorInfo,
    retry_at: float | None,
    usage: Usage,
    now: float,
    token: int = 0,
) -> None:
    chunk, index = lease.chunk, lease.start
    record = chunk.records.get(index, NO_RECORD)
    failures, crashes, interruptions, suspicions = record.after(cause)
    event = e.Failed(
        at=now,
        origin=chunk.origin,
        number=chunk.first + index,
        cause=cause,
        error=error,
        retry_at=retry_at,
        seconds=usage.seconds,
        consumer=lease.holder.name,
        token=token,
        failures=failures,
        crashes=crashes,
        interruptions=interruptions,
        suspicions=suspicions,
        attempt=1 + record.ended,
        suspect=index in chunk.suspects,
        code=lease.holder.code,
        peak=usage.peak,
    )
    replay.failed(state.ledger, state.record(event), event)
