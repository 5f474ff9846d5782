"""The history of a job: its attempts that ended without a result, read from the journal."""

from __future__ import annotations

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.job import Attempt, Cause
from svc.domain.job_records import ATTEMPTS_KEPT, NO_RECORD
from svc.domain.queue_state import Read


def attempts_of(read: Read, chunk: Chunk, index: int) -> list[Attempt]:
    """Return the last attempts at the job at *index* that ended without a result; *read* returns events."""
    record = chunk.records.get(index, NO_RECORD)
    found = (read(sequence) for sequence in record.attempts[-ATTEMPTS_KEPT:])
    return [_attempt(event) for event in found if isinstance(event, e.Failed)]


def _attempt(event: e.Failed) -> Attempt:
    suspected = event.cause is Cause.SUSPECTED
    cause = Cause.INTERRUPTED if suspected else event.cause
    return Attempt(
        event.at, cause, event.error, event.seconds, event.consumer, event.attempt, suspected=suspected
    )
