"""Applies events to the ledger: all of them at a replay, and the rare ones in the live queue too.

Each function of the second part applies one kind of event. The events of jobs that simply run and succeed are
methods of the `Ledger`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.job import Cause
from svc.domain.job_records import NO_RECORD
from svc.domain.job_streams import JobStream
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import JobState, Verb
from svc.domain.losses import Loss
from svc.domain.names import LARGE
from svc.domain.origins import Origin
from svc.domain.purged_jobs import purged
from svc.domain.tables import Table, by_number


def replay(ledger: Ledger, sequence: int, event: e.AnyEvent) -> None:
    """Apply an event of the journal; of two that contradict each other, the first one counts."""
    kind = type(event)
    ledger.live = False
    ledger.last_sequence = max(ledger.last_sequence, sequence)
    if not isinstance(event, e.Answered) and event.at > ledger.last_at:
        ledger.last_at = event.at
    _APPLIED_BY[kind](ledger, sequence, event)
    if kind in _ABOUT_JOBS and sequence not in ledger.references:
        # The newest row of the journal may stay there after it was forgotten.
        ledger.forgotten.append(sequence)


def end_replay(ledger: Ledger, now: float) -> None:
    """Sort the chunks, because a replay meets merged ones late; go on live."""
    ledger.live = True
    _claim_arguments(ledger)
    ledger.large.renew(now)
    numbers = list(ledger.chunks)
    if numbers != sorted(numbers):
        chunks, ledger.chunks = ledger.chunks, Table(by_number)
        for number in sorted(numbers):
            ledger.chunks[number] = chunks[number]
    ended, ledger.ended_items = ledger.ended_items, []
    for chunk in dict.fromkeys(ended):
        if not chunk.unfinished:
            ledger.forget(chunk)


def _claim_arguments(ledger: Ledger) -> None:
    """Note which large arguments have a job: their rows come before that of the job."""
    for group in list(ledger.large.unclaimed.values()):
        place = None if group.token else ledger.origins.find(group.origin, group.number)
        if place is not None and place[0].terms.codec == LARGE:
            ledger.large.claim_arguments(group.origin, group.number)


# --- one kind of event each -------------------------------------------------------------------------


def failed(ledger: Ledger, sequence: int, event: e.Failed) -> None:
    """Charge an attempt, and schedule the job again or make it dead."""
    place = ledger.origins.find(event.origin, event.number)
    if place is None:
        ledger.forgotten.append(sequence)
        return
    chunk, index = place
    record = chunk.record(index)
    told = event.charges
    if told is not None and not ledger.live and chunk.state(index) is JobState.DEAD:
        # It was requeued in between: that event has gone, as this one tells all that matters of it.
        ledger.reopen(chunk, index)
    ledger.unrefer(record.requeued, 1)
    ledger.unrefer(record.cleared, 1)
    due = event.retry_at is not None and event.retry_at > event.at
    ledger.forgotten.extend(record.failed(sequence, event, due=event.retry_at if due else None))
    if ledger.losses.by_event:
        _note_suspect(ledger, chunk, index, event)
    if event.token:
        ledger.settled.add(event.token, event.number, event.number + 1, failed=True)
    if event.retry_at is None:
        ledger.end(chunk, index, index + 1, Verb.GIVE_UP, sequence, 0, event.at)
        if chunk.sequence in ledger.chunks:  # an item or a pill is forgotten when it ends
            ledger.dead[chunk.sequence, index] = chunk
    else:
        ledger.move(chunk, index, index + 1, Verb.RETRY_LATER if due else Verb.RETRY)


def _note_suspect(ledger: Ledger, chunk: Chunk, index: int, event: e.Failed) -> None:
    loss = ledger.losses.of(chunk, index)
    if loss is not None and not event.suspect:
        ledger.losses.remove(chunk, index)  # it was forgiven, by an event that has gone
    elif loss is not None and loss.again and event.cause != Cause.SUSPECTED:
        ledger.losses.settle(loss)


def suspected(ledger: Ledger, sequence: int, event: e.Suspected) -> None:
    """Make jobs suspects."""
    place = ledger.origins.find(event.origin, event.first)
    if place is not None:
        ledger.losses.add(Loss(sequence, *place, event))


def cleared(ledger: Ledger, sequence: int, event: e.Cleared) -> None:
    """Withdraw what the loss of a worker has done, which came back."""
    loss = ledger.losses.of_lease(event.token)
    if loss is not None:
        ledger.losses.withdraw(loss)
    place = ledger.origins.find(event.origin, event.first)
    if place is None or event.suspicions is None:
        ledger.forgotten.append(sequence)
        return
    record = place[0].record(place[1])
    ledger.unrefer(record.cleared, 1)
    record.suspicions, record.cleared = event.suspicions, sequence
    ledger.refer(sequence, 1)


def checkpointed(ledger: Ledger, sequence: int, event: e.Checkpointed) -> None:
    """Keep the checkpoint of a job in place of its last one.

    In a replay, a job that left one may still be dead: the event of its requeue has gone if it failed again.
    """
    place = ledger.origins.find(event.origin, event.number)
    if place is None or (place[0].has_ended(place[1]) and place[0].state(place[1]) is not JobState.DEAD):
        ledger.forgotten.append(sequence)
        return
    record = place[0].record(place[1])
    if record.checkpoint:
        ledger.unrefer(record.checkpoint, 1)
    else:
        ledger.checkpoints += 1
    record.checkpoint = sequence
    ledger.refer(sequence, 1)


def yielded(ledger: Ledger, sequence: int, event: e.Yielded) -> None:
    """Add partial results to the stream of their attempt, whose first ones replace the stream before.

    A job that is dead here may run: the event that requeued it is gone if the attempt has ended since.
    """
    place = ledger.origins.find(event.origin, event.number)
    last = None if place is None else place[0].records.get(place[1], NO_RECORD).stream
    stream = last if last is not None and last.token == event.token else None
    if place is None or event.first != (stream.count if stream is not None else 0):
        ledger.forgotten.append(sequence)
        return
    if stream is None:
        ledger.streams += last is None
        for row in last.rows if last is not None else ():
            ledger.unrefer(row, 1)
        stream = JobStream(event.token, event.stream, event.attempt)
        place[0].record(place[1]).stream = stream
    stream.add(sequence, len(event.values), sum(map(len, event.values)))
    ledger.refer(sequence, 1)


def stored(ledger: Ledger, sequence: int, event: e.Stored) -> None:
    """Keep a piece of a large value."""
    ledger.forgotten.extend(ledger.large.add(sequence, event))


def cancelled(ledger: Ledger, sequence: int, event: e.JobsCancelled) -> None:
    """End jobs without a result."""
    for part, number in enumerate(event.numbers):
        place = ledger.origins.find(event.origin, number)
        if place is not None:
            chunk, index = place
            ledger.end(chunk, index, index + 1, Verb.CANCEL, sequence, part, event.at)


def requeued(ledger: Ledger, sequence: int, event: e.Requeued) -> list[tuple[Chunk, int]]:
    """Make dead jobs ready again; return them."""
    places = []
    for number in event.numbers:
        place = ledger.origins.find(event.origin, number)
        if place is None:
            continue
        chunk, index = place
        if chunk.state(index) is not JobState.DEAD:
            ledger.contradicted(f"job {chunk.id(index)} would be requeued and is not dead")
            continue
        record = chunk.record(index)
        record.renew_budgets()
        ledger.unrefer(record.requeued, 1)
        record.requeued = sequence
        ledger.refer(sequence, 1)
        ledger.reopen(chunk, index)
        places.append(place)
    return places


def answered(ledger: Ledger, sequence: int, event: e.Answered) -> None:
    """Take answers out of the `results` queue."""
    for number in event.numbers:
        place = ledger.origins.find(event.origin, number)
        if place is not None:
            chunk, index = place
            ledger.answers.pop((chunk.sequence, index))
            record = chunk.record(index)
            ledger.unrefer(record.answered, 1)
            record.answered = sequence
            ledger.refer(sequence, 1)


def drained(ledger: Ledger, sequence: int, event: e.Drained) -> None:
    """Put a drain in force."""
    ledger.forgotten += ledger.drains.begin(event.worker, event.epoch, sequence, refuse=event.refuse)


def resumed(ledger: Ledger, sequence: int, event: e.Resumed) -> None:
    """End a drain, or all of them; the journal keeps no row of it."""
    for worker in [event.worker] if event.worker else list(ledger.drains.in_force):
        ledger.forgotten += ledger.drains.end(worker)
    ledger.forgotten.append(sequence)


def merge(ledger: Ledger, row: int, chunk: Chunk) -> None:
    """Forget the rows of a chunk whose bodies are all in row *row* now."""
    ledger.forgotten.extend(chunk.rows())
    chunk.merge(row)


def _merged(ledger: Ledger, row: int, event: e.Merged) -> None:
    """Add jobs that were merged before the restart, in the state that they had then: waiting."""
    by, at, terms, bodies = event.accepted_by, event.accepted_at, event.terms, event.bodies
    dues, keys, headers = event.dues, event.keys, event.headers
    whole = e.Submitted(at[0], event.origin, event.first, terms, bodies, None, "", dues, keys, None, headers)
    chunk = Chunk(by[0], whole)
    chunk.restore(row, by, at)
    ledger.add(chunk)


def _succeeded(ledger: Ledger, sequence: int, event: e.Succeeded) -> None:
    """End all jobs that the event names with their results."""
    for part, span in enumerate(event.ranges):
        place = ledger.origins.find(span.origin, span.first)
        if place is not None:
            ledger.succeeded(sequence, part, place[0], span, event.at)


def _forgotten(ledger: Ledger, sequence: int, event: e.Forgotten) -> None:
    """Remember which numbers of an origin were accepted once."""
    origin = ledger.origins.make(event.origin)
    origin.note_forgotten([(0, event.below)] if event.below else event.ranges)
    origin.floor = max(origin.floor, event.floor)
    origin.forgotten_by.append(sequence)
    note_emptied(ledger, origin, event.at)


def note_emptied(ledger: Ledger, origin: Origin, at: float) -> None:
    """Note that an origin has lost its last job; `emptied` has at most one entry for each origin."""
    if origin.emptied_at is None:
        ledger.emptied.append((at, origin.name))
    origin.emptied_at = at


def roster_begun(ledger: Ledger, sequence: int, event: e.RosterBegun) -> None:
    """Begin the roster."""
    ledger.forgotten += ledger.roster.begin(sequence)


def enrolled(ledger: Ledger, sequence: int, event: e.Enrolled) -> None:
    """Enrol a worker."""
    tasks, codecs = (None if names is None else frozenset(names) for names in (event.tasks, event.codecs))
    ledger.forgotten += ledger.roster.enrol(event.worker, (frozenset(event.queues), tasks, codecs), sequence)


def struck(ledger: Ledger, sequence: int, event: e.Struck) -> None:
    """Remove a worker."""
    ledger.forgotten += [*ledger.roster.strike(event.worker), sequence]


def watermark_moved(ledger: Ledger, sequence: int, event: e.WatermarkMoved) -> None:
    """Move the watermark of a queue."""
    ledger.forgotten += ledger.roster.move(event.queue, event.up_to, sequence)


def _clock_set(ledger: Ledger, _sequence: int, event: e.ClockSet) -> None:
    """Go on from the time that the clock was set to.

    Times that were recorded while it was ahead lie in the future then: results would be kept until that
    future, and delays would last as long. They are moved back by as much as the clock is. A job that was
    accepted before keeps the time at which it is due.
    """
    ledger.last_at = at = event.at
    by = event.before - at
    if by <= 0:
        return

    def moved(time: float) -> float:
        return time - by if time > at else time

    for chunk in ledger.chunks.values():
        chunk.set_back(at, by)
    ledger.finished = deque((moved(ended), chunk) for ended, chunk in ledger.finished)
    ledger.kept_dead = deque((moved(ended), chunk) for ended, chunk in ledger.kept_dead)
    ledger.emptied = deque((moved(emptied), name) for emptied, name in ledger.emptied)
    for origin in ledger.origins:
        if origin.emptied_at is not None:
            origin.emptied_at = moved(origin.emptied_at)


#: Events that are kept only for the sake of the jobs that they are about.
_ABOUT_JOBS = frozenset((e.Succeeded, e.JobsCancelled, e.Requeued, e.Answered, e.Suspected))
_APPLIED_BY: dict[type[e.Event], Callable[[Ledger, int, Any], object]] = {
    e.Submitted: Ledger.submitted,
    e.Merged: _merged,
    e.Succeeded: _succeeded,
    e.Failed: failed,
    e.JobsCancelled: cancelled,
    e.Requeued: requeued,
    e.Answered: answered,
    e.Drained: drained,
    e.Resumed: resumed,
    e.Forgotten: _forgotten,
    e.Suspected: suspected,
    e.Cleared: cleared,
    e.ClockSet: _clock_set,
    e.Checkpointed: checkpointed,
    e.Yielded: yielded,
    e.Purged: purged,
    e.Stored: stored,
    e.RosterBegun: roster_begun,
    e.Enrolled: enrolled,
    e.Struck: struck,
    e.WatermarkMoved: watermark_moved,
}
