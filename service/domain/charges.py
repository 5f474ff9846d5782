"""How an attempt without a result is put on record: its ledger, and what becomes of the job."""

from __future__ import annotations

from service.domain import events as e
from service.domain.batch import Batch, ledgers_after
from service.domain.job import Cause, ErrorInfo
from service.domain.lifecycle import JobState
from service.domain.members import LeaseRecord
from service.domain.queue_state import QueueState

_INTERRUPTED = ErrorInfo("Interrupted", "the attempt was interrupted: drain, scale-in or a lost host")


def charge(
    state: QueueState,
    lease: LeaseRecord,
    cause: Cause,
    error: ErrorInfo,
    retry_in: float | None,
    seconds: float,
    now: float,
    *,
    token: int = 0,
) -> None:
    """End the attempt at the first job of *lease*, which is dead if *retry_in* is None."""
    batch, index, error = lease.batch, lease.start, error.within_bounds()
    retry_at = None if retry_in is None else now + retry_in
    _record(state, lease, cause, error, retry_at, seconds, now, token)
    if batch.states[index] == JobState.SCHEDULED and retry_at is not None:
        state.schedule(batch, index, index + 1, retry_at)
    elif batch.states[index] == JobState.READY:
        state.make_ready(batch, index, index + 1, now)
    settle_front(state, lease, index + 1)
    state.paces.ran(batch.terms.task, 1, seconds)
    state.progressed.append((batch.origin, batch.first + index, 1))
    retried = retry_in is not None
    state.observer.failed(batch.terms, cause, error.type, seconds, retried, now - batch.at_of(index))


def interrupt(state: QueueState, lease: LeaseRecord, seconds: float, now: float) -> None:
    """Put an interruption into the ledger of the first job of *lease*; the caller gives it back."""
    _record(state, lease, Cause.INTERRUPTED, _INTERRUPTED, now, seconds, now)


def settle_front(state: QueueState, lease: LeaseRecord, stop: int) -> None:
    """Take the jobs before *stop* out of *lease*."""
    lease.start = stop
    if lease.start >= lease.stop:
        state.end_lease(lease)


def _record(
    state: QueueState,
    lease: LeaseRecord,
    cause: Cause,
    error: ErrorInfo,
    retry_at: float | None,
    seconds: float,
    now: float,
    token: int = 0,
) -> None:
    batch, index = lease.batch, lease.start
    record = batch.records.get(index)
    failures, crashes, interruptions, suspicions = ledgers_after(record, cause)
    event = e.Failed(
        at=now,
        origin=batch.origin,
        number=batch.first + index,
        cause=cause,
        error=error,
        retry_at=retry_at,
        seconds=seconds,
        consumer=lease.holder.name,
        token=token,
        failures=failures,
        crashes=crashes,
        interruptions=interruptions,
        suspicions=suspicions,
        attempt=1 + (record.ended if record is not None else 0),
        suspect=_is_suspect(batch, index),
    )
    state.ledger.failed(state.record(event), event)


def _is_suspect(batch: Batch, index: int) -> bool:
    return batch.suspects is not None and index in batch.suspects
