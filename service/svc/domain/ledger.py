"""The durable state: every accepted job and its outcome, rebuilt by a replay of the events.

The live queue and recovery call the same methods, so a replayed ledger equals the live one (a property test
checks that). Connections and leases are not durable; they are in `queue_state`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from svc.domain import events as e
from svc.domain.aliases import is_alias, key_and_digest
from svc.domain.chunk import Chunk, ledgers_after
from svc.domain.counts import Counts
from svc.domain.job import ITEM, PERMANENT_QUEUES, PILL, Cause, Terms, parse_job_id
from svc.domain.keys import Keys, digest_at
from svc.domain.lifecycle import JobState, Verb
from svc.domain.losses import Loss, Losses
from svc.domain.origins import Origin, Origins
from svc.domain.setback import clock_set
from svc.domain.settled import Settled
from svc.domain.steps import Steps

#: Bytes of bodies above which a chunk stays in memory only while a third of the window is not full.
LARGE_CHUNK_BYTES = 8 * 1024 * 1024
#: Tasks whose terms are kept for chunks to share.
TERMS_MAX = 1000


class Ledger:
    """All jobs, by id, by key and by state; and the outcomes in order."""

    def __init__(self, window_bytes: int = 64 * 1024 * 1024) -> None:
        """Start empty; bodies beyond *window_bytes* stay in the journal until they are leased."""
        self.window_bytes = window_bytes
        self.resident_bytes = 0
        self.origins = Origins()
        #: By the number of the event that accepted the first job of each chunk; oldest first after a replay.
        self.chunks: dict[int, Chunk] = {}
        #: Chunks that have grown since the last merge looked at them; oldest first.
        self.grown: deque[Chunk] = deque()
        self.counts: dict[str, Counts] = {}
        #: Unfinished jobs of all queues.
        self.unfinished = 0
        self.keys = Keys()
        #: The newest terms of each task. Chunks share them, because terms take 250 bytes.
        self.terms: dict[str, Terms] = {}
        self.dead: dict[tuple[int, int], Chunk] = {}
        #: Answers for plain clients that wait in `results`: (chunk sequence, index) -> (chunk, event).
        self.answers: OrderedDict[tuple[int, int], tuple[Chunk, int]] = OrderedDict()
        #: Drains in force: worker name, or "" for all -> (epoch, journal sequence).
        self.drains: dict[str, tuple[int, int]] = {}
        self.drain_epoch = 0
        #: The keys of the drains that also refuse new jobs.
        self.refusing: set[str] = set()
        #: Events that ended jobs, in order; some may have been forgotten since.
        self.outcome_order: list[int] = []
        #: Entries of `outcome_order` that the current sweep has passed; it removes the forgotten ones.
        self._swept = 0
        #: The number of kept jobs that each event is about. Failed attempts are in the records of the jobs.
        self.references: dict[int, int] = {}
        self.losses = Losses(self._refer, self._unrefer)
        #: Chunks in the order in which their last job ended, with that time.
        self.finished: deque[tuple[float, Chunk]] = deque()
        #: Jobs of the chunks in `finished`.
        self.finished_jobs = 0
        #: Chunks past their retention that are kept because they have dead jobs.
        self.kept_dead: deque[tuple[float, Chunk]] = deque()
        #: Jobs of the chunks in `kept_dead`.
        self.kept_dead_jobs = 0
        #: Origins without jobs, in the order in which they lost the last one, with that time.
        self.emptied: deque[tuple[float, str]] = deque()
        #: Journal rows that can be deleted, because nothing refers to them any more.
        self.forgotten: list[int] = []
        self.settled = Settled()
        self.last_sequence = 0
        self.last_at = 0.0
        self.steps = Steps()
        #: Chunks of items that ended in a replay. The event that requeued such an item may be gone.
        self._ended_items: list[Chunk] = []

    def counts_of(self, queue: str) -> Counts:
        """Return the counts of a queue; make them if there are none."""
        found = self.counts.get(queue)
        if found is None:
            found = self.counts[queue] = Counts()
        return found

    def find(self, job: str) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of a job id, or None if it is not known.

        Raises:
            ValueError: *job* does not have the form of an id.
        """
        origin, number = parse_job_id(job)
        return self._find_alias(origin, number) if is_alias(origin) else self.origins.find(origin, number)

    def _find_alias(self, origin: str, number: int) -> tuple[Chunk, int] | None:
        key, digest = key_and_digest(origin)
        place = self.keys.find(key)
        return None if place is None or number or digest_at(*place) != digest else place

    def replay(self, sequence: int, event: e.AnyEvent) -> None:
        """Apply an event of the journal; of two that contradict each other, the first one counts."""
        kind = type(event)
        self.steps.live = False
        self.last_sequence = max(self.last_sequence, sequence)
        if not isinstance(event, e.Answered) and event.at > self.last_at:
            self.last_at = event.at
        _APPLIED_BY[kind](self, sequence, event)
        if kind in _ABOUT_JOBS and sequence not in self.references:
            # The newest row of the journal may stay there after it was forgotten.
            self.forgotten.append(sequence)

    # Each of the following methods applies one kind of event.

    def submitted(self, sequence: int, event: e.Submitted, size: int | None = None) -> tuple[Chunk, int]:
        """Add jobs, to a chunk if they go on from it; return their chunk and first index.

        *size* is the number of bytes in all bodies, if the caller has it.
        """
        chunk = self._joined(event)
        if chunk is not None:
            start = chunk.count
            if chunk.accepted_by is None:
                self.grown.append(chunk)
            self._hold(chunk, chunk.grow(sequence, event))
        else:
            start = 0
            chunk = Chunk(sequence, event, size)
            chunk.terms = self._shared(chunk.terms)
            self._add(chunk)
        if chunk.keys is not None:
            self.keys.add(chunk, start, event.bodies)
        self._count_new(chunk, start)
        return chunk, start

    def _joined(self, event: e.Submitted) -> Chunk | None:
        if event.joins is None:
            return self.origins.joined_by(event.origin, event.first, len(event.bodies), event.terms)
        place = self.origins.find(event.origin, event.first - 1) if event.joins else None
        return place[0] if place is not None else None

    def merged(self, row: int, event: e.Merged) -> None:
        """Add jobs that were merged before the restart, in the state that they had then: waiting."""
        chunk = Chunk.from_merged(row, event)
        self._add(chunk)
        if chunk.keys is not None:
            self.keys.add(chunk, 0, event.bodies)
        self._count_new(chunk, 0)

    def merge(self, row: int, chunk: Chunk) -> None:
        """Forget the rows of a chunk whose bodies are all in row *row* now."""
        self.forgotten.extend(chunk.rows())
        chunk.merge(row)

    def settle_order(self) -> None:
        """End a replay: sort the chunks, because a replay meets merged ones late."""
        self.steps.live = True
        if any(chunk.row for chunk in self.chunks.values()):
            self.chunks = dict(sorted(self.chunks.items()))
        ended, self._ended_items = self._ended_items, []
        for chunk in dict.fromkeys(ended):
            if not chunk.unfinished:
                self.forget(chunk)

    def succeeded(
        self, sequence: int, part: int, chunk: Chunk, span: e.Range, at: float, verb: Verb = Verb.ACK
    ) -> None:
        """End the jobs of *chunk* in *span* with results; *span* is part *part* of the event."""
        start = span.first - chunk.first
        stop = start + len(span.results)
        self._end(chunk, start, stop, verb, sequence, part, at)
        if chunk.terms.answer and not span.results[0]:
            # A plain consumer acknowledged the job: if there is an answer, it puts that into `results`.
            self.answers.pop((chunk.sequence, start), None)
        if span.token:
            self.settled.add(span.token, span.first, chunk.first + stop, failed=False)

    def failed(self, sequence: int, event: e.Failed) -> tuple[Chunk, int] | None:
        """Charge an attempt, and schedule the job again or make it dead."""
        place = self.origins.find(event.origin, event.number)
        if place is None:
            self.forgotten.append(sequence)
            return None
        chunk, index = place
        record = chunk.record(index)
        told = event.ledgers
        if told is not None and not self.steps.live and chunk.states[index] == JobState.DEAD:
            # It was requeued in between: that event has gone, as this one tells all that matters of it.
            self._reopen(chunk, index)
        self._unrefer(record.requeued, 1)
        self._unrefer(record.cleared, 1)
        record.requeued = record.cleared = 0
        ledgers = told or ledgers_after(record, event.cause)
        record.failures, record.crashes, record.interruptions, record.suspicions = ledgers
        record.ended = event.attempt or record.ended + 1
        record.attempts.append(sequence)
        if self.losses:
            self._note_suspect(chunk, index, event)
        if told is not None:
            self.forgotten.extend(record.drop_old_attempts())
        if event.token:
            self.settled.add(event.token, event.number, event.number + 1, failed=True)
        due = event.retry_at is not None and event.retry_at > event.at
        record.due = event.retry_at if due else None
        if event.retry_at is None:
            self._end(chunk, index, index + 1, Verb.GIVE_UP, sequence, 0, event.at)
            if chunk.sequence in self.chunks:  # an item or a pill is forgotten when it ends
                self.dead[chunk.sequence, index] = chunk
        else:
            self.move(chunk, index, index + 1, Verb.RETRY_LATER if due else Verb.RETRY)
        return chunk, index

    def _note_suspect(self, chunk: Chunk, index: int, event: e.Failed) -> None:
        loss = self.losses.of(chunk, index)
        if loss is not None and not event.suspect:
            self.losses.remove(chunk, index)  # it was forgiven, by an event that has gone
        elif loss is not None and loss.again and event.cause != Cause.SUSPECTED:
            self.losses.settle(loss)

    def suspected(self, sequence: int, event: e.Suspected) -> None:
        """Make jobs suspects."""
        place = self.origins.find(event.origin, event.first)
        if place is not None:
            self.losses.add(Loss(sequence, *place, event))

    def cleared(self, sequence: int, event: e.Cleared) -> None:
        """Withdraw what the loss of a worker has done, which came back."""
        loss = self.losses.of_lease(event.token)
        if loss is not None:
            self.losses.withdraw(loss)
        place = self.origins.find(event.origin, event.first)
        if place is None or event.suspicions is None:
            self.forgotten.append(sequence)
            return
        record = place[0].record(place[1])
        self._unrefer(record.cleared, 1)
        record.suspicions, record.cleared = event.suspicions, sequence
        self._refer(sequence, 1)

    def cancelled(self, sequence: int, event: e.Cancelled) -> None:
        """End waiting jobs that never ran."""
        for part, number in enumerate(event.numbers):
            place = self.origins.find(event.origin, number)
            if place is not None:
                chunk, index = place
                self._end(chunk, index, index + 1, Verb.CANCEL, sequence, part, event.at)

    def requeued(self, sequence: int, event: e.Requeued) -> list[tuple[Chunk, int]]:
        """Make dead jobs ready again; return them."""
        places = []
        for number in event.numbers:
            place = self.origins.find(event.origin, number)
            if place is None:
                continue
            chunk, index = place
            if chunk.states[index] != JobState.DEAD:
                self.steps.contradicted(f"job {chunk.id(index)} would be requeued and is not dead")
                continue
            record = chunk.record(index)
            record.pardon()
            self._unrefer(record.requeued, 1)
            record.requeued = sequence
            self._refer(sequence, 1)
            self._reopen(chunk, index)
            places.append(place)
        return places

    def answered(self, sequence: int, event: e.Answered) -> None:
        """Take answers out of the `results` queue."""
        for number in event.numbers:
            place = self.origins.find(event.origin, number)
            if place is not None:
                chunk, index = place
                self.answers.pop((chunk.sequence, index), None)
                record = chunk.record(index)
                self._unrefer(record.answered, 1)
                record.answered = sequence
                self._refer(sequence, 1)

    def drained(self, sequence: int, event: e.Drained) -> None:
        """Put a drain in force."""
        self._forget_drain(event.worker)
        self.drains[event.worker] = (event.epoch, sequence)
        self.drain_epoch = max(self.drain_epoch, event.epoch)
        if event.refuse:
            self.refusing.add(event.worker)

    def resumed(self, sequence: int, event: e.Resumed) -> None:
        """End a drain, or all of them; the journal keeps no row of it."""
        for worker in [event.worker] if event.worker else list(self.drains):
            self._forget_drain(worker)
        self.forgotten.append(sequence)

    def move(self, chunk: Chunk, start: int, stop: int, verb: Verb) -> None:
        """Take a step with jobs that stay unfinished, and keep the counts right.

        Raises:
            InvariantBroken: it is no step for one of them, and this is no replay.
        """
        taken = self.steps.taken(chunk, start, stop, verb)
        if taken is None:
            return
        tally, state = taken
        self.counts_of(chunk.terms.queue).move(tally, state)
        chunk.mark(start, stop, state)

    def forget(self, chunk: Chunk) -> None:
        """Drop a finished chunk and all data about its jobs."""
        del self.chunks[chunk.sequence]
        origin = self.origins.make(chunk.origin)
        origin.remove(chunk)
        if chunk.keys is not None:
            self.keys.forget(chunk)
        self.counts_of(chunk.terms.queue).remove(chunk.tally(0, chunk.count))
        self.forgotten.extend(chunk.rows())
        if chunk.terms.answer:
            for index in range(chunk.count):
                self.answers.pop((chunk.sequence, index), None)
        if chunk.count == 1 and chunk.outcomes and not chunk.records:  # such as each item of a plain client
            self._unrefer(chunk.outcomes[0], 1)
            return
        about = Counter(chunk.outcomes or ())
        for index, record in chunk.records.items():
            about.update((record.requeued, record.answered, record.cleared))
            # The last one may be the job's outcome, which is counted already.
            self.forgotten.extend(each for each in record.attempts if each not in self.references)
            self.dead.pop((chunk.sequence, index), None)
        for sequence, count in about.items():
            self._unrefer(sequence, count)

    def succeeded_all(self, sequence: int, event: e.Succeeded) -> None:
        """End all jobs that the event names with their results."""
        for part, span in enumerate(event.ranges):
            self._replay_range(sequence, part, span, event.at)

    def forgotten_origin(self, sequence: int, event: e.Forgotten) -> None:
        """Remember which numbers of an origin were accepted once."""
        origin = self.origins.make(event.origin)
        origin.note_forgotten([(0, event.below)] if event.below else event.ranges)
        origin.floor = max(origin.floor, event.floor)
        origin.forgotten_by.append(sequence)
        self.note_emptied(origin, event.at)

    def sweep_outcomes(self, count: int) -> None:
        """Look at the next *count* outcomes in their order, and remove the forgotten ones."""
        order, references, start = self.outcome_order, self.references, self._swept
        kept = [each for each in order[start : start + count] if each in references]
        order[start : start + count] = kept
        self._swept = start + len(kept)
        if self._swept >= len(order):
            self._swept = 0

    def note_emptied(self, origin: Origin, at: float) -> None:
        """Note that an origin has lost its last job; `emptied` has at most one entry for each origin."""
        if origin.emptied_at is None:
            self.emptied.append((at, origin.name))
        origin.emptied_at = at

    def drop_idle(self, queue: str) -> None:
        """Forget the name of a queue if no job of it is kept, not even a finished one."""
        counts = self.counts.get(queue)
        if counts is not None and counts.idle and queue not in PERMANENT_QUEUES:
            del self.counts[queue]

    def _replay_range(self, sequence: int, part: int, span: e.Range, at: float) -> None:
        place = self.origins.find(span.origin, span.first)
        if place is not None:
            self.succeeded(sequence, part, place[0], span, at)

    def _end(
        self, chunk: Chunk, start: int, stop: int, verb: Verb, sequence: int, part: int, at: float
    ) -> None:
        taken = self.steps.taken(chunk, start, stop, verb)
        if taken is None:
            return
        tally, state = taken
        self.counts_of(chunk.terms.queue).move(tally, state)
        chunk.end(start, stop, state, sequence)
        if self.losses:
            self.losses.ended(chunk, start, stop)
        self.unfinished -= stop - start
        if not self.outcome_order or self.outcome_order[-1] != sequence:
            self.outcome_order.append(sequence)
        self._refer(sequence, stop - start)
        first = chunk.first + start
        self.origins.make(chunk.origin).completed(sequence, part, first, stop - start)
        if chunk.terms.answer:
            for index in range(start, stop):
                self.answers[chunk.sequence, index] = (chunk, sequence)
        if not chunk.unfinished:
            self._finish(chunk, at)

    def _shared(self, terms: Terms) -> Terms:
        """Return terms that equal *terms*; the object that other chunks share, if there is one."""
        known = self.terms.get(terms.label or terms.task)
        if known is not None and (known is terms or known == terms):
            return known
        if len(self.terms) >= TERMS_MAX:
            self.terms.clear()
        self.terms[terms.label or terms.task] = terms
        return terms

    def _add(self, chunk: Chunk) -> None:
        self.chunks[chunk.sequence] = chunk
        self.origins.make(chunk.origin).add(chunk)
        self._hold(chunk, chunk.weight)

    def _count_new(self, chunk: Chunk, start: int) -> None:
        delayed = chunk.due is not None or chunk.dues is not None
        self.counts_of(chunk.terms.queue).admit(chunk.states, start, delayed=delayed)
        self.unfinished += chunk.count - start

    def _hold(self, chunk: Chunk, more: int) -> None:
        """Count *more* bytes of bodies in a chunk, or drop all of its bodies if the window is full."""
        if chunk.bodies is None:
            return
        self.resident_bytes += more
        # A few large chunks would fill the memory that saves thousands of small ones from being read back.
        window = self.window_bytes if chunk.weight <= LARGE_CHUNK_BYTES else self.window_bytes // 3
        if self.resident_bytes > window:
            self.resident_bytes -= chunk.weight
            chunk.bodies = None

    def _finish(self, chunk: Chunk, at: float) -> None:
        if chunk.bodies is not None:
            chunk.bodies = None
            self.resident_bytes -= chunk.weight
        chunk.finished_at = at
        if chunk.terms.task in (ITEM, PILL):
            if self.steps.live:
                self.forget(chunk)
            else:
                self._ended_items.append(chunk)
        else:
            self.finished.append((at, chunk))
            self.finished_jobs += chunk.count

    def _reopen(self, chunk: Chunk, index: int) -> None:
        """Make a dead job ready again."""
        self.dead.pop((chunk.sequence, index), None)
        self.answers.pop((chunk.sequence, index), None)
        if chunk.outcomes is not None:
            # The event stays in the journal as an attempt.
            self.references.pop(chunk.outcomes[index], None)
            chunk.outcomes[index] = 0
        chunk.unfinished += 1
        self.unfinished += 1
        self.move(chunk, index, index + 1, Verb.REQUEUE)

    def _refer(self, sequence: int, count: int) -> None:
        self.references[sequence] = self.references.get(sequence, 0) + count

    def _unrefer(self, sequence: int, count: int) -> None:
        if not sequence:
            return
        left = self.references.get(sequence, 0) - count
        if left > 0:
            self.references[sequence] = left
        elif self.references.pop(sequence, None) is not None:
            self.forgotten.append(sequence)

    def _forget_drain(self, worker: str) -> None:
        self.refusing.discard(worker)
        known = self.drains.pop(worker, None)
        if known is not None:
            self.forgotten.append(known[1])


#: Events that are kept only for the sake of the jobs that they are about.
_ABOUT_JOBS = frozenset((e.Succeeded, e.Cancelled, e.Requeued, e.Answered, e.Suspected))
_APPLIED_BY: dict[type[e.Event], Callable[[Ledger, int, Any], object]] = {
    e.Submitted: Ledger.submitted,
    e.Merged: Ledger.merged,
    e.Succeeded: Ledger.succeeded_all,
    e.Failed: Ledger.failed,
    e.Cancelled: Ledger.cancelled,
    e.Requeued: Ledger.requeued,
    e.Answered: Ledger.answered,
    e.Drained: Ledger.drained,
    e.Resumed: Ledger.resumed,
    e.Forgotten: Ledger.forgotten_origin,
    e.Suspected: Ledger.suspected,
    e.Cleared: Ledger.cleared,
    e.ClockSet: clock_set,
}
