"""The outcomes of jobs: those that a client waits for, and all in the order in which they were recorded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import REPLY_JOBS_MAX
from svc.domain.handlers import reads
from svc.domain.job import Outcome, is_alias, job_id
from svc.domain.lifecycle import JobState
from svc.domain.origins import PARTS, Completion
from svc.domain.queue_state import QueueState
from svc.domain.room import (
    FIND_WORK,
    ITEM_BYTES,
    OUTCOME_WORK,
    RANGE_WORK,
    READ_BYTE_WORK,
    READ_WORK,
    Room,
    outcome_bytes,
    text_bytes,
)
from svc.errors import JournalError

TOO_MANY = r.Refused("bad_request", f"ask for at most {REPLY_JOBS_MAX} jobs at a time")
TOO_LARGE = r.Refused("bad_request", "the answer is too large for one reply; ask for fewer jobs at a time")


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
        return _outcome(chunk, index, event)


def outcome(state: QueueState, chunk: Chunk, index: int) -> Outcome:
    """Return the outcome of a job that has ended.

    Raises:
        JournalError: the journal does not have it.
    """
    return _outcome(chunk, index, state.event(chunk.ended_by(index)))


def place_of(state: QueueState, job: str) -> tuple[Chunk, int] | None:
    """Return (chunk, index) of a job id, or None if it is not known or not an id."""
    try:
        return state.ledger.find(job)
    except ValueError:
        return None


# --- outcomes that a client waits for ---------------------------------------------------------------


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


def awaited(feed: c.Feed) -> c.Await | None:
    """Return the command that replaces the feed of an alias, which has one job; None for other feeds."""
    return c.Await([job_id(feed.origin, 0)], feed.wait) if is_alias(feed.origin) else None


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


# --- outcomes in the order in which they were recorded ----------------------------------------------


@reads(c.Feed)
def feed(state: QueueState, command: c.Feed, room: Room, now: float) -> r.Reply | None:
    """Return outcomes in the order in which they were recorded; None if the member should wait for one.

    If a page has no outcomes and its cursor has moved, all outcomes up to the cursor are forgotten.
    """
    instead = awaited(command)
    if instead is not None:
        return await_outcomes(state, instead, room, now)
    limit = max(1, min(command.limit, REPLY_JOBS_MAX))
    read = _feed_origin if command.origin else _feed_all
    page = read(state, command, limit, room)
    if page.outcomes or page.spans or not command.wait > 0 or not room.left:
        return page if command.folded else page.unfolded()
    return None


def newest(state: QueueState, origin: str) -> int:
    """Return the cursor after all outcomes of an origin, or of all if it is ""."""
    if not origin:
        order = state.ledger.outcome_order
        return order[-1] if order else 0
    known = state.ledger.origins.get(origin)
    return known.completions.newest if known is not None else 0


def _feed_origin(state: QueueState, command: c.Feed, limit: int, room: Room) -> r.Outcomes:
    page = r.Outcomes(command.cursor, [], 0, [])
    origin = state.ledger.origins.get(command.origin)
    if origin is None:
        return page
    reader = Reader(state, room)
    cursor, named = command.cursor, 0
    for entry in origin.completions.after(cursor):
        if named >= limit or not room.left:
            break
        room.take(0, FIND_WORK)
        chunk = origin.find(entry.first)
        if chunk is not None and _tells(chunk, entry.first, entry.sequence):
            told = _completed(chunk, entry, reader.event(entry.sequence))
            size = _span_bytes(told) if isinstance(told, r.Span) else outcome_bytes(told)
            if named and not room.holds(size):
                break
            room.take(size, OUTCOME_WORK * entry.jobs)
            named += entry.jobs
            if isinstance(told, r.Span):
                page.spans.append(told)
            else:
                page.outcomes.append(told)
        cursor = entry.cursor
    return msgspec.structs.replace(page, cursor=cursor)


def _completed(chunk: Chunk, entry: Completion, event: e.AnyEvent | None) -> Outcome | r.Span:
    """Return the outcomes that an entry of a feed stands for."""
    if isinstance(event, e.Succeeded):
        return _span(chunk, event.ranges[entry.part], event.at)
    return _outcome(chunk, entry.first - chunk.first, event)


def _feed_all(state: QueueState, command: c.Feed, limit: int, room: Room) -> r.Outcomes:
    """Read the outcomes of all origins.

    A cursor is the number of the last event that was read. A negative cursor means that the event is longer
    than a page: -(its number * PARTS + the parts that were read).
    """
    cursor = command.cursor
    order = state.ledger.outcome_order
    sequence, read = divmod(-cursor, PARTS) if cursor < 0 else (cursor, 0)
    place = bisect_left(order, sequence) if read else bisect_right(order, sequence)
    found: list[Outcome] = []
    reader = Reader(state, room)
    while place < len(order) and len(found) < limit and room.left:
        sequence = order[place]
        room.take(0, FIND_WORK)
        event = reader.event(sequence) if sequence in state.ledger.references else None
        for part, told in enumerate(_parts_of(state, sequence, event)):
            size = sum(map(outcome_bytes, told))
            if part < read:
                continue
            if found and not room.holds(size):
                return r.Outcomes(-(sequence * PARTS + part) if part else cursor, found)
            room.take(size, OUTCOME_WORK * len(told))
            found += told
        cursor, read = sequence, 0
        place += 1
    return r.Outcomes(cursor, found)


def _parts_of(state: QueueState, sequence: int, event: e.AnyEvent | None) -> Iterator[list[Outcome]]:
    """Yield the outcomes in an event, of jobs that are still known, range by range."""
    origins = state.ledger.origins
    if isinstance(event, e.Succeeded):
        for span in event.ranges:
            place = origins.find(span.origin, span.first)
            yield [] if place is None else _span(place[0], span, event.at).outcomes()
    elif isinstance(event, e.Failed | e.Cancelled):
        numbers = event.numbers if isinstance(event, e.Cancelled) else [event.number]
        for number in numbers:
            place = origins.find(event.origin, number)
            known = place is not None and _tells(place[0], number, sequence)
            yield [_outcome(*place, event)] if place is not None and known else []


def _tells(chunk: Chunk, number: int, sequence: int) -> bool:
    """Return whether event *sequence* has the outcome of a job of *chunk*.

    It does not if the job was requeued since; then the journal may no longer have the event.
    """
    return chunk.ended_by(number - chunk.first) == sequence


# --- from an event ----------------------------------------------------------------------------------


def _outcome(chunk: Chunk, index: int, event: e.AnyEvent | None) -> Outcome:
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
        case e.Cancelled(at=at):
            return Outcome(chunk.id(index), JobState.CANCELLED, finished_at=at, task=terms.shown_task)
    raise JournalError(f"the journal does not tell how job {chunk.id(index)} ended")


def _span(chunk: Chunk, part: e.Range, at: float) -> r.Span:
    terms = chunk.terms
    return r.Span(part.origin, part.first, part.results, part.seconds, terms.codec, at, terms.shown_task)


def _span_bytes(span: r.Span) -> int:
    """Return the estimated bytes of the outcomes in *span*, one by one."""
    each = ITEM_BYTES + len(span.origin) + text_bytes(span.task)
    return sum(map(len, span.results)) + each * len(span.results)
