"""The outcomes of jobs in the order in which they were recorded: of one origin, or of all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import FEED_JOBS_MAX
from svc.domain.handlers import FIND_WORK, ITEM_BYTES, OUTCOME_WORK, SPAN_WORK, Room, reads
from svc.domain.job import Outcome, is_alias, job_id
from svc.domain.origins import PARTS, Completion
from svc.domain.outcomes import Reader, await_outcomes, outcome_bytes, outcome_of, text_bytes
from svc.domain.queue_state import QueueState


def awaited(feed: c.Feed) -> c.Await | None:
    """Return the command that replaces the feed of an alias, which has one job; None for other feeds."""
    return c.Await([job_id(feed.origin, 0)], feed.wait) if is_alias(feed.origin) else None


@reads(c.Feed)
def feed(state: QueueState, command: c.Feed, room: Room, now: float) -> r.Reply | None:
    """Return outcomes in the order in which they were recorded; None if the member should wait for one.

    If a page has no outcomes and its cursor has moved, all outcomes up to the cursor are forgotten.
    """
    instead = awaited(command)
    if instead is not None:
        return await_outcomes(state, instead, room, now)
    limit = max(1, min(command.limit, FEED_JOBS_MAX))
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
    each = SPAN_WORK if command.folded else OUTCOME_WORK
    for entry in origin.completions.after(cursor):
        if named >= limit or not room.left:
            break
        chunk = origin.find(entry.first)
        if chunk is None or not _has_some(chunk, entry):
            room.take(0, FIND_WORK)
        else:
            spans, outcomes = _completed(chunk, entry, reader.event(entry.sequence))
            size = sum(map(_span_bytes, spans)) + sum(map(outcome_bytes, outcomes))
            if named and not room.holds(size):
                break
            room.take(size, FIND_WORK + (OUTCOME_WORK * len(outcomes) if outcomes else each * entry.jobs))
            named += entry.jobs
            page.spans.extend(spans)
            page.outcomes.extend(outcomes)
        cursor = entry.cursor
    return msgspec.structs.replace(page, cursor=cursor)


def _has_some(chunk: Chunk, entry: Completion) -> bool:
    """Return whether an entry of a feed stands for a job that is still known."""
    if entry.jobs == 1 or not chunk.purges:
        return _tells(chunk, entry.first, entry.sequence)
    start = entry.first - chunk.first
    return bool(chunk.known_runs(start, start + entry.jobs))


def _completed(
    chunk: Chunk, entry: Completion, event: e.AnyEvent | None
) -> tuple[list[r.Span], list[Outcome]]:
    """Return the outcomes that an entry of a feed stands for: successes, or all other ones."""
    if isinstance(event, e.Succeeded):
        return _spans(chunk, event.ranges[entry.part], event.at), []
    return [], [outcome_of(chunk, entry.first - chunk.first, event)]


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
            origin = origins.get(span.origin)
            chunk = origin.find(span.first) if origin is not None else None
            spans = [] if chunk is None else _spans(chunk, span, event.at)
            yield [outcome for each in spans for outcome in each.outcomes()]
    elif isinstance(event, e.Failed | e.JobsCancelled):
        numbers = event.numbers if isinstance(event, e.JobsCancelled) else [event.number]
        for number in numbers:
            place = origins.find(event.origin, number)
            known = place is not None and _tells(place[0], number, sequence)
            yield [outcome_of(*place, event)] if place is not None and known else []


def _tells(chunk: Chunk, number: int, sequence: int) -> bool:
    """Return whether event *sequence* has the outcome of a job of *chunk*.

    It does not if the job was requeued since; then the journal may no longer have the event.
    """
    return chunk.ended_by(number - chunk.first) == sequence


def _spans(chunk: Chunk, part: e.Range, at: float) -> list[r.Span]:
    """Return the outcomes in a part of an event, without those of jobs that were purged."""
    terms, start = chunk.terms, part.first - chunk.first
    found: list[r.Span] = []
    for low, high in chunk.known_runs(start, start + len(part.results)):
        results, seconds = part.results, part.seconds
        if high - low < len(results):
            results, seconds = results[low - start : high - start], seconds[low - start : high - start]
        found.append(
            r.Span(part.origin, chunk.first + low, results, seconds, terms.codec, at, terms.shown_task)
        )
    return found


def _span_bytes(span: r.Span) -> int:
    """Return the estimated bytes of the outcomes in *span*, one by one."""
    each = ITEM_BYTES + len(span.origin) + text_bytes(span.task)
    return sum(map(len, span.results)) + each * len(span.results)
