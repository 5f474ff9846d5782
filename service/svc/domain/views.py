"""Describes jobs for people: their fields, why they wait, who holds them, and their last attempts.

A field of `job.JobView` that has the name of a field of `Terms` or of `JobRecord` comes from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.handlers import ITEM_BYTES, VIEW_WORK, Room
from svc.domain.job import ALONE, IDLE, ITEM, Attempt, Cause, JobView, Terms
from svc.domain.job_records import ATTEMPTS_KEPT, NO_RECORD, JobRecord
from svc.domain.known_tasks import not_accepted
from svc.domain.lifecycle import JobState
from svc.domain.members import LeaseRecord, Member
from svc.domain.outcomes import Reader, error_bytes, text_bytes
from svc.domain.queue_state import QueueState, Read

_DERIVED = ("task", "attempts")
_OF_TERMS, _OF_RECORD = (
    [name for name in JobView.__struct_fields__ if hasattr(source, name) and name not in _DERIVED]
    for source in (Terms, JobRecord)
)


class Page:
    """Descriptions of jobs for one answer, as many as its room holds."""

    def __init__(self, state: QueueState, room: Room) -> None:
        """Start empty."""
        self.views: list[JobView] = []
        self._state = state
        self._room = room
        self._reader = Reader(state, room)

    def add(self, chunk: Chunk, index: int) -> bool:
        """Add the description of a job; return whether there was room, as there is for the first one."""
        if self.views and not self._room.left:
            return False
        found = self._view(chunk, index)
        size = _view_bytes(found)
        if self.views and not self._room.holds(size):
            return False
        self._room.take(size, VIEW_WORK)
        self.views.append(found)
        return True

    def _view(self, chunk: Chunk, index: int) -> JobView:
        """Return the description of one job."""
        state, reader = self._state, self._reader
        terms, job_state, record = chunk.terms, chunk.state(index), chunk.records.get(index, NO_RECORD)
        due = record.due if record.due is not None else chunk.due_of(index)
        holder = self.holder_of(chunk, index) if job_state == JobState.LEASED else None
        ended = reader.outcome(chunk, index) if job_state.finished else None
        shown = {name: getattr(terms, name) for name in _OF_TERMS}
        return JobView(
            **{**shown, **{name: getattr(record, name) for name in _OF_RECORD}},
            id=chunk.id(index),
            task=terms.shown_task,
            state=job_state.word,
            submitted_at=chunk.at_of(index),
            due_at=due if job_state == JobState.SCHEDULED else None,
            key=chunk.key_of(index),
            consumer=holder.name if holder else "",
            reason=_reason_of(state, chunk, index),
            finished_at=ended.finished_at if ended else None,
            attempts=_attempts_of(reader.event, record),
            suspect=state.ledger.losses.of(chunk, index) is not None,
        )

    def holder_of(self, chunk: Chunk, index: int) -> Member | None:
        """Return the member that holds the job at *index* of *chunk*, or None."""
        leases = self._leases_of.get(chunk.sequence, [])
        place = bisect_right(leases, index, key=lambda lease: lease.start) - 1
        return leases[place].holder if place >= 0 and index < leases[place].stop else None

    @cached_property
    def _leases_of(self) -> dict[int, list[LeaseRecord]]:
        """The leases of each chunk, by its sequence number, in the order of their jobs: one pass over all."""
        found: defaultdict[int, list[LeaseRecord]] = defaultdict(list)
        for lease in sorted(self._state.leases.values(), key=lambda lease: lease.start):
            found[lease.chunk.sequence].append(lease)
        return found


def _view_bytes(view: JobView) -> int:
    names = text_bytes(view.id, view.task, view.queue, view.key, view.consumer, view.reason)
    return 2 * ITEM_BYTES + names + _attempts_bytes(view.attempts)


def _attempts_bytes(attempts: Sequence[Attempt]) -> int:
    """Return the estimated bytes of attempts in an answer."""
    return sum(ITEM_BYTES + error_bytes(each.error) + text_bytes(each.consumer) for each in attempts)


def _reason_of(state: QueueState, chunk: Chunk, index: int) -> str:
    """Return why a job waits, or "" if it does not."""
    job_state = chunk.state(index)
    if job_state == JobState.SCHEDULED:
        retrying = chunk.records.get(index, NO_RECORD).due is not None
        return "waits for its retry after a failed attempt" if retrying else "waits for its delay to pass"
    if job_state != JobState.READY:
        return ""
    if blocked := _block(state, chunk.terms):
        return blocked
    return IDLE if state.ledger.losses.of(chunk, index) is None else ALONE


def _block(state: QueueState, terms: Terms) -> str:
    """Return why no consumer takes a ready job on these terms, however idle it is; or ""."""
    known = state.known_tasks
    if "" in state.ledger.drains.in_force:
        return "the service is draining; `svc resume` ends that"
    if terms.task == ITEM:
        return "plain data: only a plain client takes it"
    if not state.consumers:
        return "no worker is connected"
    if not known.serves(terms.queue):
        return f"no connected worker takes jobs from the queue {terms.queue!r}"
    if not known.has(terms.queue, terms.task):
        return f"no connected worker of queue {terms.queue!r} knows the task {terms.task!r}"
    return "" if known.accepts(terms) else not_accepted(terms)


def _attempts_of(read: Read, record: JobRecord) -> list[Attempt]:
    """Return the last attempts at a job that ended without a result; *read* returns events."""
    found = (read(sequence) for sequence in record.attempts[-ATTEMPTS_KEPT:])
    return [_attempt(event) for event in found if isinstance(event, e.Failed)]


def _attempt(event: e.Failed) -> Attempt:
    suspected = event.cause is Cause.SUSPECTED
    cause = Cause.INTERRUPTED if suspected else event.cause
    return Attempt(
        event.at, cause, event.error, event.seconds, event.consumer, event.attempt, suspected=suspected
    )
