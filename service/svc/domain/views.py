"""Describes jobs for people: their fields, why they wait, who holds them, and their last attempts.

A field of `job_view.JobView` that has the name of a field of `Terms` or of `JobRecord` comes from there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.handlers import ITEM_BYTES, READ_BYTE_WORK, READ_WORK, VIEW_WORK, Room
from svc.domain.job import ALONE, IDLE, ITEM, Attempt, Cause, ErrorInfo, Outcome, Terms
from svc.domain.job_records import ATTEMPTS_KEPT, NO_RECORD, JobRecord
from svc.domain.job_streams import NO_STREAM
from svc.domain.job_view import Content, JobView
from svc.domain.known_tasks import not_accepted, not_known
from svc.domain.leases import lease_at
from svc.domain.lifecycle import JobState
from svc.domain.members import LeaseRecord
from svc.domain.outcomes import Reader, error_bytes, text_bytes
from svc.domain.progress import progress_of
from svc.domain.queue_state import QueueState, Read

#: Bytes of arguments, and of a result, that a description has at most.
CONTENT_BYTES_MAX = 64 * 1024
#: The last second of the year 9999, as a Unix time.
_LAST_MOMENT = 253_402_300_799.0
_DERIVED = ("task", "attempts")
_OF_TERMS, _OF_RECORD = (
    [name for name in JobView.__struct_fields__ if hasattr(source, name) and name not in _DERIVED]
    for source in (Terms, JobRecord)
)
#: Those of a job without a record.
_FRESH = {name: getattr(NO_RECORD, name) for name in _OF_RECORD}


class Page:
    """Descriptions of jobs for one answer, as many as its room holds."""

    def __init__(self, state: QueueState, room: Room, *, content: bool = False) -> None:
        """Start empty; with *content*, add arguments and results."""
        self.views: list[JobView] = []
        self._has_content = content
        self._state = state
        self._room = room
        self._reader = Reader(state, room)
        self._common: _Common | None = None
        self._leases_of: dict[Chunk, list[LeaseRecord]] = {}

    def add(self, chunk: Chunk, index: int) -> bool:
        """Add the description of a job; return whether there was room, as there is for the first one."""
        if self.views and not self._room.left:
            return False
        found = self._view(chunk, index)
        if self._state.limits.redact:
            found = msgspec.structs.replace(found.redacted(), content=found.content)
        size = _view_bytes(found)
        if self.views and not self._room.holds(size):
            return False
        self._room.take(size, VIEW_WORK)
        self.views.append(found)
        return True

    def _view(self, chunk: Chunk, index: int) -> JobView:
        """Return the description of one job."""
        state, reader = self._state, self._reader
        common, job_state, record = self._common_of(chunk), chunk.state(index), chunk.records.get(index)
        own, record = _own_fields(record), record or NO_RECORD
        stream = record.stream or NO_STREAM
        due = record.due if record.due is not None else chunk.due_of(index)
        lease = self.lease_of(chunk, index) if job_state == JobState.LEASED else None
        kept = reader.event(record.checkpoint) if record.checkpoint else None
        ended = reader.outcome(chunk, index) if job_state.finished else None
        attempts = _attempts_of(reader.event, record)
        if job_state is JobState.CANCELLED:
            attempts += _cut_attempts(reader.event(chunk.ended_by(index)), chunk.first + index, record)
        run = self._run_of(chunk, index, lease, ended, attempts)
        return JobView(
            **common.fields,
            **own,
            id=chunk.id(index),
            state=job_state.word,
            submitted_at=chunk.at_of(index),
            due_at=due if job_state == JobState.SCHEDULED else None,
            key=chunk.key_of(index),
            consumer=run.consumer,
            worker=run.worker,
            started_at=run.started_at,
            seconds=run.seconds,
            code=run.code,
            peak_rss=run.peak_rss,
            reason=_reason_of(state, chunk, index, job_state, common.block, due, attempts[-1:]),
            finished_at=ended.finished_at if ended else None,
            attempts=attempts,
            suspect=state.ledger.losses.of(chunk, index) is not None,
            content=self._content(chunk, index, ended) if self._has_content else None,
            progress=progress_of(lease, chunk.first + index),
            checkpoint_bytes=len(kept.data) if isinstance(kept, e.Checkpointed) else 0,
            checkpoint_at=kept.at if isinstance(kept, e.Checkpointed) else None,
            partial_results=stream.count,
            stream_bytes=stream.size if stream.count else 0,
            stream_number=stream.place[0],
        )

    def _common_of(self, chunk: Chunk) -> _Common:
        """Return the facts that all jobs of *chunk* have in common; found once for jobs in a row."""
        common = self._common
        if common is None or common.chunk is not chunk:
            terms = chunk.terms
            fields = {name: getattr(terms, name) for name in _OF_TERMS} | {"task": terms.shown_task}
            common = self._common = _Common(chunk, fields, _block(self._state, terms))
        return common

    def _run_of(
        self,
        chunk: Chunk,
        index: int,
        lease: LeaseRecord | None,
        ended: Outcome | None,
        attempts: Sequence[Attempt],
    ) -> _Run:
        """Return the attempt at a job that runs, under *lease*, or was the last one."""
        if lease is not None:
            # The jobs behind the first one are read ahead.
            since = lease.since if index == lease.start else None
            worker = lease.holder.worker
            name = worker.name if worker is not None else ""
            return _Run(lease.holder.name, name, since, code=lease.holder.code)
        if ended is not None and ended.state is JobState.SUCCEEDED:
            return _succeeded_run(self._reader.event(chunk.ended_by(index)), chunk, index, ended)
        if not attempts:
            return _NO_RUN
        last = attempts[-1]
        by = last.consumer if ended is not None else ""
        since = last.at - last.seconds
        return _Run(by, by.rpartition("/")[0], since, last.seconds, last.code, last.peak_rss)

    def _content(self, chunk: Chunk, index: int, ended: Outcome | None) -> Content:
        """Return the arguments and the result of a job."""
        state = self._state
        if state.limits.redact:
            return Content(hidden=True)
        before = state.read_bytes
        body = state.bodies(chunk, index, index + 1)[0]
        self._room.take(0, READ_WORK + READ_BYTE_WORK * (state.read_bytes - before))
        result = ended.result if ended is not None else b""
        return Content(_shown(body), len(body), _shown(result), len(result))

    def lease_of(self, chunk: Chunk, index: int) -> LeaseRecord | None:
        """Return the lease of the job at *index* of *chunk*, or None."""
        leases = self._leases_of.get(chunk)
        if leases is None:
            leases = self._leases_of[chunk] = self._state.leases.of(chunk)
        return lease_at(leases, index)


class _Common(NamedTuple):
    """The fields of descriptions that the jobs of a chunk have in common, and why no consumer takes them."""

    chunk: Chunk
    fields: dict[str, Any]
    block: str


class _Run(NamedTuple):
    """An attempt: its consumer and worker, its times, its code and its memory, as far as they are known."""

    consumer: str = ""
    worker: str = ""
    started_at: float | None = None
    seconds: float | None = None
    code: str = ""
    peak_rss: int | None = None


_NO_RUN = _Run()
_CUT = ErrorInfo("Cancelled", "the job was cancelled while it ran")


def _succeeded_run(event: e.AnyEvent | None, chunk: Chunk, index: int, ended: Outcome) -> _Run:
    """Return the attempt that *event* ended with a result; an older release did not record its consumer."""
    number, since = chunk.first + index, ended.finished_at - ended.seconds
    for span in event.ranges if isinstance(event, e.Succeeded) else ():
        place = number - span.first
        if span.origin == chunk.origin and 0 <= place < len(span.results):
            by, peak = span.consumer, span.peaks[place] if span.peaks else 0
            return _Run(by, by.rpartition("/")[0], since, ended.seconds, span.code, peak or None)
    return _Run("", "", since, ended.seconds)


def _shown(content: bytes) -> bytes:
    return content if len(content) <= CONTENT_BYTES_MAX else b""


def _view_bytes(view: JobView) -> int:
    names = text_bytes(view.id, view.task, view.queue, view.key, view.consumer, view.worker, view.reason)
    content = len(view.content.arguments) + len(view.content.result) if view.content is not None else 0
    return 2 * ITEM_BYTES + names + _attempts_bytes(view.attempts) + content


def _attempts_bytes(attempts: Sequence[Attempt]) -> int:
    """Return the estimated bytes of attempts in an answer."""
    return sum(ITEM_BYTES + error_bytes(each.error) + text_bytes(each.consumer) for each in attempts)


def _own_fields(record: JobRecord | None) -> dict[str, Any]:
    """Return the fields of a description that have the names of fields of *record*."""
    return _FRESH if record is None else {name: getattr(record, name) for name in _OF_RECORD}


def _reason_of(
    state: QueueState,
    chunk: Chunk,
    index: int,
    job_state: JobState,
    block: str,
    due: float | None,
    last: Sequence[Attempt],
) -> str:
    """Return why a job waits, or "" if it does not; *block* is why no consumer takes jobs of *chunk*.

    It may be *due* at a time, and *last* has its last attempt if there was one.
    """
    if job_state == JobState.SCHEDULED:
        if last and last[0].snoozed and due is not None:
            return f"was put off by its task until {_time_of_day(due)}"
        retrying = chunk.records.get(index, NO_RECORD).due is not None
        return "waits for its retry after a failed attempt" if retrying else "waits for its delay to pass"
    if job_state != JobState.READY:
        return ""
    if block:
        return block
    return IDLE if state.ledger.losses.of(chunk, index) is None else ALONE


def _time_of_day(at: float) -> str:
    return datetime.fromtimestamp(min(at, _LAST_MOMENT), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


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
        return not_known(terms)
    return "" if known.accepts(terms) else not_accepted(terms)


def _attempts_of(read: Read, record: JobRecord) -> list[Attempt]:
    """Return the last attempts at a job that ended without a result; *read* returns events."""
    found = (read(sequence) for sequence in record.attempts[-ATTEMPTS_KEPT:])
    return [_attempt(event) for event in found if isinstance(event, e.Failed)]


def _cut_attempts(event: e.AnyEvent | None, number: int, record: JobRecord) -> list[Attempt]:
    """Return the attempt that *event* ended as it cancelled job *number*; none if the job waited."""
    if not isinstance(event, e.JobsCancelled):
        return []
    runs = event.runs
    place = bisect_left(runs, number, key=lambda run: run.number)
    if place == len(runs) or runs[place].number != number:
        return []
    run = runs[place]
    told = Attempt(event.at, Cause.INTERRUPTED, _CUT, run.seconds, run.consumer, 1 + record.ended)
    return [msgspec.structs.replace(told, code=run.code, cancelled=True)]


def _attempt(event: e.Failed) -> Attempt:
    suspected, snoozed = event.cause is Cause.SUSPECTED, event.cause is Cause.SNOOZED
    cause = Cause.INTERRUPTED if suspected or snoozed else event.cause
    return Attempt(
        event.at,
        cause,
        event.error,
        event.seconds,
        event.consumer,
        event.attempt,
        suspected,
        snoozed,
        event.code,
        event.peak or None,
    )
