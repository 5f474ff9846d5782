"""The outcomes of jobs: consumers report results, and clients wait for what became of their jobs.

A lease is settled from the front, and reports come in order. Its holder reports, or another member of the
same worker, and names the token. A report with a token that is no longer in force changes nothing. If it
repeats a report that was recorded, it gets the same answer again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import suspicion
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import REPLY_JOBS_MAX
from svc.domain.handlers import (
    FIND_WORK,
    ITEM_BYTES,
    OUTCOME_WORK,
    RANGE_WORK,
    READ_BYTE_WORK,
    READ_WORK,
    Room,
    handles,
    reads,
)
from svc.domain.job import ErrorInfo, Outcome, is_alias
from svc.domain.lifecycle import JobState, Verb
from svc.domain.members import LeaseRecord, Member, begin_next
from svc.domain.queue_state import RANGE_OVERHEAD_BYTES, RESULTS_EVENT_BYTES, QueueState, results_weight
from svc.domain.scheduling.lanes import Lane
from svc.errors import JournalError

#: Bytes up to which the results of one acknowledgement stay together.
RESULTS_PART_BYTES = RESULTS_EVENT_BYTES - RANGE_OVERHEAD_BYTES
LEASE_LOST = r.Refused("lease_lost", "the lease has expired or was superseded; the outcome was not recorded")
DONE = r.Done(1)
TOO_MANY = r.Refused("bad_request", f"ask for at most {REPLY_JOBS_MAX} jobs at a time")
TOO_LARGE = r.Refused("bad_request", "the answer is too large for one reply; ask for fewer jobs at a time")


# --- results that consumers report ------------------------------------------------------------------


@handles(c.Ack)
def ack(state: QueueState, command: c.Ack, member: Member, now: float) -> r.Reply:
    """Record results; jobs before them in the lease, whose results never came, go back."""
    count = len(command.results)
    if count != len(command.seconds):
        return r.Refused("bad_request", f"{count} results came with {len(command.seconds)} run times")
    if command.peaks and len(command.peaks) != count:
        return r.Refused("bad_request", f"{count} results came with {len(command.peaks)} peaks of memory")
    lease = state.lease_of(command.token, member) or suspicion.reclaimed(state, command.token, member)
    if lease is None:
        suspicion.came_back(state, command.token, member, now)
        return late(state, command.token, command.first, count)
    chunk = lease.chunk
    start = command.first - chunk.first
    skip = lease.start - start
    if skip < 0:
        if start >= lease.stop:
            return r.Refused("bad_request", f"job {command.first} is not of that lease")
        state.give_back(lease, lease.start, start, now)
        lease.start, skip = start, 0
    if command.large and not state.ledger.large.has_results(chunk.origin, command.large, command.token):
        state.give_back(lease, lease.start, lease.stop, now)
        state.end_lease(lease)
        return LEASE_LOST
    if skip >= count:
        return late(state, command.token, command.first, count)
    stop = min(start + count, lease.stop)
    _record_results(state, command, lease, start + skip, stop, skip, now)
    state.settle_front(lease, stop)
    lease.since = now
    if stop == lease.stop and lease.holder.leases:
        begin_next(lease.holder, now)
    if stop < start + count:
        state.observer.stale(chunk.terms.queue, start + count - stop)
        return LEASE_LOST
    return DONE


def late(state: QueueState, token: int, first: int, count: int, *, failed: bool = False) -> r.Reply:
    """Answer a report whose token is not in force: a repeat is fine, any other is refused and counted."""
    if state.ledger.settled.has(token, first, count, failed=failed):
        return DONE
    state.observer.stale("", count)
    return LEASE_LOST


def _record_results(
    state: QueueState, command: c.Ack, lease: LeaseRecord, start: int, stop: int, skip: int, now: float
) -> None:
    chunk, token, by, code = lease.chunk, command.token, lease.holder.name, lease.holder.code
    results, seconds, peaks = command.results, command.seconds, command.peaks
    if skip or len(results) != stop - start:
        end = skip + stop - start
        results, seconds, peaks = results[skip:end], seconds[skip:end], peaks[skip:end]
    first, size = chunk.first + start, sum(map(len, results))
    if results_weight(len(results), size) <= RESULTS_PART_BYTES:
        span = e.Range(chunk.origin, first, token, results, seconds, by, code, peaks)
        _record_part(state, chunk, span, size, now)
    else:
        done = 0
        for part, times, size in _parts(results, seconds):
            of_part = peaks[done : done + len(part)]
            span = e.Range(chunk.origin, first + done, token, part, times, by, code, of_part)
            _record_part(state, chunk, span, size, now)
            done += len(part)
    state.run_times.ran(chunk.terms.task, stop - start, sum(seconds))
    state.observer.succeeded(chunk.terms, seconds, now - chunk.at_of(start))
    state.progressed.append((chunk.origin, chunk.first + start, stop - start))


def _record_part(
    state: QueueState, chunk: Chunk, span: e.Range, size: int, now: float, verb: Verb = Verb.ACK
) -> None:
    sequence, event = state.results_event(now, len(span.results), size)
    event.ranges.append(span)
    state.ledger.succeeded(sequence, len(event.ranges) - 1, chunk, span, event.at, verb)


def _parts(results: list[bytes], seconds: list[float]) -> Iterator[tuple[list[bytes], list[float], int]]:
    """Yield results with their run times and total bytes, in parts that fit into one event."""
    start = size = 0
    for place, result in enumerate(results):
        more = size + len(result)
        if place > start and results_weight(place + 1 - start, more) > RESULTS_PART_BYTES:
            yield results[start:place], seconds[start:place], size
            start, more = place, len(result)
        size = more
    yield results[start:], seconds[start:], size


def take_and_forget(state: QueueState, lane: Lane, now: float) -> tuple[str, bytes]:
    """Take the oldest job of *lane* for good, without a lease; return its id and body."""
    span = state.lanes.take(lane, 1)
    chunk, start = span.chunk, span.start
    body = state.bodies(chunk, start, span.stop)[0]
    _record_part(state, chunk, e.Range(chunk.origin, chunk.first + start, 0, [b""], [0.0]), 0, now, Verb.TAKE)
    state.progressed.append((chunk.origin, chunk.first + start, 1))
    return chunk.id(start), body


# --- outcomes that a client waits for ---------------------------------------------------------------


class Reader:
    """Reads outcomes for one request, and each event of the journal once."""

    def __init__(self, state: QueueState, room: Room) -> None:
        """Read from *state*; take the work from *room*."""
        self._state = state
        self._room = room
        self._events: dict[int, e.AnyEvent | None] = {}

    def event(self, sequence: int) -> e.AnyEvent | None:
        """Return an event that a job refers to."""
        if sequence not in self._events:
            state, before = self._state, self._state.read_bytes
            self._events[sequence] = state.event(sequence)
            self._room.take(0, READ_WORK + READ_BYTE_WORK * (state.read_bytes - before))
        return self._events[sequence]

    def outcome(self, chunk: Chunk, index: int) -> Outcome:
        """Return the outcome of a job that has ended."""
        event = self.event(chunk.ended_by(index))
        ranges = len(event.ranges) if isinstance(event, e.Succeeded) else 0
        self._room.take(0, OUTCOME_WORK + RANGE_WORK * ranges)
        return outcome_of(chunk, index, event)


def outcome(state: QueueState, chunk: Chunk, index: int) -> Outcome:
    """Return the outcome of a job that has ended.

    Raises:
        JournalError: the journal does not have it.
    """
    return outcome_of(chunk, index, state.event(chunk.ended_by(index)))


def place_of(state: QueueState, job: str) -> tuple[Chunk, int] | None:
    """Return (chunk, index) of a job id, or None if it is not known or not an id."""
    try:
        return state.ledger.find(job)
    except ValueError:
        return None


@reads(c.Await)
def await_outcomes(state: QueueState, command: c.Await, room: Room, now: float) -> r.Reply | None:
    """Return the outcomes of jobs once all have one; None while one has none and the member would wait.

    A job that is named several times is in the answer once.
    """
    if len(command.ids) > REPLY_JOBS_MAX:
        return TOO_MANY
    ids = list(dict.fromkeys(command.ids))
    ended: list[tuple[str, Chunk, int]] = []
    # The last job is likely to end last: while it has not ended, this order needs only one look.
    for job in reversed(ids):
        place = place_of(state, job)
        if place is None:
            return r.Refused("unknown_job", f"there is no job {job}, or its retention time has passed")
        if place[0].has_ended(place[1]):
            ended.append((job, *place))
        elif command.wait > 0:
            return None
    ended.reverse()
    room.take(0, FIND_WORK * len(ids))
    found = _page(Reader(state, room), ended, room)
    left = len(ended) - len(found)
    if left and not command.paged:
        return TOO_LARGE
    return r.Outcomes(0, found, len(ids) - len(ended), left=left)


def last_unfinished(state: QueueState, ids: Sequence[str], count: int) -> tuple[int, str, int] | None:
    """Find the last of the first *count* ids whose job has not ended; return (its place + 1, origin, number).

    Return None if all jobs have ended, or if one is not known.
    """
    for place in range(count, 0, -1):
        found = place_of(state, ids[place - 1])
        if found is None:
            return None
        chunk, index = found
        if not chunk.has_ended(index):
            return place, chunk.origin, chunk.first + index
    return None


def _page(reader: Reader, ended: Sequence[tuple[str, Chunk, int]], room: Room) -> list[Outcome]:
    """Return the outcomes of as many jobs as fit, of at least one.

    Each has the name that the request used: an alias does not tell the job's id.
    """
    found: list[Outcome] = []
    for job, chunk, index in ended:
        if found and not room.left:
            break
        told = reader.outcome(chunk, index)
        size = outcome_bytes(told)
        if found and not room.holds(size):
            break
        room.take(size)
        found.append(msgspec.structs.replace(told, id=job) if is_alias(job) else told)
    return found


# --- from an event ----------------------------------------------------------------------------------


def outcome_of(chunk: Chunk, index: int, event: e.AnyEvent | None) -> Outcome:
    """Return the outcome of a job, which *event* has ended.

    Raises:
        JournalError: the event is not in the journal, or tells nothing of the job.
    """
    number, terms = chunk.first + index, chunk.terms
    match event:
        case e.Succeeded(ranges=ranges, at=at):
            for span in ranges:
                place = number - span.first
                if span.origin == chunk.origin and 0 <= place < len(span.results):
                    result, seconds = span.results[place], span.seconds[place]
                    return Outcome(
                        chunk.id(index),
                        JobState.SUCCEEDED,
                        result,
                        None,
                        terms.codec,
                        at,
                        seconds,
                        terms.shown_task,
                    )
        case e.Failed(error=error, at=at, seconds=seconds):
            name, attempts = terms.shown_task, event.failures + event.crashes + event.interruptions
            return Outcome(
                chunk.id(index), JobState.DEAD, b"", error, terms.codec, at, seconds, name, attempts
            )
        case e.JobsCancelled(at=at):
            return Outcome(chunk.id(index), JobState.CANCELLED, finished_at=at, task=terms.shown_task)
    raise JournalError(f"the journal does not tell how job {chunk.id(index)} ended")


# --- sizes ------------------------------------------------------------------------------------------


def outcome_bytes(outcome: Outcome) -> int:
    """Return the estimated bytes of an outcome in an answer."""
    size = ITEM_BYTES + len(outcome.result) + len(outcome.id) + text_bytes(outcome.task)
    return size if outcome.error is None else size + error_bytes(outcome.error)


def error_bytes(error: ErrorInfo) -> int:
    """Return an upper bound for the bytes of an error's texts in an answer."""
    return text_bytes(error.type, error.message, error.traceback) + len(error.exception)


def text_bytes(*texts: str) -> int:
    """Return an upper bound for the bytes of *texts* in UTF-8."""
    size = 0
    for text in texts:
        size += len(text) if text.isascii() else 4 * len(text)
    return size
